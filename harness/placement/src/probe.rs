//! What a domain tries when the jail itself is under test: everything it must be refused.

use std::io;

/// One attempt: its name, and the system call.
type Attempt = (&'static str, fn() -> libc::c_long);

/// Attempts that would break a wall. Arguments are real where that costs nothing: the seccomp
/// filter decides before the kernel looks at them, and EPERM shows that it did.
const ATTEMPTS: [Attempt; 26] = [
    ("mmap of a file", || {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        call(
            libc::SYS_mmap,
            [0, 4096, prot.into(), libc::MAP_SHARED.into(), 3, 0],
        )
    }),
    ("mmap of executable memory", || {
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        call(libc::SYS_mmap, [0, 4096, prot.into(), flags.into(), -1, 0])
    }),
    // KVM's, of Linux's api.rst, on the descriptors a domain with a guest has.
    ("KVM_CREATE_VM", || ioctl(0, 0xae01)),
    ("KVM_CREATE_VCPU", || ioctl(1, 0xae41)),
    ("KVM_SET_USER_MEMORY_REGION", || ioctl(1, 0x4020_ae46)),
    ("KVM_SET_SREGS", || ioctl(2, 0x4138_ae84)),
    ("KVM_GET_MSRS", || ioctl(2, 0xc008_ae88)),
    ("mprotect", || {
        call(
            libc::SYS_mprotect,
            [0, 4096, libc::PROT_EXEC.into(), 0, 0, 0],
        )
    }),
    ("memfd_create", || {
        call(
            libc::SYS_memfd_create,
            [c"x".as_ptr() as i64, 0, 0, 0, 0, 0],
        )
    }),
    ("process_vm_readv", || {
        call(libc::SYS_process_vm_readv, [parent(), 0, 0, 0, 0, 0])
    }),
    ("process_vm_writev", || {
        call(libc::SYS_process_vm_writev, [parent(), 0, 0, 0, 0, 0])
    }),
    ("ptrace", || {
        call(
            libc::SYS_ptrace,
            [libc::PTRACE_ATTACH.into(), parent(), 0, 0, 0, 0],
        )
    }),
    ("pidfd_open", || {
        call(libc::SYS_pidfd_open, [parent(), 0, 0, 0, 0, 0])
    }),
    ("pidfd_getfd", || {
        call(libc::SYS_pidfd_getfd, [3, 3, 0, 0, 0, 0])
    }),
    ("open of /proc/1/mem", || open(c"/proc/1/mem")),
    ("open of /proc/self/mem", || open(c"/proc/self/mem")),
    ("open of a file", || open(c"/etc/hostname")),
    ("kill", || call(libc::SYS_kill, [parent(), 0, 0, 0, 0, 0])),
    ("tgkill", || {
        call(libc::SYS_tgkill, [parent(), parent(), 0, 0, 0, 0])
    }),
    ("socket", || {
        call(
            libc::SYS_socket,
            [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0, 0, 0, 0],
        )
    }),
    ("fork", || {
        call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0])
    }),
    ("execve", || {
        call(
            libc::SYS_execve,
            [c"/bin/true".as_ptr() as i64, 0, 0, 0, 0, 0],
        )
    }),
    ("setuid", || call(libc::SYS_setuid, [0, 0, 0, 0, 0, 0])),
    ("prctl", || {
        call(
            libc::SYS_prctl,
            [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0, 0],
        )
    }),
    ("shmget", || call(libc::SYS_shmget, [1, 4096, 0, 0, 0, 0])),
    ("io_uring_setup", || {
        call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0])
    }),
];

fn call(number: libc::c_long, [a, b, c, d, e, f]: [i64; 6]) -> libc::c_long {
    // SAFETY: none of the attempts hands the kernel memory to write to, and none may succeed.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}

fn open(path: &std::ffi::CStr) -> libc::c_long {
    call(
        libc::SYS_openat,
        [
            libc::AT_FDCWD.into(),
            path.as_ptr() as i64,
            libc::O_RDONLY.into(),
            0,
            0,
            0,
        ],
    )
}

fn ioctl(descriptor: i64, request: i64) -> libc::c_long {
    call(libc::SYS_ioctl, [descriptor, request, 0, 0, 0, 0])
}

/// A process that exists and is none of the domain's business. Its number is the domain's to guess:
/// `getppid` is refused too.
fn parent() -> i64 {
    1
}

/// Tries everything and tells, one attempt a line, what came of it: `EPERM`, another error, or
/// `allowed`.
pub fn attempt_everything() -> String {
    let mut told = String::new();
    for (index, (_, attempt)) in ATTEMPTS.iter().enumerate() {
        let outcome = match attempt() {
            -1 => match io::Error::last_os_error().raw_os_error() {
                Some(libc::EPERM) => "EPERM".to_owned(),
                other => format!("errno {}", other.unwrap_or(0)),
            },
            _ => "allowed".to_owned(),
        };
        told.push_str(&format!("{index} {outcome}\n"));
    }
    told
}

/// Reads what [`attempt_everything`] told: each attempt's name and outcome.
pub fn read_attempts(told: &str) -> Vec<(String, String)> {
    told.lines()
        .filter_map(|line| {
            let (index, outcome) = line.split_once(' ')?;
            let (name, _) = ATTEMPTS.get(index.parse::<usize>().ok()?)?;
            Some(((*name).to_owned(), outcome.to_owned()))
        })
        .collect()
}

/// How many attempts there are.
pub const COUNT: usize = ATTEMPTS.len();
