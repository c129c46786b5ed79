//! Links the payload as a program without an operating system, at the addresses of `payload.ld`.

fn main() {
    println!("cargo:rerun-if-changed=payload.ld");
    let directory = env!("CARGO_MANIFEST_DIR");
    let script = format!("-Wl,-T{directory}/payload.ld,--build-id=none");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", &script] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
