//! A kind of device over the crate's PCI transport.

use cofferdam_fuzz::host::{FuzzAddresses, FuzzHost};
use cofferdam_fuzz::target::{Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets::virtio::OverTransport;
use cofferdam_fuzz_targets::virtio::hal::{FuzzHal, Registers, place_registers, unless_elsewhere};
use cofferdam_instrument::trap::{self, Way, Window};
use cofferdam_seam::{Device, DriverHost, Mmio, Width};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};

/// Where the device is.
const PLACE: DeviceFunction = DeviceFunction {
    bus: 1,
    device: 0,
    function: 0,
};

/// What a transport has to write in configuration space to size BARs: the command register, and them.
const COMMAND: u8 = 0x04;
const BARS: Range<u8> = 0x10..0x28;

/// A target of the nine, over PCI.
#[derive(Debug)]
pub struct Pci<K: 'static> {
    name: &'static str,
    kind: &'static K,
}

impl<K> Pci<K> {
    pub const fn new(name: &'static str, kind: &'static K) -> Self {
        Self { name, kind }
    }
}

impl<K: OverTransport> Target for Pci<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn driver(&self) -> Crate {
        self.kind.driver()
    }

    fn calls(&self) -> &'static [CallSpec] {
        self.kind.calls()
    }

    fn device(&self) -> Box<dyn Device> {
        self.kind.device()
    }

    fn start(&self, host: FuzzHost, witness: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        let platform = Platform::new(host)?;
        let strayed = Rc::default();
        let mut root = PciRoot::new(Configuration {
            host,
            strayed: Rc::clone(&strayed),
        });
        let found = unless_elsewhere(|| PciTransport::new::<FuzzHal, _>(&mut root, PLACE));
        witness.promise(
            "configuration space is written where the command register and the BARs are",
            !strayed.get(),
        );
        let transport = found?.map_err(Refused::because)?;
        let driver = self.kind.start_over(transport)?;
        trap::settle();
        Ok(Box::new(Running {
            driver: Some(driver),
            _platform: platform,
        }))
    }

    fn blocks(&self) -> bool {
        self.kind.blocks()
    }

    fn written(&self) -> Option<Range<usize>> {
        self.kind.written()
    }

    fn decoder(&self) -> Box<dyn Decode> {
        self.kind.decoder()
    }
}

struct Running {
    /// Goes before the platform.
    driver: Option<Box<dyn Driver>>,
    _platform: Platform,
}

impl Driver for Running {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let Some(driver) = &mut self.driver else {
            return Ok(());
        };
        let done = driver.call(call, witness);
        trap::settle();
        done
    }
}

/// What an operating system holds for a driver: its registers, mapped, and the right to the bus.
struct Platform {
    host: FuzzHost,
    _window: Window,
}

impl Platform {
    fn new(mut host: FuzzHost) -> Result<Self, Refused> {
        let addresses = host.place_bars();
        let (first, len) = (addresses.first(), addresses.len());
        let way = Way::of("virtio_drivers");
        let window = Window::new(Rc::<FuzzAddresses>::new(addresses), way);
        let window = match window {
            Ok(window) => window,
            Err(error) => {
                let _ = host.set_bus_master(false);
                return Err(Refused::because(error));
            }
        };
        place_registers(Registers {
            first,
            len,
            pointer: window.pointer(),
        });
        Ok(Self {
            host,
            _window: window,
        })
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        trap::settle();
        let _ = self.host.set_bus_master(false);
    }
}

/// The crate's way to configuration space.
struct Configuration {
    host: FuzzHost,
    /// It wrote where no BAR is.
    strayed: Rc<Cell<bool>>,
}

impl ConfigurationAccess for Configuration {
    fn read_word(&self, _: DeviceFunction, register_offset: u8) -> u32 {
        let mut host = self.host;
        let word = host.config_read(register_offset.into(), Width::Four);
        // This host always answers.
        word.unwrap_or(u32::MAX)
    }

    fn write_word(&mut self, _: DeviceFunction, register_offset: u8, data: u32) {
        if register_offset != COMMAND && !BARS.contains(&register_offset) {
            self.strayed.set(true);
        }
        let _ = self
            .host
            .config_write(register_offset.into(), Width::Four, data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self {
            host: self.host,
            strayed: Rc::clone(&self.strayed),
        }
    }
}
