//! The zygote as a program of its own, for this package's tests. `cofferdam` is its own zygote.

fn main() {
    if std::env::args().nth(1).as_deref() == Some(cofferdam_placement::zygote::ARGUMENT) {
        cofferdam_placement::zygote::main();
    }
    eprintln!("this program only serves tests: use `cofferdam`");
    std::process::exit(2);
}
