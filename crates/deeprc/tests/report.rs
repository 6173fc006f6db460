//! The report: complete, self-contained, and drawn by a real browser.

#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use deeprc::pipeline::RunRecord;
use deeprc::report;
use serde_json::Value;

fn golden() -> RunRecord {
    serde_json::from_str(include_str!("fixtures/run.json")).unwrap()
}

fn page() -> String {
    let logs = [("session/tasks/14-fit/rank-1.err", "RuntimeError: </script><script>alert(1)</script> <!-- \u{1b}[31m")];
    report::render(&golden(), &BTreeMap::from(logs.map(|(path, text)| (path.into(), text.into()))))
}

#[test]
fn every_section_is_there() {
    let page = page();
    let sections = ["summary", "errors", "metrics", "forecasts", "curves", "timeline", "stages", "tasks", "configuration", "environment"];
    for id in sections {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    assert!(page.contains("<title>forecast+ddp-1 · Deep RC</title>"));
}

#[test]
fn the_data_survive_embedding() {
    let page = page();
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(serde_json::from_value::<RunRecord>(data["record"].clone()).unwrap(), golden());
    let log = data["logs"]["session/tasks/14-fit/rank-1.err"].as_str().unwrap();
    assert!(log.contains("</script><script>alert(1)</script> <!-- "));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let page = page();
    let before_data = page.split("id=\"data\">").next().unwrap();
    for loads in ["src=", "@import", "url(", "href=\"http", "<iframe", "<object", "<embed"] {
        assert!(!before_data.contains(loads), "{loads}");
    }
    for loads in ["fetch(", "XMLHttpRequest", "import(", "new WebSocket", "sendBeacon"] {
        assert!(!page.contains(loads), "{loads}");
    }
    assert!(page.contains("content=\"default-src 'none';"));
    assert!(page.len() < 300_000, "{} bytes", page.len());
}

#[test]
fn logs_are_found_beside_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let record = golden();
    let log = record.tasks.iter().flat_map(|task| &task.logs).next().unwrap();
    std::fs::create_dir_all(dir.path().join(log).parent().unwrap()).unwrap();
    std::fs::write(dir.path().join(log), "400 steps\n").unwrap();
    let path = report::write(&record, dir.path()).unwrap();
    assert!(std::fs::read_to_string(path).unwrap().contains("400 steps\\n"));
}

fn browser() -> Option<PathBuf> {
    let dirs = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&dirs).flat_map(|dir| names.map(|name| dir.join(name))).find(|path| path.is_file())
}

/// The page after its scripts have run, and what the browser said.
fn drawn_by(browser: &Path, page: &Path, profile: &Path) -> (String, String) {
    let quiet =
        ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-extensions"];
    let child = Command::new(browser)
        .args(quiet)
        .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000", "--dump-dom", "--window-size=1280,2400"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let output = wait.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-9", &id]).status();
        panic!("the browser did not end within 120 s")
    });
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr))
}

/// The page without its data and scripts.
fn visible(dom: &str) -> &str {
    dom.split("id=\"data\"").next().unwrap()
}

#[test]
fn a_browser_draws_every_chart() {
    let Some(browser) = browser() else {
        println!("skipped: no Chromium on the search path (`make setup` installs one)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.html");
    std::fs::write(&file, page()).unwrap();
    let (dom, said) = drawn_by(&browser, &file, &dir.path().join("profile"));
    let complaints: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(dom.contains("data-drawn=\"all\""), "not everything was drawn: {:.300}", dom);
    assert_eq!(dom.matches("<canvas").count(), 2, "forecasts and learning curves");
    assert!(dom.matches("<rect").count() > 14 * 4, "timeline");
    for text in
        ["40 % below baseline", ">best<", "Show as a table", "✗ ddp · stage fit · rank 1", "only failed", "login-3", "seasonal-naive"]
    {
        assert!(visible(&dom).contains(text), "{text}");
    }
    assert!(!visible(&dom).contains("undefined") && !visible(&dom).contains("NaN"), "a value was not found");
}

#[test]
fn a_run_that_failed_at_once_has_a_report() {
    let Some(browser) = browser() else {
        println!("skipped: no Chromium on the search path (`make setup` installs one)");
        return;
    };
    let mut record = golden();
    record.tasks.clear();
    record.metrics.clear();
    record.curves.clear();
    record.forecasts.clear();
    record.overhead_ms = Default::default();
    record.first_task_ms = None;
    record.first_step_ms = None;
    let dir = tempfile::tempdir().unwrap();
    let file = report::write(&record, dir.path()).unwrap();
    let (dom, said) = drawn_by(&browser, &file, &dir.path().join("profile"));
    assert!(!said.contains("CONSOLE") && dom.contains("data-drawn=\"all\""), "{said}");
    assert!(!visible(&dom).contains("NaN"));
}
