//! Builds the payload for fuzzing, a workspace of its own, with the cargo and the toolchain that build this. It
//! calls itself as rustc's wrapper, which instruments the drivers.

use cofferdam_instrument_wrapper as wrapper;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// What the outer build says about how to compile is not meant for the payload.
const OUTER: [&str; 10] = [
    wrapper::MANNER,
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CARGO_PROFILE_RELEASE_PANIC",
    "CARGO_MAKEFLAGS",
    "RUSTC",
];

/// By frame pointers the VMM finds out where a driver stands; a function that sets its up only where it calls
/// another would hide its caller.
const FRAMES: &str = "-Cforce-frame-pointers=yes -Cllvm-args=-enable-shrink-wrap=false";

/// The drivers, and the crate in which generic ones are compiled. None reaches registers by pointers of its own
/// that somebody would have to trap: the processor does it.
const DRIVERS: [&str; 6] = [
    "cofferdam_microvm_fuzzed-",
    "driver_edu-",
    "driver_nvme-",
    "driver_planted-",
    "safe_mmio-",
    "virtio_drivers-",
];

fn main() -> ExitCode {
    // Cargo starts a build script without arguments.
    if wrapper::is_asked(env::args_os().nth(1).as_deref()) {
        return wrapper::run(env::args_os().skip(1));
    }
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for watched in [
        "../../microvm/payload",
        "../../microvm/abi",
        "../../seam",
        "../../tenant",
        "../targets/virtio",
        "../../../drivers-under-test/edu",
        "../../../drivers-under-test/nvme",
        "../../../drivers-under-test/planted",
    ] {
        println!("cargo:rerun-if-changed={}", here.join(watched).display());
    }
    let target = out.join("instrumented");
    let built = build(&here.join("../../microvm/payload/Cargo.toml"), &target);
    fs::copy(&built, out.join("payload")).unwrap_or_else(|error| {
        panic!("cannot copy {}: {error}", built.display());
    });
    ExitCode::SUCCESS
}

/// The built payload.
fn build(manifest: &Path, target: &Path) -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets it");
    let myself = env::current_exe().expect("a program has a path");
    let mut command = Command::new(cargo);
    for variable in OUTER {
        command.env_remove(variable);
    }
    command
        .env("RUSTFLAGS", FRAMES)
        .env("RUSTC_WRAPPER", myself)
        .env(wrapper::VARIABLE, DRIVERS.join(","))
        .args([
            "build",
            "--profile",
            "fuzz",
            "--features",
            "fuzz",
            "--locked",
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target);
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(status.success(), "{command:?} failed: {status}");
    target.join("fuzz/payload")
}
