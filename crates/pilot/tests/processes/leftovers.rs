//! Nothing outlives its session, however that ends.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use deeprc_pilot::{Event, Outcome, Session};
use serde_json::{Value, json};

use crate::{
    bed::{Bed, LONG, function, kill, options, processes, role, shell, wait_for_end},
    cases,
    runner::Case,
};

pub const CASES: &[Case] = cases![
    closing_a_session_ends_everything,
    dropping_a_session_ends_everything,
    a_killed_client_takes_everything_with_it,
    a_killed_agent_takes_the_children_of_programs_with_it,
    a_program_takes_its_children_with_it,
    a_closed_session_reports_canceled_tasks,
];

/// The session's scratch directory, which every process of it has in its environment or command line.
fn mark(bed: &Bed) -> String {
    let result = bed.done(function("echo", Value::Null)).results.remove(0);
    let rendezvous = Path::new(result["rendezvous"].as_str().unwrap()).to_path_buf();
    rendezvous.parent().unwrap().display().to_string()
}

const WITH_CHILD: &str = "sleep 1000 & touch child; exec sleep 1000";

/// A session in which a function, and a program with a child, run.
fn busy() -> (Bed, String) {
    let bed = Bed::new(3);
    let mark = mark(&bed);
    bed.submit(shell(WITH_CHILD));
    bed.done(function("until_file", json!(bed.file("child"))));
    let stubborn = bed.submit(function("stubborn", Value::Null));
    bed.started(stubborn);
    assert!(processes(&mark).len() >= 4, "agent, ranks, program: {:?}", processes(&mark));
    (bed, mark)
}

fn closing_a_session_ends_everything() {
    let (bed, mark) = busy();
    bed.session.close().unwrap();
    assert_eq!(processes(&mark), Default::default());
    assert!(!Path::new(&mark).exists());
}

fn dropping_a_session_ends_everything() {
    let (Bed { session, .. }, mark) = busy();
    drop(session);
    assert_eq!(processes(&mark), Default::default());
    assert!(!Path::new(&mark).exists());
}

/// The client that [`a_killed_client_takes_everything_with_it`] kills.
pub fn client(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let dir = PathBuf::from(arguments.next().unwrap());
    let session = Session::start(options(&dir.join("session"), 3)).unwrap();
    let events = session.events();
    let report = session.submit(function("echo", Value::Null)).and_then(|id| session.wait(id, LONG)).unwrap();
    session.submit(shell(WITH_CHILD).in_dir(&dir)).unwrap();
    let child = session.submit(function("until_file", json!(dir.join("child")))).unwrap();
    session.wait(child, LONG).unwrap();
    let stubborn = session.submit(function("stubborn", Value::Null)).unwrap();
    let started = |event: Event| matches!(event, Event::Started { task, .. } if task == stubborn);
    while !started(events.recv_timeout(LONG).unwrap().event) {}
    let rendezvous = report.results[0]["rendezvous"].as_str().unwrap();
    println!("{}", Path::new(rendezvous).parent().unwrap().display());
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_killed_client_takes_everything_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let role = role("--as-client");
    let client = Command::new(&role[0]).arg(&role[1]).arg(dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut client = KilledOnDrop(client);
    let mut mark = String::new();
    BufReader::new(client.0.stdout.take().unwrap()).read_line(&mut mark).unwrap();
    let mark = mark.trim();
    let found = processes(mark);
    assert!(found.len() >= 4, "agent, ranks, program: {found:?}");
    drop(client);
    found.into_keys().for_each(wait_for_end);
    assert_eq!(processes(mark), Default::default());
    assert!(!Path::new(mark).exists());
}

fn a_killed_agent_takes_the_children_of_programs_with_it() {
    let (bed, mark) = busy();
    let agent = bed.agent_pid();
    let before = processes(&mark);
    kill(agent);
    before.into_keys().for_each(wait_for_end);
}

fn a_program_takes_its_children_with_it() {
    let bed = Bed::new(1);
    let report = bed.done(shell("sleep 1000 & echo $!"));
    let child = std::fs::read_to_string(&report.logs[0]).unwrap().trim().parse().unwrap();
    wait_for_end(child);
}

fn a_closed_session_reports_canceled_tasks() {
    let bed = Bed::new(1);
    let running = bed.submit(function("until_file", json!(bed.file("never"))));
    bed.started(running);
    let waiting = bed.submit(shell("true"));
    bed.session.close().unwrap();
    let ended = bed.events.iter().filter_map(|event| match event.event {
        Event::Ended { report } => Some((report.id, report.outcome)),
        _ => None,
    });
    assert_eq!(ended.collect::<Vec<_>>(), [(running, Outcome::Canceled), (waiting, Outcome::Canceled)]);
}
