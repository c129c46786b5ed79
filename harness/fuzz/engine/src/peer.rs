//! Campaigns on other machines: each sends the others the programs that did something new, or show a finding.
//!
//! Plain TCP, without authentication and without encryption, so nobody listens unless asked, and on the
//! loopback interface unless asked for another. A peer may be anybody. What it sends is bounded and parsed,
//! and only run: its findings count when they are found here. Who sends anything else is left.

use crate::message::{self, Across, PROTOCOL};
use crate::supervisor::{Event, QUEUE};
use crate::worker::CORPUS;
use cofferdam_fuzz::campaign::{FINDINGS, WAITS};
use cofferdam_fuzz::finding::PROGRAM;
use cofferdam_fuzz::program::text;
use cofferdam_fuzz::target::Target;
use std::fs;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the other side has to answer, and to introduce itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may read nothing of what it is sent.
const STALLED: Duration = Duration::from_secs(60);

/// Bytes of an introduction.
const HELLO: u64 = 4096;

/// Peers at a time.
const MOST: usize = 64;

/// What is heard of peers.
pub enum Said {
    /// One has introduced itself.
    Joined(Peer),
    /// It sent a program.
    Program(String),
    /// It is gone.
    Left {
        /// Where it was.
        address: SocketAddr,
        /// Why.
        why: String,
    },
}

/// A campaign elsewhere.
pub struct Peer {
    address: SocketAddr,
    to: SyncSender<Arc<[u8]>>,
}

/// All of them.
pub struct Peers {
    way: Way,
    peers: Vec<Peer>,
}

/// What the threads of a peer need.
#[derive(Clone)]
struct Way {
    target: &'static dyn Target,
    /// The campaign's directory: a newcomer is sent the programs in it.
    out: PathBuf,
    events: SyncSender<Event>,
    open: Arc<AtomicUsize>,
}

impl Peers {
    pub fn new(target: &'static dyn Target, out: PathBuf, events: SyncSender<Event>) -> Self {
        Self {
            way: Way {
                target,
                out,
                events,
                open: Arc::default(),
            },
            peers: Vec::new(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// Lets others join at `place`. Where that is, in the end.
    pub fn listen(&mut self, place: SocketAddr) -> Result<SocketAddr, String> {
        let failed = |error: io::Error| format!("cannot listen on {place}: {error}");
        let listener = TcpListener::bind(place).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        warn(bound);
        let way = self.way.clone();
        let accept = move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => way.clone().receive(stream),
                    // Out of files, say: others leave.
                    Err(_) => thread::sleep(PATIENCE),
                }
            }
        };
        thread::Builder::new()
            .name("listener".to_owned())
            .spawn(accept)
            .map_err(failed)?;
        Ok(bound)
    }

    /// Joins the campaign that listens at `place`, a host and a port.
    pub fn join(&mut self, place: &str) -> Result<(), String> {
        let addresses = place
            .to_socket_addrs()
            .map_err(|error| format!("--broker {place}: {error}; it takes HOST:PORT"))?;
        let mut why = "the name stands for no address".to_owned();
        for address in addresses {
            let connected = TcpStream::connect_timeout(&address, PATIENCE);
            let ready = connected.and_then(|stream| self.way.introduce(stream));
            match ready {
                Ok((reader, stream)) => {
                    warn(address);
                    let serving = self.way.serve(address, reader, stream);
                    return serving.map_err(|error| error.to_string());
                }
                Err(error) => why = error.to_string(),
            }
        }
        Err(format!(
            "--broker {place}: {why}; a campaign of the same target must listen there, by --listen"
        ))
    }

    /// Takes note, and returns a program that came.
    pub fn hear(&mut self, said: Said) -> Option<String> {
        match said {
            Said::Joined(peer) => {
                eprintln!("cofferdam: joined with {}", peer.address);
                self.peers.push(peer);
                None
            }
            Said::Program(program) => Some(program),
            Said::Left { address, why } => {
                eprintln!("cofferdam: {address} left: {why}");
                self.peers.retain(|peer| peer.address != address);
                None
            }
        }
    }

    /// Sends all of them a program.
    pub fn send(&self, program: &str) {
        if self.peers.is_empty() {
            return;
        }
        if let Ok(line) = line_of(program) {
            for peer in &self.peers {
                // One that is that far behind gets it from somebody else, or not.
                let _ = peer.to.try_send(Arc::clone(&line));
            }
        }
    }
}

fn line_of(program: &str) -> io::Result<Arc<[u8]>> {
    let program = program.to_owned();
    Ok(message::line_of(&Across::Program { program })?.into())
}

fn warn(address: SocketAddr) {
    if !address.ip().is_loopback() {
        eprintln!(
            "cofferdam: warning: {address} is no loopback address, and this is plain TCP without authentication: whoever reaches it reads the programs of this campaign and sends others"
        );
    }
}

impl Way {
    /// Somebody wants to join.
    fn receive(self, stream: TcpStream) {
        if self.open.load(Ordering::Relaxed) >= MOST {
            // It is told by the end of the connection.
            return;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let greet = move || {
            let Ok(address) = stream.peer_addr() else {
                self.open.fetch_sub(1, Ordering::Relaxed);
                return;
            };
            let served = self
                .introduce(stream)
                .and_then(|(reader, stream)| self.serve(address, reader, stream));
            if let Err(error) = served {
                self.open.fetch_sub(1, Ordering::Relaxed);
                eprintln!("cofferdam: {address} could not join: {error}");
            }
        };
        // Without a thread nobody joins; the stream is closed then.
        let _ = thread::Builder::new().spawn(greet);
    }

    /// Both sides say who they are.
    fn introduce(&self, mut stream: TcpStream) -> io::Result<(Lines, TcpStream)> {
        let until = Instant::now() + PATIENCE;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let hello = Across::Hello {
            protocol: PROTOCOL,
            target: self.target.name().to_owned(),
        };
        message::send(&mut stream, &hello)?;
        let mut reader = BufReader::new(Timed {
            stream: stream.try_clone()?,
            until: Some(until),
        });
        let answer = message::receive_short(&mut reader, HELLO);
        let refuse = |why: String| io::Error::new(ErrorKind::InvalidData, why);
        match answer.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => io::Error::new(
                ErrorKind::TimedOut,
                format!("no answer within {} s", PATIENCE.as_secs()),
            ),
            _ => error,
        })? {
            Some(Across::Hello { protocol, .. }) if protocol != PROTOCOL => Err(refuse(format!(
                "it speaks version {protocol} of the protocol, this is {PROTOCOL}"
            ))),
            Some(Across::Hello { target, .. }) if target != self.target.name() => {
                let own = self.target.name();
                let target: String = target.escape_debug().take(64).collect();
                Err(refuse(format!("it fuzzes {target}, this campaign {own}")))
            }
            Some(Across::Hello { .. }) => {
                stream.set_write_timeout(Some(STALLED))?;
                reader.get_mut().until = None;
                Ok((reader, stream))
            }
            Some(Across::Program { .. }) => Err(refuse("it did not introduce itself".to_owned())),
            None => Err(refuse("it closed the connection".to_owned())),
        }
    }

    /// Starts the threads of a peer. It joins before anything else is heard of it.
    fn serve(&self, address: SocketAddr, mut reader: Lines, stream: TcpStream) -> io::Result<()> {
        let (to, lines) = sync_channel(QUEUE);
        let way = self.clone();
        thread::Builder::new().spawn(move || {
            let joined = Said::Joined(Peer { address, to });
            if way.events.send(Event::Peer(joined)).is_err() {
                return;
            }
            let why = way.listen_to(&mut reader);
            way.open.fetch_sub(1, Ordering::Relaxed);
            let _ = way.events.send(Event::Peer(Said::Left { address, why }));
        })?;
        let out = self.out.clone();
        thread::Builder::new().spawn(move || {
            // The other thread tells that it ended.
            let _ = tell(&stream, &out, &lines);
            let _ = stream.shutdown(Shutdown::Both);
        })?;
        Ok(())
    }

    /// Hears a peer out. Why it ended.
    fn listen_to(&self, reader: &mut Lines) -> String {
        loop {
            let program = match message::receive(reader) {
                Ok(Some(Across::Program { program })) => program,
                Ok(Some(Across::Hello { .. })) => return "it introduced itself again".to_owned(),
                Ok(None) => return "it closed the connection".to_owned(),
                Err(error) => return error.to_string(),
            };
            match text::parse(&program, self.target.calls()) {
                Ok(parsed) if parsed.target == self.target.name() => {}
                Ok(_) => return "it sent a program of another target".to_owned(),
                Err(error) => return format!("it sent a program that is none: {error}"),
            }
            let said = Event::Peer(Said::Program(program));
            if self.events.send(said).is_err() {
                return "the campaign is over".to_owned();
            }
        }
    }
}

/// Sends a peer what there is, and then what comes.
fn tell(mut stream: &TcpStream, out: &Path, lines: &Receiver<Arc<[u8]>>) -> io::Result<()> {
    for path in programs(out) {
        let line = fs::read_to_string(path).and_then(|program| line_of(&program));
        // What cannot be read is left out.
        if let Ok(line) = line {
            stream.write_all(&line)?;
        }
    }
    for line in lines {
        stream.write_all(&line)?;
    }
    Ok(())
}

/// The programs that were kept, and those of findings.
fn programs(out: &Path) -> Vec<PathBuf> {
    let entries = |place: PathBuf| fs::read_dir(place).into_iter().flatten().flatten();
    let kept = entries(out.join(CORPUS)).map(|entry| entry.path());
    let mut paths: Vec<_> = kept
        .filter(|path| path.extension().is_some_and(|it| it == "prog"))
        .collect();
    for kind in [FINDINGS, WAITS] {
        let found = entries(out.join(kind)).map(|entry| entry.path().join(PROGRAM));
        paths.extend(found.filter(|path| path.exists()));
    }
    paths.sort();
    paths
}

type Lines = BufReader<Timed>;

/// A stream of which every read ends by a time.
struct Timed {
    stream: TcpStream,
    until: Option<Instant>,
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(left)?;
        self.stream.read(bytes)
    }
}
