//! The unmodified crate eth-intel.

use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::service::{DriverError, Net};
use cofferdam_seam::{Deadline, Device, DriverHost};
use driver_eth_intel::{EthIntel, LONGER_THAN_ITS_BUFFER};
use std::time::Duration;
use vdevice_e1000::{Decoder, E1000, E1000Config};

/// How long a call may wait: some frames' time on the wire.
const PATIENCE: Duration = Duration::from_micros(200);

/// The partner's address.
const PARTNER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x09];

/// Bytes in the longest frame.
const LONGEST: usize = 1514;

/// What frames carry, behind the addresses.
const DATA: [u8; LONGEST] = {
    let mut data = [0; LONGEST];
    let (mut at, mut byte) = (12, 0_u8);
    while at < LONGEST {
        data[at] = byte;
        byte = (byte + 1) % 251;
        at += 1;
    }
    data
};

const LENGTH: Argument = Argument {
    name: "length",
    least: 14,
    most: LONGEST as u64,
};

const CALLS: &[CallSpec] = &[
    CallSpec {
        name: "send",
        arguments: &[LENGTH],
    },
    CallSpec {
        name: "receive",
        arguments: &[Argument {
            name: "room",
            least: 0,
            most: 2048,
        }],
    },
    CallSpec {
        name: "exchange",
        arguments: &[
            Argument {
                name: "frames",
                least: 1,
                most: 4,
            },
            LENGTH,
        ],
    },
    CallSpec {
        name: "is-link-up",
        arguments: &[],
    },
];

/// eth-intel with our model of the 82540EM, whose partner sends frames back.
#[derive(Debug)]
pub struct EthIntelTarget;

/// The one of it.
pub static ETH_INTEL: EthIntelTarget = EthIntelTarget;

impl Target for EthIntelTarget {
    fn name(&self) -> &'static str {
        "eth-intel"
    }

    fn driver(&self) -> Crate {
        Crate {
            name: "eth-intel",
            version: "0.2.4",
        }
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        // Times as short as they can be: a wait for nothing costs more than it shows.
        Box::new(E1000::new(E1000Config {
            wire: Duration::from_micros(1),
            negotiation: Some(Duration::from_micros(1)),
            ..E1000Config::default()
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        let net = EthIntel::probe(host)?;
        Ok(Box::new(Running { net, host }))
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(Decoder::default())
    }
}

struct Running {
    net: EthIntel<FuzzHost>,
    host: FuzzHost,
}

impl Running {
    fn until(&self) -> Deadline {
        Deadline::after(self.host.now(), PATIENCE)
    }

    fn send(&mut self, len: usize) -> Result<(), DriverError> {
        let mut frame = DATA;
        frame[..6].copy_from_slice(&PARTNER);
        frame[6..12].copy_from_slice(&self.net.address());
        let until = self.until();
        self.net.send(&frame[..len.min(LONGEST)], until)
    }

    fn receive(&mut self, room: usize, witness: &mut Witness) -> Result<(), DriverError> {
        let mut into = vec![0; room];
        witness.mark(&mut into);
        let until = self.until();
        let received = self.net.receive(&mut into, until);
        // The adapter stops what a runtime would have read on with.
        witness.promise(
            "packet_len is the number of received bytes at the beginning of the buffer",
            received != Err(DriverError::Protocol(LONGER_THAN_ITS_BUFFER)),
        );
        let len = received?.min(room);
        witness.received("a frame", &into[..len]);
        Ok(())
    }
}

impl Driver for Running {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        match call.name() {
            "send" => self.send(call.size(0))?,
            "receive" => self.receive(call.size(0), witness)?,
            "exchange" => {
                for _ in 0..call.size(0) {
                    self.send(call.size(1))?;
                    self.receive(2048, witness)?;
                }
            }
            _ => drop(self.net.is_link_up()?),
        }
        Ok(())
    }
}
