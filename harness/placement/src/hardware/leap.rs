//! Leap: one token, granted by the hardware, and a clock that jumps.
//!
//! Exactly one domain runs at a time, and the device only while none does. The next holder is the
//! lowest index after the last one among those that are ready and whose CPU does not stand still.
//! When nobody can run, time becomes that of the next event. So a trial depends on its
//! specification alone, and replays to the last access.

use super::{Hardware, Infrastructure, QUANTUM, REACT, RELAX, State};
use crate::link::BEAT;
use crate::port::Spin;
use crate::trial::End;
use cofferdam_seam::Time;
use std::time::{Duration, Instant};

/// CPU time a holder may use before it must have called. A call every few microseconds is usual.
const BUDGET: Duration = Duration::from_millis(50);
/// How often the hardware looks after a holder that does not call. Of one that dies it hears at once.
/// Longer than a tick of the kernel: a timer that is the next one costs a write to the timer device to
/// set, and one to cancel, with every call; a fifth of a trial's time was that.
const LOOK: Duration = Duration::from_millis(10);

/// Runs a trial to its end. Everybody is there.
pub(super) fn run(hardware: &mut Hardware) -> Result<End, Infrastructure> {
    let mut last = hardware.units.len() - 1;
    loop {
        if let Some(end) = hardware.ended() {
            return Ok(end);
        }
        match next_holder(hardware, last) {
            Some(index) => {
                last = index;
                hold(hardware, index)?;
                let polls = hardware.units[index].repetition.polls();
                let took = if polls { RELAX } else { QUANTUM };
                advance(hardware, hardware.now() + took);
            }
            None => {
                let to = hardware.next_event().min(hardware.horizon());
                // An event that is due already needs time to pass before it can be acted on.
                advance(hardware, to.max(hardware.now() + QUANTUM));
            }
        }
    }
}

fn advance(hardware: &mut Hardware, to: Time) {
    let stood = hardware
        .units
        .iter()
        .enumerate()
        .fold(0_u64, |bits, (index, unit)| {
            bits | u64::from(hardware.stands_still(unit)) << index
        });
    hardware.machine.advance(to);
    hardware.observe();
    hardware.thaw();
    live_on(hardware, stood);
    hardware.wake();
}

/// The heartbeats of those that wait, which would wake for nothing else. `stood` says, by bits, whose CPU
/// stood still until now: of these there is one, now.
fn live_on(hardware: &mut Hardware, stood: u64) {
    let now = hardware.now();
    for index in 0..hardware.units.len() {
        let State::Waiting {
            beats: Some(due), ..
        } = hardware.units[index].state
        else {
            continue;
        };
        if due > now || hardware.stands_still(&hardware.units[index]) {
            continue;
        }
        let unit = &mut hardware.units[index];
        let mut at = if stood >> index & 1 == 1 { now } else { due };
        while at <= now {
            unit.beat(at);
            at = at + BEAT;
        }
        if let State::Waiting { beats, .. } = &mut unit.state {
            *beats = Some(at);
        }
    }
}

fn next_holder(hardware: &Hardware, last: usize) -> Option<usize> {
    let count = hardware.units.len();
    (1..=count).map(|step| (last + step) % count).find(|index| {
        let unit = &hardware.units[*index];
        matches!(unit.state, State::Ready(_)) && !hardware.stands_still(unit)
    })
}

/// Lets a domain run until its next call, and carries that out.
fn hold(hardware: &mut Hardware, index: usize) -> Result<(), Infrastructure> {
    let State::Ready(answer) = hardware.units[index].state else {
        return Ok(());
    };
    if index == hardware.placement.server() {
        hardware.machine.rouse_driver(hardware.device);
    }
    let now = hardware.now().nanos();
    let unit = &mut hardware.units[index];
    if std::mem::take(&mut unit.revives) {
        unit.beat(Time(now));
    }
    unit.state = State::Running;
    let page = unit.page;
    page.grant(answer, now);
    let granted = Instant::now();
    // Asking costs a system call: only a holder that is late is watched.
    let mut budget = None;
    while !page.await_call(Spin(0), LOOK) {
        hardware.attend_zygote(Duration::ZERO)?;
        if !matches!(hardware.units[index].state, State::Running) {
            return Ok(());
        }
        let unit = &hardware.units[index];
        if let Some(used) = cpu_time(unit.pid)
            && used > *budget.get_or_insert(used + BUDGET)
        {
            return hardware.kill(index, "spun: it used its CPU time without a call");
        }
        if granted.elapsed() > REACT + BUDGET {
            let who = unit.name.into();
            return Err(Infrastructure::Silent { who, within: REACT });
        }
    }
    hardware.serve(index)
}

/// CPU time a process has used; `None` if it cannot be asked any more.
fn cpu_time(pid: i32) -> Option<Duration> {
    let mut clock = 0;
    // SAFETY: writes the clock's id to `clock`.
    if unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } != 0 {
        return None;
    }
    let mut used = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the time to `used`.
    if unsafe { libc::clock_gettime(clock, &raw mut used) } != 0 {
        return None;
    }
    let secs = u64::try_from(used.tv_sec).ok()?;
    Some(Duration::new(secs, u32::try_from(used.tv_nsec).ok()?))
}
