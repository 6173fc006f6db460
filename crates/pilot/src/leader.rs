//! The shell around the core: one thread that feeds it inputs and performs its effects.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    net::{UnixListener, UnixStream},
    process::{Child, Command},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::{
    Event, Result, SessionOptions, Stamped, TaskDescription, TaskId,
    clock::monotonic,
    core::Core,
    journal::Journal,
    reactor::{Effect, Input, next_deadline, on_event},
    scheduler::AgentId,
    scratch::{Scratch, rendezvous},
    session::Shared,
    tail::{cause, tail},
    wire::{FromAgent, PROTOCOL, ToAgent, codec, decode, encode},
};

/// A request of the client.
#[derive(Debug)]
pub(crate) enum Request {
    Submit(TaskId, Box<TaskDescription>),
    Cancel(TaskId),
    Subscribe(Sender<Stamped<Event>>),
    Close,
}

/// Longest time that the agent has for ending everything and itself.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Longest time from the end of the connection to the end of the agent.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// State of the leader's thread.
pub(crate) struct Leader {
    core: Core,
    options: SessionOptions,
    journal: Journal,
    scratch: Scratch,
    shared: Arc<Shared>,
    subscribers: Vec<Sender<Stamped<Event>>>,
    /// Start of the session on the monotonic clock.
    start: Duration,
    inputs: UnboundedSender<Input>,
    agent: Option<AgentLink>,
}

/// The agent of this machine.
struct AgentLink {
    id: AgentId,
    outgoing: UnboundedSender<ToAgent>,
    kill: Arc<tokio::sync::Notify>,
    done: JoinHandle<()>,
}

/// Runs a session until it is closed; the body of the leader's thread.
pub(crate) fn run(
    options: SessionOptions,
    core: Core,
    journal: Journal,
    scratch: Scratch,
    shared: Arc<Shared>,
    requests: UnboundedReceiver<Request>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(crate::Error::io("start the event loop of", &options.dir))?;
    let (inputs, received) = unbounded_channel();
    let leader = Leader { core, options, journal, scratch, shared, subscribers: Vec::new(), start: monotonic(), inputs, agent: None };
    runtime.block_on(leader.serve(requests, received))
}

impl Leader {
    async fn serve(mut self, mut requests: UnboundedReceiver<Request>, mut received: UnboundedReceiver<Input>) -> Result<()> {
        self.input(Input::Start { version: env!("CARGO_PKG_VERSION").to_string(), pid: std::process::id() });
        loop {
            let deadline = next_deadline(&self.core).map(|at| at.saturating_sub(self.now()));
            let input = tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Submit(task, description)) => Input::Submit { task, description },
                    Some(Request::Cancel(task)) => Input::Cancel { task },
                    Some(Request::Subscribe(subscriber)) => {
                        self.subscribers.push(subscriber);
                        continue;
                    }
                    Some(Request::Close) | None => break,
                },
                Some(input) = received.recv() => input,
                () = sleep(deadline.unwrap_or_default()), if deadline.is_some() => Input::Tick,
            };
            self.input(input);
        }
        self.input(Input::Close);
        if let Some(agent) = self.agent.take() {
            if self.core.agents.starting.is_some() {
                agent.kill.notify_one();
            }
            let mut done = agent.done;
            if timeout(SHUTDOWN, &mut done).await.is_err() {
                agent.kill.notify_one();
                let _ = timeout(SHUTDOWN, done).await;
            }
        }
        self.journal.close()
    }

    fn now(&self) -> Duration {
        monotonic().saturating_sub(self.start)
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        for effect in on_event(&mut self.core, input, now) {
            match effect {
                Effect::Record(event) => self.record(Stamped { at: now, event }),
                Effect::StartAgent(id) => self.start_agent(id),
                Effect::KillAgent(id) => {
                    if let Some(agent) = self.agent.as_ref().filter(|agent| agent.id == id) {
                        agent.kill.notify_one();
                    }
                }
                Effect::Send(id, message) => {
                    if let Some(agent) = self.agent.as_ref().filter(|agent| agent.id == id) {
                        // If it is gone, `AgentGone` is on its way.
                        let _ = agent.outgoing.send(message);
                    }
                }
                Effect::Sweep { pids, task, attempt } => {
                    for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
                        // Most are dead already: the kernel kills the children of a dead agent, not their children.
                        let _ = kill_process_group(pid, Signal::KILL);
                    }
                    let _ = fs::remove_dir_all(rendezvous(self.scratch.path(), task, attempt));
                }
            }
        }
        if let Some(reason) = &self.core.agents.lost {
            self.shared.agent_is(Err(reason.clone()));
        }
    }

    fn record(&mut self, event: Stamped<Event>) {
        self.journal.append(&event);
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
        match event.event {
            Event::AgentStarted { .. } => self.shared.agent_is(Ok(())),
            Event::Ended { report } => self.shared.report(*report),
            _ => {}
        }
    }

    fn start_agent(&mut self, id: AgentId) {
        let (outgoing, messages) = unbounded_channel();
        let kill = Arc::new(tokio::sync::Notify::new());
        let agent = AgentProcess {
            id,
            command: self.options.agent.clone(),
            socket: self.scratch.path().join(format!("leader-{}.sock", id.0)),
            log: self.options.dir.join(format!("agent-{}.err", id.0)),
            configure: ToAgent::Configure {
                dir: self.options.dir.clone(),
                scratch: self.scratch.path().to_path_buf(),
                pools: self.options.pools.clone(),
            },
            start: self.start,
            inputs: self.inputs.clone(),
        };
        let done = tokio::spawn(agent.run(messages, kill.clone()));
        self.agent = Some(AgentLink { id, outgoing, kill, done });
    }
}

/// One agent process from start to end.
struct AgentProcess {
    id: AgentId,
    command: Vec<String>,
    socket: PathBuf,
    log: PathBuf,
    configure: ToAgent,
    start: Duration,
    inputs: UnboundedSender<Input>,
}

impl AgentProcess {
    /// Runs it and reports, as the last input, that it is gone.
    async fn run(self, messages: UnboundedReceiver<ToAgent>, kill: Arc<tokio::sync::Notify>) {
        let reason = match self.spawn() {
            Ok((listener, mut child)) => {
                let broken = tokio::select! {
                    broken = self.talk(listener, messages) => broken.err(),
                    _ = child.wait() => None,
                    () = kill.notified() => Some(io::Error::other("it did not answer")),
                };
                let _ = fs::remove_file(&self.socket);
                self.last_words(child, broken).await
            }
            Err(error) => error.to_string(),
        };
        let gone = Input::AgentGone { agent: self.id, reason, stderr_tail: tail(&self.log) };
        let _ = self.inputs.send(gone);
    }

    fn spawn(&self) -> io::Result<(UnixListener, Child)> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "its command line is empty"));
        };
        let listener = UnixListener::bind(&self.socket)?;
        let log = File::create(&self.log)?;
        // Its own process group: a Ctrl-C at the terminal reaches the client alone, which ends its tasks in order.
        let child = Command::new(program)
            .args(arguments)
            .arg("--socket")
            .arg(&self.socket)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        Ok((listener, child))
    }

    /// Passes messages on until the connection ends.
    async fn talk(&self, listener: UnixListener, mut messages: UnboundedReceiver<ToAgent>) -> io::Result<()> {
        let (stream, _) = listener.accept().await?;
        let (reader, writer) = UnixStream::into_split(stream);
        let mut reader = FramedRead::new(reader, codec());
        let mut writer = FramedWrite::new(writer, codec());

        let Some(hello) = reader.next().await else { return Ok(()) };
        match decode(&hello?)? {
            FromAgent::Hello { protocol: PROTOCOL, pid } => {
                writer.send(encode(&self.configure)?).await?;
                let _ = self.inputs.send(Input::AgentUp { agent: self.id, pid });
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks another protocol")),
        }
        let write = async {
            while let Some(message) = messages.recv().await {
                writer.send(encode(&message)?).await?;
            }
            // The leader is ending; the agent's end of the connection ends this conversation.
            std::future::pending::<io::Result<()>>().await
        };
        let read = async {
            while let Some(frame) = reader.next().await {
                if let FromAgent::Rank { task, attempt, rank, at, news } = decode(&frame?)? {
                    let at = at.saturating_sub(self.start);
                    let _ = self.inputs.send(Input::Rank { agent: self.id, task, attempt, rank, at, news });
                }
            }
            Ok(())
        };
        tokio::select! {
            result = read => result,
            result = write => result,
        }
    }

    /// Makes sure that it is dead and says how it died.
    async fn last_words(&self, mut child: Child, broken: Option<io::Error>) -> String {
        if broken.is_some() {
            let _ = child.start_kill();
        }
        let status = match timeout(LAST_BREATH, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                let _ = child.start_kill();
                child.wait().await
            }
        };
        match (broken, status) {
            (Some(error), _) => error.to_string(),
            (None, Ok(status)) => format!("it {}", cause(status)),
            (None, Err(error)) => error.to_string(),
        }
    }
}

/// Creates a directory that only its owner may enter.
pub(crate) fn private_dir(dir: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let create = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    create.map_err(crate::Error::io("create", dir))?;
    let private = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    private.map_err(crate::Error::io("restrict access to", dir))?;
    dir.canonicalize().map_err(crate::Error::io("resolve", dir))
}
