//! Files in memory and the windows domains have on them.
//!
//! The machine's memory is one file, the port pages another. A domain maps what its placement
//! grants it and closes the files; from then on its mappings are its wall.

use cofferdam_machine::frames::{FRAME, MEMORY, Run};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// Where every domain sees physical address 0 of the machine. The frames a domain may not touch
/// are reserved address space there, so a wild store faults instead of hitting its own heap.
pub const WINDOW: usize = 0x5c00_0000_0000;

/// A file of `bytes` bytes that lives as long as somebody has it open or mapped.
pub fn file(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(|errno| {
        let remedy = "run where memory files are permitted (a container policy may deny them)";
        io::Error::new(
            io::Error::from(errno).kind(),
            format!("memfd_create failed: {errno}; {remedy}"),
        )
    })?;
    nix::unistd::ftruncate(&fd, i64::try_from(bytes).map_err(io::Error::other)?)?;
    Ok(fd)
}

/// Maps `len` bytes of `fd` from `offset`, shared and writable, for the rest of the process's
/// life.
pub fn map(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            i64::try_from(offset).map_err(io::Error::other)?,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mmap returned null"))
}

/// Takes back what [`map`] made.
///
/// # Safety
///
/// `at` and `len` are those of a mapping that nobody uses any more.
pub unsafe fn unmap(at: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise. A mapping that stays only costs memory.
    unsafe { libc::munmap(at.as_ptr().cast(), len) };
}

/// A domain's window on the machine's memory.
///
/// Not `Send`: it belongs to the one thread of the domain that made it.
#[derive(Clone, Copy)]
pub struct Window {
    base: NonNull<u8>,
}

impl Window {
    /// Reserves the window and maps `runs` of the memory file into it.
    pub fn open(memory: BorrowedFd<'_>, runs: &[Run]) -> io::Result<Self> {
        let reserve = |at: usize, len: usize, prot, flags, fd, offset: u64| {
            // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping; MAP_FIXED below replaces only
            // pages of the reservation made first.
            let got = unsafe {
                libc::mmap(
                    at as *mut _,
                    len,
                    prot,
                    flags,
                    fd,
                    i64::try_from(offset).unwrap_or(-1),
                )
            };
            if got == libc::MAP_FAILED {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        };
        let whole = usize::try_from(MEMORY).map_err(io::Error::other)?;
        let hidden = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        reserve(
            WINDOW,
            whole,
            libc::PROT_NONE,
            hidden | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )?;
        for run in runs {
            let bytes = run.bytes();
            let start = usize::try_from(bytes.start).map_err(io::Error::other)?;
            let len = usize::try_from(bytes.end - bytes.start).map_err(io::Error::other)?;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            reserve(
                WINDOW + start,
                len,
                access,
                flags,
                memory.as_raw_fd(),
                bytes.start,
            )?;
        }
        let base =
            NonNull::new(WINDOW as *mut u8).ok_or_else(|| io::Error::other("window at 0"))?;
        Ok(Self { base })
    }

    /// Takes a page out of the window, for good: its address is reserved from then on, as that of a
    /// frame the domain never had. Nobody may hold a reference to its bytes.
    pub fn give_up(self, phys: u64) -> io::Result<()> {
        let at = self.pointer(phys / FRAME * FRAME);
        let len = usize::try_from(FRAME).map_err(io::Error::other)?;
        let hidden = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: replaces one page of this window, of which nothing in this process is a reference
        // into, by the caller's promise.
        let got = unsafe {
            libc::mmap(
                at.as_ptr().cast(),
                len,
                libc::PROT_NONE,
                hidden | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if got == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Where the domain sees a physical address. Whether it may touch it is the mapping's business.
    pub fn pointer(self, phys: u64) -> NonNull<u8> {
        assert!(phys < MEMORY, "physical address {phys:#x} is beyond memory");
        // SAFETY: the offset is inside the reserved window, one allocation.
        unsafe { self.base.add(usize::try_from(phys).unwrap_or(0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_machine::frames::{Owner, Use, run_of};
    use std::os::fd::AsFd;

    #[test]
    fn window_shows_granted_frames_of_the_file() {
        let memory = file(c"test", MEMORY).expect("memfd");
        let run = *run_of(Owner::Tenant1, Use::Ring).expect("run");

        let window = Window::open(memory.as_fd(), &[run]).expect("window");
        // SAFETY: the frame was just mapped and nobody else uses it.
        unsafe { window.pointer(run.bytes().start).write_volatile(7) };

        let mut byte = [0];
        nix::sys::uio::pread(
            &memory,
            &mut byte,
            i64::try_from(run.bytes().start).expect("small"),
        )
        .expect("pread");
        assert_eq!(byte, [7]);
    }
}
