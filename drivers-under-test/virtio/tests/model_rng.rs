//! The entropy driver with our model of its device.

mod plugged;

use cofferdam_machine::config::IommuMode;
use cofferdam_seam::service::DriverError;
use driver_virtio::VirtioRng;
use plugged::{Plugged, under};
use vdevice_virtio::RngConfig;

fn device() -> vdevice_virtio::VirtioRng {
    vdevice_virtio::VirtioRng::new(RngConfig::default())
}

#[test]
fn bytes_are_those_of_the_device_on_every_machine() {
    under(IommuMode::ALL, device, |plugged| {
        let mut rng = VirtioRng::probe(plugged.host()).expect("an honest device");
        let (mut first, mut second) = ([0; 40], [0; 40]);

        assert_eq!(rng.read(&mut first, plugged.soon()), Ok(40));
        assert_eq!(rng.read(&mut second, plugged.soon()), Ok(40));

        assert_ne!(first, second);
        assert_ne!(first, [0; 40]);
    });
}

#[test]
fn device_that_falls_silent_ends_the_blocking_call() {
    let plugged = Plugged::new(device());
    let mut rng = VirtioRng::probe(plugged.host()).expect("an honest device");
    let until = plugged.soon();
    plugged.machine.machine().reset(plugged.id);

    let silent = rng.read(&mut [0; 8], until);
    let after = rng.read(&mut [0; 8], plugged.soon());

    assert_eq!(
        silent,
        Err(DriverError::TimedOut("the request to complete"))
    );
    assert!(matches!(after, Err(DriverError::Protocol(_))));
}

#[test]
fn another_kind_of_device_is_refused() {
    let net = vdevice_virtio::VirtioNet::new(vdevice_virtio::NetConfig::default());
    let plugged = Plugged::new(net);

    let refused = VirtioRng::probe(plugged.host()).err();

    assert_eq!(
        refused,
        Some(DriverError::Unsupported("PCI ID is not 1af4:1044"))
    );
}
