//! The entropy driver.

use super::hal::{FuzzHal, HostRegisters};
use super::{OverTransport, VIRTIO_DRIVERS, WRITTEN, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets_virtio::transport::FuzzTransport;
use cofferdam_seam::Device;
use std::ops::Range;
use std::time::Duration;
use vdevice_virtio::{RngConfig, VirtioRng};
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, 5.4.4: none).
const CONFIG: usize = 0;

const LENGTH: Argument = Argument {
    name: "length",
    least: 1,
    most: 64,
};

const CALLS: &[CallSpec] = &[
    call("request-entropy", &[LENGTH]),
    call("ack-interrupt", &[]),
    call("enable-interrupts", &[]),
    call("disable-interrupts", &[]),
];

/// The target.
pub static RNG: Rng = Rng;

/// `VirtIORng`, and a source that is the same every time.
pub struct Rng;

impl Target for Rng {
    fn name(&self) -> &'static str {
        "virtio-rng"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(VirtioRng::new(RngConfig {
            latency: Duration::ZERO,
            ..RngConfig::default()
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(
            HostRegisters(host),
            DeviceType::EntropySource,
            CONFIG,
        ))
    }

    /// It waits until the device has answered.
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

impl OverTransport for Rng {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let rng = VirtIORng::new(transport).map_err(Refused::because)?;
        Ok(Box::new(Running { rng }))
    }
}

struct Running<T: Transport> {
    rng: VirtIORng<FuzzHal, T>,
}

impl<T: Transport> Driver for Running<T> {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        match call.name() {
            "request-entropy" => {
                let mut bytes = vec![0; call.size(0)];
                witness.mark(&mut bytes);
                let length = self.rng.request_entropy(&mut bytes);
                let length = length.map_err(Refused::because)?;
                witness.length("request_entropy", length, bytes.len());
                witness.received("request_entropy", &bytes[..length.min(bytes.len())]);
            }
            "ack-interrupt" => {
                self.rng.ack_interrupt();
            }
            "enable-interrupts" => self.rng.enable_interrupts(),
            _ => self.rng.disable_interrupts(),
        }
        Ok(())
    }
}
