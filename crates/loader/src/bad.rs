//! Series that cannot be used: an error, or a list of what was left out and why.

use serde::{Deserialize, Serialize};

use crate::{BadSeries, Error, Result};

/// A series that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its id.
    pub series: String,
    /// The error that it would have been.
    pub reason: String,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "left out series `{}`: {}", self.series, self.reason)
    }
}

/// What was found wrong so far: with [`BadSeries::Raise`] nothing, because the first error ends everything.
#[derive(Debug)]
pub(crate) struct Bad {
    policy: BadSeries,
    /// Number of the series, and the first error in it.
    pub found: Vec<(u32, Error)>,
}

impl Bad {
    pub fn new(policy: BadSeries) -> Self {
        Bad { policy, found: Vec::new() }
    }

    /// Ends with `error`, or remembers it and goes on.
    pub fn note(&mut self, series: u32, error: Error) -> Result<()> {
        if self.policy == BadSeries::Raise {
            return Err(error);
        }
        if !self.found.iter().any(|(known, _)| *known == series) {
            self.found.push((series, error));
        }
        Ok(())
    }
}
