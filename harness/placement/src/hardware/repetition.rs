//! What a domain does over and over, which no clock would end in reasonable time: each of these calls
//! takes next to no device time, and in a guest an exit.

use crate::call::{Answer, Call};

/// Reads of one register with one value after which a domain is taken to poll.
const POLLS: u32 = 64;
/// Accesses to configuration space on end after which a domain is taken to be lost there: twice as many
/// as the space has double words (PCI Express 6.0, 7.2.2).
const LOST_IN_CONFIG: u32 = 2 * 4096 / 4;

/// How long a domain has done nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repetition {
    read: Option<(Call, Answer)>,
    reads: u32,
    configures: u32,
}

impl Repetition {
    /// It makes a call.
    pub fn call(&mut self, call: Call) {
        let configures = matches!(call, Call::ConfigRead { .. } | Call::ConfigWrite { .. });
        self.configures = if configures { self.configures + 1 } else { 0 };
        if !self.read.is_some_and(|(read, _)| read == call) {
            *self = Self {
                configures: self.configures,
                ..Self::default()
            };
        }
    }

    /// The call is answered.
    pub fn answer(&mut self, call: Call, answer: Answer) {
        if !matches!(call, Call::MmioRead { .. }) {
            return;
        }
        let same = self.read.replace((call, answer)) == Some((call, answer));
        self.reads = if same { self.reads + 1 } else { 0 };
    }

    /// Whether its last call was a turn of a poll loop that it did not announce.
    pub fn polls(&self) -> bool {
        self.reads >= POLLS
    }

    /// Whether it has done nothing but access configuration space for too long.
    pub fn lost_in_config(&self) -> bool {
        self.configures > LOST_IN_CONFIG
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_seam::Width;

    fn read(offset: u64) -> Call {
        Call::MmioRead {
            bar: 0,
            offset: offset.try_into().expect("an offset"),
            width: Width::Four,
        }
    }

    fn made(repetition: &mut Repetition, call: Call, value: u64) {
        repetition.call(call);
        repetition.answer(call, Answer::with(value, 0));
    }

    #[test]
    fn only_one_register_with_one_value_is_polled() {
        let mut same = Repetition::default();
        let mut changing = Repetition::default();
        let mut interrupted = Repetition::default();

        for turn in 0..=u64::from(POLLS) {
            made(&mut same, read(4), 1);
            made(&mut changing, read(4), turn);
            made(&mut interrupted, read(4), 1);
            made(&mut interrupted, Call::Now, 0);
        }

        assert!(same.polls());
        assert!(!changing.polls());
        assert!(!interrupted.polls());
    }

    #[test]
    fn any_other_call_finds_the_way_out_of_configuration_space() {
        let mut repetition = Repetition::default();
        let config = Call::ConfigRead {
            offset: 0x40,
            width: Width::Four,
        };

        for _ in 0..=LOST_IN_CONFIG {
            made(&mut repetition, config, 0);
        }

        assert!(repetition.lost_in_config());
        made(&mut repetition, Call::Now, 0);
        assert!(!repetition.lost_in_config());
    }
}
