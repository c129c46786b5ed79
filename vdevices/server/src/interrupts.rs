//! The client's eventfds, and what interrupts do to them.

use crate::spec::{Errno, IrqInfo, IrqSet, irq};
use cofferdam_seam::{Capability, PciIdentity, VectorSet};
use rustix::fs::{CWD, OFlags, fcntl_getfl, fcntl_setfl, readlinkat};
use rustix::io::write;
use std::os::fd::{AsRawFd, OwnedFd};

/// Message-signalled interrupts of one kind.
#[derive(Debug, Default)]
struct Messages {
    /// As many as the function has.
    triggers: Vec<Option<OwnedFd>>,
    /// The client has set the kind up, if only without eventfds yet.
    enabled: bool,
    /// Raised while there was no eventfd for it.
    pending: VectorSet,
}

impl Messages {
    fn new(count: u16) -> Self {
        Self {
            triggers: (0..count).map(|_| None).collect(),
            enabled: false,
            pending: VectorSet::EMPTY,
        }
    }

    fn disable(&mut self) {
        self.triggers.fill_with(|| None);
        self.enabled = false;
        self.pending = VectorSet::EMPTY;
    }

    fn deliver(&mut self) {
        let mut waiting = VectorSet::EMPTY;
        for vector in std::mem::take(&mut self.pending).iter() {
            match self.triggers.get(usize::from(vector.0)) {
                Some(Some(fd)) => signal(fd),
                Some(None) => waiting.insert(VectorSet::of(vector)),
                None => {}
            }
        }
        self.pending = waiting;
    }
}

/// All interrupts of one client.
#[derive(Debug)]
pub(crate) struct Interrupts {
    pin: Option<OwnedFd>,
    has_pin: bool,
    level: bool,
    masked: bool,
    msi: Messages,
    msix: Messages,
}

impl Interrupts {
    /// Those of a function, none of which goes anywhere yet.
    pub fn new(identity: &PciIdentity) -> Self {
        let (mut msi, mut msix) = (0, 0);
        for capability in identity.capabilities {
            match *capability {
                Capability::Msi { log2_vectors } => msi = 1 << log2_vectors,
                Capability::Msix { vectors, .. } => msix = vectors,
                _ => {}
            }
        }
        Self {
            pin: None,
            has_pin: identity.intx,
            level: false,
            masked: false,
            msi: Messages::new(msi),
            msix: Messages::new(msix),
        }
    }

    /// What there is of a kind.
    pub fn info(&self, index: u32) -> Option<IrqInfo> {
        let count = self.count(index)?;
        let flags = match index {
            irq::INTX => irq::EVENTFD | irq::MASKABLE | irq::AUTOMASKED,
            irq::MSI | irq::MSIX => irq::EVENTFD,
            _ => 0,
        };
        Some(IrqInfo {
            argsz: 16,
            flags,
            index,
            count,
        })
    }

    fn count(&self, index: u32) -> Option<u32> {
        let messages = |messages: &Messages| u32::try_from(messages.triggers.len()).ok();
        match index {
            irq::INTX => Some(self.has_pin.into()),
            irq::MSI => messages(&self.msi),
            irq::MSIX => messages(&self.msix),
            _ if index < irq::COUNT => Some(0),
            _ => None,
        }
    }

    /// Carries a setting out; `bools` is what came with it.
    pub fn set(&mut self, request: &IrqSet, bools: &[u8], fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let count = self.count(request.index).ok_or(Errno::INVALID)?;
        let end = request.start.checked_add(request.count);
        let data = request.flags & (irq::DATA_NONE | irq::DATA_BOOL | irq::DATA_EVENTFD);
        let action = request.flags & (irq::MASK | irq::UNMASK | irq::TRIGGER);
        let known = request.flags == data | action && data.count_ones() == 1;
        if end.is_none_or(|end| end > count) || !known || action.count_ones() != 1 {
            return Err(Errno::INVALID);
        }
        let vectors = request.start as usize..end.unwrap_or(0) as usize;
        let comes = match data {
            irq::DATA_BOOL => bools.len() == vectors.len() && fds.is_empty(),
            irq::DATA_EVENTFD => fds.is_empty() || fds.len() == vectors.len(),
            _ => fds.is_empty(),
        };
        if !comes {
            return Err(Errno::INVALID);
        }
        match (data, action) {
            (irq::DATA_NONE, irq::TRIGGER) if vectors.is_empty() => self.disable(request.index),
            (irq::DATA_EVENTFD, irq::TRIGGER) => return self.attach(request.index, vectors, fds),
            (irq::DATA_EVENTFD, _) => return Err(Errno::NOT_SUPPORTED),
            (_, irq::TRIGGER) => {
                for (place, vector) in vectors.enumerate() {
                    if data == irq::DATA_NONE || bools.get(place).is_some_and(|&on| on != 0) {
                        self.poke(request.index, vector);
                    }
                }
            }
            _ if request.index == irq::INTX => {
                if !vectors.is_empty() && (data == irq::DATA_NONE || bools.first() != Some(&0)) {
                    self.masked = action == irq::MASK;
                    self.settle();
                }
            }
            _ => return Err(Errno::NOT_SUPPORTED),
        }
        Ok(())
    }

    /// The model raised these vectors.
    pub fn raise(&mut self, vectors: VectorSet) {
        let messages = if self.msix.enabled {
            &mut self.msix
        } else if self.msi.enabled {
            &mut self.msi
        } else {
            return;
        };
        messages.pending.insert(vectors);
        messages.deliver();
    }

    /// The pin has that level now.
    pub fn pin(&mut self, level: bool) {
        self.level = level;
        self.settle();
    }

    /// Forgets what was raised and not delivered.
    pub fn reset(&mut self) {
        self.level = false;
        self.msi.pending = VectorSet::EMPTY;
        self.msix.pending = VectorSet::EMPTY;
    }

    fn settle(&mut self) {
        if self.level
            && !self.masked
            && let Some(fd) = &self.pin
        {
            signal(fd);
            self.masked = true;
        }
    }

    fn disable(&mut self, index: u32) {
        match index {
            irq::INTX => {
                self.pin = None;
                self.masked = false;
            }
            irq::MSI => self.msi.disable(),
            irq::MSIX => self.msix.disable(),
            _ => {}
        }
    }

    fn attach(
        &mut self,
        index: u32,
        vectors: std::ops::Range<usize>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Errno> {
        for fd in &fds {
            take_over(fd)?;
        }
        let mut fds = fds.into_iter();
        let messages = match index {
            irq::INTX => {
                if !vectors.is_empty() {
                    self.pin = fds.next();
                    self.masked = false;
                    self.settle();
                }
                return Ok(());
            }
            irq::MSI => &mut self.msi,
            irq::MSIX => &mut self.msix,
            _ => return Ok(()),
        };
        for vector in vectors {
            if let Some(trigger) = messages.triggers.get_mut(vector) {
                *trigger = fds.next();
            }
        }
        messages.enabled = true;
        messages.deliver();
        Ok(())
    }

    /// The client raises an interrupt itself.
    fn poke(&self, index: u32, vector: usize) {
        let trigger = match index {
            irq::INTX => self.pin.as_ref(),
            irq::MSI => self.msi.triggers.get(vector).and_then(Option::as_ref),
            irq::MSIX => self.msix.triggers.get(vector).and_then(Option::as_ref),
            _ => None,
        };
        if let Some(fd) = trigger {
            signal(fd);
        }
    }
}

/// Makes sure that signalling a client's descriptor cannot wait: it must be an eventfd.
fn take_over(fd: &OwnedFd) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let target = readlinkat(CWD, path, Vec::new()).map_err(|_| Errno::INVALID)?;
    if target.to_bytes() != b"anon_inode:[eventfd]" {
        return Err(Errno::INVALID);
    }
    let flags = fcntl_getfl(fd).map_err(|_| Errno::INVALID)?;
    fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(|_| Errno::INVALID)
}

/// A counter that is full has something to say already.
fn signal(fd: &OwnedFd) {
    let _ = write(fd, &1_u64.to_ne_bytes());
}
