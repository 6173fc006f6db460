//! With the features `gloo` and `ucx`: finds the headers of those libraries, compiles the shims and links both. Without them: nothing.

use std::{
    env,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_GLOO").is_some() {
        gloo();
    }
    if env::var_os("CARGO_FEATURE_UCX").is_some() {
        ucx();
    }
}

fn gloo() {
    let include = find("gloo/transport/tcp/pair.h", "gloo", "libgloo-dev");
    for file in ["shim.cc", "shim.h", "compat/gloo/common/memory.h"] {
        println!("cargo:rerun-if-changed=src/gloo/{file}");
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .include(include)
        // Debian's package has the headers of the TCP transport, but not this one, which they include.
        .flag("-idirafter")
        .flag("src/gloo/compat")
        .file("src/gloo/shim.cc")
        .compile("deeprc_comm_gloo");
    println!("cargo:rustc-link-lib=gloo");
    // Where `dlsym` is a library of its own, in older C libraries.
    println!("cargo:rustc-link-lib=dl");
}

fn ucx() {
    let include = find("ucp/api/ucp.h", "ucx", "libucx-dev");
    for file in ["shim.c", "shim.h"] {
        println!("cargo:rerun-if-changed=src/ucx/{file}");
    }
    cc::Build::new().std("c11").include(include).file("src/ucx/shim.c").compile("deeprc_comm_ucx");
    println!("cargo:rustc-link-lib=ucp");
    println!("cargo:rustc-link-lib=ucs");
}

/// The folder below which a header is: that of the system, or one of `CPATH`.
fn find(header: &str, feature: &str, package: &str) -> PathBuf {
    println!("cargo:rerun-if-env-changed=CPATH");
    let more = env::var_os("CPATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let mut folders = more.into_iter().chain(["/usr/include", "/usr/local/include"].map(PathBuf::from));
    folders.find(|folder| Path::new(folder).join(header).exists()).unwrap_or_else(|| {
        panic!("the feature `{feature}` of deeprc-comm needs {header}\nhint: apt-get install {package}, or add its folder to CPATH")
    })
}
