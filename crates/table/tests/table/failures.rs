//! What goes wrong on one rank ends on all of them, and says what to do.

use std::sync::Arc;

use deeprc_table::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use deeprc_table::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deeprc_table::{Aggregate, Context, Error, Function, JoinKind, Table, plan_schema};

use crate::ranks::ranks;

/// Ten rows on every rank; rank 1 has a text that is no number.
fn texts(context: &Context) -> Table {
    let rank = context.comm().rank() as i64;
    let text = |row: i64| if (rank, row) == (1, 7) { "boom".to_string() } else { row.to_string() };
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values((0..10).map(|row| 10 * rank + row)))),
        ("s", Arc::new(StringArray::from_iter_values((0..10).map(text)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    context.from_batches(batch.schema(), vec![batch]).unwrap()
}

/// Every rank gets an error that names rank 1 (itself without a number), and can go on working afterwards.
fn check_fails_everywhere(query: &str) {
    let errors = ranks(3, 2, |context| {
        let table = texts(&context);
        let error = context.sql(query, &[("t", &table)]).unwrap_err().to_string();
        assert_eq!(table.filter("id >= 0").unwrap().num_rows(), 30);
        error
    });
    for (rank, error) in errors.iter().enumerate() {
        assert!(error.contains("boom") && (rank == 1 || error.starts_with("rank 1: ")), "rank {rank}: {error}");
    }
}

#[test]
fn an_error_on_one_rank_is_an_error_on_all() {
    check_fails_everywhere("select cast(s as bigint) from t");
    check_fails_everywhere("select cast(s as bigint) as n, count(*) from t group by 1");
    check_fails_everywhere("select cast(s as bigint) as n from t order by n");
    check_fails_everywhere("select a.id from t a join t b on cast(a.s as bigint) = b.id");
    check_fails_everywhere("select id from t where id > (select max(cast(s as bigint)) from t)");
}

#[test]
fn a_rank_that_leaves_is_an_error_on_the_others() {
    let failed = ranks(2, 1, |context| {
        if context.comm().rank() == 1 {
            // This rank goes away in the middle of the others' query.
            return true;
        }
        context.sql("select 1", &[]).is_err()
    });
    assert_eq!(failed, [true, true]);
}

#[test]
fn ranks_with_other_columns() {
    let errors = ranks(2, 1, |context| {
        let name = ["a", "b"][context.comm().rank()];
        let schema = Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, true)]));
        context.from_batches(schema, vec![]).unwrap_err().to_string()
    });
    assert_eq!(errors, vec!["rank 1 has other columns than rank 0: b Int64 instead of a Int64"; 2]);
}

#[test]
fn ranks_with_other_queries() {
    let errors = ranks(2, 1, |context| {
        let table = texts(&context);
        let column = ["id", "s"][context.comm().rank()];
        context.sql(&format!("select count(distinct {column}) from t"), &[("t", &table)]).unwrap_err()
    });
    for error in errors {
        assert!(matches!(error, Error::PlansDiffer { rank: 1, .. }), "{error}");
    }
}

fn check_hint(error: Error, message: &str, hint: &str) {
    assert_eq!((error.to_string().as_str(), error.hint().as_deref()), (message, Some(hint)));
}

#[test]
fn near_names() {
    let context = Context::local(1).unwrap();
    let loads = context.sql("select 1 as HUFL, 2 as HULL, 3 as date", &[]).unwrap();
    let near = "did you mean \"HUFL\" or \"HULL\"?";
    check_hint(loads.group_by(&["HUL"], &[]).unwrap_err(), "no column \"HUL\"", near);
    check_hint(loads.select(&["HUL + 1"]).unwrap_err(), "no column \"HUL\"", near);
    check_hint(loads.filter("dates > 3").unwrap_err(), "no column \"dates\"", "did you mean \"date\"?");
    check_hint(loads.sort(&["day".into()]).unwrap_err(), "no column \"day\"", "columns: HUFL, HULL, date");
    check_hint(loads.join(&loads, &["hufl"], JoinKind::Inner).unwrap_err(), "no column \"hufl\"", "did you mean \"HUFL\" or \"HULL\"?");
    check_hint(context.sql("select * from load", &[("loads", &loads)]).unwrap_err(), "no table \"load\"", "did you mean \"loads\"?");
    check_hint(loads.lag("x", &[], &[], 1, "y").unwrap_err(), "no column \"x\"", "columns: HUFL, HULL, date");
    let text = loads.with_columns(&[("s", "'a'")]).unwrap();
    let error = text.group_by(&[], &[Aggregate::new(Function::Mean, "s", "m")]).unwrap_err();
    assert!(error.to_string().contains("avg"), "{error}");
}

fn loads() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("date", DataType::Date32, true), Field::new("HUFL", DataType::Float64, true)]))
}

#[test]
fn a_query_is_checked_without_data() {
    let schema = plan_schema("select date, avg(HUFL) as y, 'x' as unique_id from loads group by date", &[("loads", loads())]).unwrap();
    let columns: Vec<String> = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    assert_eq!(columns, ["date Date32", "y Float64", "unique_id Utf8"]);
}

#[test]
fn a_wrong_query_is_explained() {
    let error = |query: &str| plan_schema(query, &[("loads", loads())]).unwrap_err();
    check_hint(error("select HUFF from loads"), "no column \"HUFF\"", "did you mean \"HUFL\"?");
    check_hint(error("select l.dat from loads l"), "no column \"dat\"", "did you mean \"date\"?");
    check_hint(error("select * from load"), "no table \"load\"", "did you mean \"loads\"?");
    check_hint(
        error("drop table loads"),
        "only queries can be run, not statements that change something",
        "begin the SQL with `select` or `with`",
    );
    let expected = "expected: an SQL statement, found: selec at Line: 1, Column: 1";
    assert_eq!(error("selec date from loads").to_string(), expected);
    assert!(error("select nosuch(date) from loads").to_string().contains("nosuch"));
}
