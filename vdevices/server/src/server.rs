//! The door: a socket in the file system, and one client after the other.

use crate::link::Dma;
use crate::session::{Ended, Session, Trace};
use crate::stream::Stream;
use crate::tap::{Raised, Tap};
use cofferdam_seam::{Device, RequesterId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use thiserror::Error;
use vdevice_pci::PciFunction;

/// How often an idle server looks whether it is to stop.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Why a socket could not be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody serves there.
    #[error("a server listens at {} already; give another --socket", .0.display())]
    Served(PathBuf),
    /// There is something else.
    #[error("{} is there and is no socket; give another --socket", .0.display())]
    NoSocket(PathBuf),
    /// The kernel.
    #[error("cannot listen at {}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// How to serve.
#[derive(Default)]
pub struct Options {
    /// How the device reaches memory.
    pub dma: Dma,
    /// Whether a client may map the device's page of doorbells, if it has one. A ring is then no message;
    /// the server looks at the page all the time while a client is there, which costs a CPU while
    /// there is work and wakes it a thousand times a second while there is none.
    pub map_doorbells: bool,
    /// Whether clients are shown no MSI-X: the device then interrupts by its pin. QEMU, which aborts when a
    /// device with MSI-X is taken out of it, takes out one without.
    pub pin_only: bool,
    /// Is called with a line a message.
    pub trace: Option<Trace>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dma", &self.dma)
            .field("map_doorbells", &self.map_doorbells)
            .field("pin_only", &self.pin_only)
            .finish_non_exhaustive()
    }
}

/// One device, for one client at a time.
pub struct Server {
    function: PciFunction,
    raised: Raised,
    options: Options,
    /// Device time counts from here, whoever the client is.
    started: Instant,
}

impl Server {
    /// Puts the PCI layer around a model.
    ///
    /// # Panics
    /// If the model's identity contradicts itself; see [`PciFunction::new`].
    pub fn new(device: Box<dyn Device>, options: Options) -> Self {
        let (tap, raised) = Tap::new(device, options.pin_only);
        Self {
            function: PciFunction::new(Box::new(tap), RequesterId::new(0, 1, 0)),
            raised,
            options,
            started: Instant::now(),
        }
    }

    /// Serves one client until it goes or `stop` is set.
    pub fn serve(&mut self, client: UnixStream, stop: &AtomicBool) -> Ended {
        let doorbells = self.options.map_doorbells;
        let mut session = Session::new(
            &mut self.function,
            &self.raised,
            Stream::new(client),
            self.options.dma,
            self.started,
            self.options.trace.as_mut(),
        );
        session.run(stop, doorbells)
    }

    /// Serves whoever connects at `door`, one after the other, until `stop` is set or `gone`, which
    /// hears how each session ended that began, says so.
    ///
    /// # Errors
    /// If the kernel refuses to listen.
    pub fn serve_at(
        &mut self,
        door: &Door,
        stop: &AtomicBool,
        mut gone: impl FnMut(&Ended) -> bool,
    ) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let mut fds = [PollFd::new(&door.listener, PollFlags::IN)];
            match poll(&mut fds, Some(&TICK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            let client = match door.listener.accept() {
                Ok((client, _)) => client,
                // It went away before it was let in.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let ended = self.serve(client, stop);
            if !matches!(ended, Ended::Left) && gone(&ended) {
                break;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// A socket in the file system; it goes when this does.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Listens at `path`. A socket that a server left behind when it died is replaced.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn open(path: &Path) -> Result<Self, BindError> {
        let failed = |error| BindError::Io {
            path: path.to_owned(),
            error,
        };
        match path.symlink_metadata() {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(BindError::NoSocket(path.to_owned()));
            }
            Ok(_) => {
                if UnixStream::connect(path).is_ok() {
                    return Err(BindError::Served(path.to_owned()));
                }
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
