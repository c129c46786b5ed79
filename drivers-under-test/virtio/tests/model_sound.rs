//! The sound driver with our model of its device.

mod plugged;

use cofferdam_machine::config::IommuMode;
use cofferdam_seam::service::DriverError;
use driver_virtio::VirtioSound;
use plugged::{Plugged, under};
use std::time::Duration;
use vdevice_virtio::SoundConfig;

/// Bytes of a millisecond of two channels of 16 bits at 48 kHz.
const MILLISECOND: u32 = 192;

fn device() -> vdevice_virtio::VirtioSound {
    vdevice_virtio::VirtioSound::new(SoundConfig::default())
}

#[test]
fn sound_is_played_in_device_time_on_every_machine_without_bounce_buffers() {
    let modes = IommuMode::ALL.into_iter();
    let modes = modes.filter(|mode| *mode != IommuMode::Bounce);
    under(modes, device, |plugged| {
        let mut sound = VirtioSound::probe(plugged.host()).expect("an honest device");
        assert_eq!(sound.outputs(plugged.soon()), Ok(vec![0]));
        for _ in 0..2 {
            assert_eq!(sound.open(0, MILLISECOND, plugged.soon()), Ok(()));
            let before = plugged.machine.now();

            for _ in 0..5 {
                assert_eq!(sound.play(&[3; 192], plugged.soon()), Ok(()));
            }

            assert!(plugged.machine.now() >= before + Duration::from_millis(5));
            assert_eq!(sound.close(plugged.soon()), Ok(()));
        }
    });
}

#[test]
fn requests_that_cannot_be_are_refused_without_harm() {
    let plugged = Plugged::new(device());
    let mut sound = VirtioSound::probe(plugged.host()).expect("an honest device");

    for refused in [
        sound.open(1, MILLISECOND, plugged.soon()),
        sound.open(0, 5000, plugged.soon()),
        sound.play(&[0; 192], plugged.soon()),
        sound.close(plugged.soon()),
    ] {
        assert!(matches!(refused, Err(DriverError::BadRequest(_))));
    }

    assert_eq!(sound.open(0, MILLISECOND, plugged.soon()), Ok(()));
}

#[test]
fn sound_that_is_not_heard_in_time_ends_the_driver() {
    let plugged = Plugged::new(device());
    let mut sound = VirtioSound::probe(plugged.host()).expect("an honest device");
    assert_eq!(sound.open(0, 4096, plugged.soon()), Ok(()));

    let late = sound.play(&[0; 4096], plugged.soon());
    let after = sound.close(plugged.soon());

    assert!(matches!(late, Err(DriverError::TimedOut(_))));
    assert!(matches!(after, Err(DriverError::Protocol(_))));
}
