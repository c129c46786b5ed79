//! The socket driver with our model of its device.

mod plugged;

use cofferdam_machine::config::IommuMode;
use driver_virtio::{Stream, VirtioSocket};
use plugged::{Plugged, under};
use vdevice_virtio::SocketConfig;

const STREAM: Stream = Stream {
    peer: 7,
    local: 1000,
};

fn device() -> vdevice_virtio::VirtioSocket {
    vdevice_virtio::VirtioSocket::new(SocketConfig::default())
}

#[test]
fn bytes_come_back_on_every_machine() {
    under(IommuMode::ALL, device, |plugged| {
        let mut socket = VirtioSocket::probe(plugged.host()).expect("an honest device");
        assert_eq!(socket.cid(), 3);
        assert_eq!(socket.connect(STREAM, plugged.soon()), Ok(true));

        // More than the peer's room in all, so it takes credit.
        for round in 0..30_u8 {
            let sent: Vec<u8> = (0..1000).map(|at| (at % 251) as u8 ^ round).collect();
            assert_eq!(socket.send(STREAM, &sent, plugged.soon()), Ok(true));
            let mut back = vec![0; 1000];
            let mut received = 0;
            while received < back.len() {
                let part = socket.receive(STREAM, &mut back[received..], plugged.soon());
                let part = part.expect("a peer that is well");
                assert_ne!(part, 0, "round {round}, {received} bytes");
                received += part;
            }
            assert_eq!(back, sent);
        }

        assert_eq!(socket.close(STREAM, plugged.soon()), Ok(true));
    });
}

#[test]
fn nothing_to_receive_ends_at_the_deadline() {
    let plugged = Plugged::new(device());
    let mut socket = VirtioSocket::probe(plugged.host()).expect("an honest device");
    assert_eq!(socket.connect(STREAM, plugged.soon()), Ok(true));

    let nothing = socket.receive(STREAM, &mut [0; 8], plugged.soon());

    assert_eq!(nothing, Ok(0));
    assert_eq!(
        socket.send(STREAM, b"still there", plugged.soon()),
        Ok(true)
    );
}
