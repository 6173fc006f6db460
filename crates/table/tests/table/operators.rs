//! Operators over ranks against the plainest code that does the same on one list of rows.

use std::cmp::Ordering;
use std::sync::Arc;

use deeprc_table::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use deeprc_table::{Aggregate, Context, Function, JoinKind, Result, SortKey, Table};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use crate::ranks::{all_rows, dealt, ranks, some_cases, sorted};

/// Few keys, so that there are duplicates and one of them is most of the rows; `t` is the row's number.
#[derive(Debug, Clone)]
struct Row {
    t: i64,
    k: Option<i64>,
    x: Option<f64>,
    s: String,
}

fn some_rows() -> impl Strategy<Value = Vec<Row>> {
    let key = weighted(0.9, prop_oneof![3 => Just(0), 2 => 0..5_i64]);
    // Whole numbers: their sums do not depend on the order.
    let number = prop_oneof![8 => (-9..9_i64).prop_map(|x| x as f64), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)];
    let row = (key, weighted(0.9, number), select(vec!["a", "b", ""]));
    vec(row, 0..70).prop_map(|rows| {
        let numbered = rows.into_iter().enumerate();
        numbered.map(|(t, (k, x, s))| Row { t: t as i64, k, x, s: s.to_string() }).collect()
    })
}

/// Ranks and threads.
fn some_shape() -> impl Strategy<Value = (usize, usize)> {
    (1..=4_usize, 1..=2_usize)
}

fn table(context: &Context, rows: &[Row]) -> Table {
    let batch = |rows: &[Row]| {
        let columns: [(&str, ArrayRef, bool); 4] = [
            ("t", Arc::new(rows.iter().map(|row| Some(row.t)).collect::<Int64Array>()), true),
            ("k", Arc::new(rows.iter().map(|row| row.k).collect::<Int64Array>()), true),
            ("x", Arc::new(rows.iter().map(|row| row.x).collect::<Float64Array>()), true),
            ("s", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.s.as_str()))), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    };
    let batches: Vec<RecordBatch> = rows.chunks(7).map(batch).collect();
    let local = dealt(&batches, context.comm().size(), context.comm().rank());
    context.from_batches(batch(&[]).schema(), local).unwrap()
}

fn int(value: Option<i64>) -> String {
    value.map_or("NULL".to_string(), |value| value.to_string())
}

fn float(value: Option<f64>) -> String {
    value.map_or("NULL".to_string(), |value| format!("{value:?}"))
}

fn text(row: &Row) -> String {
    format!("{}|{}|{}|{}", row.t, int(row.k), float(row.x), row.s)
}

/// The rows that an operator gives over ranks.
fn over_ranks(shape: (usize, usize), rows: &[Row], operator: impl Fn(&Table) -> Result<Table> + Sync) -> Vec<String> {
    all_rows(&ranks(shape.0, shape.1, |context| operator(&table(&context, rows)).unwrap()))
}

/// In any order.
fn check(shape: (usize, usize), rows: &[Row], operator: impl Fn(&Table) -> Result<Table> + Sync, expected: Vec<String>) {
    assert_eq!(sorted(over_ranks(shape, rows, operator)), sorted(expected));
}

/// `k|left t|left x|left s|right t|right x|right s`, or the left row alone for semi and anti joins.
fn joined(left: &[Row], right: &[Row], how: JoinKind) -> Vec<String> {
    let partners =
        |row: &Row, others: &[Row]| others.iter().filter(|other| row.k.is_some() && row.k == other.k).cloned().collect::<Vec<_>>();
    let side = |row: Option<&Row>| row.map_or("NULL|NULL|NULL".to_string(), |row| format!("{}|{}|{}", row.t, float(row.x), row.s));
    let line = |left: Option<&Row>, right: Option<&Row>| format!("{}|{}|{}", int(left.or(right).unwrap().k), side(left), side(right));
    let inner = left.iter().flat_map(|l| partners(l, right).into_iter().map(move |r| (l, r))).map(|(l, r)| line(Some(l), Some(&r)));
    let lonely_left = || left.iter().filter(|l| partners(l, right).is_empty());
    let lonely_right = right.iter().filter(|r| partners(r, left).is_empty()).map(|r| line(None, Some(r)));
    match how {
        JoinKind::Inner => inner.collect(),
        JoinKind::Left => inner.chain(lonely_left().map(|l| line(Some(l), None))).collect(),
        JoinKind::Right => inner.chain(lonely_right).collect(),
        JoinKind::Full => inner.chain(lonely_left().map(|l| line(Some(l), None))).chain(lonely_right).collect(),
        JoinKind::Semi => left.iter().filter(|l| !partners(l, right).is_empty()).map(text).collect(),
        JoinKind::Anti => lonely_left().map(text).collect(),
    }
}

/// Nulls last, NaN after every number.
fn by_number(a: Option<f64>, b: Option<f64>) -> Ordering {
    a.is_none().cmp(&b.is_none()).then(a.unwrap_or(0.0).total_cmp(&b.unwrap_or(0.0)))
}

/// The rows with the same key before a row, in order, the row included.
fn history<'a>(rows: &'a [Row], row: &Row) -> Vec<&'a Row> {
    rows.iter().filter(|other| other.k == row.k && other.t <= row.t).collect()
}

proptest! {
    #![proptest_config(some_cases())]

    #[test]
    fn join(left in some_rows(), right in some_rows(), shape in some_shape()) {
        for how in [JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full, JoinKind::Semi, JoinKind::Anti] {
            let operator = |l: &Table| l.join(&table(l.context(), &right), &["k"], how);
            check(shape, &left, operator, joined(&left, &right, how));
        }
    }

    #[test]
    fn sort(rows in some_rows(), shape in some_shape()) {
        let keys = [SortKey { column: "k".into(), descending: true, nulls_first: true }, "x".into(), SortKey::descending("t")];
        let mut expected = rows.clone();
        expected.sort_by(|a, b| {
            let by_k = a.k.is_some().cmp(&b.k.is_some()).then(b.k.cmp(&a.k));
            by_k.then(by_number(a.x, b.x)).then(b.t.cmp(&a.t))
        });
        assert_eq!(over_ranks(shape, &rows, |t| t.sort(&keys)), expected.iter().map(text).collect::<Vec<_>>());
    }

    #[test]
    fn group_by(rows in some_rows(), shape in some_shape()) {
        let aggregates = [
            Aggregate::new(Function::Count, "x", "n"),
            Aggregate::new(Function::Sum, "x", "sum"),
            Aggregate::new(Function::Max, "t", "last"),
            Aggregate::new(Function::Mean, "x", "mean"),
        ];
        let mut keys: Vec<(Option<i64>, &str)> = rows.iter().map(|row| (row.k, row.s.as_str())).collect();
        keys.sort();
        keys.dedup();
        let group = |(k, s): (Option<i64>, &str)| {
            let members: Vec<&Row> = rows.iter().filter(|row| row.k == k && row.s == s).collect();
            let values: Vec<f64> = members.iter().filter_map(|row| row.x).collect();
            let sum = (!values.is_empty()).then(|| values.iter().sum::<f64>());
            let mean = sum.map(|sum| sum / values.len() as f64);
            let last = members.iter().map(|row| row.t).max();
            format!("{}|{s}|{}|{}|{}|{}", int(k), values.len(), float(sum), int(last), float(mean))
        };
        check(shape, &rows, |t| t.group_by(&["k", "s"], &aggregates), keys.into_iter().map(group).collect());
    }

    #[test]
    fn filter_and_columns_keep_the_order(rows in some_rows(), shape in some_shape()) {
        let operator = |t: &Table| {
            t.sort(&["t".into()])?.filter("k > 0 or s = 'a'")?.with_columns(&[("x", "t * 2"), ("twice", "k + k")])?.select(&["twice", "x", "s"])
        };
        let kept = rows.iter().filter(|row| row.k.is_some_and(|k| k > 0) || row.s == "a");
        let expected: Vec<String> = kept.map(|row| format!("{}|{}|{}", int(row.k.map(|k| 2 * k)), 2 * row.t, row.s)).collect();
        assert_eq!(over_ranks(shape, &rows, operator), expected);
    }

    #[test]
    fn lag(rows in some_rows(), shape in some_shape(), steps in 1..4_usize) {
        let operator = |t: &Table| t.lag("x", &["k"], &["t".into()], steps as i64, "before")?.select(&["t", "before"]);
        let expected = rows.iter().map(|row| {
            let history = history(&rows, row);
            let before = history.len().checked_sub(1 + steps).and_then(|place| history[place].x);
            format!("{}|{}", row.t, float(before))
        });
        check(shape, &rows, operator, expected.collect());
    }

    #[test]
    fn rolling(rows in some_rows(), shape in some_shape(), window in 1..5_usize) {
        let functions = [Function::Count, Function::Max, Function::Sum, Function::Mean];
        let operator = |t: &Table| {
            let over = |t: Table, f: Function| t.rolling(&Aggregate::new(f, "x", format!("{f:?}")), &["k"], &["t".into()], window);
            functions.into_iter().try_fold(t.clone(), over)?.select(&["t", "Count", "Max", "Sum", "Mean"])
        };
        let expected = rows.iter().map(|row| {
            let history = history(&rows, row);
            let values: Vec<f64> = history.iter().rev().take(window).filter_map(|row| row.x).collect();
            let sum = (!values.is_empty()).then(|| values.iter().rev().sum::<f64>());
            let max = values.iter().copied().max_by(f64::total_cmp);
            let mean = sum.map(|sum| sum / values.len() as f64);
            format!("{}|{}|{}|{}|{}", row.t, values.len(), float(max), float(sum), float(mean))
        });
        check(shape, &rows, operator, expected.collect());
    }

    #[test]
    fn unpivot(rows in some_rows(), shape in some_shape()) {
        let long = |row: &Row| {
            [format!("{}|{}|k|{}", row.t, row.s, float(row.k.map(|k| k as f64))), format!("{}|{}|x|{}", row.t, row.s, float(row.x))]
        };
        let expected = rows.iter().flat_map(long).collect();
        check(shape, &rows, |t| t.unpivot(&["k", "x"], "unique_id", "y"), expected);
    }

    #[test]
    fn gather(rows in some_rows(), shape in some_shape()) {
        let gathered = ranks(shape.0, shape.1, |context| table(&context, &rows).sort(&["t".into()]).unwrap().gather().unwrap());
        let first = gathered[0].as_ref().unwrap();
        assert_eq!(crate::ranks::rows(std::slice::from_ref(first)), rows.iter().map(text).collect::<Vec<_>>());
        assert!(gathered[1..].iter().all(Option::is_none));
    }
}

#[test]
fn equal_names_get_a_suffix() {
    let context = Context::local(1).unwrap();
    let left = context.sql("select 1 as k, 2 as y", &[]).unwrap();
    let right = context.sql("select 1 as k, 3 as y, 4 as z", &[]).unwrap();
    let joined = left.join(&right, &["k"], JoinKind::Inner).unwrap();
    let schema = joined.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["k", "y", "y_right", "z"]);
}

#[test]
fn capitals_and_spaces_in_names() {
    let context = Context::local(1).unwrap();
    let table = context.sql("select 1.5 as OT, 2 as \"a b\", 'x' as s", &[]).unwrap();
    let table = table.with_columns(&[("Sum of", "OT + \"a b\"")]).unwrap().filter("OT > 1").unwrap();
    let sums = table.group_by(&["s"], &[Aggregate::new(Function::Sum, "Sum of", "T")]).unwrap();
    assert_eq!(crate::ranks::rows(sums.batches()), ["x|3.5"]);
    assert_eq!(table.select(&["a b", "SUM(OT) OVER () AS all"]).unwrap().num_rows(), 1);
}

#[test]
fn rolling_forgets_a_nan() {
    let context = Context::local(1).unwrap();
    let table = context.sql("select * from (values (1, 1.0), (2, 'NaN'::double), (3, 3.0), (4, 5.0)) v(t, x)", &[]).unwrap();
    for (function, last) in [(Function::Sum, "8.0"), (Function::Mean, "4.0"), (Function::Median, "4.0"), (Function::Var, "2.0")] {
        let rolled = table.rolling(&Aggregate::new(function, "x", "r"), &[], &["t".into()], 2).unwrap().sort(&["t".into()]).unwrap();
        let rows = crate::ranks::rows(rolled.select(&["r"]).unwrap().batches());
        assert_eq!((rows[1].as_str(), rows[3].as_str()), ("NaN", last), "{function:?}");
    }
}
