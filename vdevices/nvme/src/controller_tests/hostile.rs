//! Drivers that mean harm: nothing they do makes the device panic or run for ever.

use super::*;
use proptest::prelude::*;

/// Lets the device work, but not for ever: the commands a queue can hold are an end.
fn exhaust(driver: &mut Driver) -> bool {
    driver.testbed.settle();
    for _ in 0..10_000 {
        if driver.step(64) == Progress::Idle {
            return true;
        }
    }
    false
}

/// Dwords that are often right in part.
fn dword() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0u32..16,
        2 => (0u32..4, 0u32..16).prop_map(|(high, low)| high << 16 | low),
        1 => any::<u32>(),
    ]
}

/// Addresses that are often right in part.
fn address() -> impl Strategy<Value = u64> {
    let page = prop_oneof![
        Just(DATA),
        Just(LIST),
        Just(SQ),
        Just(CQ),
        Just(ADMIN_SQ),
        Just(ADMIN_CQ),
        Just(0xffff_f000),
        Just(0xffff_ffff_ffff_f000),
    ];
    let offset = prop_oneof![4 => Just(0u64), 2 => Just(0xff8), 1 => 0u64..0x1000];
    prop_oneof![
        8 => (page, offset).prop_map(|(page, offset)| page + offset),
        1 => any::<u64>(),
    ]
}

prop_compose! {
    fn any_command()(
        opcode in prop_oneof![4 => 0u8..0x10, 1 => any::<u8>()],
        flags in prop_oneof![8 => Just(0u8), 1 => any::<u8>()],
        namespace in prop_oneof![4 => Just(1u32), 2 => Just(0), 1 => Just(0xffff_ffff), 1 => any::<u32>()],
        prps in [address(), address()],
        dwords in [dword(), dword(), dword(), dword(), dword(), dword()],
    ) -> Command {
        let mut command = command(opcode, namespace);
        command.flags = flags;
        command.prp1.set(prps[0]);
        command.prp2.set(prps[1]);
        command.dwords = dwords.map(Into::into);
        command
    }
}

proptest! {
    /// Whatever is in the queues, the device ends, and works again after a reset.
    #[test]
    fn hostile_commands_end(
        admin in proptest::collection::vec(any_command(), 0..8),
        io in proptest::collection::vec(any_command(), 0..8),
        lists in proptest::collection::vec(address(), 512),
        latency in prop_oneof![Just(0u64), Just(20)],
    ) {
        let mut driver = Driver::with(NvmeConfig {
            blocks: 64,
            latency: core::time::Duration::from_micros(latency),
            ..NvmeConfig::default()
        });
        driver.enable();
        driver.create_pair(1);
        for (at, entry) in (LIST..).step_by(8).zip(lists) {
            driver.testbed.bus.bytes(at, 8).copy_from_slice(&entry.to_le_bytes());
        }
        for command in io {
            driver.submit(1, command);
        }
        for command in admin {
            driver.submit(0, command);
        }

        prop_assert!(exhaust(&mut driver));

        driver.set(register::CC, 0);
        driver.enable();
        driver.create_pair(1);
        driver.fill(0, 0x11);
    }

    /// Whatever is written to the registers, the device ends and answers.
    #[test]
    fn hostile_registers_end(
        writes in proptest::collection::vec((0u32..0x1100, 0u8..4, any::<u64>()), 0..64),
        seed in any::<u64>(),
    ) {
        let mut driver = Driver::ready();
        let mut word = seed;
        for byte in driver.testbed.bus.bytes(0x1000, 0x4000) {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            *byte = word.to_be_bytes()[0];
        }
        for (offset, log2, value) in writes {
            let width = Width::from_bytes(1 << log2).unwrap();
            // Mostly registers and the first doorbells, with small values as often as not.
            let offset = if offset < 0x1000 { offset % 0x40 } else { offset };
            let offset = offset & !(width.bytes() - 1);
            let value = if value % 2 == 0 { value % 16 } else { value };
            driver.testbed.write(Bar::ZERO, offset, width, value & width.all_ones());
            let _ = driver.testbed.read(Bar::ZERO, offset, width);
        }

        prop_assert!(exhaust(&mut driver));

        driver.set(register::CC, 0);
        driver.enable();
        driver.create_pair(1);
        driver.fill(0, 0x11);
    }
}
