//! The 9P driver.

use super::hal::{FuzzHal, HostRegisters};
use super::{OverTransport, VIRTIO_DRIVERS, WRITTEN, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets_virtio::transport::FuzzTransport;
use cofferdam_seam::Device;
use std::ops::Range;
use std::time::Duration;
use vdevice_virtio::{P9Config, Virtio9p};
use virtio_drivers::device::virtio_9p::VirtIO9p;
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, does not have it: a length and the mount tag).
const CONFIG: usize = 64;

/// Room for a reply, or at least for an error.
const LENGTH: Argument = Argument {
    name: "length",
    least: 11,
    most: 64,
};

/// A version request.
const VERSION: &[u8] = b"\x15\0\0\0\x64\xff\xff\0\x20\0\0\x08\09P2000.L";
/// A request to attach.
const ATTACH: &[u8] = b"\x17\0\0\0\x68\x01\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0";

const CALLS: &[CallSpec] = &[
    call("version", &[LENGTH]),
    call("attach", &[LENGTH]),
    call("mount-tag", &[]),
];

/// The target.
pub static P9: Share = Share;

/// `VirtIO9p`, and a small share.
pub struct Share;

impl Target for Share {
    fn name(&self) -> &'static str {
        "virtio-9p"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(Virtio9p::new(P9Config {
            latency: Duration::ZERO,
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(
            HostRegisters(host),
            DeviceType::_9P,
            CONFIG,
        ))
    }

    /// "Sends a raw 9p request and waits for the response."
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

impl OverTransport for Share {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let share = VirtIO9p::new(transport).map_err(Refused::because)?;
        Ok(Box::new(Running { share }))
    }
}

struct Running<T: Transport> {
    share: VirtIO9p<FuzzHal, T>,
}

impl<T: Transport> Driver for Running<T> {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let request = match call.name() {
            "version" => VERSION,
            "attach" => ATTACH,
            _ => {
                let _ = self.share.mount_tag().len();
                return Ok(());
            }
        };
        let mut reply = vec![0; call.size(0)];
        witness.mark(&mut reply);
        let length = self.share.request(request, &mut reply);
        let length = usize::try_from(length.map_err(Refused::because)?).unwrap_or(usize::MAX);
        witness.length("request", length, reply.len());
        witness.received("request", &reply[..length.min(reply.len())]);
        Ok(())
    }
}
