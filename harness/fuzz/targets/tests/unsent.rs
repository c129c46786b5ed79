//! Whose fault it is that data are missing: a driver's only if it could have known.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::text;
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_targets::virtio::blk::BLK;
use cofferdam_fuzz_targets::virtio::rng::RNG;

/// Whether `call` returns what the device never sent, after what the device did.
fn returns_unsent_data(target: &'static dyn Target, call: &str, device: &str) -> bool {
    let name = target.name();
    let body = format!("cofferdam program 1\ntarget {name}\nmode model\ncall {call}\n{device}");
    let parsed = text::parse(&body, target.calls()).expect("a program");
    let mut executor = Executor::new(target).expect("memory");

    let outcome = executor.run(&parsed.program, Detail::Close);

    let outcome = outcome.expect("memory");
    assert!(outcome.started && outcome.acted > 0, "{outcome:?}");
    let mut sightings = outcome.sightings.iter();
    sightings.any(|sighting| sighting.oracle == Oracle::UnsentData)
}

#[test]
fn length_that_says_so_is_the_drivers_to_heed() {
    let device = "drop payload #1\nedit completion #1 +4 = 0100\n";
    assert!(returns_unsent_data(&BLK, "read 0 1", device));
}

#[test]
fn driver_that_returns_as_much_as_it_was_told_of_heeds_the_length() {
    let device = "drop payload #1\nedit completion #1 +4 = 20\n";
    assert!(!returns_unsent_data(&RNG, "request-entropy 64", device));
}

#[test]
fn data_held_back_in_secret_are_nobodys_to_miss() {
    for device in [
        "drop payload #1\n",
        "drop payload #1\nedit completion #1 +4 = ffff\n",
    ] {
        assert!(!returns_unsent_data(&BLK, "read 0 1", device), "{device}");
    }
}

#[test]
fn edit_that_changes_nothing_is_no_lie() {
    for device in [
        "drop payload #1\nedit completion #1 +4 = -\n",
        "drop payload #1\nedit completion #1 +4 = 0102\n",
    ] {
        assert!(!returns_unsent_data(&BLK, "read 0 1", device), "{device}");
    }
}
