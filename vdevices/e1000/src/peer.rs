//! The other end of the cable.

/// What the link partner does with the frames it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// Sends each back to the station that sent it, as from itself: the addresses change places, and
    /// a group's address is replaced by the partner's own.
    #[default]
    Echo,
    /// Nothing.
    Quiet,
}

/// The station address of the partner: locally administered.
pub(crate) const ADDRESS: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// Bytes of the two station addresses.
const ADDRESSES: usize = 12;

impl Peer {
    /// The answer to a frame, without check sequences.
    pub(crate) fn answer(self, frame: &[u8]) -> Option<Vec<u8>> {
        let (addresses, rest) = frame.split_at_checked(ADDRESSES)?;
        if self == Self::Quiet {
            return None;
        }
        let (to, from) = addresses.split_at(6);
        // The bit that makes an address a group's is the first on the wire.
        let to = if to[0] & 1 == 0 { to } else { &ADDRESS };
        Some([from, to, rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_comes_from_whom_the_frame_went_to() {
        let frame: Vec<u8> = (0..60).collect();
        let answer = Peer::Echo.answer(&frame).expect("an answer");

        assert_eq!(answer[..12], [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
        assert_eq!(answer[12..], frame[12..]);
    }

    #[test]
    fn group_is_answered_for_by_the_partner() {
        let frame = [0xff; 60];
        let answer = Peer::Echo.answer(&frame).expect("an answer");
        assert_eq!(answer[6..12], ADDRESS);
    }

    #[test]
    fn fragment_is_not_answered() {
        assert_eq!(Peer::Echo.answer(&[0; 11]), None);
    }
}
