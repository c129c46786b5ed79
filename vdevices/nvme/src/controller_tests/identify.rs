//! Identify: what the standard and an operating system's driver look at.

use super::*;

fn identify(cns: u32, namespace: u32) -> Command {
    let mut identify = command(0x06, namespace);
    identify.dwords[0].set(cns);
    identify
}

fn page(driver: &mut Driver, cns: u32, namespace: u32) -> Vec<u8> {
    let answer = driver.admin(identify(cns, namespace));
    assert_eq!(answer, (Status::SUCCESS, 0));
    driver.data(4096).to_vec()
}

#[test]
fn controller_tells_what_it_offers() {
    let mut driver = Driver::enabled();

    let page = page(&mut driver, 1, 0);

    assert_eq!(page[..4], [0x36, 0x1b, 0xf4, 0x1a]);
    assert_eq!(page[4..24], *b"cfd0000000000000007 ");
    assert_eq!(page[24..64], *b"Cofferdam NVMe                          ");
    assert_eq!(page[64..72], *b"1.0     ");
    // MDTS 128 KiB, version 1.4, I/O controller.
    assert_eq!(page[77], 5);
    assert_eq!(page[80..84], [0, 4, 1, 0]);
    assert_eq!(page[111], 1);
    // AERL, FRMW, LPA, ELPE, NPSS.
    assert_eq!(page[259..264], [3, 3, 6, 3, 0]);
    assert_eq!(page[512..514], [0x66, 0x44]);
    // One namespace; Compare, Dataset Management, Write Zeroes, select.
    assert_eq!(page[516..522], [1, 0, 0, 0, 0b0001_1101, 0]);
    // No volatile write cache.
    assert_eq!(page[525] & 1, 0);
}

#[test]
fn subsystem_name_is_a_terminated_nqn() {
    let mut driver = Driver::with(NvmeConfig {
        seed: u64::MAX,
        ..NvmeConfig::default()
    });
    driver.enable();

    let page = page(&mut driver, 1, 0);

    let name = std::ffi::CStr::from_bytes_until_nul(&page[768..1024]).unwrap();
    let uuid = "nqn.2014-08.org.nvmexpress:uuid:63666400-0000-4000-bfff-ffffffffffff";
    assert_eq!(name.to_str(), Ok(uuid));
}

#[test]
fn namespace_tells_its_size_and_format() {
    let mut driver = Driver::enabled();

    let page = page(&mut driver, 0, 1);

    for at in [0, 8, 16] {
        assert_eq!(page[at..at + 8], 64u64.to_le_bytes());
    }
    assert_eq!(page[25..27], [0, 0]);
    assert_eq!(page[33], 0b1001);
    assert_eq!(
        page[104..120],
        [0, 0, 0, 0, 0, 0, 0, 7, 2, 0x43, 0x46, 0, 0, 0, 0, 1]
    );
    assert_eq!(page[120..128], [2, 0x43, 0x46, 0, 0, 0, 0, 7]);
    assert_eq!(page[128..132], [0, 0, 9, 0]);
}

#[test]
fn active_namespaces_are_those_above_the_given_one() {
    let mut driver = Driver::enabled();

    assert_eq!(page(&mut driver, 2, 0)[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(page(&mut driver, 2, 1), [0; 4096]);
    for namespace in [0xffff_fffe, 0xffff_ffff] {
        let answer = driver.admin(identify(2, namespace));
        assert_eq!(answer.0, Status::INVALID_NAMESPACE);
    }
}

#[test]
fn descriptors_agree_with_the_namespace() {
    let mut driver = Driver::enabled();
    let namespace = page(&mut driver, 0, 1);

    let list = page(&mut driver, 3, 1);

    assert_eq!(list[..4], [1, 8, 0, 0]);
    assert_eq!(list[4..12], namespace[120..128]);
    assert_eq!(list[12..16], [2, 16, 0, 0]);
    assert_eq!(list[16..32], namespace[104..120]);
    assert_eq!(list[32..36], [0; 4]);
}

#[test]
fn what_does_not_exist_cannot_be_identified() {
    let mut driver = Driver::enabled();

    for namespace in [0, 2, 0xffff_ffff] {
        for cns in [0, 3] {
            let answer = driver.admin(identify(cns, namespace));
            assert_eq!(answer.0, Status::INVALID_NAMESPACE);
        }
    }
    for cns in [4, 6, 0x10, 0xff] {
        assert_eq!(driver.admin(identify(cns, 1)).0, Status::INVALID_FIELD);
    }
}

#[test]
fn page_that_crosses_two_of_the_hosts_takes_both_entries() {
    let mut driver = Driver::enabled();
    let mut command = identify(0, 1);
    command.prp1.set(DATA + 0x800);
    command.prp2.set(DATA + 0x3000);
    driver.data(0x4000).fill(0xee);

    assert_eq!(driver.admin(command).0, Status::SUCCESS);

    let memory = driver.data(0x4000).to_vec();
    assert_eq!(memory[0x7ff], 0xee);
    assert_eq!(memory[0x800], 64);
    assert_eq!(memory[0x1000], 0xee);
    assert_eq!(memory[0x3000..0x3800], [0; 0x800]);
    assert_eq!(memory[0x3800], 0xee);
}

#[test]
fn page_that_cannot_be_reached_is_a_transfer_error() {
    let mut driver = Driver::enabled();
    driver.testbed.bus.refused.push(DATA..DATA + 1);

    let answer = driver.admin(identify(1, 0));

    assert_eq!(answer.0, Status::DATA_TRANSFER_ERROR);
    assert!(!driver.is_fatal());
}
