//! Where the model's messages leave: the client, not the function's own table, knows where they go.

use cofferdam_seam::{
    Access, Budget, BusPort, Capability, Completion, Device, Doorbells, PciIdentity, Pending,
    Progress, Reset, Time, VectorSet, Width,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The vectors a model raised and nobody delivered yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raised(Arc<AtomicU64>);

impl Raised {
    /// Takes them all.
    pub fn take(&self) -> VectorSet {
        VectorSet(self.0.swap(0, Ordering::Relaxed))
    }
}

/// A device whose raised vectors go to [`Raised`] and no further.
pub(crate) struct Tap {
    inner: Box<dyn Device>,
    /// What it is to clients, if not what it is.
    identity: Option<PciIdentity>,
    raised: Raised,
}

impl Tap {
    /// Wraps a model, and hides its MSI-X if it is to interrupt by its pin only.
    pub fn new(inner: Box<dyn Device>, pin_only: bool) -> (Self, Raised) {
        let raised = Raised::default();
        let identity = pin_only.then(|| without_msix(inner.describe()));
        let tap = Self {
            inner,
            identity,
            raised: raised.clone(),
        };
        (tap, raised)
    }

    fn lend<R>(
        &mut self,
        port: &mut BusPort<'_>,
        call: impl FnOnce(&mut dyn Device, &mut BusPort<'_>) -> R,
    ) -> R {
        let (bus, requester, pending) = port.parts();
        let mut asked = Pending::default();
        let result = call(
            &mut *self.inner,
            &mut BusPort::new(bus, requester, &mut asked),
        );
        let VectorSet(vectors) = asked.raised;
        self.raised.0.fetch_or(vectors, Ordering::Relaxed);
        pending.intx = asked.intx.or(pending.intx);
        pending.meddling = asked.meddling.or(pending.meddling);
        result
    }
}

fn without_msix(identity: &PciIdentity) -> PciIdentity {
    let others = identity.capabilities.iter().copied();
    let others = others.filter(|one| !matches!(one, Capability::Msix { .. }));
    PciIdentity {
        // An identity is constant data; this is the one of a server's life.
        capabilities: others.collect::<Vec<_>>().leak(),
        ..*identity
    }
}

impl Device for Tap {
    fn describe(&self) -> &PciIdentity {
        self.identity
            .as_ref()
            .unwrap_or_else(|| self.inner.describe())
    }

    fn answer_config(&mut self, at: u16, width: Width, space: &[u8], now: Time) -> Option<u32> {
        self.inner.answer_config(at, width, space, now)
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        self.lend(bus, |device, port| device.read(at, port))
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        self.lend(bus, |device, port| device.write(at, value, port));
    }

    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        self.lend(bus, |device, port| device.step(budget, port))
    }

    fn reset(&mut self, kind: Reset) {
        self.inner.reset(kind);
        self.raised.take();
    }

    fn doorbells(&self) -> Option<Doorbells> {
        self.inner.doorbells()
    }
}
