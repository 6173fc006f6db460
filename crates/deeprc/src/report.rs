//! `report.html`: one self-contained file with the whole run in it.
//!
//! The page is the same for every run; what differs is one JSON object inside it, `{record, logs}`. The drawing is
//! done in the reader's browser by `assets/report.js` with uPlot. Nothing is ever loaded from elsewhere, and the page
//! forbids itself to (`Content-Security-Policy`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use deeprc_pipeline::RunRecord;
use serde_json::json;

const PAGE: &str = include_str!("../assets/report.html");
const STYLE: [&str; 2] = [include_str!("../assets/uplot/uPlot.min.css"), include_str!("../assets/report.css")];
const UPLOT: &str = include_str!("../assets/uplot/uPlot.iife.min.js");
const SCRIPT: [&str; 2] = [include_str!("../assets/charts.js"), include_str!("../assets/report.js")];

/// Longest tail of one log file in the report. 8 KiB are about a hundred lines, a traceback and what led to it.
const LOG_TAIL: u64 = 8 << 10;
/// All tails together, so that a run of thousands of tasks still gives a page that opens at once.
const ALL_TAILS: usize = 2 << 20;

/// Renders the record with the log tails that [`tails`] found.
pub fn render(record: &RunRecord, tails: &BTreeMap<String, String>) -> String {
    let data = json!({ "record": record, "logs": tails }).to_string();
    // Inside <script> only `</script` and `<!--` could end or change the element; JSON allows both to be escaped.
    let data = data.replace("</", "<\\/").replace("<!--", "<\\u0021--");
    let title = format!("{} · Deep RC", escape(&record.name));
    fill(PAGE, |name| match name {
        "version" => env!("CARGO_PKG_VERSION").to_string(),
        "title" => title.clone(),
        "style" => STYLE.concat(),
        "uplot" => UPLOT.to_string(),
        "script" => SCRIPT.join("\n"),
        "data" => data.clone(),
        _ => String::new(),
    })
}

/// Reads the run's logs (their ends) and writes `report.html` into its directory.
///
/// # Errors
/// The report could not be written. A log that cannot be read is left out.
pub fn write(record: &RunRecord, dir: &Path) -> io::Result<std::path::PathBuf> {
    let path = dir.join("report.html");
    std::fs::write(&path, render(record, &tails(record, dir)))?;
    Ok(path)
}

/// The ends of all log files that are not empty, by the path that the record gives them; failed tasks' first.
pub fn tails(record: &RunRecord, dir: &Path) -> BTreeMap<String, String> {
    let mut tasks: Vec<_> = record.tasks.iter().collect();
    tasks.sort_by_key(|task| task.outcome == "done");
    let mut all = BTreeMap::new();
    let mut size = 0;
    for log in tasks.iter().flat_map(|task| &task.logs) {
        let Ok(text) = tail(&dir.join(log)) else { continue };
        size += text.len();
        if size > ALL_TAILS {
            break;
        }
        if !text.is_empty() {
            all.insert(log.display().to_string(), text);
        }
    }
    all
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(LOG_TAIL);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    if skipped == 0 {
        return Ok(text.into_owned());
    }
    let whole_lines = text.split_once('\n').map_or(&*text, |(_, rest)| rest);
    Ok(format!("… {skipped} bytes before this are in the file\n{whole_lines}"))
}

/// Replaces every `{{name}}` once, from left to right: what is inserted is never searched again.
fn fill(page: &str, value: impl Fn(&str) -> String) -> String {
    let mut parts = page.split("{{");
    let mut text = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("the page closes its placeholders");
        text.push_str(&value(name));
        text.push_str(rest);
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_in_values_stay() {
        let page = fill("a {{x}} b {{y}} c", |name| match name {
            "x" => "{{y}}".into(),
            _ => "1".into(),
        });
        assert_eq!(page, "a {{y}} b 1 c");
    }

    #[test]
    fn long_logs_are_cut_at_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "0123456789\n".repeat(2000)).unwrap();
        let text = tail(&path).unwrap();
        assert!(text.starts_with("… 13808 bytes before this are in the file\n0123456789\n"), "{}", &text[..80]);
        assert!(text.len() as u64 <= LOG_TAIL + 64);
    }
}
