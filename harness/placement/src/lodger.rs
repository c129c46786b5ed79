//! A tenant that lives with its driver, in one domain.
//!
//! Both would go on for ever, and the domain has one thread: so the tenant has a stack of its own, and
//! leaves off there when it has made a request, until the driver's side has served it.

use crate::link::Link;
use crate::tenant::{self, Way};
use crate::trial::TrialSpec;
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, Yielder};
use std::io;
use std::mem::ManuallyDrop;
use std::rc::Rc;

/// Bytes of its stack; a guard page follows.
const STACK: usize = 256 << 10;

/// The tenant of this domain.
pub struct Lodger {
    // It ends with the process, wherever it was: to unwind it would be to run its code once more.
    tenant: ManuallyDrop<Coroutine<(), (), ()>>,
}

impl Lodger {
    /// A stack for it, which the jail would not let anybody make.
    pub fn stack() -> io::Result<DefaultStack> {
        DefaultStack::new(STACK)
    }

    /// Tenant `number` of a trial, which has not done anything yet.
    pub fn new(stack: DefaultStack, link: &Rc<Link>, spec: &TrialSpec, number: u8) -> Self {
        let (link, spec) = (Rc::clone(link), spec.clone());
        let life = move |driver: &Yielder<(), ()>, ()| {
            tenant::run(link, &spec, number, Way::Within(driver))
        };
        Self {
            tenant: ManuallyDrop::new(Coroutine::with_stack(stack, life)),
        }
    }

    /// Lets it go on until it has made its next request, or none of them is answered yet.
    pub fn go_on(&mut self) {
        self.tenant.resume(());
    }
}
