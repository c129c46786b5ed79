//! Windows served by faults: raw volatile accesses of this test, as a driver makes them.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use cofferdam_instrument::trap::{self, Way, Window};
use cofferdam_seam::{Mmio, Width};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::rc::Rc;

/// Registers that remember what was written, and every access.
struct Registers {
    bytes: RefCell<Vec<u8>>,
    seen: RefCell<Vec<String>>,
}

impl Registers {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            bytes: RefCell::new((0..64).collect()),
            seen: RefCell::default(),
        })
    }

    fn take_seen(&self) -> Vec<String> {
        self.seen.take()
    }
}

impl Mmio for Registers {
    fn read(&self, offset: u32, width: Width) -> u64 {
        self.seen
            .borrow_mut()
            .push(format!("read {offset:#x} {width:?}"));
        let mut value = [0; 8];
        let (at, len) = (offset as usize, width.bytes() as usize);
        match self.bytes.borrow().get(at..at + len) {
            Some(bytes) => value[..len].copy_from_slice(bytes),
            None => value = [0xff; 8],
        }
        u64::from_le_bytes(value)
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        let text = format!("write {offset:#x} {width:?} {value:#x}");
        self.seen.borrow_mut().push(text);
        let (at, len) = (offset as usize, width.bytes() as usize);
        if let Some(bytes) = self.bytes.borrow_mut().get_mut(at..at + len) {
            bytes.copy_from_slice(&value.to_le_bytes()[..len]);
        }
    }

    fn len(&self) -> u64 {
        64
    }
}

fn window(of: &Rc<Registers>) -> Window {
    Window::new(of.clone(), Way::Faults).expect("x86-64 Linux")
}

#[test]
fn volatile_accesses_reach_the_target() {
    let registers = Registers::new();
    let window = window(&registers);
    let first = window.pointer();

    // SAFETY: inside the window.
    let (byte, word, long, quad) = unsafe {
        first.add(0x31).write_volatile(0xaa);
        first.add(0x10).cast::<u32>().write_volatile(0xdead_beef);
        first.add(0x18).cast::<u64>().write_volatile(u64::MAX);
        (
            first.add(0x31).read_volatile(),
            first.add(4).cast::<u16>().read_volatile(),
            first.add(0x10).cast::<u32>().read_volatile(),
            first.add(0x18).cast::<u64>().read_volatile(),
        )
    };

    assert_eq!(
        (byte, word, long, quad),
        (0xaa, 0x0504, 0xdead_beef, u64::MAX)
    );
    let expected = [
        "write 0x31 One 0xaa",
        "write 0x10 Four 0xdeadbeef",
        "write 0x18 Eight 0xffffffffffffffff",
        "read 0x31 One",
        "read 0x4 Two",
        "read 0x10 Four",
        "read 0x18 Eight",
    ];
    assert_eq!(registers.take_seen(), expected);
}

#[test]
fn crate_that_is_not_instrumented_is_trapped_by_faults() {
    assert_eq!(Way::of("no_such_crate"), Way::Faults);
}

#[test]
fn the_window_that_is_touched_answers() {
    let (one, two, three) = (Registers::new(), Registers::new(), Registers::new());
    let (first, second, third) = (window(&one), window(&two), window(&three));

    // SAFETY: inside the windows.
    unsafe { second.pointer().write_volatile(1) };
    drop(second);
    // SAFETY: as above.
    unsafe {
        first.pointer().write_volatile(2);
        third.pointer().write_volatile(3);
    }

    assert_eq!(one.take_seen(), ["write 0x0 One 0x2"]);
    assert_eq!(two.take_seen(), ["write 0x0 One 0x1"]);
    assert_eq!(three.take_seen(), ["write 0x0 One 0x3"]);
}

type Deed = fn(&Window);

/// What a child does that must not survive it.
const DEEDS: [(&str, Deed); 5] = [
    ("a store far from every window", |_| {
        // SAFETY: none; the process must die of it.
        unsafe { (0x10_usize as *mut u8).write_volatile(1) }
    }),
    ("a store behind the window", |window| {
        // SAFETY: none; the process must die of it.
        unsafe { window.pointer().add(4096).write_volatile(1) }
    }),
    ("a jump into the window", |window| {
        // SAFETY: none; the process must die of it.
        let code: extern "C" fn() = unsafe { std::mem::transmute(window.pointer()) };
        code();
    }),
    ("an address no CPU has", |_| {
        // SAFETY: none; the process must die of it.
        unsafe { (0x8000_0000_0000_0000_usize as *mut u8).write_volatile(1) }
    }),
    ("the signal, sent", |_| {
        // SAFETY: the process must die of it.
        unsafe { libc::raise(libc::SIGSEGV) };
    }),
];

/// A deed of another kind: a store of an instrumented driver to registers that were taken back.
fn store_after_drop(registers: &Rc<Registers>) {
    unsafe extern "C" {
        fn __sanitizer_cov_store4(address: usize);
    }
    for way in [Way::Callbacks, Way::Faults] {
        let window = Window::new(registers.clone(), way).expect("x86-64 Linux");
        let first = window.pointer();
        drop(window);
        let again = Window::new(registers.clone(), way).expect("x86-64 Linux");
        // What one driver leaves is the next one's.
        assert!(way == Way::Faults || again.pointer() == first);
    }
    let window = Window::new(registers.clone(), Way::Callbacks).expect("x86-64 Linux");
    let first = window.pointer().cast::<u32>();
    drop(window);
    // SAFETY: none; the process must die of it.
    unsafe {
        __sanitizer_cov_store4(first.as_ptr() as usize);
        first.write_volatile(1);
    }
}

/// A deed of another kind: an access by an instruction that is not known.
fn vector_load(window: &Window) {
    let first = window.pointer().as_ptr();
    // SAFETY: inside the window; the process must die of it.
    unsafe { std::arch::asm!("movups xmm0, [{}]", in(reg) first, out("xmm0") _) };
}

/// Takes away what a jailed driver has not: it may change no signal's action or mask, no mapping's
/// protection, and send no signal.
fn confine() {
    let calls = [
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_mprotect,
        libc::SYS_tgkill,
        libc::SYS_kill,
    ];
    let filter = SeccompFilter::new(
        calls.into_iter().map(|call| (call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        std::env::consts::ARCH.try_into().expect("x86-64"),
    );
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
    seccompiler::apply_filter(&program).expect("seccomp");
}

/// Runs the child part of this file for that deed.
fn child(deed: usize, jailed: bool) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command
        .args(["--exact", "child_does_its_deed", "--nocapture"])
        .env("COFFERDAM_TEST_DEED", deed.to_string());
    if jailed {
        command.env("COFFERDAM_TEST_JAIL", "1");
    }
    command.output().expect("a child of this test")
}

/// Does nothing unless it runs in the child.
#[test]
fn child_does_its_deed() {
    let Some(deed) = std::env::var("COFFERDAM_TEST_DEED").ok() else {
        return;
    };
    let deed: usize = deed.parse().expect("a number");
    trap::install().expect("x86-64 Linux");
    if std::env::var_os("COFFERDAM_TEST_JAIL").is_some() {
        confine();
        // SAFETY: asks for what the filter refuses.
        let refused = unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        assert_eq!(refused, libc::SIG_ERR, "the filter is in force");
    }
    let registers = Registers::new();
    let window = window(&registers);
    // SAFETY: inside the window: the handler is there and works.
    unsafe { window.pointer().write_volatile(1) };
    assert_eq!(registers.take_seen().len(), 1);
    match DEEDS.get(deed) {
        Some((_, deed)) => deed(&window),
        None if deed == DEEDS.len() => vector_load(&window),
        None => store_after_drop(&registers),
    }
}

#[test]
fn fault_outside_every_window_kills_with_its_signal() {
    for (deed, (what, _)) in DEEDS.iter().enumerate() {
        let status = child(deed, false).status;
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{what}: {status}");
    }
}

#[test]
fn windows_work_and_faults_kill_where_signals_are_nobodys_to_change() {
    // All but the last, a signal that is sent: nobody may send one there.
    for (deed, (what, _)) in DEEDS.iter().enumerate().rev().skip(1) {
        let output = child(deed, true);
        let (status, errors) = (output.status, String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            status.signal(),
            Some(libc::SIGSEGV),
            "{what}: {status} {errors}"
        );
    }
}

#[test]
fn instrumented_access_to_registers_that_were_taken_back_kills() {
    let output = child(DEEDS.len() + 1, false);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{told}");
    assert_eq!(told, "");
}

#[test]
fn access_that_cannot_be_executed_ends_the_process_with_a_message() {
    let output = child(DEEDS.len(), false);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{told}");
    assert!(told.contains("cannot be trapped"), "{told}");
    assert!(told.contains("[0f, 10, "), "{told}");
}
