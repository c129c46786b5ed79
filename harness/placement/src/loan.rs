//! The page a tenant lends the driver's device for one request (zero-copy).
//!
//! The driver's domain keeps it: the driver maps a buffer of its own as always, and the host backs
//! what is as long as the request's data by the tenant's page instead. So no driver has a line of it;
//! what a driver copies into and out of its buffer are zeros that nobody looks at.

use cofferdam_seam::Direction;
use std::cell::Cell;

/// A page with a request's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lent {
    /// Its physical address.
    pub phys: u64,
    /// Bytes from its start that the device is to read; 0: none.
    pub reads: usize,
    /// Bytes from its start that it is to fill; 0: none.
    pub fills: usize,
}

/// What is lent now, shared by the server, which lends, and the driver's host, which maps.
#[derive(Debug, Default)]
pub struct Loan {
    lent: Cell<Option<Lent>>,
    /// The device was given it to read, to fill.
    given: Cell<(bool, bool)>,
}

impl Loan {
    /// Lends a page for the request that is about to be served.
    pub fn begin(&self, lent: Lent) {
        self.lent.set(Some(lent));
        self.given.set((false, false));
    }

    /// Ends the loan; whether the device was given the page for all there was to move.
    pub fn end(&self) -> bool {
        let (read, filled) = self.given.get();
        self.lent
            .take()
            .is_some_and(|lent| (lent.reads == 0 || read) && (lent.fills == 0 || filled))
    }

    /// The memory for a buffer of that length, if it is the request's.
    pub fn back(&self, len: usize, way: Direction) -> Option<u64> {
        let lent = self.lent.get()?;
        let (read, filled) = self.given.get();
        match way {
            Direction::ToDevice if len == lent.reads => self.given.set((true, filled)),
            Direction::FromDevice if len == lent.fills => self.given.set((read, true)),
            Direction::ToDevice | Direction::FromDevice | Direction::Both => return None,
        }
        Some(lent.phys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 0x14_9000;

    fn loan(reads: usize, fills: usize) -> Loan {
        let loan = Loan::default();
        loan.begin(Lent {
            phys: PAGE,
            reads,
            fills,
        });
        loan
    }

    #[test]
    fn page_backs_the_buffer_of_the_requests_length_and_direction_only() {
        let loan = loan(512, 0);

        assert_eq!(loan.back(16, Direction::ToDevice), None);
        assert_eq!(loan.back(512, Direction::FromDevice), None);
        assert_eq!(loan.back(512, Direction::Both), None);
        assert!(!loan.end());
    }

    #[test]
    fn loan_has_served_when_the_device_was_given_all_there_was_to_move() {
        let both = loan(256, 256);
        assert_eq!(both.back(256, Direction::ToDevice), Some(PAGE));
        assert_eq!(both.back(256, Direction::FromDevice), Some(PAGE));
        assert!(both.end());

        let half = loan(256, 256);
        assert_eq!(half.back(256, Direction::ToDevice), Some(PAGE));
        assert!(!half.end());
    }

    #[test]
    fn ended_loan_backs_nothing() {
        let loan = loan(512, 0);
        loan.end();

        assert_eq!(loan.back(512, Direction::ToDevice), None);
    }
}
