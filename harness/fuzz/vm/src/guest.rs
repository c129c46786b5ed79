//! This thread's guest: booted once, and reset before each execution.

#![expect(
    unsafe_code,
    reason = "an execution that is left for good leaves no borrow behind, which the compiler cannot know"
)]

use crate::target::NotInVm;
use crate::world::FuzzWorld;
use cofferdam_fuzz::elsewhere;
use cofferdam_instrument::coverage;
use cofferdam_microvm::{
    Call, Counts, Kvm, MicroVm, Nature, Nowhere, Patience, Payload, Snapshot, Window, result,
};
use cofferdam_microvm_abi::DEEP_STACK;
use cofferdam_seam::service::DriverError;
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::time::Duration;

/// Built by the build script.
pub static ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/payload"));

/// Processor time after which a guest that does not leave is looked after. Nothing that drivers here compute
/// takes as long.
const PATIENCE: Duration = Duration::from_millis(4);

struct Guest {
    vm: MicroVm,
    fresh: Snapshot,
    nature: Nature,
}

thread_local! {
    /// Dropped before the fuzzer's world, which was made before it and whose memory it sees.
    static GUEST: RefCell<Option<Box<Guest>>> = const { RefCell::new(None) };
}

/// Boots this thread's guest, unless it has one. Who carries out its privileged instructions.
///
/// # Errors
///
/// There is no KVM, or no memory.
pub fn ready() -> Result<Nature, NotInVm> {
    static PAYLOAD: OnceLock<Payload> = OnceLock::new();
    if let Some(nature) = GUEST.with_borrow(|guest| Some(guest.as_ref()?.nature)) {
        return Ok(nature);
    }
    let kvm = Kvm::open()?;
    let nature = kvm.nature()?;
    let memory = elsewhere::memory()?;
    let first = NonNull::new(memory.start as *mut u8);
    let window = first.map(|host| Window {
        at: 0,
        host,
        len: memory.len() as u64,
    });
    let payload = match PAYLOAD.get() {
        Some(payload) => payload,
        None => {
            let parsed = Payload::parse(ELF)?;
            PAYLOAD.get_or_init(|| parsed)
        }
    };
    // SAFETY: the world's memory stays mapped until this thread ends, and the guest goes first; it is memory
    // that drivers and devices change at any time, to which nobody holds references.
    let mut vm = unsafe { MicroVm::boot_with(&kvm, window.as_slice(), payload) }?;
    vm.set_patience(Duration::from_secs(60));
    vm.start(&mut Nowhere)?.map_err(NotInVm::Died)?;
    vm.set_patience(Patience::Processor(PATIENCE));
    let fresh = vm.snapshot()?;
    coverage::announce(vm.counters()?);
    GUEST.set(Some(Box::new(Guest { vm, fresh, nature })));
    Ok(nature)
}

/// What this thread's guest left for so far.
pub fn counts() -> Counts {
    GUEST.with_borrow(|guest| {
        guest
            .as_ref()
            .map(|guest| guest.vm.counts())
            .unwrap_or_default()
    })
}

/// The guest during one execution, and the world around it.
pub struct Held {
    guest: NonNull<Guest>,
    world: FuzzWorld,
    /// Sabotage: where the driver's CPU stores a byte after each call.
    wild: Option<u64>,
}

impl Held {
    /// This thread's guest, reset, in a new execution.
    pub fn new(world: FuzzWorld, wild: Option<u64>) -> Result<Self, DriverError> {
        let guest = GUEST.with_borrow_mut(|guest| Some(NonNull::from(&mut **guest.as_mut()?)));
        let mut held = Self {
            guest: guest.ok_or(DriverError::Unsupported("this thread has no guest"))?,
            world,
            wild,
        };
        let (guest, _) = held.parts();
        if let Err(error) = guest.vm.reset(&guest.fresh) {
            elsewhere::failed(error);
        }
        Ok(held)
    }

    fn parts(&mut self) -> (&mut Guest, &mut FuzzWorld) {
        // SAFETY: the guest is in a box of this thread's, which is not replaced. There is one execution at a
        // time on a thread, and it holds this once; what an execution that was left had borrowed is gone.
        (unsafe { self.guest.as_mut() }, &mut self.world)
    }

    /// Makes a call; the first value of its result.
    ///
    /// # Errors
    ///
    /// The driver's.
    pub fn call(&mut self, call: Call, arguments: &[u64], data: &[u8]) -> Result<u64, DriverError> {
        let done = self.make(call, arguments, data);
        match self.wild {
            Some(at) if !matches!(call, Call::Probe | Call::ProbePlanted | Call::Remove) => {
                self.make(Call::Store, &[at, 0x5a, 1], &[])?;
            }
            _ => {}
        }
        done
    }

    fn make(&mut self, call: Call, arguments: &[u64], data: &[u8]) -> Result<u64, DriverError> {
        let (guest, world) = self.parts();
        if let Err(error) = guest.vm.set_data(data) {
            elsewhere::failed(error);
        }
        match guest.vm.call(call, arguments, world) {
            Ok(Ok(words)) => {
                elsewhere::returned(DEEP_STACK);
                // Reasons are kept from one execution to the next.
                elsewhere::beyond(|| result(&words, || guest.vm.text()))
            }
            Ok(Err(death)) => Err(world.died(&death)),
            Err(error) => elsewhere::failed(error),
        }
    }

    /// The data that the last call left.
    pub fn data(&mut self, into: &mut [u8]) {
        if let Err(error) = self.parts().0.vm.data(into) {
            elsewhere::failed(error);
        }
    }
}
