//! The platform on a tree that is made up here, with a kernel that answers as Linux does.

use super::*;
use crate::vfio::{NoCdev, OpenError, Options, VfioDevice, Via};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const NVME: &str = "0000:01:00.0";
const NIC: &str = "0000:02:00.0";
const EDU: &str = "0000:00:05.0";

/// A machine with a disk, a network card and a device that nobody drives, each in a group.
struct Tree {
    root: TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self {
            root: tempfile::tempdir().unwrap(),
        };
        tree.function(EDU, "0x1234 0x11e8 0x00ff00", 5, None);
        tree.function(NVME, "0x1b36 0x0010 0x010802", 6, Some("nvme"));
        tree.function(NIC, "0x8086 0x10d3 0x020000", 7, Some("e1000e"));
        for driver in ["nvme", "e1000e", "vfio-pci", "snd"] {
            tree.file(&format!("sys/bus/pci/drivers/{driver}/bind"), "");
            tree.file(&format!("sys/bus/pci/drivers/{driver}/unbind"), "");
        }
        tree.file("sys/bus/pci/drivers_probe", "");
        tree.file("proc/sys/kernel/random/boot_id", "first\n");
        tree.file("proc/self/mountinfo", "");
        tree.file("proc/swaps", "Filename Type Size Used Priority\n");
        tree
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    fn file(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, relative: &str, target: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn function(&self, address: &str, ids: &str, group: u32, driver: Option<&str>) {
        let at = format!("sys/bus/pci/devices/{address}");
        for (name, value) in ["vendor", "device", "class"].iter().zip(ids.split(' ')) {
            self.file(&format!("{at}/{name}"), value);
        }
        self.file(&format!("{at}/driver_override"), "(null)\n");
        self.link(
            &format!("{at}/iommu_group"),
            &format!("../../../../kernel/iommu_groups/{group}"),
        );
        let groups = format!("sys/kernel/iommu_groups/{group}");
        self.file(&format!("{groups}/type"), "DMA-FQ\n");
        self.file(
            &format!("{groups}/reserved_regions"),
            "0x00000000fee00000 0x00000000feefffff msi\nnonsense\n",
        );
        self.link(&format!("{groups}/devices/{address}"), "there");
        if let Some(driver) = driver {
            self.bind(address, driver);
        }
    }

    fn bind(&self, address: &str, driver: &str) {
        let at = format!("sys/bus/pci/devices/{address}");
        let link = format!("{at}/driver");
        self.link(&link, &format!("../../drivers/{driver}"));
    }

    /// A partition that is the disk's, and the disk, as block devices below the function.
    fn disk(&self) {
        let at = format!("sys/bus/pci/devices/{NVME}/nvme/nvme0/nvme0n1");
        for (path, number, node) in [
            (at.clone(), "259:0", "nvme0n1"),
            (format!("{at}/nvme0n1p1"), "259:1", "nvme0n1p1"),
        ] {
            self.link(&format!("{path}/subsystem"), "../../class/block");
            self.file(&format!("{path}/dev"), number);
            self.file(&format!("{path}/uevent"), &format!("DEVNAME={node}\n"));
        }
    }

    fn interface(&self, flags: &str) {
        let at = format!("sys/bus/pci/devices/{NIC}/net/eth0");
        self.link(&format!("{at}/subsystem"), "../../class/net");
        self.file(&format!("{at}/flags"), flags);
    }

    /// The platform, with a kernel that binds and unbinds. Its drivers refuse the addresses given.
    fn platform(&self, refusing: &[&str]) -> Platform {
        let mut platform = Platform::at(self.root.path());
        let root = self.root.path().to_owned();
        let refusing: BTreeSet<String> = refusing.iter().map(|&at| at.to_owned()).collect();
        platform.write = Rc::new(move |path, what| {
            // Nothing is created in sysfs.
            assert!(path.exists(), "{path:?}");
            let devices = root.join("sys/bus/pci/devices");
            let name = path.file_name().unwrap().to_str().unwrap();
            let bind = |address: &str, driver: &str| {
                if refusing.contains(driver) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let target = format!("../../drivers/{driver}");
                symlink(target, devices.join(address).join("driver"))
            };
            match name {
                "driver_override" => fs::write(path, what.trim()),
                "unbind" => fs::remove_file(devices.join(what).join("driver")),
                "drivers_probe" => {
                    let wanted = fs::read_to_string(devices.join(what).join("driver_override"))?;
                    // The kernel accepts the probe all the same.
                    let _ = bind(what, &wanted);
                    Ok(())
                }
                "bind" => {
                    let driver = path.parent().unwrap().file_name().unwrap();
                    bind(what, driver.to_str().unwrap())
                }
                other => panic!("nobody writes to {other}"),
            }
        });
        platform
    }

    fn driver(&self, address: &str) -> Option<String> {
        let path = format!("sys/bus/pci/devices/{address}/driver");
        link_name(&self.path(&path))
    }

    fn reserved_for(&self, address: &str) -> String {
        let path = format!("sys/bus/pci/devices/{address}/driver_override");
        fs::read_to_string(self.path(&path)).unwrap()
    }
}

fn at(address: &str) -> Address {
    address.parse().unwrap()
}

fn refusals(platform: &Platform, address: &str) -> Vec<Obstacle> {
    platform.obstacles(&platform.device(at(address)).unwrap())
}

#[test]
fn functions_are_described_as_sysfs_has_them() {
    let tree = Tree::new();
    let platform = tree.platform(&[]);
    let found = platform.devices().unwrap();
    let addresses: Vec<_> = found
        .iter()
        .map(|found| found.address.to_string())
        .collect();
    assert_eq!(addresses, [EDU, NVME, NIC]);
    let edu = &found[0];
    assert_eq!(
        (edu.vendor, edu.device, edu.class),
        (0x1234, 0x11e8, 0xff00)
    );
    assert_eq!((&edu.driver, &edu.driver_override), (&None, &None));
    let group = edu.group.as_ref().unwrap();
    assert_eq!(group.number, 5);
    assert_eq!(group.domain.as_deref(), Some("DMA-FQ"));
    assert_eq!(group.members, [at(EDU)]);
    assert_eq!(group.reserved.len(), 1);
    assert_eq!(group.reserved[0], 0xfee0_0000..0xfef0_0000);
    assert_eq!(found[1].driver.as_deref(), Some("nvme"));
    assert!(matches!(
        platform.device(at("0000:09:00.0")),
        Err(PlatformError::NoDevice(_))
    ));
}

#[test]
fn device_that_nobody_uses_may_be_taken() {
    let tree = Tree::new();
    let platform = tree.platform(&[]);
    tree.disk();
    tree.interface("0x1002");
    for address in [EDU, NVME, NIC] {
        assert_eq!(refusals(&platform, address), []);
    }
}

#[test]
fn mounted_disk_is_refused() {
    let tree = Tree::new();
    tree.disk();
    tree.file(
        "proc/self/mountinfo",
        "30 1 259:1 / /srv/my\\040data rw,noatime shared:1 - ext4 /dev/nvme0n1p1 rw\n\
         31 1 0:40 / /home rw - btrfs /dev/nvme0n1 rw\n\
         32 1 8:1 / /other rw - ext4 /dev/sda1 rw\nnonsense\n",
    );
    let mounted = |disk: &str, at: &str| Obstacle::Mounted {
        disk: disk.to_owned(),
        at: at.into(),
    };
    let found = refusals(&tree.platform(&[]), NVME);
    assert_eq!(found.len(), 2);
    assert!(found.contains(&mounted("nvme0n1p1", "/srv/my data")));
    assert!(found.contains(&mounted("nvme0n1", "/home")));
}

#[test]
fn boot_disk_is_refused() {
    let tree = Tree::new();
    tree.disk();
    tree.file(
        "proc/self/mountinfo",
        "30 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n",
    );
    let found = refusals(&tree.platform(&[]), NVME);
    assert!(matches!(&found[..], [Obstacle::System { .. }]));
    assert_eq!(found[0].overridden_by(), Some(Override::Boot));
}

#[test]
fn disk_that_is_part_of_something_is_refused() {
    let tree = Tree::new();
    tree.disk();
    let at = format!("sys/bus/pci/devices/{NVME}/nvme/nvme0/nvme0n1/holders/dm-0");
    tree.link(&at, "../../dm-0");
    tree.file("proc/swaps", "Filename\n/dev/nvme0n1p1 partition 8 0 -2\n");
    let found = refusals(&tree.platform(&[]), NVME);
    assert_eq!(found.len(), 2);
    for obstacle in found {
        assert_eq!(obstacle.overridden_by(), Some(Override::InUse));
    }
}

#[test]
fn interface_that_is_up_is_refused() {
    let tree = Tree::new();
    tree.interface("0x1003");
    let interface = "eth0".to_owned();
    let up = [Obstacle::InterfaceUp { interface }];
    assert_eq!(refusals(&tree.platform(&[]), NIC), up);
}

#[test]
fn interface_that_does_not_tell_counts_as_up() {
    let tree = Tree::new();
    tree.interface("nonsense");
    assert_eq!(refusals(&tree.platform(&[]), NIC).len(), 1);
}

#[test]
fn device_that_a_process_has_open_is_refused() {
    let tree = Tree::new();
    tree.disk();
    tree.link("proc/77/fd/3", "/dev/nvme0n1");
    tree.link("proc/77/fd/4", "/dev/null");
    tree.link("proc/78/fd/0", "/dev/vfio/6");
    tree.file("proc/77/comm", "dd\n");
    let found = refusals(&tree.platform(&[]), NVME);
    assert_eq!(found.len(), 2);
    assert!(found.contains(&Obstacle::Open {
        node: "/dev/nvme0n1".into(),
        pid: 77,
        command: "dd".to_owned(),
    }));
}

#[test]
fn own_node_counts_only_where_the_kernel_made_it() {
    let tree = Tree::new();
    let platform = tree.platform(&[]);
    let node = || platform.device(at(EDU)).unwrap().node;
    assert_eq!(node(), None);
    // Without an IOMMU.
    tree.file(
        &format!("sys/bus/pci/devices/{EDU}/vfio-dev/noiommu-vfio2/uevent"),
        "",
    );
    tree.file("dev/vfio/devices/noiommu-vfio2", "");
    assert_eq!(node(), None);
    // Kernels without such nodes have the name all the same.
    tree.file(
        &format!("sys/bus/pci/devices/{EDU}/vfio-dev/vfio3/uevent"),
        "",
    );
    assert_eq!(node(), None);
    tree.file("dev/vfio/devices/vfio3", "");
    assert_eq!(node().as_deref(), Some("vfio3"));
    let nodes = platform.device(at(EDU)).unwrap().nodes();
    let nodes: Vec<_> = nodes.iter().map(|node| node.to_str().unwrap()).collect();
    assert_eq!(nodes, ["/dev/vfio/5", "/dev/vfio/devices/vfio3"]);
}

#[test]
fn device_that_a_process_has_open_by_its_own_node_is_refused() {
    let tree = Tree::new();
    tree.bind(EDU, "vfio-pci");
    tree.file(
        &format!("sys/bus/pci/devices/{EDU}/vfio-dev/vfio3/uevent"),
        "",
    );
    tree.file("dev/vfio/devices/vfio3", "");
    tree.link("proc/77/fd/3", "/dev/vfio/devices/vfio3");
    tree.file("proc/77/comm", "qemu\n");
    let found = refusals(&tree.platform(&[]), EDU);
    let open = Obstacle::Open {
        node: "/dev/vfio/devices/vfio3".into(),
        pid: 77,
        command: "qemu".to_owned(),
    };
    assert_eq!(found, [open]);
}

#[test]
fn what_keeps_a_device_from_being_opened_by_its_own_node_is_said() {
    let tree = Tree::new();
    let platform = tree.platform(&[]);
    let cdev = || platform.cdev(&platform.device(at(EDU)).unwrap());

    let why = cdev().unwrap_err();
    assert_eq!(why, NoCdev::NoIommufd(tree.path("dev/iommu")));
    assert!(why.to_string().contains("CONFIG_IOMMUFD"), "{why}");

    tree.file("dev/iommu", "");
    let why = cdev().unwrap_err();
    assert_eq!(why, NoCdev::NoNode(tree.path("dev/vfio/devices")));
    assert!(why.to_string().contains("CONFIG_VFIO_DEVICE_CDEV"), "{why}");

    tree.file(
        &format!("sys/bus/pci/devices/{EDU}/vfio-dev/vfio3/uevent"),
        "",
    );
    tree.file("dev/vfio/devices/vfio3", "");
    let found = cdev().unwrap();
    assert_eq!(found.iommufd, tree.path("dev/iommu"));
    assert_eq!(found.node, tree.path("dev/vfio/devices/vfio3"));
}

/// What comes of opening a device of the tree, where no node is a real one.
fn opened(tree: &Tree, via: Via) -> OpenError {
    let options = Options {
        via,
        ..Options::default()
    };
    VfioDevice::open(&tree.platform(&[]), at(EDU), &options).unwrap_err()
}

#[test]
fn device_is_opened_the_way_that_was_asked_for() {
    let tree = Tree::new();
    tree.bind(EDU, "vfio-pci");
    let error = opened(&tree, Via::Cdev);
    assert!(matches!(error, OpenError::NoCdev { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("cannot open 0000:00:05.0 by its own node: there is no")
    );

    tree.file("dev/iommu", "");
    tree.file("dev/vfio/devices/vfio3", "");
    tree.file(
        &format!("sys/bus/pci/devices/{EDU}/vfio-dev/vfio3/uevent"),
        "",
    );
    for via in [Via::Automatic, Via::Cdev] {
        let error = opened(&tree, via);
        assert!(matches!(error, OpenError::Cdev { .. }), "{via:?}: {error}");
        assert!(
            error.to_string().contains("cannot bind it to iommufd"),
            "{error}"
        );
    }
}

#[test]
fn driver_whose_use_cannot_be_seen_is_refused() {
    let tree = Tree::new();
    tree.function("0000:03:00.0", "0x8086 0x1234 0x040300", 8, Some("snd"));
    let driver = "snd".to_owned();
    let found = refusals(&tree.platform(&[]), "0000:03:00.0");
    assert_eq!(found, [Obstacle::Driver { driver }]);
}

#[test]
fn console_is_refused() {
    let tree = Tree::new();
    tree.file(&format!("sys/bus/pci/devices/{EDU}/boot_vga"), "1\n");
    assert_eq!(refusals(&tree.platform(&[]), EDU), [Obstacle::Console]);
}

#[test]
fn group_with_others_is_refused_but_for_pci_bridges() {
    let tree = Tree::new();
    tree.function("0000:00:1c.0", "0x8086 0x0001 0x060400", 5, None);
    assert_eq!(refusals(&tree.platform(&[]), EDU), []);
    tree.function("0000:00:05.1", "0x8086 0x0002 0x0c0330", 5, None);
    let foreign = Obstacle::Foreign {
        address: at("0000:00:05.1"),
        driver: None,
    };
    assert_eq!(refusals(&tree.platform(&[]), EDU), [foreign]);
    // A bridge itself is nobody's to take, whatever is said.
    let platform = tree.platform(&[]);
    let refused = platform.take(at("0000:00:1c.0"), &Override::ALL);
    assert!(matches!(refused, Err(ClaimError::Refused { .. })));
}

#[test]
fn device_without_an_iommu_is_refused_whatever_is_said() {
    let tree = Tree::new();
    let link = format!("sys/bus/pci/devices/{EDU}/iommu_group");
    fs::remove_file(tree.path(&link)).unwrap();
    let platform = tree.platform(&[]);
    let refused = platform.take(at(EDU), &Override::ALL).unwrap_err();
    assert!(refused.to_string().contains("intel_iommu=on"), "{refused}");
    // What else speaks against it is said all the same.
    tree.interface("0x1003");
    let link = format!("sys/bus/pci/devices/{NIC}/iommu_group");
    fs::remove_file(tree.path(&link)).unwrap();
    assert_eq!(refusals(&platform, NIC).len(), 2);
}

#[test]
fn device_goes_to_vfio_and_back_to_its_driver() {
    let tree = Tree::new();
    let platform = tree.platform(&[]);
    let claim = platform.take(at(NVME), &[]).unwrap();
    assert_eq!(tree.driver(NVME).as_deref(), Some("vfio-pci"));
    assert_eq!(platform.taken(), [claim.taken().clone()]);
    let released = claim.give_back().unwrap();
    assert_eq!(released.driver.as_deref(), Some("nvme"));
    assert_eq!(tree.driver(NVME).as_deref(), Some("nvme"));
    assert_eq!(tree.reserved_for(NVME), "");
    assert_eq!(platform.taken(), []);
    assert!(matches!(
        platform.release(at(NVME)),
        Err(ClaimError::NotTaken(_))
    ));
}

#[test]
fn device_without_a_driver_is_left_without_one() {
    let tree = Tree::new();
    let platform = tree.platform(&[]);
    drop(platform.take(at(EDU), &[]).unwrap());
    assert_eq!(tree.driver(EDU), None);
    assert_eq!(platform.taken(), []);
}

#[test]
fn refused_device_is_not_touched_until_everything_is_overridden() {
    let tree = Tree::new();
    tree.interface("0x1003");
    tree.link("proc/77/fd/3", "/dev/vfio/7");
    let platform = tree.platform(&[]);
    for force in [&[][..], &[Override::InterfaceUp], &[Override::InUse]] {
        let refused = platform.take(at(NIC), force).unwrap_err();
        let ClaimError::Refused { obstacles, .. } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(obstacles.len(), 2 - force.len());
        assert_eq!(tree.driver(NIC).as_deref(), Some("e1000e"));
        assert_eq!(platform.taken(), []);
    }
    let force = [Override::InterfaceUp, Override::InUse];
    let claim = platform.take(at(NIC), &force).unwrap();
    assert_eq!(claim.taken().forced, force);
    assert_eq!(tree.driver(NIC).as_deref(), Some("vfio-pci"));
}

#[test]
fn refusal_names_what_was_found_and_what_overrides_it() {
    let tree = Tree::new();
    tree.interface("0x1003");
    let refused = tree.platform(&[]).take(at(NIC), &[]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "0000:02:00.0 is left alone:\n  its interface eth0 is up (--force interface-up)"
    );
}

#[test]
fn device_of_a_dead_process_is_given_back_by_anybody() {
    let tree = Tree::new();
    let claim = tree.platform(&[]).take(at(NVME), &[]).unwrap();
    std::mem::forget(claim);
    let other = tree.platform(&[]);
    assert_eq!(other.taken().len(), 1);
    let released = other.release(at(NVME)).unwrap();
    assert_eq!(released.driver.as_deref(), Some("nvme"));
}

#[test]
fn crash_between_unbinding_and_binding_is_repaired() {
    let tree = Tree::new();
    let claim = tree.platform(&[]).take(at(NVME), &[]).unwrap();
    std::mem::forget(claim);
    // It died after it had unbound the driver.
    let link = format!("sys/bus/pci/devices/{NVME}/driver");
    fs::remove_file(tree.path(&link)).unwrap();
    let released = tree.platform(&[]).release(at(NVME)).unwrap();
    assert_eq!(released.driver.as_deref(), Some("nvme"));
}

#[test]
fn device_taken_twice_goes_back_to_its_first_driver() {
    let tree = Tree::new();
    std::mem::forget(tree.platform(&[]).take(at(NVME), &[]).unwrap());
    let again = tree.platform(&[]).take(at(NVME), &[]).unwrap();
    assert_eq!(again.taken().driver.as_deref(), Some("nvme"));
    assert_eq!(again.give_back().unwrap().driver.as_deref(), Some("nvme"));
}

#[test]
fn device_that_vfio_does_not_get_goes_back_at_once() {
    let tree = Tree::new();
    let platform = tree.platform(&["vfio-pci"]);
    let refused = platform.take(at(NVME), &[]).unwrap_err();
    assert!(matches!(refused, ClaimError::NotBound { .. }), "{refused}");
    assert_eq!(tree.driver(NVME).as_deref(), Some("nvme"));
    assert_eq!(platform.taken(), []);
}

#[test]
fn device_that_is_open_is_not_given_back() {
    let tree = Tree::new();
    let platform = tree.platform(&[]);
    let claim = platform.take(at(NVME), &[]).unwrap();
    tree.link("proc/77/fd/3", "/dev/vfio/6");
    let refused = claim.give_back().unwrap_err();
    assert!(matches!(refused, ClaimError::StillOpen { .. }), "{refused}");
    assert_eq!(tree.driver(NVME).as_deref(), Some("vfio-pci"));
    fs::remove_file(tree.path("proc/77/fd/3")).unwrap();
    platform.release(at(NVME)).unwrap();
    assert_eq!(tree.driver(NVME).as_deref(), Some("nvme"));
}

#[test]
fn device_that_its_driver_refuses_stays_on_record() {
    let tree = Tree::new();
    std::mem::forget(tree.platform(&[]).take(at(NVME), &[]).unwrap());
    let refused = tree.platform(&["nvme"]).release(at(NVME)).unwrap_err();
    assert!(matches!(refused, ClaimError::File { .. }), "{refused}");
    let platform = tree.platform(&[]);
    assert_eq!(platform.taken().len(), 1);
    let released = platform.release(at(NVME)).unwrap();
    assert_eq!(released.driver.as_deref(), Some("nvme"));
}

#[test]
fn device_that_vfio_had_before_stays_there() {
    let tree = Tree::new();
    tree.bind(EDU, "vfio-pci");
    let platform = tree.platform(&[]);
    platform.take(at(EDU), &[]).unwrap().give_back().unwrap();
    assert_eq!(tree.driver(EDU).as_deref(), Some("vfio-pci"));
    assert_eq!(platform.taken(), []);
}

#[test]
fn record_of_an_earlier_start_is_void() {
    let tree = Tree::new();
    std::mem::forget(tree.platform(&[]).take(at(NVME), &[]).unwrap());
    tree.file("proc/sys/kernel/random/boot_id", "second\n");
    let platform = tree.platform(&[]);
    assert_eq!(platform.taken(), []);
    assert!(matches!(
        platform.release(at(NVME)),
        Err(ClaimError::NotTaken(_))
    ));
}

#[test]
fn two_processes_do_not_move_devices_at_once() {
    let tree = Tree::new();
    let platform = tree.platform(&[]);
    let _lock = platform.lock().unwrap();
    assert!(matches!(platform.take(at(EDU), &[]), Err(ClaimError::Busy)));
}

#[test]
fn kernel_without_vfio_is_said_so() {
    let tree = Tree::new();
    fs::remove_dir_all(tree.path("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let refused = tree.platform(&[]).take(at(EDU), &[]);
    assert!(matches!(refused, Err(ClaimError::NoVfio)));
    assert_eq!(tree.platform(&[]).taken(), []);
}
