//! A tenant in a virtual machine of its own: this domain is its VMM.
//!
//! The guest is given the tenant's frames and nothing else: the tenant's code, its ring, and its checks of
//! what it wrote are in there. What it asks of the world comes out by hypercalls, each of which is an exit,
//! and goes the way a tenant's process would have gone. Heartbeats too: the VMM beats only when its guest
//! comes to wait. What the guest dies of its domain dies of.

use crate::domain::cannot_go_on;
use crate::link::Link;
use crate::placement::RingAt;
use crate::port::Toll;
use crate::ring;
use crate::tenant::{self, Surroundings, Way};
use crate::trial::TrialSpec;
use cofferdam_microvm::{Call, Locate, MicroVm, Service, World, bell, complaint};
use cofferdam_seam::{Deadline, HostError, Time, VectorSet, Width};
use cofferdam_tenant::{Bell, Complaint, Io, Task, World as _};
use std::rc::Rc;

/// A tenant's way out of its guest.
struct Vmm<'a> {
    around: Surroundings<'a>,
}

impl Vmm<'_> {
    /// What a hypercall comes to.
    fn value(&mut self, service: Service, arguments: &[u64; 8]) -> Result<u64, HostError> {
        let [first, second, ..] = *arguments;
        let narrow = |value: u64| u32::try_from(value).map_err(|_| HostError::Refused);
        let around = &mut self.around;
        match service {
            Service::Ring => around.ring(),
            Service::Await => {
                let bell = match first {
                    bell::NONE => Bell::None,
                    bell::SERVER => Bell::Server,
                    bell::NEXT => Bell::Next,
                    _ => return Err(HostError::Refused),
                };
                return Ok(around.wait(bell, Deadline(Time(second))).into());
            }
            Service::Publish => {
                let words = std::array::from_fn(|at| arguments[at]);
                around.publish(&Io::unpack(words));
            }
            Service::Complain => around.complain(match first {
                complaint::FAILED => Complaint::Failed,
                complaint::WRONG => Complaint::Wrong,
                complaint::DEVICE => Complaint::Device,
                _ => return Err(HostError::Refused),
            }),
            Service::Finished => around.finished(),
            Service::SiblingRead => return Ok(around.sibling_read(narrow(first)?).into()),
            Service::SiblingWrite => around.sibling_write(narrow(first)?, narrow(second)?),
            Service::GiveBack => return Ok(around.give_back(first).into()),
            // A driver's, and what does not come here.
            _ => return Err(HostError::Refused),
        }
        Ok(0)
    }
}

impl World for Vmm<'_> {
    fn left(&mut self, _: &dyn Fn(usize) -> Vec<u64>) {
        self.around.link().page().pay(Toll::Left, 1);
    }

    // No device is a tenant's to reach by its registers.
    fn read(&mut self, _: u8, _: u32, _: Width) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _: u8, _: u32, _: Width, _: u64) {}

    fn serve(
        &mut self,
        service: Service,
        arguments: &[u64; 8],
        _: Locate<'_>,
    ) -> Result<[u64; 2], HostError> {
        match service {
            Service::NextTrial => {
                let (seed, requests) = self.around.next();
                Ok([seed, requests.into()])
            }
            service => Ok([self.value(service, arguments)?, 0]),
        }
    }

    // To know it costs no exit: as of the last one.
    fn clock(&self) -> Option<Time> {
        Some(self.around.now())
    }

    fn wait(&mut self, _: VectorSet, _: Deadline) -> Result<VectorSet, HostError> {
        Err(HostError::Refused)
    }
}

/// Lets tenant `number` of a trial live in that guest.
pub fn run(mut vm: MicroVm, link: Rc<Link>, spec: &TrialSpec, number: u8, way: Way<'_>) -> ! {
    let arguments = words(&tenant::task(spec, number, way));
    let mut vmm = Vmm {
        around: Surroundings::new(Rc::clone(&link), spec, number, way),
    };
    match vm.call(Call::Tenant, &arguments, &mut vmm) {
        Ok(Ok(_)) => panic!("in the guest: the tenant came to an end"),
        Ok(Err(death)) => panic!("in the guest: {death}"),
        Err(error) => cannot_go_on(link.page(), &error),
    }
}

/// A tenant's task, as its guest is told it.
fn words(task: &Task) -> [u64; 6] {
    use cofferdam_microvm::tenant as is;
    let properties = [
        (task.block, is::BLOCK),
        (task.warm, is::WARM),
        (task.sibling, is::SIBLING),
        (task.gives_back.is_some(), is::GIVES_BACK),
    ];
    let set = properties.into_iter().filter(|(set, _)| *set);
    [
        task.number.into(),
        set.fold(0, |all, (_, bit)| all | bit),
        task.seed,
        task.requests.into(),
        ring::ring_start(RingAt::Tenant(task.number)),
        task.gives_back.unwrap_or(0).into(),
    ]
}
