//! The pipeline file.

use std::path::Path;

use crate::diagnostic::Diagnostic;
use crate::options::RunOptions;

/// A pipeline file, read and validated.
#[derive(Debug, Clone)]
pub struct Pipeline {
    name: String,
}

impl Pipeline {
    /// Reads a pipeline file. `overrides` are the `--set key=value` of the command line: `key` is a parameter (`source`) or a path
    /// (`stage.fit.max_steps`, or `fit.max_steps` for short).
    ///
    /// # Errors
    /// Everything that is wrong with the file, in its order.
    pub fn load(
        _file: &Path,
        _overrides: &[(String, String)],
    ) -> Result<Pipeline, Vec<Diagnostic>> {
        unimplemented!()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Looks at the data and the machine without running anything: absent files, wrong column names, more cores than there are, absent
    /// programs and Python packages. Reads the heads of the input files only.
    pub fn check(&self, _options: &RunOptions) -> Vec<Diagnostic> {
        unimplemented!()
    }

    /// The plan as text lines for `deeprc check`: stage, kind, what it needs, columns where known.
    pub fn describe(&self) -> Vec<String> {
        unimplemented!()
    }
}
