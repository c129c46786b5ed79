//! virtio-drivers by its own PCI transport: here registers are memory, so the crate needs no adapter
//! for them, only a HAL.
//!
//! The crate never asks for interrupts, so its queue is polled. A transport that panics or loops ends
//! the guest, as it would end a kernel.

use alloc::vec::Vec;
use cofferdam_microvm_abi::{BAR_WINDOW, BARS};
use cofferdam_microvm_runtime::host::{GuestDma, GuestHost};
use cofferdam_seam::service::{Block, DriverError, SECTOR, check_sectors};
use cofferdam_seam::{
    Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, Iova, Mapping, RawDma, Width,
};
use core::cell::RefCell;
use core::ptr::NonNull;
use core::time::Duration;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::{BufferDirection, Error, Hal, PAGE_SIZE, PhysAddr};

/// How long a device may take from its reset to DRIVER_OK.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of data in one request of the device; longer ones of ours are cut.
const CHUNK: usize = 8 * SECTOR;
/// PCI identity of a modern block device (VIRTIO 1.2, 4.1.2.1).
const PCI_ID: u32 = 0x1042_1af4;
/// The device this guest was given; its host knows no other.
const FUNCTION: DeviceFunction = DeviceFunction {
    bus: 0,
    device: 0,
    function: 0,
};

/// A driver of one virtio block device.
pub struct PciBlk {
    blk: VirtIOBlk<GuestHal, PciTransport>,
    broken: bool,
}

impl PciBlk {
    /// Takes the device into service.
    pub fn probe(mut host: GuestHost) -> Result<Self, DriverError> {
        if host.config_read(0, Width::Four)? != PCI_ID {
            return Err(DriverError::Unsupported("PCI ID is not 1af4:1042"));
        }
        // Mapping switches memory decoding on; the crate then finds its structures in whichever BAR its
        // capabilities name.
        for bar in (0..6).filter_map(Bar::new) {
            match host.map_bar(bar) {
                Ok(_) | Err(HostError::NoSuchBar(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        host.set_bus_master(true)?;
        let until = Deadline::after(host.now(), PROBE_LIMIT);
        let transport = PciTransport::new::<GuestHal, _>(&mut PciRoot::new(Config), FUNCTION)
            .map_err(|_| DriverError::Protocol("the capabilities make no transport"))?;
        let blk = VirtIOBlk::new(transport)
            .map_err(|_| DriverError::Protocol("the start failed in virtio-drivers"))?;
        if until.passed(host.now()) {
            return Err(DriverError::TimedOut("the device to start"));
        }
        Ok(Self { blk, broken: false })
    }

    fn request(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        if self.broken {
            return Err(DriverError::Protocol(
                "an earlier request failed; drop the driver and probe again",
            ));
        }
        let result = run(self);
        self.broken = matches!(&result, Err(error) if !error.is_request_only());
        result
    }

    /// The sectors' number as the crate wants it, if the disk has them all.
    fn check(&self, sector: u64, len: usize) -> Result<usize, DriverError> {
        check_sectors(sector, len, self.blk.capacity())?;
        usize::try_from(sector).map_err(|_| DriverError::BadRequest("beyond the end of the disk"))
    }

    /// Polls until the request `token`, the only one, is in the used ring.
    fn await_used(&mut self, token: u16, until: Deadline) -> Result<(), DriverError> {
        loop {
            match self.blk.peek_used() {
                Some(used) if used == token => return Ok(()),
                Some(_) => {
                    return Err(DriverError::Protocol(
                        "a used element names no request of ours",
                    ));
                }
                None => {}
            }
            if until.passed(GuestHost.now()) {
                return Err(DriverError::TimedOut("the request to complete"));
            }
            GuestHost.relax()?;
        }
    }

    fn read_chunk(
        &mut self,
        sector: usize,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<(), DriverError> {
        let (mut header, mut status) = (BlkReq::default(), BlkResp::default());
        // SAFETY: the HAL copies: once this returns nobody holds a pointer to the three buffers, and the
        // same ones complete the request.
        let token = unsafe {
            self.blk
                .read_blocks_nb(sector, &mut header, into, &mut status)
        };
        let token = token.map_err(failed)?;
        self.await_used(token, until)?;
        // SAFETY: these are the buffers that were submitted with this token.
        unsafe {
            self.blk
                .complete_read_blocks(token, &header, into, &mut status)
        }
        .map_err(failed)
    }

    fn write_chunk(
        &mut self,
        sector: usize,
        from: &[u8],
        until: Deadline,
    ) -> Result<(), DriverError> {
        let (mut header, mut status) = (BlkReq::default(), BlkResp::default());
        // SAFETY: as in `read_chunk`.
        let token = unsafe {
            self.blk
                .write_blocks_nb(sector, &mut header, from, &mut status)
        };
        let token = token.map_err(failed)?;
        self.await_used(token, until)?;
        // SAFETY: these are the buffers that were submitted with this token.
        unsafe {
            self.blk
                .complete_write_blocks(token, &header, from, &mut status)
        }
        .map_err(failed)
    }
}

impl Block for PciBlk {
    fn capacity(&self) -> u64 {
        self.blk.capacity()
    }

    fn read(&mut self, sector: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError> {
        self.request(|driver| {
            let first = driver.check(sector, into.len())?;
            for (chunk, bytes) in into.chunks_mut(CHUNK).enumerate() {
                driver.read_chunk(first + chunk * (CHUNK / SECTOR), bytes, until)?;
            }
            Ok(())
        })
    }

    fn write(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        self.request(|driver| {
            let first = driver.check(sector, from.len())?;
            if driver.blk.readonly() {
                return Err(DriverError::BadRequest("the disk is read-only"));
            }
            for (chunk, bytes) in from.chunks(CHUNK).enumerate() {
                driver.write_chunk(first + chunk * (CHUNK / SECTOR), bytes, until)?;
            }
            Ok(())
        })
    }
}

fn failed(error: Error) -> DriverError {
    match error {
        Error::IoError | Error::Unsupported => DriverError::Io,
        _ => DriverError::Protocol("the request failed in virtio-drivers"),
    }
}

/// The configuration space of the guest's only device.
struct Config;

impl ConfigurationAccess for Config {
    fn read_word(&self, _: DeviceFunction, offset: u8) -> u32 {
        let value = GuestHost.config_read(offset.into(), Width::Four);
        value.unwrap_or(u32::MAX)
    }

    fn write_word(&mut self, _: DeviceFunction, offset: u8, value: u32) {
        // The crate's trait has no error.
        let _ = GuestHost.config_write(offset.into(), Width::Four, value);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// DMA memory that the crate holds a pointer to, or a copy of a buffer it shared.
struct Lent {
    mapping: Mapping,
    region: GuestDma,
}

/// What is lent, and what was lent for a request and will be for the next: to ask for it, and to give it
/// back, is an exit each. The guest has one CPU and its stubs lend nothing.
struct Lending {
    lent: RefCell<Vec<Lent>>,
    spare: RefCell<Vec<GuestDma>>,
}

// SAFETY: there is one CPU.
unsafe impl Sync for Lending {}

static LENDING: Lending = Lending {
    lent: RefCell::new(Vec::new()),
    spare: RefCell::new(Vec::new()),
};

/// A spare region of that length, or a new one.
fn region(len: usize) -> Result<GuestDma, HostError> {
    let mut spare = LENDING.spare.borrow_mut();
    match spare.iter().position(|region| region.len() == len) {
        Some(index) => Ok(spare.swap_remove(index)),
        None => GuestHost.alloc_dma(len),
    }
}

fn lend(region: GuestDma, way: Direction) -> Result<(Iova, NonNull<u8>), HostError> {
    let len = region.len();
    let mapping = GuestHost.map(&region, 0..len, way)?;
    let (iova, at) = (mapping.iova, GuestHost.pointer(&region));
    LENDING.lent.borrow_mut().push(Lent { mapping, region });
    Ok((iova, at))
}

/// Takes back what is at that address.
fn take_back(iova: u64) -> Option<GuestDma> {
    let mut lent = LENDING.lent.borrow_mut();
    let index = lent.iter().position(|lent| lent.mapping.iova.0 == iova)?;
    let Lent { mapping, region } = lent.swap_remove(index);
    GuestHost.unmap(mapping);
    Some(region)
}

fn way(direction: BufferDirection) -> Direction {
    match direction {
        BufferDirection::DriverToDevice => Direction::ToDevice,
        BufferDirection::DeviceToDriver => Direction::FromDevice,
        BufferDirection::Both => Direction::Both,
    }
}

/// The crate's HAL.
struct GuestHal;

// SAFETY: each method keeps its part of the contract, see there.
unsafe impl Hal for GuestHal {
    // `alloc_dma` gives zeroed whole pages that are nobody else's, and they are kept until `dma_dealloc`.
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let len = pages.saturating_mul(PAGE_SIZE);
        let lent = GuestHost
            .alloc_dma(len)
            .and_then(|region| lend(region, way(direction)));
        let (iova, at) = lent.expect("DMA memory for a queue");
        (iova.0, at)
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        if take_back(paddr).is_some() { 0 } else { -1 }
    }

    // The windows of the BARs are where the VMM traps, whatever address the BAR itself was given.
    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, _: usize) -> NonNull<u8> {
        let base = |index: u64| {
            let low = Config.read_word(FUNCTION, 0x10 + 4 * index as u8);
            let high = match low >> 1 & 3 {
                2 if index < 5 => Config.read_word(FUNCTION, 0x14 + 4 * index as u8),
                _ => 0,
            };
            (low & 1 == 0).then(|| u64::from(high) << 32 | u64::from(low & !0xf))
        };
        let found = (0..6).find_map(|index| {
            let offset = paddr.checked_sub(base(index)?)?;
            (offset < BAR_WINDOW).then_some(BARS + index * BAR_WINDOW + offset)
        });
        let at = found.expect("a register structure lies in a BAR");
        NonNull::new(at as *mut u8).expect("BAR windows are above address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // SAFETY: the caller vouches for the buffer during this call.
        let bytes = unsafe { buffer.as_ref() };
        let lent = region(bytes.len()).and_then(|region| {
            // The bytes are copied in for a device that only writes, too: what it leaves out must read as
            // it did before.
            region.write_at(0, bytes);
            lend(region, way(direction))
        });
        lent.expect("DMA memory for a buffer").0.0
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let Some(region) = take_back(paddr) else {
            return;
        };
        if way(direction).device_writes() {
            // SAFETY: the caller vouches for the buffer during this call, and made it from a `&mut`.
            region.read_at(0, unsafe { buffer.as_mut() });
        }
        LENDING.spare.borrow_mut().push(region);
    }
}
