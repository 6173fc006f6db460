//! What can be said about a pipeline before anything runs, by a look at the data and the machine.

mod columns;
mod derived;
mod machine;
mod python;

pub(crate) use columns::expand;
pub(crate) use machine::{available, find};

use deeprc_table::arrow::datatypes::SchemaRef;
use indexmap::IndexMap;

use crate::diagnostic::Diagnostic;
use crate::options::RunOptions;
use crate::spec::{Faults, Pipeline};

/// The columns of every stage's table, as far as they can be known.
pub(crate) type Schemas = IndexMap<String, Option<SchemaRef>>;

impl Pipeline {
    /// Looks at the data and the machine without running anything: absent files, wrong column names, more cores than there are, absent
    /// programs and Python packages. Reads the heads of the input files only.
    pub fn check(&self, options: &RunOptions) -> Vec<Diagnostic> {
        let faults = Faults::new(&self.source);
        machine::check(self, options, &faults);
        columns::check(self, &faults);
        faults.sorted()
    }

    /// The pipeline in a few lines for people: every stage with its kind, ranks, inputs and, where they are known, columns.
    pub fn describe(&self) -> Vec<String> {
        let schemas = columns::check(self, &Faults::new(&self.source));
        let line = |stage: &crate::spec::Stage| {
            let inputs: Vec<&str> = stage.inputs.iter().map(|input| input.value.as_str()).collect();
            let mut text = format!("{}  {}", stage.name, stage.kind.word());
            if stage.needs.ranks.value > 1 {
                text += &format!(" on {} ranks", stage.needs.ranks.value);
            }
            if !inputs.is_empty() {
                text += &format!(" of {}", inputs.join(", "));
            }
            if let crate::spec::Kind::Train(train) = &stage.kind {
                let models: Vec<String> = train
                    .cells
                    .iter()
                    .map(|cell| if cell.label.is_empty() { cell.model.name().as_str().to_owned() } else { cell.label.clone() })
                    .collect();
                text += &format!(": {}", models.join("; "));
            }
            if let Some(Some(schema)) = schemas.get(&stage.name) {
                let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                text += &format!("  [{}]", columns.join(", "));
            }
            text
        };
        self.stages.values().map(line).collect()
    }

    /// The stages so that every one comes after its inputs, otherwise in the order of the file.
    pub(crate) fn in_order(&self) -> Vec<&crate::spec::Stage> {
        let mut left: Vec<&crate::spec::Stage> = self.stages.values().collect();
        let mut order: Vec<&crate::spec::Stage> = Vec::new();
        while let Some(next) =
            left.iter().position(|stage| stage.inputs.iter().all(|input| order.iter().any(|done| done.name == input.value)))
        {
            order.push(left.remove(next));
        }
        // Circles and unknown names are refused when the file is read.
        debug_assert!(left.is_empty(), "{left:?}");
        order
    }
}
