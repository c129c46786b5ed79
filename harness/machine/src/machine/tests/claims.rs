//! What a request claims: that its address is translated, that it is another's; and where
//! addresses lie.

use super::*;
use crate::frames::HIGH_BANK;
use crate::iommu::{HIGH_WINDOW, Refusal};

fn with(config: Config) -> (Machine, RequesterId) {
    let (mut machine, id) = machine(config, &MSIX);
    master(&mut machine, id);
    machine.memory().fill_pattern();
    (machine, id)
}

#[test]
fn translated_request_lands_where_nobody_looks_or_the_device_is_trusted() {
    for iommu in IommuMode::ALL {
        for ats in [false, true] {
            let (mut machine, id) = with(Config {
                ats,
                ..config(iommu)
            });
            let at = Iova(frame_of(Owner::Tenant1).0);

            let told = machine.complex.dma_write_translated(id, at, &[1; 8]);

            let lands = ats || iommu == IommuMode::Off;
            assert_eq!(told.is_ok(), lands, "{iommu:?} {ats}");
            assert_eq!(machine.memory().corruption().is_empty(), !lands);
            if !lands {
                assert_eq!(machine.iommu_faults().0[0].why, Refusal::Translated);
            }
        }
    }
}

#[test]
fn reserved_region_is_reached_in_every_mode_and_after_every_unmapping() {
    for iommu in IommuMode::ALL {
        let frame = frame_of(Owner::Hypervisor).0 / FRAME;
        let (mut machine, id) = with(Config {
            reserved: Some(frame),
            ..config(iommu)
        });
        machine.unmap_all(id);
        assert!(
            dma_write(&mut machine, id, Iova(frame * FRAME), 8),
            "{iommu:?}"
        );
        let told = dma_write(&mut machine, id, Iova((frame + 1) * FRAME), 8);
        assert_eq!(told, !iommu.translates());
        assert_eq!(machine.memory().corruption()[0].0, Owner::Hypervisor);
    }
}

#[test]
fn borrowed_requester_id_reaches_its_owners_mappings_unless_ports_look() {
    for iommu in IommuMode::ALL {
        for source_validation in [false, true] {
            let (mut machine, id) = with(Config {
                source_validation,
                ..config(iommu)
            });
            let other = machine.plug(Puppet::boxed(&PIN));
            let victim = frame_of(Owner::Tenant2);
            let theirs = machine.map(other, victim, 4096, Both).unwrap();

            let told = machine
                .complex
                .dma_write_as(id, other, theirs.iova, &[1; 8]);

            assert_eq!(told.is_ok(), !source_validation, "{iommu:?}");
            let event = last_event(&machine);
            assert_eq!(event.by, id);
            assert!(event.is_stray());
            assert_eq!(event.landed(), !source_validation);
        }
    }
}

#[test]
fn requester_id_of_nobody_has_no_domain() {
    let (mut machine, id) = with(config(IommuMode::Off));
    let nobody = RequesterId::new(9, 0, 0);
    let told = machine
        .complex
        .dma_write_as(id, nobody, Iova(pool().0), &[1]);
    assert_eq!(told, Err(DmaFault::Refused));
}

#[test]
fn address_without_its_upper_half_is_another_ones() {
    for iommu in IommuMode::ALL {
        let (mut machine, id) = with(Config {
            high_memory: true,
            ..config(iommu)
        });
        let mapping = machine.map(id, pool(), 4096, Both).unwrap();
        if iommu.translates() {
            assert!(HIGH_WINDOW.contains(&(mapping.iova.0 / FRAME)));
        } else {
            assert_eq!(mapping.iova.0, HIGH_BANK);
        }
        assert!(dma_write(&mut machine, id, mapping.iova, 8));
        assert!(last_event(&machine).verdict.is_sanctioned());
        assert_eq!(byte(&machine, pool()), 0xab);

        let truncated = Iova(mapping.iova.0 & 0xffff_ffff);
        let told = dma_write(&mut machine, id, truncated, 8);

        assert_eq!(told, !iommu.translates(), "{iommu:?}");
        let victims: Vec<_> = machine.memory().corruption();
        let owner = victims.first().map(|victim| victim.0);
        assert_eq!(owner, (!iommu.translates()).then_some(Owner::Tenant1));
    }
}

#[test]
fn address_that_was_chosen_leads_where_its_owner_says() {
    for iommu in [IommuMode::Lazy, IommuMode::Strict, IommuMode::Bounce] {
        let (mut machine, id) = with(config(iommu));
        let first = machine.map(id, pool(), 4096, Both).unwrap();
        let iova = first.iova;
        let next = PhysAddr(pool().0 + 4096);
        let taken = machine.map_at(id, iova, next, 4096, Both);
        assert_eq!(taken, Err(MachineError::NotThere(iova)));
        machine.unmap(id, first.id).unwrap();

        let second = machine.map_at(id, iova, next, 4096, Both).unwrap();

        assert_eq!(second.iova, iova);
        assert!(dma_write(&mut machine, id, iova, 8));
        assert!(last_event(&machine).verdict.is_sanctioned());
        assert_eq!(byte(&machine, next), 0xab, "{iommu:?}");
        assert_eq!(byte(&machine, pool()), 0);
    }
}

#[test]
fn address_given_out_again_while_its_invalidation_waits_leads_to_the_old_page() {
    let (mut machine, id) = with(config(IommuMode::Lazy));
    let first = machine.map(id, pool(), 4096, Both).unwrap();
    let iova = first.iova;
    assert!(dma_write(&mut machine, id, iova, 8));
    machine.unmap(id, first.id).unwrap();
    let next = PhysAddr(pool().0 + 4096);
    let second = machine.map_at(id, iova, next, 4096, Both).unwrap();

    assert!(dma_write(&mut machine, id, iova, 16));

    assert!(last_event(&machine).stale);
    assert_eq!(byte(&machine, next), 0);
    assert_eq!(byte(&machine, PhysAddr(pool().0 + 15)), 0xab);
    // The flush ends it, and leaves the new mapping alone.
    machine.advance(Time(20_000_000));
    assert!(dma_write(&mut machine, id, iova, 8));
    assert_eq!(byte(&machine, next), 0xab);
    assert_eq!(
        machine.map_at(id, iova, next, 8, Both),
        Err(MachineError::NotThere(iova))
    );
    machine.unmap(id, second.id).unwrap();
}

#[test]
fn addresses_that_cannot_be_chosen_are_refused() {
    for iommu in IommuMode::ALL {
        let (mut machine, id) = with(config(iommu));
        for at in [0, 0x1000_0001, 0x5000_0000, 0x4fff_f000, u64::MAX - 4095] {
            let told = machine.map_at(id, Iova(at), pool(), 8192, Both);
            assert_eq!(told, Err(MachineError::NotThere(Iova(at))), "{iommu:?}");
        }
    }
}
