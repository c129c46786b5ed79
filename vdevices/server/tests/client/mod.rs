//! A client that says what it is told to say.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use vdevice_server::spec::{Command, Header, RegionAccess, flags};
use vdevice_server::stream::{Message, Stream};
use vdevice_server::{Ended, Server};
use zerocopy::IntoBytes;

/// What any answer may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A server in a thread of its own, for one client after the other.
pub struct Served {
    clients: std::sync::mpsc::Sender<UnixStream>,
    ended: std::sync::mpsc::Receiver<Ended>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub fn new(mut server: Server) -> Self {
        let (clients, next) = std::sync::mpsc::channel();
        let (tell, ended) = std::sync::mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for client in next {
                if tell.send(server.serve(client, &seen)).is_err() {
                    break;
                }
            }
        });
        Self {
            clients,
            ended,
            stop,
            thread: Some(thread),
        }
    }

    /// A connection that has not said anything yet.
    pub fn connect(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        self.clients.send(theirs).expect("the server lives");
        ours
    }

    /// Ends the server.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How the next session that ends did.
    pub fn ended(&self) -> Ended {
        self.ended.recv_timeout(PATIENCE).expect("an end in time")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
        let (closed, _) = std::sync::mpsc::channel();
        self.clients = closed;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// A well-behaved client.
pub struct Client {
    pub stream: Stream,
    pub id: u16,
}

impl Client {
    /// Connects and agrees on a version.
    pub fn new(served: &Served) -> Self {
        let mut client = Self {
            stream: Stream::new(served.connect()),
            id: 0,
        };
        let answer = client.call(Command::VERSION, &[&[0, 0, 0, 0]], &[]);
        assert_eq!(answer.header.flags, flags::REPLY, "a version");
        client
    }

    pub fn send(&mut self, command: Command, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) {
        self.id = self.id.wrapping_add(1);
        let header = header(self.id, command);
        self.stream.send(header, parts, fds).expect("it is sent");
    }

    /// Asks, and returns the answer.
    pub fn call(&mut self, command: Command, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Message {
        self.send(command, parts, fds);
        let answer = self.stream.receive(PATIENCE).expect("a connection");
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.header.id, answer.header.command),
            (self.id, command)
        );
        answer
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Vec<u8> {
        let access = RegionAccess {
            offset,
            region,
            count,
        };
        let answer = self.call(Command::REGION_READ, &[access.as_bytes()], &[]);
        assert_eq!(answer.header.flags, flags::REPLY, "{region} {offset:#x}");
        answer.body[16..].to_vec()
    }

    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        let access = RegionAccess {
            offset,
            region,
            count: u32::try_from(data.len()).expect("a short write"),
        };
        let answer = self.call(Command::REGION_WRITE, &[access.as_bytes(), data], &[]);
        assert_eq!(answer.header.flags, flags::REPLY, "{region} {offset:#x}");
    }
}

pub fn header(id: u16, command: Command) -> Header {
    Header {
        id,
        command,
        size: 0,
        flags: flags::COMMAND,
        error: 0,
    }
}

/// Sends bytes as they are; how many the socket took.
pub fn send_raw(
    socket: &UnixStream,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); 512];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
}
