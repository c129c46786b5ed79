//! Messages between coordinator, zygote and hardware: one JSON value a packet.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Longest message. A report is a few thousand bytes.
const LONGEST: usize = 128 * 1024;

/// One end of a sequenced-packet socket pair.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Takes over an end.
    pub fn over(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Both ends of a new pair.
    pub fn pair() -> io::Result<(Self, Self)> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a message; an error if the other end is gone.
    pub fn send<T: Serialize>(&self, message: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        loop {
            match send(self.0.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL) {
                Err(nix::Error::EINTR) => {}
                sent => return sent.map(|_| ()).map_err(Into::into),
            }
        }
    }

    /// The next message, waited for until `limit` has passed. `Ok(None)` then; an error if the
    /// other end is gone or speaks nonsense.
    pub fn receive<T: DeserializeOwned>(&self, limit: Duration) -> io::Result<Option<T>> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let millis = left.as_micros().div_ceil(1000).min(i32::MAX as u128);
            let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, timeout) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut bytes = vec![0; LONGEST];
        let len = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(serde_json::from_slice(&bytes[..len])?))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}
