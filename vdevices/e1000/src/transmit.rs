//! The transmitter: from descriptors to frames ([1] 3.3).

use crate::ring::Ring;
use crate::spec::{
    self, DESCRIPTOR_STATUS, DONE, FCS, MAX_TRANSMIT, MIN_FRAME, TransmitDescriptor, cause,
    command, transmit_control,
};
use cofferdam_seam::{BusPort, Purpose};
use zerocopy::{FromZeros, IntoBytes};

/// The engine. One descriptor is a unit of its work.
#[derive(Debug, Default)]
pub(crate) struct Transmitter {
    pub ring: Ring,
    /// The frame so far; none of more than [`MAX_TRANSMIT`] bytes and a check sequence is sent.
    frame: Vec<u8>,
    too_long: bool,
    /// It could not read its ring or a frame; it stands still until it is reset.
    stopped: bool,
}

/// What became of a descriptor.
#[derive(Debug, Default)]
pub(crate) struct Transmitted {
    /// Causes to raise.
    pub causes: u32,
    /// The frame that is complete, without a check sequence.
    pub frame: Option<Vec<u8>>,
}

impl Transmitter {
    /// Whether there is a descriptor to work on.
    pub fn is_ready(&self, tctl: u32) -> bool {
        tctl & transmit_control::ENABLE != 0 && !self.stopped && self.ring.owned() > 0
    }

    /// Works on the descriptor at the head.
    pub fn serve(&mut self, tctl: u32, bus: &mut BusPort<'_>) -> Transmitted {
        let mut done = Transmitted::default();
        if !self.is_ready(tctl) {
            return done;
        }
        let at = self.ring.at_head();
        let mut descriptor = TransmitDescriptor::new_zeroed();
        if bus
            .dma_read(at, descriptor.as_mut_bytes(), Purpose::Descriptor)
            .is_err()
        {
            self.stopped = true;
            return done;
        }
        if descriptor.command & command::EXTENDED == 0 {
            if !self.gather(&descriptor, bus) {
                self.stopped = true;
                return done;
            }
            if descriptor.command & command::END_OF_PACKET != 0 {
                done.frame = self.finish(descriptor.command, tctl);
            }
        }
        if descriptor.command & command::REPORT_STATUS != 0 {
            descriptor.status |= DONE;
            let (_, status) = descriptor.as_bytes().split_at(DESCRIPTOR_STATUS);
            // A posted write has nobody to tell when it is refused.
            let _ = bus.dma_write(
                at.offset(DESCRIPTOR_STATUS as u64),
                status,
                Purpose::Publish,
            );
            done.causes |= cause::TRANSMITTED;
        }
        self.ring.advance();
        if self.ring.owned() == 0 {
            done.causes |= cause::TRANSMIT_EMPTY;
        }
        done
    }

    /// Adds a descriptor's data to the frame. Whether they could be read.
    fn gather(&mut self, descriptor: &TransmitDescriptor, bus: &mut BusPort<'_>) -> bool {
        let (start, len) = (self.frame.len(), usize::from(descriptor.length.get()));
        if self.too_long || start + len > MAX_TRANSMIT + FCS {
            self.too_long = true;
            return true;
        }
        if len == 0 {
            return true;
        }
        self.frame.resize(start + len, 0);
        let from = cofferdam_seam::Iova(descriptor.address.get());
        bus.dma_read(from, &mut self.frame[start..], Purpose::Payload)
            .is_ok()
    }

    /// The frame as it goes out, if it is one that a partner would accept.
    fn finish(&mut self, command: u8, tctl: u32) -> Option<Vec<u8>> {
        let mut frame = std::mem::take(&mut self.frame);
        let too_long = std::mem::take(&mut self.too_long);
        if command & command::INSERT_FCS == 0 {
            // The driver has computed it, and a wrong one is noticed at the other end.
            let data = frame.len().checked_sub(FCS)?;
            if spec::check_sequence(&frame[..data]) != frame[data..] {
                return None;
            }
            frame.truncate(data);
        } else if frame.len() < MIN_FRAME && tctl & transmit_control::PAD != 0 {
            frame.resize(MIN_FRAME, 0);
        }
        // What is shorter than a frame is taken for the rest of a collision.
        (!too_long && (MIN_FRAME..=MAX_TRANSMIT).contains(&frame.len())).then_some(frame)
    }
}
