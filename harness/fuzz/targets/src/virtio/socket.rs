//! The socket driver.

use super::hal::{FuzzHal, HostRegisters};
use super::{OverTransport, VIRTIO_DRIVERS, WRITTEN, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets_virtio::transport::FuzzTransport;
use cofferdam_seam::Device;
use std::ops::Range;
use std::time::Duration;
use vdevice_virtio::{SocketConfig, VirtioSocket};
use virtio_drivers::device::socket::{VirtIOSocket, VsockAddr, VsockConnectionManager};
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, 5.10.4).
const CONFIG: usize = 8;

/// Bytes of a buffer to receive.
const BUFFER: usize = 128;
/// Our port.
const LOCAL: u32 = 5;

const PORT: Argument = Argument {
    name: "port",
    least: 1,
    most: 3,
};

const LENGTH: Argument = Argument {
    name: "length",
    least: 1,
    most: 200,
};

const CALLS: &[CallSpec] = &[
    call("connect", &[PORT]),
    call("send", &[PORT, LENGTH]),
    call("receive", &[PORT, LENGTH]),
    call("poll", &[]),
    call("available", &[PORT]),
    call("update-credit", &[PORT]),
    call("shutdown", &[PORT]),
    call("force-close", &[PORT]),
    call("listen", &[]),
    call("unlisten", &[]),
];

/// The target.
pub static SOCKET: Socket = Socket;

/// `VsockConnectionManager` over `VirtIOSocket`, and a peer that echoes.
pub struct Socket;

impl Target for Socket {
    fn name(&self) -> &'static str {
        "virtio-socket"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(VirtioSocket::new(SocketConfig {
            latency: Duration::ZERO,
            ..SocketConfig::default()
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(
            HostRegisters(host),
            DeviceType::Socket,
            CONFIG,
        ))
    }

    /// It waits until the device has taken what is sent.
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

impl OverTransport for Socket {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let socket = VirtIOSocket::new(transport).map_err(Refused::because)?;
        let socket = VsockConnectionManager::new(socket);
        Ok(Box::new(Running { socket }))
    }
}

struct Running<T: Transport> {
    socket: VsockConnectionManager<FuzzHal, T, BUFFER>,
}

impl<T: Transport> Driver for Running<T> {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let socket = &mut self.socket;
        let port = u32::try_from(call.argument(0)).unwrap_or(1);
        let peer = VsockAddr { cid: 2, port };
        let done = match call.name() {
            "connect" => socket.connect(peer, LOCAL),
            "send" => socket.send(peer, LOCAL, &vec![0x5a; call.size(1)]),
            "receive" => {
                let mut bytes = vec![0; call.size(1)];
                witness.mark(&mut bytes);
                let length = socket.recv(peer, LOCAL, &mut bytes);
                length.map(|length| {
                    witness.length("recv", length, bytes.len());
                    witness.received("recv", &bytes[..length.min(bytes.len())]);
                })
            }
            "poll" => socket.poll().map(|_| ()),
            "available" => socket.recv_buffer_available_bytes(peer, LOCAL).map(|_| ()),
            "update-credit" => socket.update_credit(peer, LOCAL),
            "shutdown" => socket.shutdown(peer, LOCAL),
            "force-close" => socket.force_close(peer, LOCAL),
            "listen" => {
                socket.listen(LOCAL);
                Ok(())
            }
            _ => {
                socket.unlisten(LOCAL);
                Ok(())
            }
        };
        done.map_err(Refused::because)
    }
}
