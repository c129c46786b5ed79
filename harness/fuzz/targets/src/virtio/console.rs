//! The console driver.

use super::hal::{FuzzHal, HostRegisters};
use super::{OverTransport, VIRTIO_DRIVERS, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets_virtio::transport::FuzzTransport;
use cofferdam_seam::Device;
use std::time::Duration;
use vdevice_virtio::{ConsoleConfig, VirtioConsole};
use virtio_drivers::PAGE_SIZE;
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, 5.3.4).
const CONFIG: usize = 12;

const LENGTH: Argument = Argument {
    name: "length",
    least: 1,
    most: 64,
};

const POP: Argument = Argument {
    name: "pop",
    least: 0,
    most: 1,
};

const CALLS: &[CallSpec] = &[
    call("send", &[]),
    call("send-bytes", &[LENGTH]),
    call("receive", &[POP]),
    call("drain", &[]),
    call("size", &[]),
    call("emergency-write", &[]),
    call("ack-interrupt", &[]),
];

/// The target.
pub static CONSOLE: Console = Console;

/// `VirtIOConsole`, and a terminal that echoes.
pub struct Console;

impl Target for Console {
    fn name(&self) -> &'static str {
        "virtio-console"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(VirtioConsole::new(ConsoleConfig {
            latency: Duration::ZERO,
            ..ConsoleConfig::default()
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(
            HostRegisters(host),
            DeviceType::Console,
            CONFIG,
        ))
    }

    /// It waits until the device has taken what is sent.
    fn blocks(&self) -> bool {
        true
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(vdevice_virtio::Decoder::default())
    }
}

impl OverTransport for Console {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let console = VirtIOConsole::new(transport).map_err(Refused::because)?;
        Ok(Box::new(Running { console }))
    }
}

struct Running<T: Transport> {
    console: VirtIOConsole<FuzzHal, T>,
}

impl<T: Transport> Driver for Running<T> {
    fn call(&mut self, call: Call<'_>, _: &mut Witness) -> Result<(), Refused> {
        let console = &mut self.console;
        let done = match call.name() {
            "send" => console.send(b'x'),
            "send-bytes" => console.send_bytes(&vec![b'y'; call.size(0)]),
            "receive" => console.recv(call.argument(0) == 1).map(|_| ()),
            "drain" => drain(console),
            "size" => console.size().map(|_| ()),
            "emergency-write" => console.emergency_write(b'!'),
            _ => console.ack_interrupt().map(|_| ()),
        };
        done.map_err(Refused::because)
    }
}

/// Takes what was received. The crate has room for a page.
fn drain<T: Transport>(console: &mut VirtIOConsole<FuzzHal, T>) -> virtio_drivers::Result {
    for _ in 0..=PAGE_SIZE {
        if console.recv(true)?.is_none() {
            break;
        }
    }
    Ok(())
}
