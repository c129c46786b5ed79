//! Whose fault it is that data are missing: a driver's only if it could have known.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::text;
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_targets::virtio::blk::BLK;

/// Whether a block is returned that the device never sent, after what the device did to the read.
fn returns_unsent_data(device: &str) -> bool {
    let body =
        format!("cofferdam program 1\ntarget virtio-blk\nmode model\ncall read 0 1\n{device}");
    let program = text::parse(&body, BLK.calls()).expect("a program").program;
    let mut executor = Executor::new(&BLK).expect("memory");

    let outcome = executor.run(&program, Detail::Close).expect("memory");

    assert!(outcome.started && outcome.acted > 0, "{outcome:?}");
    let mut sightings = outcome.sightings.iter();
    sightings.any(|sighting| sighting.oracle == Oracle::UnsentData)
}

#[test]
fn length_that_says_so_is_the_drivers_to_heed() {
    assert!(returns_unsent_data(
        "drop payload #1\nedit completion #1 +4 = 0100\n"
    ));
}

#[test]
fn data_held_back_in_secret_are_nobodys_to_miss() {
    assert!(!returns_unsent_data("drop payload #1\n"));
    assert!(!returns_unsent_data(
        "drop payload #1\nedit completion #1 +4 = ffff\n"
    ));
}

#[test]
fn edit_that_changes_nothing_is_no_lie() {
    assert!(!returns_unsent_data(
        "drop payload #1\nedit completion #1 +4 = -\n"
    ));
    assert!(!returns_unsent_data(
        "drop payload #1\nedit completion #1 +4 = 0102\n"
    ));
}
