//! The columns of a derive stage, step by step as `table.derive` does them.

use std::sync::Arc;

use deeprc_table::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deeprc_table::plan_schema;

use super::columns::{need, spoken};
use crate::spec::{At, DeriveStage, Faults, Spanned};

/// The columns after the stage; `None` where a fault leaves them unknown.
pub(super) fn columns(derive: &DeriveStage, input: SchemaRef, faults: &Faults) -> Option<SchemaRef> {
    let before = faults.count();
    let (arguments, places) = (&derive.arguments, &derive.places);
    let of = format!("the table of stage `{}`", derive.input.value);
    let mut schema = input;
    for ((name, expression), at) in arguments.with.iter().zip(&places.with) {
        if let Some(made) = query(&format!("SELECT ({expression}) AS {} FROM t", quoted(name)), &schema, at, faults) {
            schema = with(&schema, made.field(0).clone());
        }
    }
    for (lag, names) in arguments.lag.iter().zip(&places.lag) {
        names.iter().for_each(|name| {
            need(&schema, name, &of, faults);
        });
        let kind = schema.field_with_name(&lag.column).map_or(DataType::Null, |field| field.data_type().clone());
        for steps in &lag.steps {
            let name = lag.name.clone().unwrap_or_else(|| format!("{}_lag{steps}", lag.column));
            schema = with(&schema, Field::new(name, kind.clone(), true));
        }
    }
    for (rolling, names) in arguments.rolling.iter().zip(&places.rolling) {
        names.iter().for_each(|name| {
            need(&schema, name, &of, faults);
        });
        let function = format!("{:?}", rolling.function).to_lowercase();
        let name = rolling.name.clone().unwrap_or_else(|| format!("{}_{function}{}", rolling.column, rolling.rows));
        schema = with(&schema, Field::new(name, DataType::Float64, true));
    }
    if let (Some(filter), Some(at)) = (&arguments.filter, &places.filter) {
        query(&format!("SELECT * FROM t WHERE {filter}"), &schema, at, faults);
    }
    if !arguments.select.is_empty() {
        let parts = arguments.select.iter().zip(&places.select);
        let made: Vec<SchemaRef> = parts.filter_map(|(part, at)| query(&format!("SELECT {part} FROM t"), &schema, at, faults)).collect();
        schema = Arc::new(Schema::new(made.iter().flat_map(|schema| schema.fields().iter().cloned()).collect::<Vec<_>>()));
    }
    for (name, at) in arguments.drop.iter().zip(&places.drop) {
        need(&schema, &Spanned::new(name.clone(), at), &of, faults);
    }
    schema = without(&schema, &arguments.drop);
    if let Some(unpivot) = &arguments.unpivot {
        for (name, at) in unpivot.columns.iter().zip(&places.unpivot) {
            need(&schema, &Spanned::new(name.clone(), at), &of, faults);
        }
        let first = unpivot.columns.first().and_then(|name| schema.field_with_name(name).ok());
        let kind = first.map_or(DataType::Float64, |field| field.data_type().clone());
        schema = without(&schema, &unpivot.columns);
        schema = with(&schema, Field::new(&unpivot.id, DataType::Utf8, false));
        schema = with(&schema, Field::new(&unpivot.value, kind, true));
    }
    for (name, at) in arguments.sort.iter().zip(&places.sort) {
        need(&schema, &Spanned::new(name.trim_start_matches('-').to_owned(), at), &of, faults);
    }
    (faults.count() == before).then_some(schema)
}

fn query(query: &str, schema: &SchemaRef, at: &At, faults: &Faults) -> Option<SchemaRef> {
    match plan_schema(query, &[("t", schema.clone())]) {
        Ok(schema) => Some(schema),
        Err(error) => {
            faults.add(at, spoken(&error), error.hint());
            None
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The schema with `field` in the place of the one with its name, or at the end.
fn with(schema: &SchemaRef, field: Field) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    match fields.iter().position(|old| old.name() == field.name()) {
        Some(place) => fields[place] = Arc::new(field),
        None => fields.push(Arc::new(field)),
    }
    Arc::new(Schema::new(fields))
}

fn without(schema: &SchemaRef, names: &[String]) -> SchemaRef {
    let kept = schema.fields().iter().filter(|field| !names.contains(field.name())).cloned();
    Arc::new(Schema::new(kept.collect::<Vec<_>>()))
}
