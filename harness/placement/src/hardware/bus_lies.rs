//! What the device does wrong on the bus and about its own configuration.

use crate::trial::{Fault, Lock};
use cofferdam_seam::{Bar, Iova, RequesterId, Violation};
use std::time::Duration;
use vdevice_tamper::{Aim, Lie, Trigger};

/// A clock of the conventional bus at 33 MHz (PCI Local Bus 3.0, 4.2.3.1).
const CLOCK: Duration = Duration::from_nanos(30);

/// The second tenant's device and itself, as the lying one sees them.
pub(super) struct Neighbour {
    /// Its requester ID.
    pub id: RequesterId,
    /// Where its BAR 0 is.
    pub bar: Option<Iova>,
    /// The lying device's own BAR of registers.
    pub own: Bar,
}

/// The lie of a fault of the bus; `timeout` is the platform's completion timeout.
pub(super) fn bus_lie(fault: &Fault, neighbour: &Neighbour, timeout: Duration) -> Option<Lie> {
    let millis = |ms: u32| Duration::from_millis(ms.into());
    let after_dma = |nth, what| Lie::Violates {
        on: Trigger::Dma,
        nth,
        what,
    };
    Some(match *fault {
        // What is written there reads inverted, so its owner sees it.
        Fault::D9 { nth, .. } => Lie::WildWrite {
            nth,
            aim: Aim::Address(neighbour.bar?.offset(cofferdam_tenant::LIVENESS.into())),
            bytes: vec![0xee; 4],
        },
        Fault::B2 { permille, nth } => Lie::Late {
            nth,
            delay: timeout * permille / 1000,
        },
        Fault::B3 { count, nth } => Lie::Retries { nth, times: count },
        Fault::B4 { clocks, nth } => after_dma(
            nth,
            Violation::HoldGrant {
                time: CLOCK.saturating_mul(clocks),
            },
        ),
        Fault::B5 { lock, ms, nth } => {
            let target = match lock {
                Lock::Resource => Some(neighbour.id),
                Lock::Bus => None,
            };
            let time = millis(ms);
            after_dma(nth, Violation::Lock { target, time })
        }
        Fault::B6 { posted, ms, nth } => {
            let time = millis(ms);
            after_dma(nth, Violation::StarveCredits { posted, time })
        }
        Fault::B7 { ms, nth } => {
            let time = (ms > 0).then(|| millis(ms));
            after_dma(nth, Violation::LinkDown { time })
        }
        Fault::B10 { poisoned, nth, .. } => Lie::Fails { nth, poisoned },
        Fault::C1 { overlap, nth } => {
            let taken = neighbour.bar?;
            // Nobody is a good way beyond the last BAR.
            let to = if overlap {
                taken
            } else {
                taken.offset(1 << 24)
            }
            .0;
            Lie::Violates {
                on: Trigger::Read,
                nth,
                what: Violation::MoveBar {
                    bar: neighbour.own,
                    to,
                },
            }
        }
        Fault::C5 { ignored, ms, .. } => Lie::Violates {
            on: Trigger::Read,
            nth: 1,
            what: if ignored {
                Violation::IgnoreReset
            } else {
                Violation::SlowReset { time: millis(ms) }
            },
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Route;

    #[test]
    fn neighbours_registers_are_aimed_at_where_they_are() {
        let neighbour = Neighbour {
            id: RequesterId::new(2, 0, 0),
            bar: Some(Iova(0xc010_0000)),
            own: Bar::ZERO,
        };
        let route = Route::Near;
        let lie = bus_lie(&Fault::D9 { route, nth: 2 }, &neighbour, Duration::ZERO);
        let Some(Lie::WildWrite { aim, .. }) = lie else {
            panic!("{lie:?}");
        };
        assert_eq!(aim, Aim::Address(Iova(0xc010_0004)));
    }
}
