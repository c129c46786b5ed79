//! The network driver.

use super::hal::{FuzzHal, HostRegisters};
use super::{OverTransport, VIRTIO_DRIVERS, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets_virtio::transport::FuzzTransport;
use cofferdam_seam::Device;
use std::time::Duration;
use vdevice_virtio::{NetConfig, VirtioNet};
use virtio_drivers::Error;
use virtio_drivers::device::net::{RxBuffer, TxBuffer, VirtIONet};
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, 5.1.4).
const CONFIG: usize = 12;

/// Entries of each queue.
const QUEUE: usize = 8;
/// Bytes of a buffer to receive.
const BUFFER: usize = 2048;
/// Bytes before a frame.
const HEADER: usize = 12;

const LENGTH: Argument = Argument {
    name: "length",
    least: 0,
    most: 1514,
};

const CALLS: &[CallSpec] = &[
    call("send", &[LENGTH]),
    call("receive", &[]),
    call("recycle", &[]),
    call("can-send", &[]),
    call("ack-interrupt", &[]),
    call("enable-interrupts", &[]),
    call("disable-interrupts", &[]),
];

/// The target.
pub static NET: Net = Net;

/// `VirtIONet`, and a wire that echoes.
pub struct Net;

impl Target for Net {
    fn name(&self) -> &'static str {
        "virtio-net"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(VirtioNet::new(NetConfig {
            latency: Duration::ZERO,
            ..NetConfig::default()
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(
            HostRegisters(host),
            DeviceType::Network,
            CONFIG,
        ))
    }

    /// "Sends a TxBuffer to the network, and blocks until the request completed."
    fn blocks(&self) -> bool {
        true
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(vdevice_virtio::Decoder::default())
    }
}

impl OverTransport for Net {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let net = VirtIONet::new(transport, BUFFER).map_err(Refused::because)?;
        Ok(Box::new(Running {
            net,
            received: Vec::new(),
        }))
    }
}

struct Running<T: Transport> {
    /// Dropped first: its drop stops the device.
    net: VirtIONet<FuzzHal, T, QUEUE>,
    /// Buffers to be given back.
    received: Vec<RxBuffer>,
}

impl<T: Transport> Driver for Running<T> {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let done = match call.name() {
            "send" => self.net.send(TxBuffer::from(&vec![0x5a; call.size(0)])),
            "receive" => self.receive(witness),
            "recycle" => match self.received.pop() {
                Some(buffer) => self.net.recycle_rx_buffer(buffer),
                None => Err(Error::NotReady),
            },
            "can-send" => {
                let _ = (self.net.can_send(), self.net.can_recv());
                let _ = self.net.mac_address();
                Ok(())
            }
            "ack-interrupt" => {
                self.net.ack_interrupt();
                Ok(())
            }
            "enable-interrupts" => {
                self.net.enable_interrupts();
                Ok(())
            }
            _ => {
                self.net.disable_interrupts();
                Ok(())
            }
        };
        done.map_err(Refused::because)
    }
}

impl<T: Transport> Running<T> {
    fn receive(&mut self, witness: &mut Witness) -> virtio_drivers::Result {
        let frame = self.net.receive()?;
        let room = frame.as_bytes().len() - HEADER;
        witness.length("receive", frame.packet_len(), room);
        // What everybody does with a frame.
        let _ = (frame.header(), frame.packet().len());
        self.received.push(frame);
        Ok(())
    }
}
