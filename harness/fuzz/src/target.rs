//! What a driver must offer to be fuzzed: some fifty lines around it.
//!
//! A [`Target`] names the driver, builds the honest model of its device, and starts the driver over
//! a [`FuzzHost`]; the [`Driver`] it returns carries out the calls of a workload. Everything the
//! driver does between a call's begin and its end runs under the oracles: panics, waits without an
//! end, DMA the driver did not sanction, mappings it leaves behind. What only the adapter can see it
//! tells the [`Witness`].
//!
//! An adapter is called anew for every execution, many thousand times a second, and must do the same
//! each time: no clock, no randomness, no state of its own between executions. A driver that never
//! comes back is abandoned on its stack, without its destructors; so is what the adapter holds then.

use crate::host::FuzzHost;
use crate::witness::Witness;
pub use cofferdam_seam::Decode;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Device, Iova, Undecoded};
use std::fmt::Display;
use std::ops::Range;

/// A driver that can be fuzzed, with the device it drives.
///
/// ```
/// use cofferdam_fuzz::host::FuzzHost;
/// use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Driver, Refused, Target};
/// use cofferdam_fuzz::witness::Witness;
/// use cofferdam_seam::service::Compute;
/// use cofferdam_seam::{Deadline, Device, DriverHost};
/// use std::time::Duration;
///
/// struct EduTarget;
///
/// impl Target for EduTarget {
///     fn name(&self) -> &'static str {
///         "edu"
///     }
///     fn driver(&self) -> Crate {
///         Crate { name: "driver-edu", version: "0.1.0" }
///     }
///     fn calls(&self) -> &'static [CallSpec] {
///         &[CallSpec { name: "factorial", arguments: &[Argument { name: "n", least: 0, most: 12 }] }]
///     }
///     fn device(&self) -> Box<dyn Device> {
///         Box::new(vdevice_edu::Edu::new(Default::default()))
///     }
///     fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
///         Ok(Box::new(Running { edu: driver_edu::Edu::probe(host)?, host }))
///     }
/// }
///
/// struct Running {
///     edu: driver_edu::Edu<FuzzHost>,
///     host: FuzzHost,
/// }
///
/// impl Driver for Running {
///     fn call(&mut self, call: Call<'_>, _: &mut Witness) -> Result<(), Refused> {
///         let until = Deadline::after(self.host.now(), Duration::from_millis(10));
///         let n = u32::try_from(call.argument(0)).unwrap_or(0);
///         self.edu.factorial(n, until)?;
///         Ok(())
///     }
/// }
/// ```
pub trait Target: Sync {
    /// What users call it: lower case, words joined by hyphens.
    fn name(&self) -> &'static str;

    /// The driver's crate, for findings.
    fn driver(&self) -> Crate;

    /// What a workload can ask of the driver. An index into it is [`Call::index`].
    fn calls(&self) -> &'static [CallSpec];

    /// The honest model of the device, as after power-on. It is built for every execution, so it
    /// should be small; latencies only cost time.
    fn device(&self) -> Box<dyn Device>;

    /// The device of hostile mode, which takes every answer from the program's bytes. Without one,
    /// hostile mode answers each register read from the program, and device and driver meet in
    /// memory only where the program pokes it.
    fn hostile(&self) -> Option<Box<dyn Device>> {
        None
    }

    /// Probes the device, and returns the driver in service. Dropping it removes the driver.
    ///
    /// # Errors
    ///
    /// The driver does not take the device; that is its right, and no finding.
    fn start(&self, host: FuzzHost, witness: &mut Witness) -> Result<Box<dyn Driver>, Refused>;

    /// The first DMA address the host gives out. Above 4 GiB unless the device cannot: so a driver
    /// that cuts addresses off is found.
    fn first_iova(&self) -> Iova {
        Iova(0x1_2000_0000)
    }

    /// Whether the driver's documentation says that its calls block until the device answers. Then
    /// a wait for a device that is silent is no defect of this driver.
    fn blocks(&self) -> bool {
        false
    }

    /// Which bytes of a completion say, little-endian, how much was written to memory, if any do. A
    /// driver that returns more than that as received is to blame.
    fn written(&self) -> Option<Range<usize>> {
        None
    }

    /// Where the driver runs, in words, if it is not this process.
    fn isolation(&self) -> Option<&str> {
        None
    }

    /// Words for registers and memory, for traces.
    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(Undecoded)
    }
}

/// A driver in service. Dropping it removes the driver.
pub trait Driver {
    /// Carries out one call of a workload.
    ///
    /// # Errors
    ///
    /// The driver refused or failed the call; that is no finding either, and the workload goes on.
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused>;
}

/// A crate under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crate {
    /// Its name on the registry, or in its repository.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// Something a workload can ask of a driver.
#[derive(Clone, Copy, Debug)]
pub struct CallSpec {
    /// Its name in programs: lower case, words joined by hyphens.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: &'static [Argument],
}

/// An argument of a call. Programs may hold any number: one out of the range is brought into it.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Its name, for readers.
    pub name: &'static str,
    /// The least value.
    pub least: u64,
    /// The greatest value.
    pub most: u64,
}

/// One call of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    spec: &'static CallSpec,
    index: usize,
    arguments: &'a [u64],
}

impl<'a> Call<'a> {
    /// The call at `index` of `specs`, if there is one.
    pub fn new(specs: &'static [CallSpec], index: usize, arguments: &'a [u64]) -> Option<Self> {
        Some(Self {
            spec: specs.get(index)?,
            index,
            arguments,
        })
    }

    /// Which of [`Target::calls`] it is.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    /// The argument at that place, in its range; an argument left out has its least value, and one
    /// that the call does not have is zero.
    pub fn argument(&self, at: usize) -> u64 {
        let Some(spec) = self.spec.arguments.get(at) else {
            return 0;
        };
        let given = self.arguments.get(at).copied().unwrap_or(spec.least);
        if (spec.least..=spec.most).contains(&given) {
            return given;
        }
        match spec
            .most
            .checked_sub(spec.least)
            .and_then(|span| span.checked_add(1))
        {
            Some(span) => spec.least + given % span,
            None => spec.least,
        }
    }

    /// [`Self::argument`], as a length or an index.
    pub fn size(&self, at: usize) -> usize {
        usize::try_from(self.argument(at)).unwrap_or(usize::MAX)
    }
}

/// A driver said no. The reason is kept only where somebody reads it.
#[derive(Debug, Default)]
pub struct Refused(Option<String>);

impl Refused {
    /// Refused because of that.
    pub fn because(why: impl Display) -> Self {
        Self(crate::world::is_traced().then(|| why.to_string()))
    }

    /// The reason, if a trace is being written.
    pub fn reason(&self) -> &str {
        self.0.as_deref().unwrap_or("refused")
    }
}

impl From<DriverError> for Refused {
    fn from(error: DriverError) -> Self {
        Self::because(error)
    }
}

impl From<cofferdam_seam::HostError> for Refused {
    fn from(error: cofferdam_seam::HostError) -> Self {
        Self::because(error)
    }
}
