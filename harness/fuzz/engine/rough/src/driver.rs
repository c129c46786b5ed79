//! The drivers. Each asks edu's liveness register, and does with a lie what drivers do.

use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Bar, DriverHost, Mmio};

const LIVENESS: u32 = 0x04;

/// What a driver does that is lied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Goes round without comparing or calling anything.
    Spins,
    /// Panics, and again while it unwinds.
    PanicsTwice,
    /// Takes any of many ways, of which some end in a panic.
    Wanders,
}

/// A driver.
pub struct Rough<H: DriverHost> {
    registers: H::Mmio,
    manner: Manner,
}

/// Panics when it is dropped.
struct Ill;

impl Drop for Ill {
    fn drop(&mut self) {
        panic!("the clean-up fails as well");
    }
}

impl<H: DriverHost> Rough<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn probe(mut host: H, manner: Manner) -> Result<Self, DriverError> {
        let registers = host.map_bar(Bar::ZERO)?;
        Ok(Self { registers, manner })
    }

    /// Asks whether the device lives: it answers with the complement.
    pub fn ask(&self, challenge: u32) {
        self.registers.write32(LIVENESS, challenge);
        let answer = self.registers.read32(LIVENESS);
        if answer == !challenge {
            return;
        }
        match self.manner {
            Manner::Spins => spin(),
            Manner::PanicsTwice => panic_twice(answer),
            Manner::Wanders => wander(answer),
        }
    }
}

#[inline(never)]
fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

#[inline(never)]
fn panic_twice(answer: u32) {
    let _ill = Ill;
    panic!("the device says {answer}");
}

/// No chance leads there, only who knows what the driver compares with.
const HIDDEN: u32 = 0x9e37_79b1;

/// Each nibble of the answer is a turning.
#[inline(never)]
fn wander(answer: u32) {
    assert!(answer != HIDDEN, "the device knows the way");
    let mut place = 1_u32;
    for turning in 0..8 {
        place = match answer >> (turning * 4) & 15 {
            0 => place,
            1 => place.wrapping_mul(3),
            2 => place ^ 0x55,
            3 => place.rotate_left(3),
            4 => !place,
            5 => place.wrapping_sub(7),
            6 => place / 2,
            7 => place.wrapping_add(100),
            _ => continue,
        };
        assert!(place != 97, "the device leads to a dead end");
    }
    assert!(!place.is_multiple_of(101), "the device leads in a circle");
}
