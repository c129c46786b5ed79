//! What a domain does over and over, which no clock would end in reasonable time: each of these calls
//! takes next to no device time, and in a guest an exit.

use crate::call::{Answer, Call};

/// Reads of one register with one value after which a domain is taken to poll.
const POLLS: u32 = 64;
/// Accesses to one double word of configuration space, among others to that space alone, after which a
/// domain is taken to be lost there. Who walks a circle of capabilities comes by here each time.
const LOST_IN_CONFIG: u8 = 64;
/// Double words of configuration space (PCI Express 6.0, 7.2.2).
const CONFIG_WORDS: usize = 4096 / 4;

/// How long a domain has done nothing else.
#[derive(Clone, Debug)]
pub(super) struct Repetition {
    read: Option<(Call, Answer)>,
    reads: u32,
    /// Accesses to each double word since it last did anything else; empty if there were none.
    configured: Vec<u8>,
    lost_in_config: bool,
}

impl Repetition {
    /// It has done nothing yet.
    pub const fn new() -> Self {
        Self {
            read: None,
            reads: 0,
            configured: Vec::new(),
            lost_in_config: false,
        }
    }

    /// It makes a call.
    pub fn call(&mut self, call: Call) {
        match call {
            Call::ConfigRead { offset, .. } | Call::ConfigWrite { offset, .. } => {
                self.configure(usize::from(offset) / 4);
            }
            _ => {
                self.configured.clear();
                self.lost_in_config = false;
            }
        }
        if !self.read.is_some_and(|(read, _)| read == call) {
            self.read = None;
            self.reads = 0;
        }
    }

    fn configure(&mut self, word: usize) {
        if self.configured.is_empty() {
            self.configured.resize(CONFIG_WORDS, 0);
        }
        // All that lies behind the space counts as one.
        let accesses = &mut self.configured[word.min(CONFIG_WORDS - 1)];
        *accesses = accesses.saturating_add(1);
        self.lost_in_config |= *accesses > LOST_IN_CONFIG;
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

    /// Whether it has long done nothing but come back to the same place of configuration space.
    pub fn lost_in_config(&self) -> bool {
        self.lost_in_config
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
        let mut same = Repetition::new();
        let mut changing = Repetition::new();
        let mut interrupted = Repetition::new();

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

    fn config(offset: u16) -> Call {
        Call::ConfigRead {
            offset,
            width: Width::Two,
        }
    }

    #[test]
    fn circle_of_capabilities_is_no_way_out_of_configuration_space() {
        let mut repetition = Repetition::new();

        for _ in 0..=LOST_IN_CONFIG {
            assert!(!repetition.lost_in_config());
            made(&mut repetition, config(0x40), 0x5005);
            made(&mut repetition, config(0x50), 0x4011);
        }

        assert!(repetition.lost_in_config());
        made(&mut repetition, Call::Now, 0);
        assert!(!repetition.lost_in_config());
    }

    #[test]
    fn who_reads_all_of_configuration_space_is_not_lost_in_it() {
        let mut repetition = Repetition::new();

        for _ in 0..LOST_IN_CONFIG / 2 {
            for offset in (0..4096).step_by(2) {
                made(&mut repetition, config(offset), 0);
            }
        }

        assert!(!repetition.lost_in_config());
    }
}
