//! virtio-drivers as the fuzzer's targets use it: every buffer it lends is copied, and known.

use alloc::boxed::Box;
use cofferdam_fuzz_targets_virtio::blk::{self, Lending};
pub use cofferdam_fuzz_targets_virtio::blk::{Operation, Refusal};
use cofferdam_fuzz_targets_virtio::transport::{FuzzTransport, Registers};
use cofferdam_microvm_abi::{BAR_WINDOW, BARS, Service};
use cofferdam_microvm_runtime::host::{GuestHost, GuestMmio};
use cofferdam_microvm_runtime::{lent, page};
use cofferdam_seam::{Bar, Direction, DriverHost, Mmio, Width};
use core::ptr::NonNull;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// The place that the device is told it has.
const PLACE: DeviceFunction = DeviceFunction {
    bus: 1,
    device: 0,
    function: 0,
};

/// Bytes of a disk's configuration (virtio 1.2, 5.2.4).
const CONFIG: usize = 0x3c;

/// A disk, over whichever transport.
pub trait Disk {
    /// See [`blk::Disk::operate`].
    ///
    /// # Errors
    ///
    /// It is not done.
    fn operate(
        &mut self,
        operation: Operation,
        sector: usize,
        sectors: usize,
        data: &mut [u8],
    ) -> Result<Option<usize>, Refusal>;
}

impl<T: Transport> Disk for blk::Disk<GuestHal, T> {
    fn operate(
        &mut self,
        operation: Operation,
        sector: usize,
        sectors: usize,
        data: &mut [u8],
    ) -> Result<Option<usize>, Refusal> {
        Self::operate(self, operation, sector, sectors, data)
    }
}

/// A disk over the crate's own PCI transport.
///
/// # Errors
///
/// The crate does not take it.
pub fn pci_disk() -> Result<Box<dyn Disk>, Refusal> {
    let transport = PciTransport::new::<GuestHal, _>(&mut PciRoot::new(Config), PLACE);
    let transport = transport.map_err(|_| Refusal::Crate(virtio_drivers::Error::Unsupported))?;
    Ok(Box::new(blk::Disk::<GuestHal, _>::new(transport)?))
}

/// A disk over the transport of the workload's.
///
/// # Errors
///
/// The crate does not take it.
pub fn mmio_disk() -> Result<Box<dyn Disk>, Refusal> {
    let transport = FuzzTransport::new(Trapped, DeviceType::Block, CONFIG);
    Ok(Box::new(blk::Disk::<GuestHal, _>::new(transport)?))
}

/// Registers where the VMM traps them.
struct Trapped;

impl Registers for Trapped {
    fn read(&self, bar: Bar, offset: u32, width: Width) -> u64 {
        GuestMmio::whole(bar).read(offset, width)
    }

    fn write(&self, bar: Bar, offset: u32, width: Width, value: u64) {
        GuestMmio::whole(bar).write(offset, width, value);
    }

    fn enable_memory(&mut self) {
        // The VMM enables it with the first BAR that is mapped.
        for bar in (0..6).filter_map(Bar::new) {
            if GuestHost.map_bar(bar).is_ok() {
                return;
            }
        }
    }

    fn set_bus_master(&mut self, on: bool) {
        // This host cannot refuse it.
        let _ = GuestHost.set_bus_master(on);
    }
}

/// The configuration space of the guest's only device.
struct Config;

impl ConfigurationAccess for Config {
    fn read_word(&self, _: DeviceFunction, offset: u8) -> u32 {
        let value = GuestHost.config_read(offset.into(), Width::Four);
        // This host always answers.
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

fn way(direction: BufferDirection) -> Direction {
    match direction {
        BufferDirection::DriverToDevice => Direction::ToDevice,
        BufferDirection::DeviceToDriver => Direction::FromDevice,
        BufferDirection::Both => Direction::Both,
    }
}

/// The crate's HAL.
pub struct GuestHal;

impl Lending for GuestHal {
    fn is_lent(bytes: &[u8]) -> bool {
        lent::is_lent(bytes)
    }
}

// SAFETY: each method keeps its part of the contract, see there.
unsafe impl Hal for GuestHal {
    // Pages are zeroed, aligned, and nobody else's for the rest of the execution. If there are none
    // the address is 0, which the crate takes for an error.
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let arguments = [pages as u64, lent::code(way(direction))];
        match page::ask(Service::AllocPages, &arguments) {
            Ok([iova, at]) => {
                let at = NonNull::new(at as *mut u8);
                at.map_or((0, NonNull::dangling()), |at| (iova, at))
            }
            Err(_) => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        let held = page::ask::<1>(Service::FreePages, &[paddr]);
        if held.is_ok_and(|[held]| held != 0) {
            0
        } else {
            -1
        }
    }

    // The VMM knows where firmware placed the registers, and traps them elsewhere. The crate has no way to
    // hear that there are none.
    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        let found = page::ask::<1>(Service::Registers, &[paddr, size as u64]);
        let at = found
            .ok()
            .filter(|[at]| (BARS..BARS + 6 * BAR_WINDOW).contains(at));
        match at.and_then(|[at]| NonNull::new(at as *mut u8)) {
            Some(at) => at,
            None => page::give_up("a BAR lies where the device has no registers"),
        }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // SAFETY: the caller vouches for the buffer during this call, and nothing keeps the reference.
        let bytes = unsafe { buffer.as_ref() };
        // There is no way to say no; nothing is mapped at zero.
        lent::share(bytes, way(direction)).unwrap_or(0)
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let len = buffer.len();
        let back = if way(direction).device_writes() {
            // SAFETY: the caller vouches for the buffer during this call; one that the device was to write
            // was made from a `&mut` by the crate.
            Some(unsafe { buffer.as_mut() })
        } else {
            None
        };
        // The VMM reports what was not lent.
        let _ = lent::unshare(paddr, len, back);
    }
}
