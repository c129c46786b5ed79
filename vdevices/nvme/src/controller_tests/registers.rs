//! Registers, the enable handshake, shutdown, resets.

use super::*;
use vdevice_pci::spec::capability;

#[test]
fn function_is_an_nvm_express_controller() {
    let mut driver = Driver::before_probe();

    let class = driver.testbed.function.config_read(8, Width::Four);

    assert_eq!(class, 0x0108_0201);
}

#[test]
fn msix_has_a_vector_for_each_queue_pair() {
    for queues in [1, 4, 16] {
        let mut driver = Driver::with(NvmeConfig {
            queues,
            ..NvmeConfig::default()
        });
        let msix = driver.testbed.capability(capability::MSIX);

        let control = driver.testbed.function.config_read(msix + 2, Width::Two);

        assert_eq!(control, u32::from(queues));
    }
}

#[test]
fn registers_read_at_every_width() {
    let mut driver = Driver::before_probe();

    let mut read = |offset, width| driver.testbed.value(Bar::ZERO, offset, width);

    assert_eq!(read(8, Width::Four), 0x0001_0400);
    assert_eq!(read(8, Width::Two), 0x0400);
    assert_eq!(read(9, Width::One), 4);
    assert_eq!(read(0, Width::Eight), 0x0040_0020_0a01_003f);
    assert_eq!(read(0x20, Width::Four), 0);
    assert_eq!(read(DOORBELLS, Width::Four), 0);
}

#[test]
fn configuration_reaches_the_capabilities() {
    let mut driver = Driver::with(NvmeConfig {
        max_queue_entries: u32::MAX,
        doorbell_stride: 9,
        queues: 99,
        ..NvmeConfig::default()
    });

    assert_eq!(driver.get(0) & 0xffff, 0xffff);
    assert_eq!(driver.get(4) & 0xf, 4);
}

#[test]
fn ready_follows_enable_both_ways() {
    let mut driver = Driver::enabled();

    driver.set(register::CC, 0);
    assert_eq!(driver.get(register::CSTS), 0);
    driver.enable();

    assert_eq!(driver.get(register::CSTS), 1);
}

#[test]
fn configuration_that_is_not_offered_is_fatal() {
    for (what, cc) in [
        ("command set", 1 << 4),
        ("page of 128 KiB", 5 << 7),
        ("arbitration", 1 << 11),
    ] {
        let mut driver = Driver::before_probe();
        driver.set(register::AQA, 0x0007_0007);

        driver.set(register::CC, ENABLED | cc);

        assert_eq!(driver.get(register::CSTS), 2, "{what}");
        driver.set(register::CC, 0);
        assert_eq!(driver.get(register::CSTS), 0, "{what}");
        driver.enable();
    }
}

#[test]
fn admin_queue_that_cannot_be_is_fatal() {
    for (what, aqa, asq) in [
        ("no submission entries", 0x0007_0000, ADMIN_SQ),
        ("no completion entries", 0x0000_0007, ADMIN_SQ),
        ("misaligned for the page size", 0x0007_0007, 0x1000),
    ] {
        let mut driver = Driver::before_probe();
        driver.set(register::AQA, aqa);
        driver.set(register::ASQ, asq);
        // Pages of 8 KiB in the last case.
        let page = u64::from(what.contains("page")) << 7;

        driver.set(register::CC, ENABLED | page);

        assert_eq!(driver.get(register::CSTS), 2, "{what}");
    }
}

#[test]
fn doorbell_before_enable_is_ignored() {
    let mut driver = Driver::before_probe();

    driver.ring_sq(0, 1);
    driver.ring_sq(99, 1);
    driver.testbed.settle();
    driver.enable();
    driver.testbed.settle();

    assert!(driver.testbed.bus.requests.is_empty());
    assert!(driver.testbed.bus.wakes.is_empty());
}

#[test]
fn doorbell_of_another_width_is_ignored() {
    let mut driver = Driver::enabled();
    driver.place(0, command(0x18, 0));

    for width in [Width::One, Width::Two, Width::Eight] {
        driver.testbed.write(Bar::ZERO, DOORBELLS, width, 1);
    }

    assert!(driver.testbed.bus.wakes.is_empty());
}

#[test]
fn doorbells_are_as_far_apart_as_told() {
    let mut driver = Driver::with(NvmeConfig {
        doorbell_stride: 4,
        blocks: 64,
        ..NvmeConfig::default()
    });
    driver.enable();
    driver.create_pair(1);

    driver.fill(0, 9);

    assert_eq!(driver.block(0), [9; 512]);
    // Between two doorbells is nothing.
    driver.place(1, transfer(READ, 0, 1));
    driver.set(DOORBELLS + 2 * 64 + 4, 3);
    assert!(driver.testbed.bus.wakes.is_empty());
}

#[test]
fn shutdown_completes_and_stops_the_controller() {
    for notification in [1u64, 2] {
        let mut driver = Driver::ready();

        driver.set(register::CC, ENABLED | notification << 14);
        assert_eq!(driver.get(register::CSTS), 0b1001);
        driver.testbed.bus.requests.clear();
        driver.submit(1, transfer(READ, 0, 1));
        driver.testbed.settle();

        assert!(driver.testbed.bus.requests.is_empty());
        driver.set(register::CC, 0);
        driver.enable();
        driver.create_pair(1);
        driver.fill(0, 1);
    }
}

#[test]
fn controller_reset_keeps_admin_queue_registers_and_medium() {
    let mut driver = Driver::ready();
    driver.fill(3, 0x33);

    driver.set(register::CC, 0);

    assert_eq!(driver.get(register::AQA), 0x0007_0007);
    assert_eq!(driver.get(register::ASQ), ADMIN_SQ);
    assert_eq!(driver.get(register::ACQ), ADMIN_CQ);
    driver.enable();
    driver.create_pair(1);
    assert_eq!(driver.block(3), [0x33; 512]);
}

#[test]
fn controller_reset_forgets_queues_and_features() {
    let mut driver = Driver::ready();
    let mut arbitration = command(0x09, 0);
    arbitration.dwords[0].set(1);
    arbitration.dwords[1].set(3);
    assert_eq!(driver.admin(arbitration).0, Status::SUCCESS);

    driver.set(register::CC, 0);
    driver.enable();

    arbitration.opcode = 0x0a;
    assert_eq!(driver.admin(arbitration), (Status::SUCCESS, 0));
    // The queues can be created again, so they were gone.
    driver.create_pair(1);
}

#[test]
fn function_level_reset_clears_registers_and_keeps_the_medium() {
    let mut driver = Driver::ready();
    driver.fill(4, 0x44);

    driver.testbed.function_level_reset();

    assert_eq!(driver.get(register::CC), 0);
    assert_eq!(driver.get(register::AQA), 0);
    assert_eq!(driver.get(register::ASQ), 0);
    driver.enable();
    driver.create_pair(1);
    assert_eq!(driver.block(4), [0x44; 512]);
}

#[test]
fn reset_drops_the_command_under_way() {
    let reset = |driver: &mut Driver, kind: usize| match kind {
        0 => driver.set(register::CC, 0),
        _ => driver.testbed.function_level_reset(),
    };
    for kind in [0, 1] {
        let mut driver = Driver::ready();
        driver.data(512).fill(0x77);
        driver.submit(1, transfer(WRITE, 0, 1));
        driver.testbed.bus.requests.clear();

        reset(&mut driver, kind);
        driver.testbed.run_until(Time(SOON));

        assert!(driver.testbed.bus.requests.is_empty());
        driver.enable();
        driver.create_pair(1);
        assert_eq!(driver.block(0), [0; 512]);
    }
}

#[test]
fn oversized_medium_is_cut_down() {
    let mut driver = Driver::with(NvmeConfig {
        blocks: u64::MAX,
        ..NvmeConfig::default()
    });
    driver.enable();

    assert_eq!(driver.admin(command(0x06, 1)).0, Status::SUCCESS);

    assert_eq!(driver.data(8), crate::MAX_BLOCKS.to_le_bytes());
}
