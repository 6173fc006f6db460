//! `deeprc` never links libtorch: a user's own PyTorch of any version must be able to live beside it.

use std::process::Command;

#[test]
fn deeprc_links_no_libtorch() {
    let output = Command::new("ldd").arg(env!("CARGO_BIN_EXE_deeprc")).output().unwrap();
    let libraries = String::from_utf8(output.stdout).unwrap();
    assert!(libraries.contains("libc.so"), "{libraries}");
    for library in ["torch", "c10", "cuda"] {
        assert!(!libraries.contains(library), "{libraries}");
    }
}
