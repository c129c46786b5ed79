//! The 9P driver with our model of its device.

mod plugged;

use cofferdam_machine::config::IommuMode;
use cofferdam_seam::service::DriverError;
use driver_virtio::{LONGEST_MESSAGE, Virtio9p};
use plugged::{Plugged, under};
use vdevice_virtio::P9Config;

/// A version request: size, type, tag, longest message, version.
const VERSION: &[u8] = b"\x15\0\0\0\x64\xff\xff\0\x20\0\0\x08\09P2000.L";

fn device() -> vdevice_virtio::Virtio9p {
    vdevice_virtio::Virtio9p::new(P9Config::default())
}

#[test]
fn version_is_agreed_on_every_machine() {
    under(IommuMode::ALL, device, |plugged| {
        let mut share = Virtio9p::probe(plugged.host()).expect("an honest device");
        assert_eq!(share.mount_tag(), "cofferdam");

        for _ in 0..20 {
            let mut reply = [0; 64];
            let length = share.request(VERSION, &mut reply, plugged.soon());

            assert_eq!(length, Ok(21));
            assert_eq!(reply[4], 0x65);
            assert_eq!(reply[7..21], VERSION[7..]);
        }
    });
}

#[test]
fn message_that_is_too_long_is_refused() {
    let plugged = Plugged::new(device());
    let mut share = Virtio9p::probe(plugged.host()).expect("an honest device");

    let message = vec![0; LONGEST_MESSAGE + 1];
    let refused = share.request(&message, &mut [0; 64], plugged.soon());
    let empty = share.request(&[], &mut [0; 64], plugged.soon());

    assert!(matches!(refused, Err(DriverError::BadRequest(_))));
    assert!(matches!(empty, Err(DriverError::BadRequest(_))));
    let served = share.request(VERSION, &mut [0; 64], plugged.soon());
    assert_eq!(served, Ok(21));
}
