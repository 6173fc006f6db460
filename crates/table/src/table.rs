//! A table spread over the ranks, and its operators.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;

use crate::context::agree_on;
use crate::exchange::wire;
use crate::operator::quoted;
use crate::scan::{RankTable, World};
use crate::{Aggregate, Context, Error, JoinKind, Result, SortKey, global};

/// Rows spread over the ranks of a [`Context`]: each rank holds some of them as Arrow record batches.
///
/// A table never changes; operators make new ones. They are **collective** (see [`Context`]). Their result is the same, row for row, every
/// time they run with the same number of ranks and threads. Text columns are always `Utf8`, time stamps have no time zone, every column may
/// hold nulls.
#[derive(Debug, Clone)]
pub struct Table {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    context: Context,
    schema: SchemaRef,
    local: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
}

impl Table {
    pub(crate) fn new(context: Context, schema: SchemaRef, local: Vec<RecordBatch>, rows: u64, bytes: u64) -> Self {
        Table { inner: Arc::new(Inner { context, schema, local, rows, bytes }) }
    }

    pub(crate) fn provider(&self, name: &str, world: World) -> RankTable {
        let (schema, local) = (self.schema(), self.inner.local.clone());
        RankTable { name: name.to_string(), schema, local, rows: self.inner.rows, bytes: self.inner.bytes, world }
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> SchemaRef {
        self.inner.schema.clone()
    }

    /// Number of rows on all ranks together.
    pub fn num_rows(&self) -> u64 {
        self.inner.rows
    }

    /// The rows of this rank, in order.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.inner.local
    }

    /// The context that made this table.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// Joins on equal values of the columns `on`, which must exist on both sides and appear once in the result, first.
    ///
    /// Nulls equal nothing. Then follow the other columns of the left and of the right table; a name that both have gets the suffix
    /// `_right` on the right side. `Semi` and `Anti` give left columns only, in their own order.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`], [`Error::Argument`] for no columns to join on, [`Error::Engine`].
    pub fn join(&self, right: &Table, on: &[&str], how: JoinKind) -> Result<Table> {
        self.known(on)?;
        right.known(on)?;
        if on.is_empty() {
            return Err(Error::Argument { message: "a join needs at least one column".to_string(), hint: None });
        }
        let (words, columns) = match how {
            JoinKind::Inner => ("inner", self.joined_columns(right, on, |key| format!("l.{key}"))?),
            JoinKind::Left => ("left", self.joined_columns(right, on, |key| format!("l.{key}"))?),
            JoinKind::Right => ("right", self.joined_columns(right, on, |key| format!("r.{key}"))?),
            JoinKind::Full => ("full", self.joined_columns(right, on, |key| format!("coalesce(l.{key}, r.{key}) as {key}"))?),
            JoinKind::Semi => ("left semi", "l.*".to_string()),
            JoinKind::Anti => ("left anti", "l.*".to_string()),
        };
        let equal: Vec<String> = on.iter().map(|key| format!("l.{key} = r.{key}", key = quoted(key))).collect();
        let query = format!("select {columns} from l {words} join r on {}", equal.join(" and "));
        self.context().sql(&query, &[("l", self), ("r", right)])
    }

    /// Keys, then left columns, then right columns, each name once.
    fn joined_columns(&self, right: &Table, on: &[&str], key: impl Fn(&str) -> String) -> Result<String> {
        let mut columns: Vec<String> = on.iter().map(|name| key(&quoted(name))).collect();
        let names = |table: &Table| {
            let names: Vec<String> = table.schema().fields().iter().map(|field| field.name().clone()).collect();
            names.into_iter().filter(|name| !on.contains(&name.as_str())).collect::<Vec<_>>()
        };
        let (left, right) = (names(self), names(right));
        columns.extend(left.iter().map(|name| format!("l.{}", quoted(name))));
        for name in &right {
            let renamed = format!("{name}_right");
            columns.push(match (left.contains(name), left.contains(&renamed) || right.contains(&renamed)) {
                (false, _) => format!("r.{}", quoted(name)),
                (true, false) => format!("r.{} as {}", quoted(name), quoted(&renamed)),
                (true, true) => {
                    let message = format!("both tables have a column \"{name}\", and \"{renamed}\" is taken too");
                    let hint = Some(format!("rename or drop \"{name}\" on one side before the join"));
                    return Err(Error::Argument { message, hint });
                }
            });
        }
        Ok(columns.join(", "))
    }

    /// Sorts over all ranks: rank 0 gets the first rows, the last rank the last ones, about equally many each.
    ///
    /// Rows with equal keys lie on one rank, in an order that is the same every time but not that of the input.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`].
    pub fn sort(&self, keys: &[SortKey]) -> Result<Table> {
        if keys.is_empty() {
            return Ok(self.clone());
        }
        self.query(&format!("select * from t order by {}", self.order(keys)?))
    }

    /// One row per distinct combination of `keys` (nulls are a group), with the keys and one column per aggregate.
    ///
    /// Without keys: one row over everything, on rank 0.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`], [`Error::Argument`] for neither keys nor aggregates, [`Error::Engine`].
    pub fn group_by(&self, keys: &[&str], aggregates: &[Aggregate]) -> Result<Table> {
        let over: Vec<&str> = aggregates.iter().map(|aggregate| aggregate.column.as_str()).collect();
        self.known(keys)?;
        self.known(&over)?;
        let keys: Vec<String> = keys.iter().map(|key| quoted(key)).collect();
        let columns: Vec<String> = keys.iter().cloned().chain(aggregates.iter().map(Aggregate::sql)).collect();
        if columns.is_empty() {
            return Err(Error::Argument { message: "group_by needs a key or an aggregate".to_string(), hint: None });
        }
        let by = if keys.is_empty() { String::new() } else { format!(" group by {}", keys.join(", ")) };
        self.query(&format!("select {} from t{by}", columns.join(", ")))
    }

    /// The rows for which an SQL predicate is true (not false, not null).
    ///
    /// # Errors
    /// [`Error::UnknownColumn`], [`Error::Engine`].
    pub fn filter(&self, sql_predicate: &str) -> Result<Table> {
        self.query(&format!("select * from t where ({sql_predicate}\n)"))
    }

    /// The columns given as names or SQL expressions: `"y"`, `"y * 2 as double"`. Within an expression, names with unusual letters need
    /// double quotes.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`], [`Error::Engine`].
    pub fn select(&self, exprs: &[&str]) -> Result<Table> {
        let schema = self.schema();
        let named = |expr: &&str| if schema.index_of(expr).is_ok() { quoted(expr) } else { expr.to_string() };
        self.query(&format!("select {} from t", exprs.iter().map(named).collect::<Vec<_>>().join(", ")))
    }

    /// All columns, and `(name, SQL expression)` for new ones; a name that exists is replaced in its place.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`], [`Error::Engine`].
    pub fn with_columns(&self, exprs: &[(&str, &str)]) -> Result<Table> {
        let schema = self.schema();
        let made = |(name, expr): &(&str, &str)| format!("({expr}\n) as {}", quoted(name));
        let old = schema
            .fields()
            .iter()
            .map(|field| exprs.iter().find(|(name, _)| name == field.name()).map_or_else(|| quoted(field.name()), made));
        let new = exprs.iter().filter(|(name, _)| schema.index_of(name).is_err()).map(made);
        self.query(&format!("select {} from t", old.chain(new).collect::<Vec<_>>().join(", ")))
    }

    /// Adds column `name`: `column` as it was `steps` rows before, within equal values of `by`, in the order `order`.
    ///
    /// Null where there is no such row; a negative `steps` looks ahead. Rows come out grouped by `by` and ordered by `order`.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`].
    pub fn lag(&self, column: &str, by: &[&str], order: &[SortKey], steps: i64, name: &str) -> Result<Table> {
        self.known(&[column])?;
        let call = format!("lag({}, {steps}) over ({})", quoted(column), self.window(by, order)?);
        self.with_columns(&[(name, &call)])
    }

    /// Adds column `aggregate.name`: the function over the last `rows` rows, this one included, within equal values of `by`, in the
    /// order `order`. The first rows of a group see a shorter window. A NaN or infinity counts while it is in the window, not after it.
    /// Rows come out grouped by `by` and ordered by `order`.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`], [`Error::Argument`] for `rows` = 0.
    pub fn rolling(&self, aggregate: &Aggregate, by: &[&str], order: &[SortKey], rows: usize) -> Result<Table> {
        self.known(&[&aggregate.column])?;
        if rows == 0 {
            return Err(Error::Argument { message: "a rolling window needs at least 1 row".to_string(), hint: None });
        }
        let frame = format!("rows between {} preceding and current row", rows - 1);
        let schema = self.schema();
        let call = aggregate.function.rolling_call(&aggregate.column, schema.field_with_name(&aggregate.column)?.data_type());
        let call = format!("{call} over ({} {frame})", self.window(by, order)?);
        self.with_columns(&[(&aggregate.name, &call)])
    }

    /// Wide to long: one row per row and column of `columns`, with the column's name in `id` and its value in `value`; the columns not
    /// named are repeated and come first. Numbers of different types become `Float64`.
    ///
    /// ```text
    /// ds  a  b        columns [a, b]        ds  id  value
    /// 1   10 20       id "id"               1   a   10
    /// 2   11 21       value "value"         2   a   11
    ///                                       1   b   20
    ///                                       2   b   21
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownColumn`], [`Error::Argument`] for columns of types that do not mix, or names that are taken.
    pub fn unpivot(&self, columns: &[&str], id: &str, value: &str) -> Result<Table> {
        self.known(columns)?;
        let schema = self.schema();
        let kept: Vec<usize> = (0..schema.fields().len()).filter(|i| !columns.contains(&schema.field(*i).name().as_str())).collect();
        if columns.is_empty() || id == value || kept.iter().any(|i| [id, value].contains(&schema.field(*i).name().as_str())) {
            let message = format!("unpivot needs columns, and \"{id}\" and \"{value}\" must be new names");
            return Err(Error::Argument { message, hint: None });
        }
        let types: Vec<&DataType> = columns.iter().map(|name| Ok(schema.field_with_name(name)?.data_type())).collect::<Result<_>>()?;
        let data_type = match types.iter().find(|data_type| **data_type != types[0]) {
            None => types[0].clone(),
            Some(_) if types.iter().all(|data_type| data_type.is_numeric()) => DataType::Float64,
            Some(other) => {
                let message = format!("columns of type {} and {other} do not go into one column", types[0]);
                return Err(Error::Argument { message, hint: Some("cast them with `with_columns` first".to_string()) });
            }
        };
        let mut fields: Vec<Field> = kept.iter().map(|i| schema.field(*i).clone()).collect();
        fields.extend([Field::new(id, DataType::Utf8, true), Field::new(value, data_type.clone(), true)]);
        let long = Arc::new(Schema::new(fields));
        let mut local = Vec::new();
        for name in columns {
            for batch in self.batches() {
                let mut arrays: Vec<ArrayRef> = kept.iter().map(|i| batch.column(*i).clone()).collect();
                arrays.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, batch.num_rows()))));
                arrays.push(cast(batch.column(schema.index_of(name)?), &data_type)?);
                local.push(RecordBatch::try_new(long.clone(), arrays)?);
            }
        }
        self.context().table(long, Ok(local))
    }

    /// All rows in rank order, on rank 0 (`None` on the others). For small results.
    ///
    /// # Errors
    /// [`Error::Comm`](crate::Error::Comm).
    pub fn gather(&self) -> Result<Option<RecordBatch>> {
        let (comm, schema) = (self.context().comm(), self.schema());
        let merged = agree_on(comm, concat_batches(&schema, self.batches()).map_err(Error::from))?;
        if comm.size() == 1 {
            return Ok(Some(merged));
        }
        let mut out = vec![Vec::new(); comm.size()];
        if comm.rank() != 0 {
            out[0] = wire::encode(&[(0, merged.clone())])?;
        }
        let received = comm.all_to_all(out)?;
        if comm.rank() != 0 {
            return Ok(None);
        }
        let mut all = vec![merged];
        for parts in received.into_iter().skip(1) {
            all.extend(wire::decode(parts, &schema)?.into_iter().map(|(_, batch)| batch));
        }
        Ok(Some(concat_batches(&schema, &all)?))
    }

    /// Writes a global table to the directory `dir`, which appears complete or not at all and must not exist yet.
    ///
    /// `metadata` is a JSON object for the readers (scalers, provenance); that of rank 0 counts.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Argument`] when `dir` exists.
    pub fn publish(&self, dir: &Path, metadata: serde_json::Value) -> Result<()> {
        global::publish(self, dir, metadata)
    }

    fn query(&self, query: &str) -> Result<Table> {
        self.context().sql(query, &[("t", self)])
    }

    fn known(&self, columns: &[&str]) -> Result<()> {
        let schema = self.schema();
        match columns.iter().find(|column| schema.index_of(column).is_err()) {
            None => Ok(()),
            Some(column) => Err(Error::unknown_column(column, schema.fields().iter().map(|field| field.name().as_str()))),
        }
    }

    fn order(&self, keys: &[SortKey]) -> Result<String> {
        self.known(&keys.iter().map(|key| key.column.as_str()).collect::<Vec<_>>())?;
        Ok(keys.iter().map(SortKey::sql).collect::<Vec<_>>().join(", "))
    }

    /// The inside of `over (…)`.
    fn window(&self, by: &[&str], order: &[SortKey]) -> Result<String> {
        self.known(by)?;
        let by = match by {
            [] => String::new(),
            by => format!("partition by {} ", by.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")),
        };
        let order = match order {
            [] => String::new(),
            order => format!("order by {}", self.order(order)?),
        };
        Ok(by + &order)
    }
}
