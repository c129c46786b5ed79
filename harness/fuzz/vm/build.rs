//! Builds the payload for fuzzing, a workspace of its own, with the cargo and the toolchain that build this.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the outer build says about how to compile is not meant for the payload.
const OUTER: [&str; 9] = [
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

fn main() {
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
    let target = out.join("payload-target");
    let built = build(&here.join("../../microvm/payload/Cargo.toml"), &target);
    fs::copy(&built, out.join("payload")).unwrap_or_else(|error| {
        panic!("cannot copy {}: {error}", built.display());
    });
}

/// The built payload.
fn build(manifest: &Path, target: &Path) -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets it");
    let mut command = Command::new(cargo);
    for variable in OUTER {
        command.env_remove(variable);
    }
    command
        .env("RUSTFLAGS", FRAMES)
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
