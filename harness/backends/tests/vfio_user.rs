//! Our drivers over vfio-user: the same drivers, suites and models as over the mock, with a socket
//! between.

use cofferdam_backends::conformance;
use cofferdam_backends::vfio_user::VfioUserDevice;
use cofferdam_seam::service::Block;
use cofferdam_seam::{Bar, Deadline, Device, DriverHost, InterruptKind, Mmio};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use vdevice_edu::EduTiming;
use vdevice_nvme::NvmeConfig;
use vdevice_server::{Dma, Door, Ended, Options, Server};
use vdevice_tamper::{Aim, Lie, Tamper};
use vdevice_virtio::BlkConfig;

/// One request, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(5);

const SECTORS: u64 = 64;

/// A device, served by a thread.
struct Served {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Ended>>,
}

/// Serves a model to one client.
fn serve(device: Box<dyn Device>, dma: Dma) -> (VfioUserDevice, Served) {
    let options = Options {
        dma,
        ..Options::default()
    };
    serve_with(device, options)
}

fn serve_with(device: Box<dyn Device>, options: Options) -> (VfioUserDevice, Served) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let mut server = Server::new(device, options);
    let thread = Some(std::thread::spawn(move || server.serve(theirs, &seen)));
    let served = Served { stop, thread };
    (VfioUserDevice::over(ours).expect("a connection"), served)
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(_))), "the server panicked");
        }
    }
}

fn edu() -> Box<dyn Device> {
    Box::new(vdevice_edu::Edu::new(EduTiming::default()))
}

fn nvme() -> Box<dyn Device> {
    Box::new(vdevice_nvme::Nvme::new(NvmeConfig {
        blocks: SECTORS,
        ..NvmeConfig::default()
    }))
}

fn virtio() -> Box<dyn Device> {
    Box::new(vdevice_virtio::VirtioBlk::new(BlkConfig {
        sectors: SECTORS,
        ..BlkConfig::default()
    }))
}

const WAYS: [Dma; 3] = [Dma::Lent, Dma::Judged, Dma::Message];

#[test]
fn edu_driver_conforms_however_memory_is_reached() {
    for dma in WAYS {
        let (device, _served) = serve(edu(), dma);
        let mut driver = driver_edu::Edu::probe(device.host()).expect("an honest device");
        conformance::compute_within(&mut driver, PATIENCE, || device.now());
        drop(driver);
        assert_eq!((device.mappings(), device.failure()), (0, None), "{dma:?}");
    }
}

#[test]
fn nvme_driver_conforms_however_memory_is_reached() {
    for dma in WAYS {
        let (device, _served) = serve(nvme(), dma);
        let mut driver = driver_nvme::Nvme::probe(device.host()).expect("an honest device");
        assert_eq!(driver.capacity(), SECTORS);
        conformance::block_within(&mut driver, PATIENCE, || device.now());
        drop(driver);
        assert_eq!((device.mappings(), device.failure()), (0, None), "{dma:?}");
    }
}

#[test]
fn virtio_driver_conforms_however_memory_is_reached() {
    for dma in WAYS {
        let (device, _served) = serve(virtio(), dma);
        let mut driver = driver_virtio::VirtioBlk::probe(device.host()).expect("an honest device");
        assert_eq!(driver.capacity(), SECTORS);
        conformance::block_within(&mut driver, PATIENCE, || device.now());
        drop(driver);
        assert_eq!((device.mappings(), device.failure()), (0, None), "{dma:?}");
    }
}

#[test]
fn message_interrupts_are_given_where_the_device_has_them() {
    for (device, kind) in [(edu(), InterruptKind::Msi), (nvme(), InterruptKind::Msix)] {
        let (device, _served) = serve(device, Dma::Lent);
        let given = device.host().enable_interrupts(2).expect("interrupts");
        assert_eq!(given.kind, kind);
    }
}

/// A write the driver did not ask for reaches nothing it did not map.
#[test]
fn wild_write_is_refused_and_the_driver_goes_on() {
    for dma in WAYS {
        let lie = Lie::WildWrite {
            nth: 1,
            aim: Aim::BesideLast { gap: 1 << 16 },
            bytes: vec![0xee; 64],
        };
        let (tamper, tally) = Tamper::new(nvme(), vec![lie]);
        let (device, _served) = serve(Box::new(tamper), dma);
        let mut driver = driver_nvme::Nvme::probe(device.host()).expect("an honest start");
        tally.arm();
        let mut read = [0xff; 512];

        let done = driver.read(0, &mut read, Deadline::after(device.now(), PATIENCE));

        assert_eq!((done, tally.acted()), (Ok(()), 1), "{dma:?}");
        assert_eq!((read, device.failure()), ([0; 512], None), "{dma:?}");
    }
}

/// A locked bus: the read ends as one that nobody completes does, and the device answers again.
#[test]
fn read_that_never_completes_ends_in_all_ones() {
    let (tamper, tally) = Tamper::new(edu(), vec![Lie::NeverCompletes { nth: 1 }]);
    let (device, _served) = serve(Box::new(tamper), Dma::Lent);
    let bar = device.host().map_bar(Bar::ZERO).expect("a BAR");
    tally.arm();

    assert_eq!(bar.read32(0), u32::MAX);

    assert_eq!((tally.acted(), device.unanswered()), (1, 1));
    assert_eq!(bar.read32(0), 0x0100_00ed);
    assert_eq!(device.failure(), None);
}

/// A driver that comes back, over a socket in the file system, finds the device at its start; so does
/// one whose server died and was started again.
#[test]
fn driver_comes_back_after_either_side_died() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("nvme.sock");
    for life in 0..2 {
        // What a dead server leaves: a socket that nobody listens at.
        if life == 1 {
            drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        }
        let door = Door::open(&path).expect("a door");
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut server = Server::new(nvme(), Options::default());
            server.serve_at(&door, &seen, |_| false)
        });
        for round in 0..3_u8 {
            let socket = UnixStream::connect(&path).expect("a server");
            let cut = socket.try_clone().expect("a socket");
            let device = VfioUserDevice::over(socket).expect("a connection");
            let mut driver = driver_nvme::Nvme::probe(device.host()).expect("an honest device");
            let until = Deadline::after(device.now(), PATIENCE);
            let mut before = [0; 512];
            driver.read(1, &mut before, until).expect("it reads");
            assert_eq!(before, [round; 512], "the medium stays");
            driver
                .write(1, &[round + 1; 512], until)
                .expect("it writes");
            // The client dies: nothing is given back or shut down in order.
            cut.shutdown(std::net::Shutdown::Both).expect("a cut");
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("no panic").expect("no failure");
        assert!(!path.exists(), "the socket goes with its server");
    }
}

#[test]
fn socket_that_is_served_is_not_taken() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("nvme.sock");
    let _door = Door::open(&path).expect("a door");
    let error = Door::open(&path).expect_err("it is taken").to_string();
    assert!(error.contains("listens"), "{error}");

    std::fs::write(place.path().join("file"), "").expect("a file");
    let error = Door::open(&place.path().join("file")).expect_err("no socket");
    assert!(error.to_string().contains("no socket"), "{error}");
}

/// The driver's stores to mapped doorbells are all it takes: no message goes with a request.
#[test]
fn mapped_doorbells_are_rung_without_a_message() {
    let writes = Arc::new(AtomicU32::new(0));
    for (map_doorbells, rings) in [(false, 2), (true, 0)] {
        let counted = Arc::clone(&writes);
        let options = Options {
            map_doorbells,
            trace: Some(Box::new(move |line| {
                let message = line.to_string();
                let to_region = message.starts_with("read ") || message.starts_with("write ");
                counted.fetch_add(u32::from(to_region), Ordering::Relaxed);
            })),
            ..Options::default()
        };
        let (device, _served) = serve_with(nvme(), options);
        let mut driver = driver_nvme::Nvme::probe(device.host()).expect("an honest device");
        let before = writes.load(Ordering::Relaxed);
        for sector in 0..SECTORS {
            let until = Deadline::after(device.now(), PATIENCE);
            let data = [sector.to_le_bytes()[0]; 512];
            driver.write(sector, &data, until).expect("it is served");
        }
        let messages = writes.load(Ordering::Relaxed) - before;
        assert_eq!(u64::from(messages), rings * SECTORS, "{map_doorbells}");
        drop(driver);

        // A second driver starts with doorbells of its own, whatever the first left in the page.
        let mut driver = driver_nvme::Nvme::probe(device.host()).expect("an honest device");
        conformance::block_within(&mut driver, PATIENCE, || device.now());
        drop(driver);
        assert_eq!((device.mappings(), device.failure()), (0, None));
    }
}
