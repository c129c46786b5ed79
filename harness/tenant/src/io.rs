//! What came of a tenant's requests, as it counts.

/// A tenant's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Requests it means to make.
    pub wanted: u32,
    /// Requests that ended well.
    pub completed: u32,
    /// Requests that were answered with an error (and tried again).
    pub errors: u32,
    /// Answers that said success but carried wrong data.
    pub corrupted: u32,
    /// Writes that were acknowledged and cannot be read back.
    pub lost: u32,
    /// Answers to a request that had been answered.
    pub duplicated: u32,
    /// Registers of its own device that it found changed by somebody else.
    pub device_changed: u32,
    /// Times it found its own device gone or reset.
    pub device_lost: u32,
    /// The longest request, from its first submission to its good answer, ns.
    pub longest_ns: u64,
    /// Whether it finished all it meant to do, the final read-back included.
    pub finished: bool,
}

impl Io {
    /// As the arguments of a hypercall.
    pub const fn pack(&self) -> [u64; 6] {
        const fn pair(low: u32, high: u32) -> u64 {
            low as u64 | (high as u64) << 32
        }
        [
            pair(self.wanted, self.completed),
            pair(self.errors, self.corrupted),
            pair(self.lost, self.duplicated),
            pair(self.device_changed, self.device_lost),
            self.longest_ns,
            self.finished as u64,
        ]
    }

    /// From the arguments of a hypercall, which may be anything.
    pub const fn unpack(words: [u64; 6]) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "half a word")]
        const fn low(word: u64) -> u32 {
            word as u32
        }
        const fn high(word: u64) -> u32 {
            low(word >> 32)
        }
        Self {
            wanted: low(words[0]),
            completed: high(words[0]),
            errors: low(words[1]),
            corrupted: high(words[1]),
            lost: low(words[2]),
            duplicated: high(words[2]),
            device_changed: low(words[3]),
            device_lost: high(words[3]),
            longest_ns: words[4],
            finished: words[5] != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_survive_a_hypercall() {
        let io = Io {
            wanted: 1,
            completed: 2,
            errors: 3,
            corrupted: 4,
            lost: 5,
            duplicated: u32::MAX,
            device_changed: 7,
            device_lost: 8,
            longest_ns: 9,
            finished: true,
        };

        assert_eq!(Io::unpack(io.pack()), io);
        assert_eq!(Io::unpack(Io::default().pack()), Io::default());
    }
}
