//! What a program is told that asks for NCCL where it is not, or where there is no GPU.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use deeprc_comm::{Deadline, Nccl, NcclLibrary, Rendezvous, Store, StoreServer};

#[test]
fn a_missing_library_is_named() {
    let error = NcclLibrary::at(Path::new("/nowhere/libnccl.so.2")).unwrap_err().to_string();
    assert_eq!(
        error,
        "NCCL failed to be loaded: /nowhere/libnccl.so.2: cannot open shared object file: No such file or directory\n\
         hint: libtorch with CUDA brings one; else install libnccl2, or put its directory into LD_LIBRARY_PATH"
    );
}

#[test]
fn another_library_is_not_taken_for_nccl() {
    let error = NcclLibrary::at(Path::new("libc.so.6")).unwrap_err().to_string();
    assert_eq!(error, "NCCL failed to find ncclGetVersion: the library has no such function\nhint: install a newer one");
}

/// With the NCCL of the Python package, where `make setup-python` installed it.
#[test]
fn a_missing_gpu_is_named() {
    let Some(file) = wheel() else { return eprintln!("skipped: no libnccl.so.2 in .venv (`make setup-python`)") };
    let library = NcclLibrary::at(&file).unwrap();
    assert!(library.version().starts_with("2."), "{}", library.version());
    assert_eq!(NcclLibrary::find().unwrap().version(), library.version(), "the copy that is loaded already");
    let server = StoreServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "").unwrap();
    let store = Store::connect(server.address(), Deadline::new("connect", Duration::from_secs(60))).unwrap();
    match Nccl::connect(library, 0, &Rendezvous::through(server.address().clone(), "t/0", 0, 1), &store) {
        Ok(alone) => eprintln!("there is a GPU: {alone:?}"),
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("CUDA failed to "), "{error}");
            let no_driver = "CUDA failed to find a GPU: libcuda.so.1: cannot open shared object file: No such file or directory\n\
                             hint: this needs an NVIDIA GPU and its driver; without, use another transport";
            assert!(error == no_driver || !error.contains("libcuda.so.1"), "{error}");
        }
    }
}

fn wheel() -> Option<PathBuf> {
    let pythons = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/lib")).ok()?;
    let files = pythons.filter_map(Result::ok).map(|python| python.path().join("site-packages/nvidia/nccl/lib/libnccl.so.2"));
    files.into_iter().find(|file| file.exists())
}
