//! The functions of a rank executable.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;

use super::{FunctionError, TaskContext, serve};
use crate::Result;

pub(super) type Function = Arc<dyn Fn(&TaskContext, Value) -> Result<Value, FunctionError> + Send + Sync>;

/// Functions by name.
#[derive(Default)]
pub struct Registry {
    functions: BTreeMap<String, Function>,
}

impl Registry {
    /// A registry without functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function; a second one of the same name replaces the first.
    pub fn register(&mut self, name: &str, function: impl Fn(&TaskContext, Value) -> Result<Value, FunctionError> + Send + Sync + 'static) {
        self.functions.insert(name.to_string(), Arc::new(function));
    }

    /// The main loop of a rank process: connects to the agent (`DEEPRC_RANK_SOCKET`) and runs one task after another
    /// until the agent is gone.
    ///
    /// Each call gets a thread of its own, named after its task, in a process whose environment, working directory,
    /// stdout, stderr and CPU affinity are those of the task and are put back afterwards. An agent that dies during a
    /// call takes the process with it.
    ///
    /// # Errors
    /// [`Error::Environment`](crate::Error::Environment) when not started by an agent, [`Error::Io`](crate::Error::Io)
    /// when the agent cannot be reached.
    pub fn serve(self) -> Result<()> {
        serve::serve(self.functions)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.functions.keys().collect::<Vec<_>>()).finish()
    }
}
