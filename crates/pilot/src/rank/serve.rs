//! The main loop of a rank: this thread listens to the agent, functions run on threads of their own.

use std::{
    any::Any,
    collections::BTreeMap,
    env,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::Value;

use super::{FunctionError, TaskContext, link::Link, process, registry::Function};
use crate::{
    Error, Result,
    clock::monotonic,
    wire::{self, FromRank, PROTOCOL, Run, ToRank},
};

const STARTED_BY_AGENT: &str = "rank executables are started by an agent: name them in `Pool::command`";

/// Stack of a function's thread; query planners recurse deeply. Only what is touched is ever backed by memory.
const STACK: usize = 64 << 20;

/// The cancel flag of the function that runs, if one does.
type Current = Arc<Mutex<Option<Arc<AtomicBool>>>>;

pub(super) fn serve(functions: BTreeMap<String, Function>) -> Result<()> {
    let missing = |name| Error::Environment { name, hint: STARTED_BY_AGENT };
    let socket = env::var_os("DEEPRC_RANK_SOCKET").map(PathBuf::from).ok_or(missing("DEEPRC_RANK_SOCKET"))?;
    let worker = env::var("DEEPRC_RANK_ID").ok().and_then(|id| id.parse().ok()).ok_or(missing("DEEPRC_RANK_ID"))?;
    let mut stream = UnixStream::connect(&socket).map_err(Error::io("connect to", &socket))?;
    let link = Arc::new(Link::new(stream.try_clone().map_err(Error::io("connect to", &socket))?));
    link.send(&FromRank::Hello { protocol: PROTOCOL, worker });

    let current = Current::default();
    let names = functions.keys().cloned().collect::<Vec<_>>().join(", ");
    while let Ok(Some(message)) = wire::read(&mut stream) {
        match message {
            ToRank::Run(run) => match functions.get(&run.function) {
                Some(function) => start(*run, function.clone(), link.clone(), current.clone()),
                None => {
                    let message = format!("function `{}` is not registered; there are: {names}", run.function);
                    link.send(&failed(message, Value::Null, false));
                }
            },
            ToRank::Cancel => {
                if let Some(flag) = &*lock(&current) {
                    flag.store(true, Ordering::Relaxed);
                }
            }
        }
    }
    if lock(&current).is_some() {
        process::exit_now();
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(message: String, detail: Value, panicked: bool) -> FromRank {
    FromRank::Failed { at: monotonic(), message, detail, panicked }
}

/// Runs a function on a thread of its own and sends its result.
fn start(run: Run, function: Function, link: Arc<Link>, current: Current) {
    let canceled = Arc::new(AtomicBool::new(false));
    *lock(&current) = Some(canceled.clone());
    let (on_failure, name) = (link.clone(), run.task.replace('\0', ""));
    let body = move || {
        let answer = call(run, &function, &link, canceled);
        *lock(&current) = None;
        link.send(&answer);
    };
    if let Err(error) = thread::Builder::new().name(name).stack_size(STACK).spawn(body) {
        on_failure.send(&failed(format!("no thread for the function: {error}"), Value::Null, true));
    }
}

/// Calls the function in the process of its task; the process is its own again when this returns.
fn call(run: Run, function: &Function, link: &Arc<Link>, canceled: Arc<AtomicBool>) -> FromRank {
    let changed = match process::Changed::by(&run) {
        Ok(changed) => changed,
        Err(error) => return failed(format!("the process could not be prepared: {error}"), Value::Null, true),
    };
    let context = TaskContext {
        task: run.task,
        attempt: run.attempt,
        rank: run.rank as usize,
        size: run.size as usize,
        local_rank: run.local_rank as usize,
        rendezvous: run.rendezvous,
        dir: run.dir,
        cores: run.cores.into_iter().map(|core| core as usize).collect(),
        gpus: run.gpus,
        link: link.clone(),
        canceled,
        connected: AtomicBool::new(false),
    };
    link.send(&FromRank::Started { at: monotonic() });
    let result = catch_unwind(AssertUnwindSafe(|| function(&context, run.arguments)));
    let answer = match result {
        Ok(Ok(value)) => FromRank::Returned { at: monotonic(), value },
        Ok(Err(FunctionError { message, detail })) => failed(message, detail, false),
        Err(payload) => failed(format!("panicked: {}", words(&*payload)), Value::Null, true),
    };
    drop(changed);
    answer
}

/// The message of a panic.
fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
