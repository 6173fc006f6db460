//! What a machine has.

use serde::{Deserialize, Serialize};

/// What a session may use of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Cores. More than the machine has are allowed; they then share the real ones.
    pub cores: u32,
    /// GPUs in hundredths: two GPUs are 200.
    pub gpus: u32,
    /// Main memory in MiB.
    pub memory: u64,
}

impl Resources {
    /// What this process may use of this machine: cores of its affinity mask and CPU quota, NVIDIA GPUs
    /// (`CUDA_VISIBLE_DEVICES` or `/dev/nvidia<n>`), memory that is available now within its cgroup.
    pub fn detect() -> Resources {
        unimplemented!()
    }
}
