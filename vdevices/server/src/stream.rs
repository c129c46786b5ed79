//! Messages and descriptors on a Unix stream socket.
//!
//! A peer may send anything: a message is taken only when all of it is there, one that says it is
//! longer than [`MAX_MESSAGE`] or shorter than its header ends the stream, and so do more descriptors
//! than one message carries, a message that does not arrive in time, and a peer that does not read.

use crate::spec::{Header, MAX_FDS, MAX_MESSAGE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use thiserror::Error;
use zerocopy::{FromBytes, IntoBytes};

/// How long the rest of a message may take, and how long a peer may not read.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Why a stream can no longer be used.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The peer is gone.
    #[error("the peer closed the connection")]
    Closed,
    /// A message that makes no sense.
    #[error("a message of {0} bytes: must be 16 to {MAX_MESSAGE}")]
    Size(u32),
    /// More descriptors than one message may carry.
    #[error("more than {MAX_FDS} descriptors with one message")]
    Descriptors,
    /// A message that was begun and not finished.
    #[error("a message that was not complete after {PATIENCE:?}")]
    Slow,
    /// The peer does not read.
    #[error("a peer that did not read for {PATIENCE:?}")]
    Full,
    /// The kernel.
    #[error("the socket failed: {0}")]
    Io(#[from] Errno),
}

/// One message, as it came.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub body: Vec<u8>,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

/// Descriptors of a read that ended at that byte of the stream.
type Carried = (u64, OwnedFd);

/// A socket that carries messages both ways.
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the stream before `end`.
    received: u64,
    carried: Vec<Carried>,
    /// When the first byte of an unfinished message was there.
    since: Option<Instant>,
    out: Vec<u8>,
}

impl Stream {
    /// Messages on that socket.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            buffer: vec![0; MAX_MESSAGE].into(),
            start: 0,
            end: 0,
            received: 0,
            carried: Vec::new(),
            since: None,
            out: Vec::new(),
        }
    }

    /// The next message, if all of it is there within `wait`.
    ///
    /// # Errors
    /// [`StreamError`]: the stream is of no more use.
    pub fn receive(&mut self, wait: Duration) -> Result<Option<Message>, StreamError> {
        let mut until = None;
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let now = Instant::now();
            let until = *until.get_or_insert(now + wait);
            let mut left = until.saturating_duration_since(now);
            if let Some(since) = self.since {
                let patience = (since + PATIENCE).saturating_duration_since(now);
                if patience.is_zero() {
                    return Err(StreamError::Slow);
                }
                left = left.min(patience);
            }
            if self.ready(PollFlags::IN, left)? {
                self.fill()?;
            } else if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    /// Sends a message, with `header.size` set to what it is.
    ///
    /// # Errors
    /// [`StreamError`]: the stream is of no more use.
    pub fn send(
        &mut self,
        mut header: Header,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), StreamError> {
        let size = size_of::<Header>() + parts.iter().map(|part| part.len()).sum::<usize>();
        header.size = u32::try_from(size).map_err(|_| StreamError::Size(u32::MAX))?;
        if size > MAX_MESSAGE {
            return Err(StreamError::Size(header.size));
        }
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        out.extend_from_slice(header.as_bytes());
        for part in parts {
            out.extend_from_slice(part);
        }
        let sent = self.send_bytes(&out, fds);
        self.out = out;
        sent
    }

    /// What to wait on, for one who waits for more than messages.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn send_bytes(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), StreamError> {
        let until = Instant::now() + PATIENCE;
        let mut sent = 0;
        while sent < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if sent == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(StreamError::Descriptors);
            }
            let slice = [IoSlice::new(&bytes[sent..])];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &slice, &mut control, flags) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() || !self.ready(PollFlags::OUT, left)? {
                        return Err(StreamError::Full);
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(StreamError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn ready(&self, what: PollFlags, wait: Duration) -> Result<bool, StreamError> {
        let timeout = Timespec::try_from(wait).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        let mut fds = [PollFd::new(&self.socket, what)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what is there, as far as there is room.
    fn fill(&mut self) -> Result<(), StreamError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut self.buffer[self.end..])];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let read = match recvmsg(&self.socket, &mut into, &mut control, flags) {
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(Errno::CONNRESET) => return Err(StreamError::Closed),
            Err(error) => return Err(error.into()),
        };
        self.end += read.bytes;
        self.received += read.bytes as u64;
        // A read ends behind the bytes that descriptors came with, so they are the last message's.
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                let at = self.received;
                self.carried.extend(fds.map(|fd| (at, fd)));
            }
        }
        if read.flags.contains(ReturnFlags::CTRUNC) || self.carried.len() > MAX_FDS {
            return Err(StreamError::Descriptors);
        }
        if read.bytes == 0 {
            return Err(StreamError::Closed);
        }
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Takes the first message out of the buffer, if it is complete.
    fn take(&mut self) -> Result<Option<Message>, StreamError> {
        let bytes = &self.buffer[self.start..self.end];
        let Ok((header, rest)) = Header::read_from_prefix(bytes) else {
            return Ok(None);
        };
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        if !(size_of::<Header>()..=MAX_MESSAGE).contains(&size) {
            return Err(StreamError::Size(header.size));
        }
        let Some(body) = rest.get(..size - size_of::<Header>()) else {
            return Ok(None);
        };
        let body = body.to_vec();
        self.start += size;
        let left = self.end - self.start;
        let ends = self.received - left as u64;
        let later = self.carried.iter().position(|(at, _)| *at > ends);
        let count = later.unwrap_or(self.carried.len());
        let fds = self.carried.drain(..count).map(|(_, fd)| fd).collect();
        self.since = (left > 0).then(Instant::now);
        Ok(Some(Message { header, body, fds }))
    }
}
