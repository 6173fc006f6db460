//! The pipelines that are shipped can be read.

use std::fs;
use std::path::{Path, PathBuf};

use deeprc_pipeline::Pipeline;

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("there is a folder of pipelines").filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "toml"));
    files.sort();
    files
}

#[test]
fn shipped_pipelines_have_no_faults() {
    let files = shipped();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        // `ett` has no data of its own.
        let source = [("source".to_owned(), "ETTh1.csv".to_owned())];
        let overrides = if file.ends_with("ett.toml") { &source[..] } else { &[] };
        let pipeline = Pipeline::load(&file, overrides).unwrap_or_else(|faults| panic!("{}", faults[0]));
        assert_eq!(pipeline.name(), file.file_stem().unwrap().to_str().unwrap());
    }
}
