//! The network driver with our model of its device.

mod plugged;

use cofferdam_machine::config::IommuMode;
use cofferdam_seam::service::DriverError;
use driver_virtio::{LONGEST_FRAME, VirtioNet};
use plugged::{Plugged, under};
use vdevice_virtio::NetConfig;

fn device() -> vdevice_virtio::VirtioNet {
    vdevice_virtio::VirtioNet::new(NetConfig::default())
}

fn frame(length: usize, fill: u8) -> Vec<u8> {
    let mut frame = vec![fill; length];
    frame[..6].fill(0xaa);
    frame[6..12].fill(0xbb);
    frame
}

#[test]
fn frames_come_back_on_every_machine() {
    under(IommuMode::ALL, device, |plugged| {
        let mut net = VirtioNet::probe(plugged.host()).expect("an honest device");
        assert_eq!(net.mac(), [2, 0, 0, 0, 0, 1]);

        for round in 0..40 {
            let sent = frame(60 + usize::from(round), round);
            assert_eq!(net.send(&sent, plugged.soon()), Ok(()));
            let received = net.receive(plugged.soon(), <[u8]>::to_vec);
            let mut expected = sent;
            expected[..12].rotate_left(6);
            assert_eq!(received, Ok(Some(expected)), "round {round}");
        }
    });
}

#[test]
fn nothing_to_receive_ends_at_the_deadline_and_does_no_harm() {
    let plugged = Plugged::new(device());
    let mut net = VirtioNet::probe(plugged.host()).expect("an honest device");

    let nothing = net.receive(plugged.soon(), <[u8]>::len);

    assert_eq!(nothing, Ok(None));
    assert_eq!(net.send(&frame(60, 1), plugged.soon()), Ok(()));
    let length = net.receive(plugged.soon(), <[u8]>::len);
    assert_eq!(length, Ok(Some(60)));
}

#[test]
fn frame_that_is_too_long_is_refused() {
    let plugged = Plugged::new(device());
    let mut net = VirtioNet::probe(plugged.host()).expect("an honest device");

    let refused = net.send(&frame(LONGEST_FRAME + 1, 0), plugged.soon());

    assert!(matches!(refused, Err(DriverError::BadRequest(_))));
    assert_eq!(net.send(&frame(LONGEST_FRAME, 0), plugged.soon()), Ok(()));
}
