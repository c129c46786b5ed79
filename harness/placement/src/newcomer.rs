//! A tenant that is started in mid-trial and gets a page that another one gave back.
//!
//! Nobody has told it whose the page was, and it has no business with anybody: it fills the page and
//! lives. What it wrote there is compared with what it should be when the trial ends.

use crate::call::Call;
use crate::link::Link;
use cofferdam_machine::frames::{FRAME, Owner, Run, Use, pattern};

/// Its name in records.
pub const NAME: &str = Owner::Newcomer.name();
/// The modelled CPU it runs on.
pub const CPU: u8 = 1;

/// All it maps of the machine's memory.
pub const fn runs(page: u64) -> Run {
    Run {
        first: page / FRAME,
        count: 1,
        owner: Owner::Newcomer,
        purpose: Use::Pattern,
    }
}

/// Fills its page, then stays alive until the trial ends.
pub fn run(link: &Link, page: u64) -> ! {
    for at in (page..page + FRAME).step_by(8) {
        let word = link.window().pointer(at).cast::<u64>();
        // SAFETY: the page is mapped in this window, `at` is a multiple of eight within it, and no
        // reference to it exists; volatile because a device may write there.
        unsafe { word.write_volatile(pattern(Owner::Newcomer, at).to_le()) };
    }
    link.call(Call::Filled);
    link.rest()
}
