//! The receiver: from frames to descriptors ([1] 3.2).

use crate::filter::Filter;
use crate::ring::Ring;
use crate::spec::{
    self, DESCRIPTOR_STATUS, DONE, END_OF_PACKET, IGNORE_CHECKSUM, MAX_FRAME, ReceiveDescriptor,
    cause, receive_control as control,
};
use cofferdam_seam::{BusPort, Iova, Purpose};
use std::collections::VecDeque;
use zerocopy::{FromZeros, IntoBytes};

/// Bytes of packet buffer that receive, as PBA says after reset ([1] 13.4.42: 48 KiB).
pub(crate) const PACKET_BUFFER: usize = 48 * 1024;

/// The engine. One frame is a unit of its work.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    pub ring: Ring,
    /// Frames that wait for descriptors, and their bytes: [`PACKET_BUFFER`] at most.
    waiting: VecDeque<Vec<u8>>,
    held: usize,
    /// It could not read its ring; it stands still until it is reset.
    stopped: bool,
}

/// What became of a frame that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Waits,
    /// Nobody here wants it.
    Ignored,
    /// There was no room.
    Missed,
}

/// How many bytes one buffer takes ([1] 13.4.22).
fn buffer_size(rctl: u32) -> usize {
    let shift = rctl >> control::SIZE_SHIFT & 3;
    if rctl & control::SIZE_EXTENSION == 0 {
        2048 >> shift
    } else if shift == 0 {
        // Reserved.
        2048
    } else {
        (2048 >> shift) * 16
    }
}

impl Receiver {
    /// A frame came off the wire, without its check sequence.
    pub fn arrive(&mut self, mut frame: Vec<u8>, filter: &Filter, rctl: u32) -> Arrival {
        let station = frame.first_chunk::<6>();
        let long = frame.len() > MAX_FRAME && rctl & control::LONG == 0;
        let wanted = station.is_some_and(|station| filter.takes(*station, rctl));
        if rctl & control::ENABLE == 0 || long || !wanted {
            return Arrival::Ignored;
        }
        if rctl & control::STRIP_CRC == 0 {
            frame.extend(spec::check_sequence(&frame));
        }
        if self.held + frame.len() > PACKET_BUFFER {
            return Arrival::Missed;
        }
        self.held += frame.len();
        self.waiting.push_back(frame);
        Arrival::Waits
    }

    /// Whether a frame waits and there are descriptors for all of it.
    pub fn is_ready(&self, rctl: u32) -> bool {
        let needed = self
            .waiting
            .front()
            .map(|frame| frame.len().div_ceil(buffer_size(rctl)));
        rctl & control::ENABLE != 0
            && !self.stopped
            && needed.is_some_and(|needed| needed <= self.ring.owned() as usize)
    }

    /// Puts the first waiting frame where the descriptors say. Returns causes to raise.
    pub fn serve(&mut self, rctl: u32, bus: &mut BusPort<'_>) -> u32 {
        if !self.is_ready(rctl) {
            return 0;
        }
        let Some(frame) = self.waiting.pop_front() else {
            return 0;
        };
        self.held -= frame.len();
        // Half of the ring, a quarter or an eighth.
        let threshold = self.ring.size() >> ((rctl >> control::THRESHOLD_SHIFT & 3) + 1);
        let above = self.ring.owned() > threshold;
        let size = buffer_size(rctl);
        let last = frame.len().div_ceil(size) - 1;
        for (index, piece) in frame.chunks(size).enumerate() {
            if !self.place(piece, index == last, bus) {
                self.stopped = true;
                return 0;
            }
        }
        let low = above && self.ring.owned() <= threshold;
        cause::RECEIVED | if low { cause::RECEIVE_LOW } else { 0 }
    }

    /// Fills one buffer and writes its descriptor back, the status last. Whether the descriptor could
    /// be read.
    fn place(&mut self, piece: &[u8], last: bool, bus: &mut BusPort<'_>) -> bool {
        let at = self.ring.at_head();
        let mut descriptor = ReceiveDescriptor::new_zeroed();
        let fetched = bus.dma_read(at, descriptor.as_mut_bytes(), Purpose::Descriptor);
        if fetched.is_err() {
            return false;
        }
        // The frame may have no more than 16 KiB, the buffer no more than 64.
        descriptor.length = u16::try_from(piece.len()).unwrap_or(u16::MAX).into();
        descriptor.checksum = 0.into();
        descriptor.status = DONE | IGNORE_CHECKSUM | if last { END_OF_PACKET } else { 0 };
        descriptor.errors = 0;
        descriptor.special = 0.into();
        // Posted writes have nobody to tell when they are refused.
        let _ = bus.dma_write(Iova(descriptor.address.get()), piece, Purpose::Payload);
        let (tells, publishes) = descriptor.as_bytes().split_at(DESCRIPTOR_STATUS);
        let _ = bus.dma_write(at.offset(8), &tells[8..], Purpose::Completion);
        let _ = bus.dma_write(
            at.offset(DESCRIPTOR_STATUS as u64),
            publishes,
            Purpose::Publish,
        );
        self.ring.advance();
        true
    }
}
