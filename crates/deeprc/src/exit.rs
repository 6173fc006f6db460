//! How `deeprc` ends: one enum, shown in `--help` and checked by the tests.

use std::process::ExitCode;

/// Exit code of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done.
    Done,
    /// The run came to its end, but a task failed: its program, or the data that it read.
    Task,
    /// The command line or a pipeline file is wrong, or what it names is not there.
    Usage,
    /// The machine lacks what was asked for.
    Resources,
    /// A bug in deeprc.
    Bug,
    /// Stopped by Ctrl-C; state is saved.
    Interrupted,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub const ALL: [Exit; 6] = [Exit::Done, Exit::Task, Exit::Usage, Exit::Resources, Exit::Bug, Exit::Interrupted];

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Task => 1,
            Exit::Usage => 2,
            Exit::Resources => 3,
            Exit::Bug => 4,
            Exit::Interrupted => 130,
        }
    }

    /// What it means, for `--help`.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Task => "the run came to its end, but a task failed",
            Exit::Usage => "usage or configuration: wrong command line or pipeline file, absent file or column",
            Exit::Resources => "resources: more cores, GPUs or memory than there are",
            Exit::Bug => "a bug in deeprc (please report it)",
            Exit::Interrupted => "interrupted: state saved, resume command printed",
        }
    }

    /// The block at the end of `--help`.
    pub fn table() -> String {
        let line = |exit: Exit| format!("\n  {:>3}  {}", exit.code(), exit.meaning());
        Exit::ALL.into_iter().map(line).fold(String::from("Exit codes:"), |text, line| text + &line)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_differ() {
        let mut codes: Vec<u8> = Exit::ALL.into_iter().map(Exit::code).collect();
        codes.dedup();
        assert_eq!(codes, [0, 1, 2, 3, 4, 130]);
    }
}
