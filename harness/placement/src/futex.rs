//! Sleeping on a word of shared memory, always with a deadline.

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

fn timespec(after: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: after.subsec_nanos().into(),
    }
}

/// Sleeps while `word` holds `expected`, at most `limit`. Spurious returns are allowed: the caller
/// looks at the word again.
pub fn wait(word: &AtomicU32, expected: u32, limit: Duration) {
    let limit = timespec(limit);
    // SAFETY: the word outlives the call, the timeout is a valid timespec, and FUTEX_WAIT writes to
    // neither.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &raw const limit,
        );
    }
}

/// Wakes everybody who sleeps on `word`.
pub fn wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE uses the address as a key and does not access memory of ours.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}

/// One entry of `futex_waitv` (linux/futex.h, `struct futex_waitv`).
#[repr(C)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const FUTEX_32: u32 = 2;

/// Sleeps until one of the words no longer holds the value beside it, at most until `limit` from
/// now. Needs Linux 5.16.
pub fn wait_any(words: &[(&AtomicU32, u32)], limit: Duration) -> io::Result<()> {
    let waiters: Vec<Waiter> = words
        .iter()
        .map(|(word, value)| Waiter {
            value: u64::from(*value),
            address: word.as_ptr() as u64,
            flags: FUTEX_32,
            reserved: 0,
        })
        .collect();
    let mut until = timespec(Duration::ZERO);
    // SAFETY: `until` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut until) };
    let nanos = i64::from(limit.subsec_nanos()) + until.tv_nsec;
    until.tv_sec += timespec(limit).tv_sec + nanos / 1_000_000_000;
    until.tv_nsec = nanos % 1_000_000_000;
    // SAFETY: the waiters and the timeout outlive the call, which only reads them and the words.
    let done = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len(),
            0,
            &raw const until,
            libc::CLOCK_MONOTONIC,
        )
    };
    if done >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ETIMEDOUT | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}
