//! The runtime after rdif-block that the crate's state machines expect: it waits, acknowledges
//! interrupts, drains the queue, and owns the deadline.

use crate::interrupts::{Handlers, OwnLine};
use crate::spec;
use cofferdam_instrument::platform::{DMA, MMIO, Session, address_of};
use cofferdam_seam::service::{DriverError, SECTOR};
use cofferdam_seam::{Bar, Deadline, Direction, HostError, Mmio, RawDma, Wake};
use dma_api::{
    CompletedDma, CpuDmaBuffer, DeviceDma, DmaCoherency, DmaConstraints, DmaDeviceInfo,
    DmaDirection, DmaDomainId,
};
use nvme_driver::{Config, Nvme, NvmeBlockDriver};
use rdif_block::{
    BHardwareQueue, BatchSubmitDisposition, BlkError, BlockController, CompletedRequest,
    CompletionSink, ControllerEvent, ControllerState, IrqDisposition, OwnedRequest,
    OwnedRequestBatch, RequestFlags, RequestId, RequestOp, SubmissionSink,
};
use std::num::{NonZeroU64, NonZeroUsize};
use std::rc::Rc;
use std::time::Duration;

/// Commands outstanding at a time.
const DEPTH: usize = 1;

/// The crate's controller and queue. Every method is a call into the crate: the session must be
/// entered, and is at the drop too.
pub struct Runtime<H: RawDma + 'static> {
    controller: NvmeBlockDriver,
    queue: Option<BHardwareQueue>,
    handlers: Handlers,
    dma: DeviceDma,
    /// For the controller configuration: whether the crate has enabled the controller.
    registers: H::Mmio,
    session: Rc<Session<H>>,
}

impl<H: RawDma + 'static> Runtime<H> {
    /// Hands the controller to the crate. Nothing is started.
    pub fn new(
        session: Rc<Session<H>>,
        registers: H::Mmio,
        config: Config,
    ) -> Result<Self, DriverError> {
        let len = usize::try_from(registers.len())
            .map_err(|_| DriverError::Unsupported("BAR 0 is larger than the address space"))?;
        let dma = DeviceDma::new(device_info(), &DMA);
        let nvme = Nvme::new(address_of(Bar::ZERO), len, dma.clone(), &MMIO, config)
            .map_err(|_| refused(&session, "nvme-driver refuses the controller"))?;
        let controller = NvmeBlockDriver::from_nvme_with_queue_depth(nvme, DEPTH);
        Ok(Self {
            controller: controller.with_intx_source(OwnLine),
            queue: None,
            handlers: Handlers::default(),
            dma,
            registers,
            session,
        })
    }

    /// Brings the controller up to its first queue.
    pub fn start(&mut self, until: Deadline) -> Result<(), DriverError> {
        let mut is_master = false;
        let mut state = self.advance(ControllerEvent::Start { target_queues: 1 })?;
        while state != ControllerState::Ready {
            // Not earlier: an older life's queues end when the controller is disabled.
            if !is_master && self.registers.read32(spec::CC) & spec::CC_EN != 0 {
                self.session.host().set_bus_master(true)?;
                is_master = true;
            }
            state = match state {
                ControllerState::RegisterPending { retry_after } => {
                    self.pause(retry_after, until)?;
                    self.advance(ControllerEvent::RegisterRetry)?
                }
                ControllerState::WaitingForIrq => {
                    let (next, _) = self.serve_interrupts(until, "the controller to start")?;
                    next.unwrap_or(state)
                }
                ControllerState::Ready | ControllerState::Shutdown => {
                    return Err(DriverError::Protocol("the controller stopped at the start"));
                }
            };
        }
        if self.controller.device_info().logical_block_size != SECTOR {
            return Err(DriverError::Unsupported("its blocks are not 512 bytes"));
        }
        Ok(())
    }

    /// Sectors of the namespace.
    pub fn capacity(&self) -> u64 {
        self.controller.device_info().num_blocks
    }

    /// Sectors that one command moves at most.
    pub fn longest(&self) -> usize {
        let limits = self.queue.as_ref().map(|queue| queue.info().limits);
        limits.map_or(1, |limits| limits.max_blocks_per_request as usize)
    }

    /// Reads sectors with one command.
    pub fn read(&mut self, lba: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError> {
        let buffer = self.buffer(into.len(), DmaDirection::FromDevice)?;
        let data = self.command(transfer(RequestOp::Read, lba, buffer)?, until)?;
        let data = data.ok_or(DriverError::Protocol("nvme-driver kept the data"))?;
        data.copy_to_slice_cpu(into);
        Ok(())
    }

    /// Writes sectors with one command.
    pub fn write(&mut self, lba: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        let mut buffer = self.buffer(from.len(), DmaDirection::ToDevice)?;
        buffer.copy_from_slice_cpu(from);
        self.command(transfer(RequestOp::Write, lba, buffer)?, until)?;
        Ok(())
    }

    /// Makes what was written durable.
    pub fn flush(&mut self, until: Deadline) -> Result<(), DriverError> {
        let flush = OwnedRequest {
            op: RequestOp::Flush,
            lba: 0,
            block_count: 0,
            data: None,
            flags: RequestFlags::NONE,
        };
        self.command(flush, until)?;
        Ok(())
    }

    /// Stops the controller.
    pub fn stop(&mut self, until: Deadline) -> Result<(), DriverError> {
        let mut state = self.advance(ControllerEvent::Shutdown)?;
        while let ControllerState::RegisterPending { retry_after } = state {
            self.pause(retry_after, until)?;
            state = self.advance(ControllerEvent::RegisterRetry)?;
        }
        Ok(())
    }

    /// Takes back what the queue gave to the device, which is stopped or has lost the bus.
    pub fn reclaim(&mut self) {
        if let Some(mut queue) = self.queue.take() {
            // What it cannot give back it keeps, and the session frees.
            let _ = queue.shutdown(&mut Finished(None));
        }
    }

    /// Tells the controller something, and takes what it gives.
    fn advance(&mut self, event: ControllerEvent) -> Result<ControllerState, DriverError> {
        let update = self.controller.advance(event);
        let mut update = update.map_err(|error| match error {
            BlkError::NotSupported => DriverError::Unsupported("nvme-driver refuses the namespace"),
            _ => refused(&self.session, "nvme-driver gives the controller up"),
        })?;
        if let Some(queue) = update.take_queues().pop() {
            self.queue = Some(queue);
        }
        for endpoint in update.take_irq_endpoints() {
            let source_id = self.handlers.install(endpoint);
            self.rearm(source_id)?;
        }
        Ok(update.controller_state())
    }

    fn rearm(&mut self, source_id: usize) -> Result<(), DriverError> {
        let rearmed = self
            .controller
            .advance(ControllerEvent::Rearm { source_id });
        let rearmed = rearmed.map(drop);
        rearmed.map_err(|_| refused(&self.session, "nvme-driver does not know its interrupt"))
    }

    /// Lets time pass, until the deadline at most.
    fn pause(&self, by: Duration, until: Deadline) -> Result<(), DriverError> {
        let mut host = self.session.host();
        if until.passed(host.now()) {
            return Err(DriverError::TimedOut("the controller's registers"));
        }
        let end = Deadline::after(host.now(), by).min(until);
        // Nothing is awaited but the time.
        host.wait_any(&[], end)?;
        Ok(())
    }

    /// Waits for an interrupt and serves it: the controller's new state, if it has one, and what
    /// completed.
    fn serve_interrupts(
        &mut self,
        until: Deadline,
        what: &'static str,
    ) -> Result<(Option<ControllerState>, Finished), DriverError> {
        let vectors = self.handlers.vectors();
        let wake = {
            let mut host = self.session.host();
            // A storm wakes us for ever.
            if until.passed(host.now()) {
                return Err(DriverError::TimedOut(what));
            }
            host.wait_any(&vectors, until)?
        };
        let Wake::Interrupt(raised) = wake else {
            return Err(DriverError::TimedOut(what));
        };
        let (mut state, mut finished) = (None, Finished(None));
        for (source_id, ack) in self.handlers.acknowledge(raised) {
            if ack.is_spurious() {
                continue;
            }
            if !ack.control_event().is_empty() {
                state = Some(self.advance(ControllerEvent::Irq(ack.control_event()))?);
            }
            let queue = self.queue.as_mut();
            if let Some(queue) = queue.filter(|queue| ack.queues().contains(queue.id())) {
                let drained = queue.drain_completions(&mut finished);
                drained.map_err(|_| {
                    DriverError::Protocol("a completion names no command of nvme-driver's")
                })?;
            }
            if ack.disposition() == IrqDisposition::MaskedNeedsRearm {
                self.rearm(source_id)?;
            }
        }
        Ok((state, finished))
    }

    /// One command, waited for. Its data afterwards.
    fn command(
        &mut self,
        request: OwnedRequest,
        until: Deadline,
    ) -> Result<Option<CompletedDma>, DriverError> {
        let queue = self.queue.as_mut();
        let queue = queue.ok_or(DriverError::Protocol("the controller has no I/O queue"))?;
        let mut batch = OwnedRequestBatch::from_iter([request]);
        let result = queue.submit_batch_owned(&mut batch, &mut Accepted);
        if result.accepted() == 0 {
            return Err(DriverError::Protocol(match result.disposition() {
                BatchSubmitDisposition::Fatal(_) => "nvme-driver refuses the request",
                _ => "nvme-driver has no command to spare",
            }));
        }
        let committed = queue.commit_submissions();
        committed.map_err(|_| DriverError::Protocol("nvme-driver cannot submit"))?;
        let queue_id = queue.id();
        loop {
            match self.serve_interrupts(until, "the command to complete") {
                Ok((_, Finished(None))) => {}
                Ok((_, Finished(Some(completed)))) => {
                    completed.result.map_err(|_| DriverError::Io)?;
                    return Ok(completed.data);
                }
                Err(error) => {
                    // As rdif-block has it: the controller is stopped.
                    if matches!(error, DriverError::TimedOut(_)) {
                        let _ = self.advance(ControllerEvent::Watchdog { queue_id });
                    }
                    return Err(error);
                }
            }
        }
    }

    /// A buffer for `len` bytes that the device can reach, mapped one way: the runtime that makes it
    /// knows which, though `dma_api` does not ask.
    fn buffer(&self, len: usize, way: DmaDirection) -> Result<CpuDmaBuffer, DriverError> {
        let len = NonZeroUsize::new(len).ok_or(DriverError::BadRequest("nothing to transfer"))?;
        let mapped = match way {
            DmaDirection::ToDevice => Direction::ToDevice,
            DmaDirection::FromDevice => Direction::FromDevice,
            DmaDirection::Bidirectional => Direction::Both,
        };
        let make = || CpuDmaBuffer::new_zero(&self.dma, len, SECTOR, way);
        let made = self.session.one_way(mapped, make);
        // Without a refusal it is `dma_api` that does not like the address.
        made.map_err(|_| {
            self.session
                .take_refusal()
                .unwrap_or(HostError::Refused)
                .into()
        })
    }
}

/// A request to move a buffer.
fn transfer(op: RequestOp, lba: u64, buffer: CpuDmaBuffer) -> Result<OwnedRequest, DriverError> {
    let block_count = u32::try_from(buffer.len().get() / SECTOR)
        .map_err(|_| DriverError::BadRequest("too long"))?;
    Ok(OwnedRequest {
        op,
        lba,
        block_count,
        data: Some(buffer.prepare_for_device()),
        flags: RequestFlags::NONE,
    })
}

/// Coherent, behind an IOMMU, without limits.
fn device_info() -> DmaDeviceInfo {
    DmaDeviceInfo::new(
        DmaDomainId::Translated(NonZeroU64::MIN),
        DmaCoherency::Coherent,
        DmaConstraints::new(u64::MAX),
    )
}

/// What the host refused, if that is why the crate failed.
fn refused<H: RawDma>(session: &Session<H>, otherwise: &'static str) -> DriverError {
    session
        .take_refusal()
        .map_or(DriverError::Protocol(otherwise), DriverError::Host)
}

/// The request that completed last: there is one at a time.
struct Finished(Option<CompletedRequest>);

impl CompletionSink for Finished {
    fn complete(&mut self, request: CompletedRequest) {
        self.0 = Some(request);
    }
}

/// Requests are told apart by there being one.
struct Accepted;

impl SubmissionSink for Accepted {
    fn accepted(&mut self, _: RequestId) {}
}
