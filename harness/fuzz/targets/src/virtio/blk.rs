//! The block driver.

use super::hal::FuzzHal;
use super::transport::FuzzTransport;
use super::{OverTransport, VIRTIO_DRIVERS, WRITTEN, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::Device;
use std::ops::Range;
use std::time::Duration;
use vdevice_virtio::{BlkConfig, VirtioBlk};
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, 5.2.4).
const CONFIG: usize = 0x3c;

/// Requests in flight at most: more than the crate's queue has room for.
const IN_FLIGHT: usize = 20;

const SECTOR: Argument = Argument {
    name: "sector",
    least: 0,
    most: 7,
};
const COUNT: Argument = Argument {
    name: "count",
    least: 1,
    most: 3,
};

const CALLS: &[CallSpec] = &[
    call("read", &[SECTOR, COUNT]),
    call("write", &[SECTOR, COUNT]),
    call("flush", &[]),
    call("device-id", &[]),
    call("submit-read", &[SECTOR, COUNT]),
    call("submit-write", &[SECTOR, COUNT]),
    call("complete", &[]),
    call("ack-interrupt", &[]),
    call("enable-interrupts", &[]),
    call("disable-interrupts", &[]),
    call("capacity", &[]),
];

/// The target.
pub static BLK: Blk = Blk;

/// `VirtIOBlk`, and the model of a small disk.
pub struct Blk;

impl Target for Blk {
    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(VirtioBlk::new(BlkConfig {
            sectors: 8,
            latency: Duration::ZERO,
            seed: 0,
            indirect: true,
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(host, DeviceType::Block, CONFIG))
    }

    /// "Blocks until the read completes or there is an error."
    fn blocks(&self) -> bool {
        true
    }

    fn written(&self) -> Option<Range<usize>> {
        Some(WRITTEN)
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(vdevice_virtio::Decoder::default())
    }
}

impl OverTransport for Blk {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let blk = VirtIOBlk::new(transport).map_err(Refused::because)?;
        Ok(Box::new(Running {
            blk,
            pending: Vec::new(),
        }))
    }
}

struct Running<T: Transport> {
    /// Dropped first: its drop stops the device.
    blk: VirtIOBlk<FuzzHal, T>,
    #[expect(clippy::vec_box, reason = "the device is lent what is in the boxes")]
    pending: Vec<Box<Request>>,
}

/// A request in flight, and its buffers, which stay where they are until it is completed.
struct Request {
    token: u16,
    write: bool,
    header: BlkReq,
    data: Vec<u8>,
    response: BlkResp,
}

impl<T: Transport> Driver for Running<T> {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let sector = call.size(0);
        let bytes = call.size(1) * SECTOR_SIZE;
        let blocking = matches!(call.name(), "read" | "write" | "flush" | "device-id");
        if blocking && !self.pending.is_empty() {
            // The crate assumes that the device works on nothing else meanwhile.
            return Err(Refused::because("requests are in flight"));
        }
        let done = match call.name() {
            "read" => {
                let mut data = vec![0; bytes];
                witness.mark(&mut data);
                let read = self.blk.read_blocks(sector, &mut data);
                if read.is_ok() {
                    witness.received("read_blocks", &data);
                }
                read
            }
            "write" => self.blk.write_blocks(sector, &vec![0x5a; bytes]),
            "flush" => self.blk.flush(),
            "device-id" => {
                let mut id = [0; 20];
                let length = self.blk.device_id(&mut id);
                length.map(|length| witness.length("device_id", length, id.len()))
            }
            "submit-read" => self.submit(sector, bytes, false),
            "submit-write" => self.submit(sector, bytes, true),
            "complete" => self.complete(),
            "ack-interrupt" => {
                self.blk.ack_interrupt();
                Ok(())
            }
            "enable-interrupts" => {
                self.blk.enable_interrupts();
                Ok(())
            }
            "disable-interrupts" => {
                self.blk.disable_interrupts();
                Ok(())
            }
            _ => {
                let _ = (self.blk.capacity(), self.blk.readonly());
                Ok(())
            }
        };
        done.map_err(Refused::because)
    }
}

impl<T: Transport> Running<T> {
    fn submit(&mut self, sector: usize, bytes: usize, write: bool) -> virtio_drivers::Result {
        if self.pending.len() == IN_FLIGHT {
            return Err(virtio_drivers::Error::QueueFull);
        }
        let mut request = Box::new(Request {
            token: 0,
            write,
            header: BlkReq::default(),
            data: vec![0x5a; bytes],
            response: BlkResp::default(),
        });
        let Request {
            header,
            data,
            response,
            ..
        } = &mut *request;
        // SAFETY: the buffers are on the heap, and nobody touches them until the request is
        // completed or the driver is gone.
        request.token = unsafe {
            if write {
                self.blk.write_blocks_nb(sector, header, data, response)?
            } else {
                self.blk.read_blocks_nb(sector, header, data, response)?
            }
        };
        self.pending.push(request);
        Ok(())
    }

    /// Completes what the device says is done, as the documentation has it: if the token is ours.
    fn complete(&mut self) -> virtio_drivers::Result {
        let Some(token) = self.blk.peek_used() else {
            return Err(virtio_drivers::Error::NotReady);
        };
        let mut pending = self.pending.iter();
        let Some(at) = pending.position(|request| request.token == token) else {
            return Err(virtio_drivers::Error::WrongToken);
        };
        let Request {
            token,
            write,
            header,
            data,
            response,
        } = &mut *self.pending[at];
        // SAFETY: these are the buffers that were submitted with this token.
        let completed = unsafe {
            if *write {
                self.blk
                    .complete_write_blocks(*token, header, data, response)
            } else {
                self.blk
                    .complete_read_blocks(*token, header, data, response)
            }
        };
        // The crate says `NotReady` of a request that is not done and of one whose status says so.
        let still_lent = FuzzHost::current().is_lent(data);
        if !still_lent {
            self.pending.swap_remove(at);
        }
        completed
    }
}

impl<T: Transport> Drop for Running<T> {
    /// Takes back what is done. What is not stays where it is for good: the crate has no way to take it
    /// back.
    fn drop(&mut self) {
        for _ in 0..IN_FLIGHT {
            if self
                .complete()
                .is_err_and(|error| error == virtio_drivers::Error::NotReady)
            {
                break;
            }
        }
        for request in self.pending.drain(..) {
            std::mem::forget(request);
        }
    }
}
