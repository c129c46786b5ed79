//! The GPU driver with our model of its device.

mod plugged;

use cofferdam_machine::config::IommuMode;
use cofferdam_seam::Purpose;
use cofferdam_seam::service::DriverError;
use driver_virtio::{CURSOR_BYTES, VirtioGpu};
use plugged::{Plugged, under};
use vdevice_virtio::GpuConfig;

fn device() -> vdevice_virtio::VirtioGpu {
    vdevice_virtio::VirtioGpu::new(GpuConfig::default())
}

#[test]
fn picture_and_cursor_reach_the_device_on_every_machine() {
    under(IommuMode::ALL, device, |plugged| {
        let mut gpu = VirtioGpu::probe(plugged.host()).expect("an honest device");
        assert_eq!(gpu.resolution(plugged.soon()), Ok((64, 48)));
        assert_eq!(gpu.preferred_resolution(plugged.soon()), Ok((64, 48)));
        plugged.machine.machine().drain_events();

        let shown = gpu.show(|pixels| pixels.fill(0x55), plugged.soon());
        assert_eq!(shown, Ok(()));
        let image = vec![7; CURSOR_BYTES];
        assert_eq!(gpu.set_cursor(&image, 3, 4, plugged.soon()), Ok(()));
        assert_eq!(gpu.move_cursor(5, 6, plugged.soon()), Ok(()));

        let events = plugged.machine.machine().drain_events();
        let read = events
            .iter()
            .filter(|event| event.why == Purpose::Payload && event.len > 4096)
            .map(|event| event.len)
            .collect::<Vec<_>>();
        assert_eq!(read, [64 * 48 * 4, CURSOR_BYTES]);
    });
}

#[test]
fn picture_is_shown_again_in_a_frame_buffer_of_its_own() {
    let plugged = Plugged::new(device());
    let mut gpu = VirtioGpu::probe(plugged.host()).expect("an honest device");

    for colour in 0..4 {
        let shown = gpu.show(|pixels| pixels.fill(colour), plugged.soon());
        assert_eq!(shown, Ok(()));
    }
}

#[test]
fn cursor_of_another_size_is_refused() {
    let plugged = Plugged::new(device());
    let mut gpu = VirtioGpu::probe(plugged.host()).expect("an honest device");

    let refused = gpu.set_cursor(&[0; 16], 0, 0, plugged.soon());

    assert!(matches!(refused, Err(DriverError::BadRequest(_))));
    assert_eq!(gpu.resolution(plugged.soon()), Ok((64, 48)));
}
