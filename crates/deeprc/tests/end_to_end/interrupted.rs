//! Runs that are cut off: kill -9 of a rank, of the agent, of deeprc itself, and Ctrl-C.

use crate::place::{MODEL, Place, TABLES, can_train, read, signal};

/// Waits in the middle of its work as long as there is no file `go`; says so through the FIFO `started`.
fn patient(place: &Place) -> String {
    let (started, blocked) = (place.fifo("started"), place.fifo("blocked"));
    let (started, blocked, go) = (started.display(), blocked.display(), place.path().join("go"));
    let script = format!("test -e {} && exit 0; echo up > {started}; read line < {blocked}", go.display());
    format!("[stage.patient]\nkind = \"command\"\nprogram = \"sh\"\narguments = [\"-c\", \"{script}\"]\n")
}

#[test]
fn ctrl_c_saves_the_state_and_resume_goes_on() {
    let place = Place::new();
    let after_tables = patient(&place).replace("exit 0;", "exit 0; : ${stage.parts};");
    place.pipeline("patient", &[TABLES, &after_tables]);
    let running = place.start(&["run", "patient.toml", "--json"]);
    assert_eq!(read(&place.path().join("started")), "up\n");
    running.signal("INT");
    let ended = running.end().expect(130, &["stopping:", "◼ interrupted", "deeprc run --resume runs/patient-1"]);
    assert_eq!(ended.json()["run"], "runs/patient-1");
    place.write("go", "");
    place.deeprc(&["run", "--resume", "runs/patient-1"]).expect(0, &["parts: reused", "patient: done", "1 tasks"]);
}

#[test]
fn a_second_ctrl_c_kills() {
    let place = Place::new();
    // It ignores the polite signal, so that only the second Ctrl-C can end the run at once.
    place.pipeline("stubborn", &[&patient(&place).replace("test -e", "trap '' TERM; test -e")]);
    let mut running = place.start(&["run", "stubborn.toml"]);
    assert_eq!(read(&place.path().join("started")), "up\n");
    running.signal("INT");
    running.until("Ctrl-C again kills");
    running.signal("INT");
    running.end().expect(130, &[]);
}

#[test]
fn a_killed_agent_is_replaced_and_the_task_goes_again() {
    let place = Place::new();
    let again = patient(&place).replace("test -e", "test $DEEPRC_ATTEMPT = 2 && exit 0; test -e") + "retries = 1\n";
    place.pipeline("again", &[&again]);
    let running = place.start(&["run", "again.toml", "--json"]);
    assert_eq!(read(&place.path().join("started")), "up\n");
    let agents = running.below(&["deeprc", "agent"]);
    assert_eq!(agents.len(), 1);
    signal(agents[0], "KILL");
    let ended = running.end().expect(0, &["patient: runs on 1 rank, attempt 2"]);
    assert_eq!(ended.json()["tasks"], 2, "both attempts are in the record");
}

/// A training long enough to be killed in its middle: 4000 steps take some seconds.
const LONG: &str = "max_steps = 4000\ncheckpoint_every = 100";

#[test]
fn a_killed_training_resumes_to_the_same_result() {
    if !can_train() {
        return;
    }
    let place = Place::new();
    place.pipeline("long", &[TABLES, &MODEL.replace("max_steps = 60", LONG)]);
    let undisturbed = place.deeprc(&["run", "long.toml", "--json", "--dir", "undisturbed"]).expect(0, &[]).json();

    let mut running = place.start(&["run", "long.toml", "--json"]);
    running.until("fit: step 1");
    let ranks = running.below(&["deeprc-forecast", "rank"]);
    assert!(!ranks.is_empty());
    ranks.iter().for_each(|&rank| signal(rank, "KILL"));
    let killed = running.end().expect(1, &["rank 0 was killed by signal 9 (SIGKILL)", "forecast: skipped", "resume:"]);
    assert_eq!(killed.json()["status"], "failed");

    let resumed = place.deeprc(&["run", "--resume", "--json"]).expect(0, &["parts: reused", "fit: done"]).json();
    assert_eq!(resumed["metrics"], undisturbed["metrics"]);
}

#[test]
fn a_killed_deeprc_leaves_no_process_and_can_be_resumed() {
    let place = Place::new();
    let after_tables = patient(&place).replace("exit 0;", "exit 0; : ${stage.parts};");
    place.pipeline("patient", &[TABLES, &after_tables]);
    let running = place.start(&["run", "patient.toml"]);
    assert_eq!(read(&place.path().join("started")), "up\n");
    let below = running.below(&[]);
    assert!(below.len() >= 2, "the agent and the task at least");
    running.signal("KILL");
    assert_eq!(running.end().code, None);
    // stdout and stderr of the session are closed by now only if nobody holds them; the processes end with the kernel's
    // signal, which is sent but perhaps not yet carried out: wait for each by its pidfd.
    for id in below {
        ended(id);
    }
    place.write("go", "");
    place.deeprc(&["run", "--resume"]).expect(0, &["parts: reused", "patient: done"]);
}

/// Waits until a process that is no child of ours has ended.
fn ended(id: u32) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let Ok(process) = pidfd_open(Pid::from_raw(id as i32).unwrap(), PidfdFlags::empty()) else { return };
    let seconds = Timespec { tv_sec: 20, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&seconds)).unwrap();
    let line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
    assert_eq!(ready, 1, "process {id} outlived deeprc by 20 s: {line}");
}
