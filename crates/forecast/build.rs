//! With the feature `torch`: checks libtorch, compiles the C++ shim and tells the linker where libtorch lies at run time.
//! Without it: nothing.

use std::path::{Path, PathBuf};

/// tch 0.24.0 is generated from this release; another one fails to compile or, worse, misreads memory.
const VERSION: &str = "2.11.0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=shim/shim.cpp");
    println!("cargo:rerun-if-changed=shim/kernels.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if std::env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    // torch-sys (links = "tch") has found libtorch: <torch>/lib.
    let lib = PathBuf::from(std::env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys is a direct dependency"));
    let torch = lib.parent().expect("the library folder lies in the package").to_owned();
    check_version(&torch);
    let include = torch.join("include");
    let mut shim = cc::Build::new();
    shim.cpp(true).std("c++17").warnings(false).include(&include).include(include.join("torch/csrc/api/include"));
    shim.define("_GLIBCXX_USE_CXX11_ABI", "1");
    shim.clone().opt_level(1).file("shim/shim.cpp").compile("deeprc_forecast_shim");
    // Sums may be taken in any order, as in libtorch's own kernels; infinities and NaN keep their meaning.
    let reorder = ["-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros", "-freciprocal-math"];
    let kernels = reorder.iter().fold(shim.opt_level(3), |kernels, flag| kernels.flag_if_supported(flag));
    // Vectors are passed between functions that are always inlined, so that no ABI is at stake.
    kernels.flag_if_supported("-Wno-psabi").flag("-fopenmp").file("shim/kernels.cpp").compile("deeprc_forecast_kernels");
    // libtorch's own threads: it ships the library under this name.
    println!("cargo:rustc-link-lib=gomp");
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    // The folder as it is now, then the checkout's link relative to target/release, so that a moved checkout still runs.
    let canonical = lib.canonicalize().unwrap_or(lib);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", canonical.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../../.libtorch/lib");
}

fn check_version(torch: &Path) {
    let file = torch.join("version.py");
    println!("cargo:rerun-if-changed={}", file.display());
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("__version__")).unwrap_or("");
    let found = line.split(['\'', '"']).nth(1).unwrap_or("unknown");
    assert!(
        found.split('+').next() == Some(VERSION),
        "libtorch at {} is version {found}, but {VERSION} is needed\nhint: `make setup` installs it and links .libtorch to it",
        torch.display()
    );
}
