//! The runtime after rdif-eth that the crate's parts expect: it owns the buffers, runs the handler,
//! polls the queues, arms the interrupts, and owns the deadline.

use crate::spec;
use cofferdam_instrument::platform::{DMA, MMIO, Session, address_of};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Bar, Deadline, Direction, HostError, Mmio, RawDma, Vector, Wake};
use dma_api::{DeviceDma, DmaCoherency, DmaConstraints, DmaDeviceInfo, DmaDirection, DmaDomainId};
use eth_intel::E1000;
use rdif_eth::{
    DmaBuffer, NetDevice, NetError, NetHardIrqResult, NetPollGroupParts, NetRearmResult,
    QueueConfig,
};
use std::alloc::Layout;
use std::num::NonZeroU64;
use std::rc::Rc;

/// Receive buffers.
const RECEIVE: usize = 8;
/// Transmit buffers.
const TRANSMIT: usize = 8;

/// What a driver says whose crate reported more bytes than the buffer has, which no caller of the
/// crate may read.
pub const LONGER_THAN_ITS_BUFFER: &str = "eth-intel returns a frame longer than its buffer";

/// The crate's parts. Every method is a call into the crate: the session must be entered, and is at the
/// drop too.
pub struct Runtime<H: RawDma + 'static> {
    /// Taken apart when it starts.
    device: Option<Box<E1000>>,
    /// The queues first: they hold no mapping of the registers, though they hold pointers to them.
    group: Option<NetPollGroupParts>,
    address: [u8; 6],
    dma: DeviceDma,
    /// Transmit buffers that are ours.
    spare: Vec<DmaBuffer>,
    /// For the link's state, which the crate never reads.
    registers: H::Mmio,
    session: Rc<Session<H>>,
}

impl<H: RawDma + 'static> Runtime<H> {
    /// Hands the controller to the crate, which resets it. Nothing is started.
    pub fn new(session: Rc<Session<H>>, registers: H::Mmio) -> Result<Self, DriverError> {
        let len = usize::try_from(registers.len())
            .map_err(|_| DriverError::Unsupported("BAR 0 is larger than the address space"))?;
        let dma = DeviceDma::new(device_info(), &DMA);
        let device = open(len, dma.clone()).map_err(|error| match error {
            eth_intel::err::Error::Timeout => DriverError::Protocol("the reset does not end"),
            _ => refused(&session, "eth-intel refuses the controller"),
        })?;
        Ok(Self {
            device: Some(Box::new(device)),
            group: None,
            address: [0; 6],
            dma,
            spare: Vec::new(),
            registers,
            session,
        })
    }

    /// Starts both queues, with all their buffers, and the interrupts.
    pub fn start(&mut self) -> Result<(), DriverError> {
        let device = self.device.take();
        let device = device.ok_or(DriverError::Protocol("eth-intel has been started"))?;
        // The reset ended an older life's rings.
        self.session.host().set_bus_master(true)?;
        let mut parts = device
            .into_parts()
            .map_err(|_| refused(&self.session, "eth-intel does not start its queues"))?;
        self.address = parts.info.mac_address;
        let mut group = parts.poll_groups.pop();
        let queues = group.as_mut().map(|group| &mut group.queues);
        let queues = queues.ok_or(DriverError::Protocol("eth-intel has no queues"))?;
        let (transmit, receive) = (queues.tx.config(), queues.rx.config());
        self.group = group;
        self.spare = self.buffers(transmit, TRANSMIT, DmaDirection::ToDevice)?;
        for buffer in self.buffers(receive, RECEIVE, DmaDirection::FromDevice)? {
            self.give(buffer)?;
        }
        self.poll().map(drop)
    }

    /// The station address.
    pub fn address(&self) -> [u8; 6] {
        self.address
    }

    /// Whether the link is up.
    pub fn is_link_up(&self) -> bool {
        self.registers.read32(spec::STATUS) & spec::STATUS_LINK_UP != 0
    }

    /// Hands a frame to the device as soon as there is a buffer for it.
    pub fn send(&mut self, frame: &[u8], until: Deadline) -> Result<(), DriverError> {
        loop {
            self.reclaim();
            if let Some(mut buffer) = self.spare.pop() {
                let fits = buffer.set_len(frame.len());
                fits.map_err(|_| DriverError::BadRequest("longer than a transmit buffer"))?;
                buffer.write_with_cpu(|bytes| bytes.copy_from_slice(frame));
                buffer.prepare_for_device();
                let Err(failed) = self.group()?.queues.tx.submit(buffer) else {
                    return Ok(());
                };
                let (buffer, error) = failed.into_parts();
                self.spare.push(buffer);
                if !matches!(error, NetError::Retry) {
                    return Err(refused(&self.session, "eth-intel refuses the frame"));
                }
            }
            self.wait(until, "a frame to be sent")?;
        }
    }

    /// The next frame's length, when there is one. What `into` has no room for is lost.
    pub fn receive(&mut self, into: &mut [u8], until: Deadline) -> Result<usize, DriverError> {
        loop {
            if let Some(completion) = self.group()?.queues.rx.reclaim() {
                let (buffer, len) = (completion.buffer, completion.packet_len);
                if len > buffer.capacity() {
                    return Err(DriverError::Protocol(LONGER_THAN_ITS_BUFFER));
                }
                buffer.complete_for_cpu(len);
                let copied = len.min(into.len());
                buffer.read_with_cpu(copied, |bytes| into[..copied].copy_from_slice(bytes));
                self.give(buffer)?;
                return Ok(len);
            }
            self.wait(until, "a frame to arrive")?;
        }
    }

    /// Stops the controller by a reset.
    pub fn stop(&mut self) -> Result<(), DriverError> {
        let Some(group) = &mut self.group else {
            return Ok(());
        };
        let quiet = group.irq_control.quiesce();
        let stopped = group.irq_control.shutdown();
        quiet
            .and(stopped)
            .map_err(|_| DriverError::Protocol("eth-intel cannot stop the controller"))
    }

    fn group(&mut self) -> Result<&mut NetPollGroupParts, DriverError> {
        let group = self.group.as_mut();
        group.ok_or(DriverError::Protocol("eth-intel has not been started"))
    }

    /// Takes back the buffers of frames that were sent.
    fn reclaim(&mut self) {
        if let Some(group) = &mut self.group {
            // There are no more than were given.
            while let Some(buffer) = group.queues.tx.reclaim() {
                self.spare.push(buffer);
            }
        }
    }

    /// Gives the device a buffer to receive into.
    fn give(&mut self, mut buffer: DmaBuffer) -> Result<(), DriverError> {
        let whole = buffer.set_len(buffer.capacity());
        let given = whole.is_ok() && {
            buffer.prepare_for_device();
            self.group()?.queues.rx.submit(buffer).is_ok()
        };
        if given {
            Ok(())
        } else {
            // The ring has far more places than there are buffers.
            Err(refused(&self.session, "eth-intel refuses a receive buffer"))
        }
    }

    /// Arms the interrupts. Whether there is work already, and they are not armed.
    fn poll(&mut self) -> Result<bool, DriverError> {
        let now = self.session.host().now().nanos();
        match self.group()?.irq_control.rearm_and_check(now) {
            Ok(NetRearmResult::Idle | NetRearmResult::RetryAt { .. }) => Ok(false),
            Ok(NetRearmResult::WorkPending(_)) => Ok(true),
            Err(_) => Err(refused(
                &self.session,
                "eth-intel cannot arm its interrupts",
            )),
        }
    }

    /// Waits until the queues are worth a look.
    fn wait(&mut self, until: Deadline, what: &'static str) -> Result<(), DriverError> {
        loop {
            // A storm wakes us for ever.
            if until.passed(self.session.host().now()) {
                return Err(DriverError::TimedOut(what));
            }
            if self.poll()? {
                return Ok(());
            }
            let wake = self.session.host().wait_any(&[Vector(0)], until)?;
            if wake == Wake::TimedOut {
                return Err(DriverError::TimedOut(what));
            }
            let mut scheduled = false;
            for endpoint in &mut self.group()?.irq_endpoints {
                scheduled |= endpoint.handle_irq() != NetHardIrqResult::Spurious;
            }
            if scheduled {
                return Ok(());
            }
        }
    }

    /// Buffers for a queue, mapped one way: `dma_api` does not ask which.
    fn buffers(
        &self,
        config: QueueConfig,
        count: usize,
        way: DmaDirection,
    ) -> Result<Vec<DmaBuffer>, DriverError> {
        let mapped = match way {
            DmaDirection::ToDevice => Direction::ToDevice,
            DmaDirection::FromDevice => Direction::FromDevice,
            DmaDirection::Bidirectional => Direction::Both,
        };
        let layout = Layout::from_size_align(config.buf_size, config.align)
            .map_err(|_| DriverError::Protocol("eth-intel wants buffers that cannot be"))?;
        let pool = || self.dma.contiguous_buffer_pool(layout, way, count);
        let pool = self.session.one_way(mapped, pool);
        let make = |_| {
            let buffer = self.session.one_way(mapped, || pool.alloc());
            // Without a refusal it is `dma_api` that does not like the address.
            let buffer = buffer.map_err(|_| {
                let refusal = self.session.take_refusal();
                DriverError::Host(refusal.unwrap_or(HostError::Refused))
            })?;
            DmaBuffer::new(buffer, config.buf_size)
                .map_err(|_| DriverError::Protocol("dma_api makes buffers too short"))
        };
        (0..count).map(make).collect()
    }
}

/// The crate's constructor. It is generic, so its code, which accesses registers, comes into being
/// here and not in the crate: whoever instruments the crate must instrument this one too, which has no
/// other code that is not generic and accesses registers.
#[inline(never)]
fn open(len: usize, dma: DeviceDma) -> eth_intel::err::Result<E1000> {
    E1000::new(address_of(Bar::ZERO), len, dma, &MMIO)
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
