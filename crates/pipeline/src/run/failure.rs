//! Failures of tasks and of the session in the user's words.

use std::path::Path;

use deeprc_pilot::{Cause, Error, Failure};
use serde_json::Value;

use crate::diagnostic::Exit;
use crate::plan::{Planned, Work};
use crate::record::RunError;

/// An error that no stage is to blame for.
pub(crate) fn plain(message: String, exit: Exit) -> RunError {
    RunError { pipeline: String::new(), stage: None, message, hint: None, rank: None, stderr_tail: None, at: None, exit }
}

/// The session did not start, or refused a task.
pub(crate) fn of_session(error: &Error) -> RunError {
    let mut message = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        message = format!("{message}: {source}");
    }
    let stderr_tail = match error {
        Error::Agent { stderr_tail, .. } if !stderr_tail.is_empty() => Some(stderr_tail.clone()),
        _ => None,
    };
    RunError { hint: error.hint().map(str::to_owned), stderr_tail, ..plain(message, Exit::Resources) }
}

/// A task could not be handed to the session.
pub(crate) fn of_submission(task: &Planned, error: &Error) -> RunError {
    let exit = if matches!(error, Error::Invalid { .. }) { Exit::Config } else { Exit::Resources };
    RunError { exit, ..named(task, of_session(error)) }
}

pub(crate) fn named(task: &Planned, error: RunError) -> RunError {
    RunError { pipeline: task.pipeline.clone(), stage: Some(task.stage.clone()), ..error }
}

/// A task failed. `log` is the stderr file of the rank that did.
pub(crate) fn of_task(task: &Planned, failure: &Failure, log: Option<&Path>) -> RunError {
    let (mut message, mut hint, mut at) = (failure.to_string(), None, None);
    match &failure.cause {
        Cause::Error { message: said, detail } => {
            message.clone_from(said);
            hint = text(detail, "hint");
            at = place(detail);
        }
        Cause::Exit(_) | Cause::NotStarted { .. } => {}
        Cause::Signal(9) => hint = Some(killed(task)),
        Cause::Signal(_) => {}
        Cause::Timeout => hint = Some(format!("raise `timeout` of stage `{}`{}", task.stage, resumable(task))),
        Cause::StartTimeout => hint = Some("the machine may be overloaded; `deeprc doctor` looks at it".to_owned()),
        Cause::AgentLost => hint = Some(format!("set `retries = 1` to try again by itself{}", resumable(task))),
    }
    if hint.is_none()
        && let Some(log) = log
    {
        hint = Some(format!("its log: {}", log.display()));
    }
    let stderr_tail = (!failure.stderr_tail.trim().is_empty()).then(|| failure.stderr_tail.clone());
    // What a function says of itself needs no process's last words.
    let stderr_tail = stderr_tail.filter(|_| !matches!(failure.cause, Cause::Error { .. }));
    named(task, RunError { hint, rank: failure.rank, stderr_tail, at, ..plain(message, Exit::Task) })
}

fn killed(task: &Planned) -> String {
    match task.work {
        Work::Train { .. } | Work::Trial(_) => {
            "if it was not you, memory ran out: use a smaller batch; `--resume` goes on from the last checkpoint".to_owned()
        }
        _ => "if it was not you, memory ran out: use fewer rows or another machine; `--resume` keeps what is finished".to_owned(),
    }
}

fn resumable(task: &Planned) -> &'static str {
    if matches!(task.work, Work::Train { .. } | Work::Trial(_)) { "; `--resume` goes on from the last checkpoint" } else { "" }
}

fn text(detail: &Value, key: &str) -> Option<String> {
    match detail.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// `file:line` of the data that the function tripped over, with the column's name.
fn place(detail: &Value) -> Option<String> {
    let parts = [text(detail, "file"), text(detail, "line"), text(detail, "column")];
    parts[0].is_some().then(|| parts.into_iter().flatten().collect::<Vec<_>>().join(":"))
}
