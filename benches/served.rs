//! What serving a device costs: a register read over vfio-user, next to a bare ping-pong of messages of
//! the same lengths between two threads over the same kind of socket.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::thread;
use vdevice_edu::{Edu, EduTiming};
use vdevice_server::spec::{Command, Header, RegionAccess, flags, region};
use vdevice_server::{Options, Server};
use zerocopy::IntoBytes;

/// Bytes of a read of four bytes, and of its answer.
const ASKED: usize = size_of::<Header>() + size_of::<RegionAccess>();
const ANSWERED: usize = ASKED + 4;

/// A command that carries `body`.
fn message(command: Command, body: &[u8]) -> Vec<u8> {
    let size = size_of::<Header>() + body.len();
    let header = Header {
        id: 1,
        command,
        size: u32::try_from(size).expect("short"),
        flags: flags::COMMAND,
        error: 0,
    };
    [header.as_bytes(), body].concat()
}

fn access(region: u32, offset: u64, count: u32) -> RegionAccess {
    RegionAccess {
        offset,
        region,
        count,
    }
}

/// Asks, and waits for an answer of that length.
fn exchange<const N: usize>(socket: &mut UnixStream, asked: &[u8]) -> [u8; N] {
    let mut answer = [0; N];
    socket.write_all(asked).expect("it is sent");
    socket.read_exact(&mut answer).expect("an answer");
    answer
}

/// Agrees on a version and enables memory decoding.
fn begin(socket: &mut UnixStream) {
    socket
        .write_all(&message(Command::VERSION, &[0; 4]))
        .expect("it is sent");
    let mut header = [0; size_of::<Header>()];
    socket.read_exact(&mut header).expect("a version");
    let [.., a, b, c, d, _, _, _, _, _, _, _, _] = header;
    let size = u32::from_le_bytes([a, b, c, d]) as usize;
    socket
        .read_exact(&mut vec![0; size - header.len()])
        .expect("its capabilities");
    let enable = [access(region::CONFIG, 4, 2).as_bytes(), &[2, 0]].concat();
    let _: [u8; ASKED] = exchange(socket, &message(Command::REGION_WRITE, &enable));
}

fn served(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("register read");
    let asked = message(Command::REGION_READ, access(0, 0, 4).as_bytes());
    assert_eq!(asked.len(), ASKED);

    let (mut ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    let echo = thread::spawn(move || {
        let mut asked = [0; ASKED];
        while theirs.read_exact(&mut asked).is_ok() {
            if theirs.write_all(&[0; ANSWERED]).is_err() {
                break;
            }
        }
    });
    group.bench_function("bare ping-pong", |bencher| {
        bencher.iter(|| black_box(exchange::<ANSWERED>(&mut ours, &asked)));
    });
    drop(ours);
    echo.join().expect("no panic");

    let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let server = thread::spawn(move || {
        let device = Box::new(Edu::new(EduTiming::default()));
        let stop = AtomicBool::new(false);
        Server::new(device, Options::default()).serve(theirs, &stop)
    });
    begin(&mut ours);
    let answer = exchange::<ANSWERED>(&mut ours, &asked);
    assert_eq!(answer[ASKED..], 0x0100_00ed_u32.to_le_bytes());
    group.bench_function("served", |bencher| {
        bencher.iter(|| black_box(exchange::<ANSWERED>(&mut ours, &asked)));
    });
    drop(ours);
    server.join().expect("no panic");
    group.finish();
}

criterion_group!(benches, served);
criterion_main!(benches);
