//! A tenant in its own virtual machine: the same as in a process, over hypercalls and its own frames.

use cofferdam_microvm_abi::page::CLOCK;
use cofferdam_microvm_abi::{MACHINE, Service, bell, complaint, tenant};
use cofferdam_microvm_runtime::page;
use cofferdam_seam::{Deadline, HostError, Time};
use cofferdam_tenant::ring::Header;
use cofferdam_tenant::{Bell, Complaint, Io, Ring, Shared, Task, Tenant, World};
use core::ptr;

/// The frames of a ring, by their physical address, in the window onto the machine's memory. Frames
/// that this guest was not given end it.
#[derive(Clone, Copy)]
struct Frames(u64);

impl Frames {
    fn pointer(self, at: usize) -> *mut u8 {
        ptr::with_exposed_provenance_mut((MACHINE + self.0) as usize + at)
    }
}

impl Shared for Frames {
    fn header(&self) -> &Header {
        // SAFETY: the VMM maps the ring's frames for as long as the guest lives, or the guest ends here;
        // every field is an atomic, valid for any bytes.
        unsafe { &*self.pointer(0).cast::<Header>() }
    }

    fn byte(&self, at: usize) -> u8 {
        // SAFETY: as in `header`; volatile, because the server may write at any time.
        unsafe { self.pointer(at).read_volatile() }
    }

    fn set_byte(&self, at: usize, value: u8) {
        // SAFETY: as in `byte`.
        unsafe { self.pointer(at).write_volatile(value) }
    }
}

/// The world by hypercalls.
struct Outside;

impl Outside {
    /// A hypercall whose answer is a value.
    fn ask(&mut self, service: Service, arguments: &[u64]) -> Result<u64, HostError> {
        page::ask(service, arguments).map(|[value]| value)
    }

    fn tell(&mut self, service: Service, arguments: &[u64]) {
        // A VMM that refuses is as deaf as one that does nothing.
        let _ = page::ask::<0>(service, arguments);
    }
}

impl World for Outside {
    fn now(&self) -> Time {
        Time(page::word(CLOCK))
    }

    fn ring(&mut self) {
        self.tell(Service::Ring, &[]);
    }

    fn wait(&mut self, bell: Bell, until: Deadline) -> bool {
        let bell = match bell {
            Bell::None => bell::NONE,
            Bell::Server => bell::SERVER,
            Bell::Next => bell::NEXT,
        };
        let rang = self.ask(Service::Await, &[bell, until.0.nanos()]);
        rang.is_ok_and(|rang| rang != 0)
    }

    fn publish(&mut self, io: &Io) {
        self.tell(Service::Publish, &io.pack());
    }

    fn complain(&mut self, what: Complaint) {
        let what = match what {
            Complaint::Failed => complaint::FAILED,
            Complaint::Wrong => complaint::WRONG,
            Complaint::Device => complaint::DEVICE,
        };
        self.tell(Service::Complain, &[what]);
    }

    fn finished(&mut self) {
        self.tell(Service::Finished, &[]);
    }

    fn next(&mut self) -> (u64, u32) {
        let [seed, requests] = page::ask(Service::NextTrial, &[]).unwrap_or_default();
        (seed, requests as u32)
    }

    fn sibling_read(&mut self, offset: u32) -> u32 {
        let value = self.ask(Service::SiblingRead, &[offset.into()]);
        value.map_or(u32::MAX, |value| value as u32)
    }

    fn sibling_write(&mut self, offset: u32, value: u32) {
        self.tell(Service::SiblingWrite, &[offset.into(), value.into()]);
    }

    fn give_back(&mut self, phys: u64) -> bool {
        let taken = self.ask(Service::GiveBack, &[phys]);
        taken.is_ok_and(|taken| taken != 0)
    }
}

/// Lets the tenant live that a call describes.
pub fn live([number, is, seed, requests, ring, gives_back]: [u64; 6]) -> ! {
    let task = Task {
        number: number as u8,
        block: is & tenant::BLOCK != 0,
        seed,
        requests: requests as u32,
        warm: is & tenant::WARM != 0,
        sibling: is & tenant::SIBLING != 0,
        gives_back: (is & tenant::GIVES_BACK != 0).then_some(gives_back as u32),
    };
    Tenant::new(Outside, Ring::new(Frames(ring), ring), task).run()
}
