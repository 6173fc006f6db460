//! What tells that a file has not changed.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Path, size and time of change of a file; of a directory, those of all files below it in the order of their names.
pub(crate) fn fingerprint(path: &Path) -> String {
    let mut lines = Vec::new();
    collect(path, &mut lines);
    lines.join("\n")
}

fn collect(path: &Path, lines: &mut Vec<String>) {
    let Ok(about) = fs::metadata(path) else {
        return lines.push(format!("{} absent", path.display()));
    };
    if about.is_dir() {
        let mut inside: Vec<_> = fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        inside.sort();
        return inside.iter().for_each(|path| collect(path, lines));
    }
    let changed = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    // The whole path counts: a link or a second checkout may differ later.
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    lines.push(format!("{} {} {}", whole.display(), about.len(), changed.as_nanos()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_file_below_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/x"), "1").unwrap();
        let before = fingerprint(dir.path());
        assert_eq!(before, fingerprint(dir.path()));
        fs::write(dir.path().join("a/x"), "12").unwrap();
        assert_ne!(before, fingerprint(dir.path()));
        assert!(fingerprint(Path::new("/no/such/file")).contains("absent"));
    }
}
