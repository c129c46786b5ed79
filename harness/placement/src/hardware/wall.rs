//! The wall clock: every domain runs when the host lets it, and time is the host's.
//!
//! What under leap is a call is here a store or an event word, except where the hardware is
//! needed. A frozen CPU is a SIGSTOP to every domain on it, and the freeze counts from the moment
//! the kernel confirmed it. Nothing here replays bit for bit.

use super::{Cpu, Hardware, Infrastructure, State, ToZygote};
use crate::futex;
use crate::link::monotonic;
use crate::trace::What;
use crate::trial::End;
use cofferdam_seam::{Time, VectorSet};
use std::time::Duration;

/// Polls of the ports before the hardware sleeps: a few microseconds.
const SPIN: u32 = 200;
/// Interrupt time for which a CPU is stopped.
const OWED: Duration = Duration::from_millis(1);
/// How long it sleeps at most, so that deaths are noticed soon.
const NAP: Duration = Duration::from_millis(1);

pub(super) fn run(hardware: &mut Hardware) -> Result<End, Infrastructure> {
    hardware.assemble()?;
    // Device time starts when everybody is there.
    let start = monotonic() - hardware.epoch;
    hardware.machine.advance(Time(start));
    for unit in &mut hardware.units {
        unit.last_beat = Time(start);
    }
    let mut idle = 0;
    let mut answered_before = 0;
    loop {
        hardware.machine.advance(Time(monotonic() - hardware.epoch));
        hardware.observe();
        let frozen = hardware.cpus;
        hardware.thaw();
        interrupt_time(hardware);
        hardware.wake();
        interrupt(hardware);
        let mut busy = grant(hardware);
        for index in 0..hardware.units.len() {
            if matches!(hardware.units[index].state, State::Running)
                && hardware.units[index].page.posted()
            {
                hardware.serve(index)?;
                busy = true;
            }
        }
        let answered = hardware.answered();
        if answered != std::mem::replace(&mut answered_before, answered) {
            hardware.served();
        }
        stop_and_continue(hardware, &frozen)?;
        if let Some(end) = hardware.ended() {
            return Ok(end);
        }
        hardware.attend_zygote(Duration::ZERO)?;
        idle = if busy { 0 } else { idle + 1 };
        if idle > SPIN {
            nap(hardware)?;
        }
    }
}

/// Posts the device's interrupts to the server's event words.
fn interrupt(hardware: &mut Hardware) {
    // What it has not taken yet nobody waits for.
    let unheard = hardware.events_of_server().unheard();
    let raised = hardware
        .machine
        .take_interrupts(hardware.device, VectorSet(!unheard.0));
    if !raised.is_empty() {
        hardware.note(|| What::Taken { vectors: raised.0 });
        hardware.events_of_server().post(0, raised);
    }
}

/// Lets CPUs stand still for the interrupts they took. To stop a domain takes longer than an
/// interrupt, so the time is gathered.
fn interrupt_time(hardware: &mut Hardware) {
    let now = hardware.now();
    for number in 0..hardware.cpus.len() {
        let owed = hardware.interrupts_of(number).time;
        let cpu = &mut hardware.cpus[number];
        if cpu.interrupted.is_some_and(|until| until <= now) {
            cpu.interrupted = None;
        }
        let due = owed.saturating_sub(cpu.paid);
        if cpu.interrupted.is_none() && due >= OWED {
            cpu.interrupted = Some(now + due);
            cpu.paid = owed;
        }
    }
}

/// Answers every call that can be answered.
fn grant(hardware: &mut Hardware) -> bool {
    let now = hardware.now().nanos();
    let mut any = false;
    for index in 0..hardware.units.len() {
        let unit = &hardware.units[index];
        if let State::Ready(answer) = unit.state
            && !hardware.stands_still(unit)
        {
            let unit = &mut hardware.units[index];
            unit.state = State::Running;
            unit.page.grant(answer, now);
            any = true;
        }
    }
    any
}

/// Stops the domains of a CPU that just froze, and continues those of one that thawed.
fn stop_and_continue(hardware: &mut Hardware, before: &[Cpu; 2]) -> Result<(), Infrastructure> {
    for (cpu, was) in before.iter().enumerate() {
        let stands = |cpu: &Cpu| cpu.until.is_some() || cpu.interrupted.is_some();
        let froze = stands(&hardware.cpus[cpu]);
        if froze == stands(was) {
            continue;
        }
        for index in 0..hardware.placement.domains.len() {
            let unit = &mut hardware.units[index];
            if unit.cpu != Some(cpu) || matches!(unit.state, State::Dead | State::Halted) {
                continue;
            }
            if froze {
                unit.stopped = false;
                hardware.zygote.send(&ToZygote::Stop(index))?;
                hardware.until(index, |unit| {
                    unit.stopped || matches!(unit.state, State::Dead | State::Halted)
                })?;
            } else {
                hardware.zygote.send(&ToZygote::Continue(index))?;
            }
        }
        if froze {
            let confirmed = Time(monotonic() - hardware.epoch);
            let frozen = &mut hardware.cpus[cpu];
            // The timeout runs from the confirmed stop, not from the request for it.
            let late = confirmed.since(frozen.since);
            frozen.since = confirmed;
            frozen.until = frozen.until.map(|until| until + late);
            frozen.interrupted = frozen.interrupted.map(|until| until + late);
        }
    }
    Ok(())
}

/// Sleeps until a port calls, an event of the machine is due, or a moment has passed.
fn nap(hardware: &mut Hardware) -> Result<(), Infrastructure> {
    let now = Time(monotonic() - hardware.epoch);
    let limit = hardware.next_event().since(now).min(NAP);
    let words: Vec<_> = hardware
        .units
        .iter()
        .filter(|unit| matches!(unit.state, State::Running))
        .map(|unit| unit.page.sleeping_on())
        .collect();
    let slept = if limit.is_zero() || words.is_empty() {
        Ok(())
    } else {
        futex::wait_any(&words, limit)
    };
    for unit in &hardware.units {
        unit.page.awake();
    }
    slept.map_err(Into::into)
}
