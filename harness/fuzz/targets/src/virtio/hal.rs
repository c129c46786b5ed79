//! The crate's HAL, over the world of the running execution.

use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::Refused;
use cofferdam_fuzz_targets_virtio::{blk::Lending, transport};
use cofferdam_instrument::trap;
use cofferdam_seam::{Bar, Direction, DriverHost, Iova, Width};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// The HAL.
pub struct FuzzHal;

/// A range of addresses that belongs to the device's registers, and where it can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    /// Its first address.
    pub first: PhysAddr,
    /// Bytes.
    pub len: u64,
    /// The first byte.
    pub pointer: NonNull<u8>,
}

thread_local! {
    static REGISTERS: Cell<Option<Registers>> = const { Cell::new(None) };
}

/// Says where the registers are that the crate asks for, in this execution.
pub fn place_registers(registers: Registers) {
    REGISTERS.set(Some(registers));
}

/// The payload of a call that asked for registers of somebody else.
struct Elsewhere;

/// Runs `call`, which goes into the crate; refuses a device that sends it to registers which are not
/// its own. The crate leaves that to the HAL, which has no other way to say no.
///
/// # Errors
///
/// There are no such registers.
pub fn unless_elsewhere<R>(call: impl FnOnce() -> R) -> Result<R, Refused> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        if !payload.is::<Elsewhere>() {
            resume_unwind(payload);
        }
        Refused::because("a BAR lies where the device has no registers")
    })
}

/// The registers of the execution that runs on this thread, for transports.
#[derive(Clone, Copy, Debug)]
pub struct HostRegisters(pub FuzzHost);

impl transport::Registers for HostRegisters {
    #[inline]
    fn read(&self, bar: Bar, offset: u32, width: Width) -> u64 {
        self.0.read(bar, offset, width)
    }

    #[inline]
    fn write(&self, bar: Bar, offset: u32, width: Width, value: u64) {
        self.0.write(bar, offset, width, value);
    }

    fn enable_memory(&mut self) {
        self.0.enable_memory();
    }

    fn set_bus_master(&mut self, on: bool) {
        // This host cannot refuse it.
        let _ = self.0.set_bus_master(on);
    }
}

impl Lending for FuzzHal {
    fn is_lent(bytes: &[u8]) -> bool {
        FuzzHost::current().is_lent(bytes)
    }
}

fn way(direction: BufferDirection) -> Direction {
    match direction {
        BufferDirection::DriverToDevice => Direction::ToDevice,
        BufferDirection::DeviceToDriver => Direction::FromDevice,
        BufferDirection::Both => Direction::Both,
    }
}

// SAFETY: each method keeps its part of the contract, see there. A register's store that was trapped is
// carried out before anything else is done.
unsafe impl Hal for FuzzHal {
    // Pages are zeroed, aligned, and nobody else's for the rest of the execution. If there are none
    // the address is 0, which the crate takes for an error.
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        trap::settle();
        match FuzzHost::current().allocate_pages(pages, way(direction)) {
            Ok((iova, first)) => (iova.0, first),
            Err(_) => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        trap::settle();
        if FuzzHost::current().free_pages(Iova(paddr)) {
            0
        } else {
            -1
        }
    }

    // Inside the window that belongs to this execution. Only the crate's own PCI transport asks, below
    // `unless_elsewhere`.
    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        let found = REGISTERS.get().and_then(|registers| {
            let offset = paddr.checked_sub(registers.first)?;
            let end = offset.checked_add(size as u64)?;
            let offset = usize::try_from(offset).ok()?;
            // SAFETY: the window has that many bytes.
            (end <= registers.len).then(|| unsafe { registers.pointer.add(offset) })
        });
        found.unwrap_or_else(|| resume_unwind(Box::new(Elsewhere)))
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        trap::settle();
        // SAFETY: the caller vouches for the buffer during this call, and nothing keeps the
        // reference.
        let bytes = unsafe { buffer.as_ref() };
        let shared = FuzzHost::current().share(bytes, way(direction));
        // There is no way to say no; nothing is mapped at zero.
        shared.map_or(0, |shared| shared.iova.0)
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        trap::settle();
        let len = buffer.len();
        let back = if way(direction).device_writes() {
            // SAFETY: the caller vouches for the buffer during this call; one that the device was
            // to write was made from a `&mut` by the crate.
            Some(unsafe { buffer.as_mut() })
        } else {
            None
        };
        FuzzHost::current().unshare(Iova(paddr), len, back);
    }
}
