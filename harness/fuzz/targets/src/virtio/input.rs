//! The input driver.

use super::hal::{FuzzHal, HostRegisters};
use super::{OverTransport, VIRTIO_DRIVERS, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets_virtio::transport::FuzzTransport;
use cofferdam_seam::Device;
use std::time::Duration;
use vdevice_virtio::{InputConfig, VirtioInput};
use virtio_drivers::device::input::{InputConfigSelect, VirtIOInput};
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, 5.8.4).
const CONFIG: usize = 136;

const SUBSEL: Argument = Argument {
    name: "subsel",
    least: 0,
    most: 255,
};

const LENGTH: Argument = Argument {
    name: "length",
    least: 0,
    most: 160,
};

const CALLS: &[CallSpec] = &[
    call("pop-event", &[]),
    call("name", &[]),
    call("serial-number", &[]),
    call("ids", &[]),
    call("properties", &[]),
    call("event-bits", &[SUBSEL]),
    call("axis", &[SUBSEL]),
    call("query", &[SUBSEL, LENGTH]),
    call("ack-interrupt", &[]),
];

/// The target.
pub static INPUT: Input = Input;

/// `VirtIOInput`, and a keyboard.
pub struct Input;

impl Target for Input {
    fn name(&self) -> &'static str {
        "virtio-input"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(VirtioInput::new(InputConfig {
            latency: Duration::ZERO,
            ..InputConfig::default()
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(
            HostRegisters(host),
            DeviceType::Input,
            CONFIG,
        ))
    }

    /// Nothing here blocks, but the configuration is read until it settles.
    fn blocks(&self) -> bool {
        true
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(vdevice_virtio::Decoder::default())
    }
}

impl OverTransport for Input {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let input = VirtIOInput::new(transport).map_err(Refused::because)?;
        Ok(Box::new(Running { input }))
    }
}

struct Running<T: Transport> {
    input: VirtIOInput<FuzzHal, T>,
}

impl<T: Transport> Driver for Running<T> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the argument is at most 255"
    )]
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let input = &mut self.input;
        let subsel = call.argument(0) as u8;
        let done = match call.name() {
            "pop-event" => {
                input.pop_pending_event();
                Ok(())
            }
            "name" => input.name().map(|_| ()),
            "serial-number" => input.serial_number().map(|_| ()),
            "ids" => input.ids().map(|_| ()),
            "properties" => input.prop_bits().map(|_| ()),
            "event-bits" => input.ev_bits(subsel).map(|_| ()),
            "axis" => input.abs_info(subsel).map(|_| ()),
            "query" => {
                let mut answer = vec![0; call.size(1)];
                witness.mark(&mut answer);
                let size =
                    input.query_config_select(InputConfigSelect::EvBits, subsel, &mut answer);
                size.map(|size| {
                    let length = usize::from(size).min(answer.len());
                    witness.received("query_config_select", &answer[..length]);
                })
            }
            _ => {
                input.ack_interrupt();
                Ok(())
            }
        };
        done.map_err(Refused::because)
    }
}
