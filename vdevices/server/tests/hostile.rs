//! Clients that say anything: the server outlives them all, and keeps nothing of theirs.
//!
//! `COFFERDAM_FUZZ_FRAMES` says how many frames (20,000 unless told), `COFFERDAM_FUZZ_SEED` from which
//! seed.

mod client;

use client::{Client, PATIENCE, Served, header, send_raw};
use cofferdam_seam::{
    Access, Budget, BusPort, Completion, Device, PciIdentity, Progress, Reset, SplitMix64,
};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::env;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vdevice_edu::{Edu, EduTiming};
use vdevice_nvme::{Nvme, NvmeConfig};
use vdevice_server::spec::{
    Command, DmaAccess, DmaMap, DmaUnmap, Header, IrqSet, RegionAccess, Version, dma, flags, irq,
};
use vdevice_server::stream::Stream;
use vdevice_server::{Broken, Dma, Ended, Options, Server};
use zerocopy::IntoBytes;

/// Bytes of the file a client lends.
const FILE: u64 = 1 << 20;

/// What a hostile client makes up.
struct Random(SplitMix64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0.number()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = usize::try_from(self.below(from.len() as u64)).expect("small");
        from[at]
    }

    /// Numbers near the edges of what is lent and of types.
    fn number(&mut self) -> u64 {
        let edge = self.pick(&[
            0,
            4096,
            FILE,
            u32::MAX.into(),
            i64::MAX.cast_unsigned(),
            u64::MAX,
        ]);
        match self.below(4) {
            0 => edge,
            1 => edge.wrapping_add(self.below(16)).wrapping_sub(8),
            2 => self.below(FILE) & !0xfff,
            _ => self.next() >> self.below(64),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    fn short(&mut self) -> u32 {
        self.number() as u32
    }
}

/// What a hostile client has to send.
struct Things {
    memory: OwnedFd,
    event: OwnedFd,
    pipe: OwnedFd,
    _other_end: OwnedFd,
    random: Random,
    /// Writes that make a device move, still to be sent.
    burst: Vec<(u32, u64, u64)>,
}

/// Starts a transfer of edu's.
fn transfer(random: &mut Random) -> Vec<(u32, u64, u64)> {
    let buffer = 0x4_0000;
    let memory = random.number();
    let (from, to, command) = random.pick(&[(memory, buffer, 1), (buffer, memory, 7)]);
    vec![
        (7, 4, 6),
        (0, 0x80, from),
        (0, 0x88, to),
        (0, 0x90, random.below(4097)),
        (0, 0x98, command),
    ]
}

/// Enables an NVMe controller whose queues lie anywhere, and rings a doorbell.
fn start(random: &mut Random) -> Vec<(u32, u64, u64)> {
    let tail = 1 + random.below(31);
    vec![
        (7, 4, 6),
        (0, 0x14, 0),
        (0, 0x24, 0x001f_001f),
        (0, 0x28, random.number() & !0xfff),
        (0, 0x30, random.number() & !0xfff),
        (0, 0x14, 0x0046_0001),
        (0, 0x1000, tail),
    ]
}

impl Things {
    fn new(seed: u64) -> Self {
        let memory = memfd_create(c"lent", MemfdFlags::CLOEXEC).expect("a file in memory");
        ftruncate(&memory, FILE).expect("its length");
        let (other_end, pipe) = std::io::pipe().expect("a pipe");
        let mut random = Random(SplitMix64::new(seed));
        let noise: Vec<u8> = (0..FILE / 8)
            .flat_map(|_| (random.next() >> 24).to_le_bytes())
            .collect();
        assert_eq!(rustix::io::pwrite(&memory, &noise, 0), Ok(noise.len()));
        Self {
            memory,
            event: eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"),
            pipe: pipe.into(),
            _other_end: other_end.into(),
            random,
            burst: Vec::new(),
        }
    }

    /// A frame that is well formed, mostly.
    fn frame(&mut self) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
        let random = &mut self.random;
        let mut fds = Vec::new();
        if self.burst.is_empty() && random.one_in(32) {
            self.burst = random.pick(&[transfer, start])(random);
            self.burst.reverse();
        }
        let kind = if self.burst.is_empty() || random.one_in(8) {
            random.below(16)
        } else {
            16
        };
        let (command, mut body) = match kind {
            0 | 1 => {
                if !random.one_in(4) {
                    fds.push(self.memory.as_fd());
                }
                let map = DmaMap {
                    argsz: 32,
                    flags: random.pick(&[dma::READ | dma::WRITE, dma::READ, 0, 7]),
                    offset: random.number() % FILE,
                    address: random.number(),
                    size: random.number(),
                };
                (Command::DMA_MAP, map.as_bytes().to_vec())
            }
            2 => {
                let unmap = DmaUnmap {
                    argsz: 24,
                    flags: random.pick(&[0, 0, 0, dma::ALL, 1]),
                    address: random.number(),
                    size: random.number(),
                };
                (Command::DMA_UNMAP, unmap.as_bytes().to_vec())
            }
            3 => {
                let mut info = vec![0; 32];
                info[8..12].copy_from_slice(&random.short().to_le_bytes());
                let which = random.pick(&[
                    Command::DEVICE_GET_INFO,
                    Command::DEVICE_GET_REGION_INFO,
                    Command::DEVICE_GET_IRQ_INFO,
                ]);
                (which, info)
            }
            4 | 5 => {
                let count = random.below(5);
                for _ in 0..random.pick(&[count, count, 0, count + 1]) {
                    fds.push(self.event.as_fd());
                }
                let set = IrqSet {
                    argsz: 20,
                    flags: random.pick(&[
                        irq::DATA_EVENTFD | irq::TRIGGER,
                        irq::DATA_NONE | irq::TRIGGER,
                        irq::DATA_BOOL | irq::TRIGGER,
                        irq::DATA_NONE | irq::UNMASK,
                        0x3f,
                    ]),
                    index: u32::try_from(random.below(6)).expect("small"),
                    start: u32::try_from(random.below(4)).expect("small"),
                    count: random.pick(&[u32::try_from(count).expect("small"), u32::MAX, 0]),
                };
                (Command::DEVICE_SET_IRQS, set.as_bytes().to_vec())
            }
            6..=8 => {
                let access = RegionAccess {
                    offset: random.number() % 0x4100,
                    region: random.pick(&[0, 0, 0, 7, 1, 9, u32::MAX]),
                    count: random.pick(&[1, 2, 4, 8, 0, 64, 4096, u32::MAX]),
                };
                (Command::REGION_READ, access.as_bytes().to_vec())
            }
            9..=13 => {
                // The registers that make devices move: command, edu's DMA, the NVMe controller's.
                let (region, offset) = random.pick(&[
                    (7, 4),
                    (0, 0x14),
                    (0, 0x24),
                    (0, 0x28),
                    (0, 0x30),
                    (0, 0x80),
                    (0, 0x88),
                    (0, 0x90),
                    (0, 0x98),
                    (0, 0x1000),
                    (0, 0x1004),
                    (7, 0x10),
                    (0, 0x2000),
                    (0, 3),
                ]);
                let count = random.pick(&[2, 4, 4, 8]);
                let access = RegionAccess {
                    offset,
                    region,
                    count,
                };
                let value = match offset {
                    4 => 6,
                    0x14 => 0x0046_0001,
                    0x24 => 0x001f_001f,
                    0x98 => random.below(8),
                    0x1000 | 0x1004 => random.below(40),
                    _ => random.number(),
                };
                let mut body = access.as_bytes().to_vec();
                body.extend_from_slice(&value.to_le_bytes()[..count as usize]);
                (Command::REGION_WRITE, body)
            }
            14 => (
                random.pick(&[
                    Command::DEVICE_RESET,
                    Command::VERSION,
                    Command(0),
                    Command(99),
                ]),
                Vec::new(),
            ),
            15 => (Command(6), vec![0; 100]),
            _ => {
                let (region, offset, value) = self.burst.pop().unwrap_or_default();
                let wide = matches!(offset, 0x28 | 0x30 | 0x80..=0x98);
                let count = if region == 7 {
                    2
                } else {
                    4 + 4 * u32::from(wide)
                };
                let access = RegionAccess {
                    offset,
                    region,
                    count,
                };
                let mut body = access.as_bytes().to_vec();
                body.extend_from_slice(&value.to_le_bytes()[..count as usize]);
                (Command::REGION_WRITE, body)
            }
        };
        if random.one_in(16) {
            fds.push(self.pipe.as_fd());
        }
        let mut header = header(3, command);
        match random.below(64) {
            0 => body.truncate(body.len() / 2),
            1 => body.extend_from_slice(&[0xa5; 300]),
            2 => header.flags = flags::REPLY,
            3 => header.flags = u32::MAX,
            4..=9 => header.flags = flags::NO_REPLY,
            _ => {}
        }
        header.size = u32::try_from(size_of::<Header>() + body.len()).expect("short");
        // Lies about the length are rare: most end the connection.
        if random.one_in(400) {
            header.size = random.short();
        }
        let mut frame = header.as_bytes().to_vec();
        frame.extend_from_slice(&body);
        for _ in 0..u8::from(random.one_in(20)) {
            let at = usize::try_from(random.below(frame.len() as u64)).expect("short");
            // The size is left alone, see above.
            if !(4..8).contains(&at) {
                frame[at] ^= 1 << random.below(8);
            }
        }
        (frame, fds)
    }
}

/// What a hostile client came to.
#[derive(Default)]
struct Visit {
    /// Frames that were sent as a whole.
    sent: u64,
    /// How often the device asked for the client's memory: it was made to move.
    asked: u64,
}

/// One connection of a hostile client.
fn visit(served: &Served, things: &mut Things, frames: u64) -> Visit {
    let socket = served.connect();
    let mut stream = Stream::new(socket.try_clone().expect("a socket"));
    let version = Version { major: 0, minor: 1 };
    let begun = stream.send(header(1, Command::VERSION), &[version.as_bytes()], &[]);
    let mut visit = Visit::default();
    if begun.is_err() {
        return visit;
    }
    while visit.sent < frames && !things.random.one_in(2000) {
        let (frame, fds) = things.frame();
        if !push(&socket, &frame, &fds, &mut stream) {
            break;
        }
        visit.sent += 1;
        if !drain(&mut stream, &mut things.random, &mut visit.asked) {
            break;
        }
    }
    visit
}

/// Sends a frame, listening meanwhile as the server may be waiting to be heard. Whether the
/// connection lives.
fn push(socket: &UnixStream, frame: &[u8], fds: &[BorrowedFd<'_>], stream: &mut Stream) -> bool {
    let until = Instant::now() + PATIENCE;
    let mut rest = frame;
    let mut fds = fds;
    while !rest.is_empty() {
        match send_raw(socket, rest, fds) {
            Ok(count) => {
                rest = &rest[count..];
                fds = &[];
            }
            Err(rustix::io::Errno::AGAIN) => {
                assert!(Instant::now() < until, "the server stopped reading");
                if !drain(stream, &mut Random(SplitMix64::new(1)), &mut 0) {
                    return false;
                }
                std::thread::yield_now();
            }
            Err(_) => return false,
        }
    }
    true
}

/// Hears what the server says, and answers what it asks, not always well.
fn drain(stream: &mut Stream, random: &mut Random, asks: &mut u64) -> bool {
    loop {
        let message = match stream.receive(Duration::ZERO) {
            Ok(Some(message)) => message,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let asked = message.header;
        if asked.flags & flags::TYPE == flags::REPLY {
            continue;
        }
        *asks += 1;
        let reads = asked.command == Command::DMA_READ;
        let mut reply = header(asked.id, asked.command);
        reply.flags = flags::REPLY;
        let access = message.body.get(..size_of::<DmaAccess>()).unwrap_or(&[]);
        let count = access.get(8..16).and_then(|count| count.try_into().ok());
        let count = u64::from_le_bytes(count.unwrap_or([0; 8]));
        let count = usize::try_from(count).expect("the server asks for what fits a message");
        let data = vec![0xee; if reads { count } else { 0 }];
        let answered = match random.below(10) {
            0 => {
                reply.flags |= flags::ERROR;
                stream.send(reply, &[], &[])
            }
            1 => stream.send(reply, &[access, &data, b"more"], &[]),
            2 => stream.send(reply, &[b"less"], &[]),
            _ => stream.send(reply, &[access, &data], &[]),
        };
        if answered.is_err() {
            return false;
        }
    }
}

/// Descriptors are counted by the process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parameter(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// The most memory this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("a peak").trim().parse().expect("a number")
}

fn devices() -> [Server; 2] {
    let options = || Options {
        dma: Dma::Judged,
        map_doorbells: true,
        pin_only: false,
        trace: None,
    };
    let nvme = NvmeConfig {
        latency: Duration::ZERO,
        ..NvmeConfig::default()
    };
    [
        Server::new(Box::new(Edu::new(EduTiming::default())), options()),
        Server::new(Box::new(Nvme::new(nvme)), options()),
    ]
}

#[test]
fn server_outlives_hostile_frames_and_keeps_nothing_of_theirs() {
    let _alone = alone();
    let frames = parameter("COFFERDAM_FUZZ_FRAMES", 20_000);
    let seed = parameter("COFFERDAM_FUZZ_SEED", 1);
    let mut things = Things::new(seed);
    let served = devices().map(Served::new);
    for served in &served {
        drop(Client::new(served));
        served.ended();
    }
    let (descriptors, before) = (open_descriptors(), peak());
    let (mut sent, mut asked, mut visits) = (0, 0, 0_u64);

    while sent < frames {
        let served = &served[usize::from(visits % 2 == 1)];
        let visit = visit(served, &mut things, frames - sent);
        sent += visit.sent;
        asked += visit.asked;
        visits += 1;
        let ended = served.ended();
        assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
    }

    for (served, id) in served.iter().zip([0x11e8_1234_u32, 0xcf01_1b36]) {
        let mut client = Client::new(served);
        assert_eq!(
            client.read(7, 0, 4),
            id.to_le_bytes(),
            "it serves as before"
        );
        drop(client);
        served.ended();
    }
    assert_eq!(open_descriptors(), descriptors, "descriptors are kept");
    let grown = peak() - before;
    println!(
        "{sent} frames in {visits} connections from seed {seed}, {asked} requests for memory; \
         {grown} KiB more memory"
    );
    assert!(asked > 0, "no frame made a device move");
    assert!(grown < 64 << 10, "{grown} KiB more memory");
}

#[test]
fn length_that_cannot_be_ends_the_connection() {
    let _alone = alone();
    let served = Served::new(devices().into_iter().next().expect("a device"));
    for size in [0, 15, 0x10_0000, u32::MAX] {
        let client = served.connect();
        let mut header = header(1, Command::VERSION);
        header.size = size;
        send_raw(&client, header.as_bytes(), &[]).expect("sent");
        let ended = served.ended();
        let text = ended.to_string();
        assert!(
            text.contains(&format!("a message of {size} bytes")),
            "{text}"
        );
    }
}

#[test]
fn client_that_does_not_finish_a_message_is_dropped() {
    let _alone = alone();
    let served = Served::new(devices().into_iter().next().expect("a device"));
    let client = served.connect();
    send_raw(&client, &[1, 0, 1], &[]).expect("sent");
    let ended = served.ended();
    assert!(ended.to_string().contains("not complete"), "{ended}");
}

#[test]
fn client_that_does_not_read_is_dropped() {
    let _alone = alone();
    let served = Served::new(devices().into_iter().next().expect("a device"));
    let mut client = Client::new(&served);
    let access = RegionAccess {
        offset: 0,
        region: 0,
        count: 64 << 10,
    };
    while client
        .stream
        .send(header(2, Command::REGION_READ), &[access.as_bytes()], &[])
        .is_ok()
    {
        // Until the server no longer reads either.
    }
    let ended = served.ended();
    assert!(ended.to_string().contains("did not read"), "{ended}");
}

#[test]
fn descriptor_flood_ends_the_connection_and_leaves_none() {
    let _alone = alone();
    let served = Served::new(devices().into_iter().next().expect("a device"));
    drop(Client::new(&served));
    served.ended();
    let before = open_descriptors();
    let event = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
    let client = served.connect();

    for _ in 0..2 {
        let fds = [event.as_fd(); 15];
        let _ = send_raw(&client, &[1], &fds);
    }

    let ended = served.ended();
    assert!(ended.to_string().contains("descriptors"), "{ended}");
    drop((client, event));
    assert_eq!(open_descriptors(), before);
}

#[test]
fn one_file_lent_a_thousand_times_costs_one_descriptor() {
    let _alone = alone();
    let served = Served::new(devices().into_iter().next().expect("a device"));
    let memory = memfd_create(c"lent", MemfdFlags::CLOEXEC).expect("a file");
    ftruncate(&memory, FILE).expect("its length");
    let mut client = Client::new(&served);
    let before = open_descriptors();
    for page in 0..1000 {
        let map = DmaMap {
            argsz: 32,
            flags: dma::READ | dma::WRITE,
            offset: 0,
            address: page << 12,
            size: 4096,
        };
        let answer = client.call(Command::DMA_MAP, &[map.as_bytes()], &[memory.as_fd()]);
        assert_eq!(answer.header.flags, flags::REPLY);
    }
    assert_eq!(open_descriptors(), before + 1);
}

#[test]
fn client_that_is_asked_for_memory_and_never_answers_does_not_hold_the_device() {
    let _alone = alone();
    let served = Served::new(devices().into_iter().next().expect("a device"));
    let mut client = Client::new(&served);
    client.write(7, 4, &[6, 0]);
    client.write(0, 0x80, &0xdead_0000_u64.to_le_bytes());
    client.write(0, 0x88, &0x4_0000_u64.to_le_bytes());
    client.write(0, 0x90, &64_u64.to_le_bytes());
    client.send(
        Command::REGION_WRITE,
        &[
            RegionAccess {
                offset: 0x98,
                region: 0,
                count: 8,
            }
            .as_bytes(),
            &1_u64.to_le_bytes(),
        ],
        &[],
    );

    let asked = |client: &mut Client, command| {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let message = client.stream.receive(PATIENCE).expect("a connection");
            if message.is_some_and(|message| message.header.command == command) {
                return true;
            }
        }
        false
    };
    assert!(asked(&mut client, Command::DMA_READ), "the device asks");
    // No answer: the read that follows is answered all the same.
    client.send(
        Command::REGION_READ,
        &[RegionAccess {
            offset: 0,
            region: 0,
            count: 4,
        }
        .as_bytes()],
        &[],
    );
    assert!(asked(&mut client, Command::REGION_READ), "it goes on");

    // Commands without end while it waits are a flood.
    client.send(
        Command::REGION_WRITE,
        &[
            RegionAccess {
                offset: 0x98,
                region: 0,
                count: 8,
            }
            .as_bytes(),
            &1_u64.to_le_bytes(),
        ],
        &[],
    );
    assert!(asked(&mut client, Command::DMA_READ), "the device asks");
    while client
        .stream
        .send(header(9, Command::DEVICE_GET_INFO), &[&[0; 16]], &[])
        .is_ok()
    {}
    let ended = served.ended();
    assert!(matches!(ended, Ended::Broken(Broken::Flood)), "{ended}");
}

/// An edu whose registers are never read to an end.
struct Mute(Edu);

impl Device for Mute {
    fn describe(&self) -> &PciIdentity {
        self.0.describe()
    }

    fn read(&mut self, _: Access, _: &mut BusPort<'_>) -> Completion {
        Completion::Never
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        self.0.write(at, value, bus);
    }

    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        self.0.step(budget, bus)
    }

    fn reset(&mut self, kind: Reset) {
        self.0.reset(kind);
    }
}

#[test]
fn server_that_stops_answers_what_was_never_to_be_answered() {
    let _alone = alone();
    let device = Box::new(Mute(Edu::new(EduTiming::default())));
    let served = Served::new(Server::new(device, Options::default()));
    let mut client = Client::new(&served);
    client.write(7, 4, &[6, 0]);
    let access = RegionAccess {
        offset: 0,
        region: 0,
        count: 4,
    };
    client.send(Command::REGION_READ, &[access.as_bytes()], &[]);
    // The next message is answered, the read before it is not.
    assert_eq!(client.read(7, 0, 2), [0x34, 0x12]);

    served.stop();

    let answer = client.stream.receive(PATIENCE).expect("a connection");
    let answer = answer.expect("an answer");
    assert_eq!(answer.header.command, Command::REGION_READ);
    assert_eq!(answer.body[16..], [0xff; 4]);
    assert!(matches!(served.ended(), Ended::Stopped));
}

#[test]
fn device_that_interrupts_by_its_pin_only_shows_no_messages() {
    let _alone = alone();
    let options = Options {
        pin_only: true,
        ..Options::default()
    };
    let nvme = Box::new(Nvme::new(NvmeConfig::default()));
    let served = Served::new(Server::new(nvme, options));
    let mut client = Client::new(&served);
    let irqs = |client: &mut Client, index: u32| {
        let asked = [16, 0, index, 0].map(u32::to_le_bytes).concat();
        let answer = client.call(Command::DEVICE_GET_IRQ_INFO, &[&asked], &[]);
        answer.body[12]
    };

    let capabilities = client.read(7, 0, 256);
    let first = usize::from(capabilities[0x34]);

    assert_eq!((irqs(&mut client, 0), irqs(&mut client, 2)), (1, 0));
    // PCI Express, and nothing behind it.
    assert_eq!(capabilities[first..first + 2], [0x10, 0]);
}
