//! The zygote of the benches: `cofferdam` is its own.

fn main() {
    if std::env::args().nth(1).as_deref() == Some(cofferdam_placement::zygote::ARGUMENT) {
        cofferdam_placement::zygote::main();
    }
    eprintln!("this program only serves benches: use `cargo bench`");
    std::process::exit(2);
}
