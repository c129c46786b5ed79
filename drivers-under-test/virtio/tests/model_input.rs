//! The input driver with our model of its device.

mod plugged;

use cofferdam_machine::config::IommuMode;
use cofferdam_seam::HostError;
use cofferdam_seam::service::DriverError;
use driver_virtio::VirtioInput;
use plugged::{Plugged, under};
use vdevice_virtio::InputConfig;

const STROKES: u32 = 50;

fn device() -> vdevice_virtio::VirtioInput {
    vdevice_virtio::VirtioInput::new(InputConfig {
        strokes: STROKES,
        ..InputConfig::default()
    })
}

#[test]
fn keys_arrive_in_order_on_every_machine_without_bounce_buffers() {
    let modes = IommuMode::ALL.into_iter();
    let modes = modes.filter(|mode| *mode != IommuMode::Bounce);
    under(modes, device, |plugged| {
        let mut input = VirtioInput::probe(plugged.host()).expect("an honest device");

        for _ in 0..STROKES {
            let mut next = || {
                let event = input.event(plugged.soon()).expect("a device that is well");
                event.map(|event| (event.event_type, event.code, event.value))
            };
            let pressed = next().expect("a stroke is to come");
            assert_eq!((pressed.0, pressed.2), (1, 1));
            assert_eq!(next(), Some((0, 0, 0)));
            assert_eq!(next(), Some((1, pressed.1, 0)));
            assert_eq!(next(), Some((0, 0, 0)));
        }
        assert!(matches!(input.event(plugged.soon()), Ok(None)));
    });
}

#[test]
fn thirty_two_small_buffers_are_more_than_the_bounce_slots() {
    let plugged = Plugged::under(IommuMode::Bounce, device());

    let refused = VirtioInput::probe(plugged.host()).err();

    assert_eq!(refused, Some(DriverError::Host(HostError::Refused)));
    let counts = plugged.machine.machine().counts();
    assert_eq!(counts.maps, counts.unmaps);
}

#[test]
fn configuration_tells_what_it_is() {
    let plugged = Plugged::new(device());
    let mut input = VirtioInput::probe(plugged.host()).expect("an honest device");
    let until = plugged.soon();

    let name = input.name(until);
    assert_eq!(name.as_deref(), Ok("Cofferdam keyboard 0000000000000000"));
    assert_eq!(input.ids(until), Ok([6, 0x627, 1, 1]));
    assert_eq!(input.codes(1, until).map(|codes| codes.len()), Ok(7));
    assert_eq!(input.codes(2, until).map(|codes| codes.len()), Ok(0));
}
