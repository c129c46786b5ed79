//! The console driver with our model of its device.

mod plugged;

use cofferdam_machine::config::IommuMode;
use driver_virtio::VirtioConsole;
use plugged::{Plugged, under};
use vdevice_virtio::ConsoleConfig;

fn device() -> vdevice_virtio::VirtioConsole {
    vdevice_virtio::VirtioConsole::new(ConsoleConfig::default())
}

#[test]
fn what_is_written_is_read_on_every_machine() {
    under(IommuMode::ALL, device, |plugged| {
        let mut console = VirtioConsole::probe(plugged.host()).expect("an honest device");
        assert_eq!(console.size(plugged.soon()), Ok(Some((80, 25))));

        let text: Vec<u8> = (0..=255).cycle().take(3000).collect();
        assert_eq!(console.write(&text, plugged.soon()), Ok(()));
        for (at, byte) in text.iter().enumerate() {
            let read = console.read(plugged.soon());
            assert_eq!(read, Ok(Some(*byte)), "byte {at}");
        }

        assert_eq!(console.read(plugged.soon()), Ok(None));
    });
}

#[test]
fn emergency_output_is_echoed() {
    let plugged = Plugged::new(device());
    let mut console = VirtioConsole::probe(plugged.host()).expect("an honest device");

    assert_eq!(console.emergency_write(b'!', plugged.soon()), Ok(()));
    assert_eq!(console.write(b"?", plugged.soon()), Ok(()));

    assert_eq!(console.read(plugged.soon()), Ok(Some(b'!')));
    assert_eq!(console.read(plugged.soon()), Ok(Some(b'?')));
}
