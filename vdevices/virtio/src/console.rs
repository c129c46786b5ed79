//! The console (virtio 1.2, 5.3): one port, whose terminal echoes what is written to it.

use crate::chain::Chain;
use crate::controller::Virtio;
use crate::identity::identity;
use crate::kind::{Kind, Served};
use crate::queue::Broken;
use crate::spec::console::{EMERG_WRITE, RECEIVE, SIZE, config};
use crate::spec::{INDIRECT_DESC, device};
use cofferdam_seam::{BusPort, PciIdentity, Purpose, Width};
use core::time::Duration;

/// Bytes of input the terminal keeps; what is written on top is not echoed.
const BACKLOG: usize = 4096;

/// What console to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// Columns of the terminal.
    pub columns: u16,
    /// Rows of the terminal.
    pub rows: u16,
    /// How long a buffer takes, in either direction.
    pub latency: Duration,
}

impl Default for ConsoleConfig {
    /// 80 by 25, 20 us a buffer.
    fn default() -> Self {
        Self {
            columns: 80,
            rows: 25,
            latency: Duration::from_micros(20),
        }
    }
}

/// A virtio console.
pub type VirtioConsole = Virtio<Terminal>;

impl VirtioConsole {
    /// A console with nothing to read.
    pub fn new(config: ConsoleConfig) -> Self {
        let kind = Terminal {
            config,
            input: Vec::new(),
        };
        Self::of(kind, INDIRECT_DESC)
    }
}

/// The terminal behind port 0.
pub struct Terminal {
    config: ConsoleConfig,
    /// What the driver has still to read.
    input: Vec<u8>,
}

impl Terminal {
    fn transmit(&mut self, chain: &Chain, bus: &mut BusPort<'_>) -> Result<Served, Broken> {
        let room = BACKLOG - self.input.len();
        let length = usize::try_from(chain.readable_len()).unwrap_or(usize::MAX);
        let start = self.input.len();
        self.input.resize(start + length.min(room), 0);
        chain.read(0, &mut self.input[start..], Purpose::Payload, bus)?;
        Ok(Served::written(0))
    }

    /// Gives the driver what fits into its buffer. One without room is against 5.3.6.2: the driver
    /// would wait for input that comes with nothing in it.
    fn receive(&mut self, chain: &Chain, bus: &mut BusPort<'_>) -> Result<Served, Broken> {
        let room = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX);
        let length = room.min(self.input.len());
        if length == 0 {
            return Err(Broken::TooShort);
        }
        chain.write(0, &self.input[..length], Purpose::Payload, bus)?;
        self.input.drain(..length);
        Ok(Served::written(length as u64))
    }
}

impl Kind for Terminal {
    const IDENTITY: &'static PciIdentity = &identity::<3>(device::CONSOLE, [0x07, 0x80, 0x00]);
    const QUEUES: u16 = 2;

    fn features(&self) -> u64 {
        SIZE | EMERG_WRITE
    }

    /// One port, as without `VIRTIO_CONSOLE_F_MULTIPORT`; output reads as zero.
    fn config(&self, at: u32) -> u8 {
        let [columns, more_columns] = self.config.columns.to_le_bytes();
        let [rows, more_rows] = self.config.rows.to_le_bytes();
        match at {
            config::COLUMNS => columns,
            1 => more_columns,
            config::ROWS => rows,
            3 => more_rows,
            config::PORTS => 1,
            _ => 0,
        }
    }

    /// Output that needs no queue and no driver that is ready (5.3.5).
    fn configure(&mut self, at: u32, _width: Width, value: u64) {
        if at == config::EMERG_WR && self.input.len() < BACKLOG {
            let [byte, ..] = value.to_le_bytes();
            self.input.push(byte);
        }
    }

    fn watches(&self, queue: u16) -> bool {
        queue == RECEIVE
    }

    fn takes(&self, queue: u16) -> Option<Duration> {
        (queue != RECEIVE || !self.input.is_empty()).then_some(self.config.latency)
    }

    fn serve(
        &mut self,
        queue: u16,
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<Served, Broken> {
        match queue {
            RECEIVE => self.receive(chain, bus),
            _ => self.transmit(chain, bus),
        }
    }

    /// What nobody read is lost.
    fn reset(&mut self) {
        self.input.clear();
    }
}
