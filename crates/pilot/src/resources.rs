//! What a machine has.

use std::{env, fs, num::NonZero, path::Path, thread};

use rustix::thread::{CpuSet, sched_getaffinity};
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
        let machine = Machine::detect();
        Resources { cores: machine.cpus.len() as u32, gpus: machine.gpus.len() as u32 * 100, memory: available_memory() }
    }
}

/// The names that this machine gives to its cores and GPUs; slot `i` of a node is the `i`-th of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    /// CPU numbers.
    cpus: Vec<u32>,
    /// Names as in `CUDA_VISIBLE_DEVICES`.
    gpus: Vec<String>,
}

impl Machine {
    pub(crate) fn detect() -> Machine {
        // available_parallelism also knows the CPU quota of cgroups, the mask alone does not.
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let mut cpus: Vec<u32> = match sched_getaffinity(None) {
            Ok(mask) => (0..CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).map(|cpu| cpu as u32).collect(),
            Err(_) => (0..count as u32).collect(),
        };
        cpus.truncate(count);
        let visible = env::var("CUDA_VISIBLE_DEVICES").ok();
        Machine { cpus, gpus: gpu_names(visible.as_deref(), Path::new("/dev")) }
    }

    /// CPU numbers of these core slots. Slots beyond the real cores share them.
    pub(crate) fn cpus(&self, slots: &[u32]) -> Vec<u32> {
        slots.iter().map(|&slot| self.cpus[slot as usize % self.cpus.len()]).collect()
    }

    pub(crate) fn all_cpus(&self) -> &[u32] {
        &self.cpus
    }

    /// Names of these GPU slots; a slot beyond the known GPUs keeps its number.
    pub(crate) fn gpus(&self, slots: &[u32]) -> Vec<String> {
        let name = |slot: &u32| self.gpus.get(*slot as usize).cloned().unwrap_or_else(|| slot.to_string());
        slots.iter().map(name).collect()
    }
}

fn gpu_names(visible: Option<&str>, dev: &Path) -> Vec<String> {
    if let Some(list) = visible {
        return list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
    }
    let entries = fs::read_dir(dev).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("nvidia")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.iter().map(u32::to_string).collect()
}

fn available_memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        let dir = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
        let number = |file| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
        Some(number("memory.max")?.saturating_sub(number("memory.current")?) >> 20)
    });
    match (machine, group) {
        (Some(machine), Some(group)) => machine.min(group),
        (Some(known), None) | (None, Some(known)) => known,
        (None, None) => 0,
    }
}

/// `MemAvailable` of `/proc/meminfo` in MiB.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let found = Resources::detect();
        assert!(found.cores >= 1 && found.memory > 0, "{found:?}");
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(mem_available("MemTotal: 1 kB\nMemAvailable:   2097152 kB\n"), Some(2048));
        assert_eq!(mem_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn gpus_come_from_the_variable_or_the_device_files() {
        let dev = tempfile::tempdir().unwrap();
        for file in ["nvidia1", "nvidia0", "nvidiactl", "nvidia-uvm", "null"] {
            fs::write(dev.path().join(file), "").unwrap();
        }
        assert_eq!(gpu_names(None, dev.path()), ["0", "1"]);
        assert_eq!(gpu_names(Some("3, GPU-ab"), dev.path()), ["3", "GPU-ab"]);
        assert!(gpu_names(Some(""), dev.path()).is_empty());
    }

    #[test]
    fn slots_beyond_the_machine_share_its_cores() {
        let machine = Machine { cpus: vec![2, 5], gpus: vec!["7".into()] };
        assert_eq!(machine.cpus(&[0, 1, 2]), [2, 5, 2]);
        assert_eq!(machine.gpus(&[0, 1]), ["7", "1"]);
    }
}
