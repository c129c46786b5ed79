//! Programs on the backends that are always there.

use cofferdam_across::{Access, Backend, NotRun, first_difference, run};

const HONEST: [&str; 3] = [
    "cofferdam program 1\ntarget edu\nmode model\ncall factorial 7\ncall round-trip 100\n",
    "cofferdam program 1\ntarget nvme\nmode model\ncall write 3 4\ncall read 2 6\ncall capacity\n",
    "cofferdam program 1\ntarget virtio-blk\nmode model\ncall write 1 2\ncall read 0 4\n",
];

#[test]
fn honest_devices_are_the_same_on_every_backend() {
    for program in HONEST {
        let mock = run(program, Backend::Mock).expect("it runs");
        let served = run(program, Backend::VfioUser).expect("it runs");

        let difference = first_difference(&mock.heard, &served.heard);
        assert!(difference.is_none(), "{}", difference.expect("one"));
        assert!(mock.heard.len() > 10, "{:?}", mock.heard);
        let failed =
            |access: &Access| matches!(access, Access::Call(how) if how.contains("failed"));
        assert!(!mock.heard.iter().any(|heard| failed(&heard.access)));
    }
}

#[test]
fn lying_device_lies_the_same_on_every_backend() {
    let program = "cofferdam program 1\ntarget nvme\nmode model\nedit payload #2 +0 = ffff\n\
                   reply 0:0x1c #1 = 0xffffffff\ncall read 0 2\n";

    let mock = run(program, Backend::Mock).expect("it runs");
    let served = run(program, Backend::VfioUser).expect("it runs");

    assert!(mock.acted > 0 && served.acted > 0);
    let difference = first_difference(&mock.heard, &served.heard);
    assert!(difference.is_none(), "{}", difference.expect("one"));
}

#[test]
fn programs_that_differ_are_told_apart_by_the_first_access() {
    let other = HONEST[0].replace("factorial 7", "factorial 8");

    let one = run(HONEST[0], Backend::Mock).expect("it runs");
    let two = run(&other, Backend::Mock).expect("it runs");

    let difference = first_difference(&one.heard, &two.heard).expect("a difference");
    let said = difference.to_string();
    assert!(
        said.contains("write") && said.contains("0x7 against"),
        "{said}"
    );
}

#[test]
fn hardware_that_is_not_named_is_unavailable_and_so_is_one_that_is_to_lie() {
    let none = run(HONEST[0], Backend::Vfio(None));
    let address = "0000:00:1f.7".parse().expect("an address");
    let lying = format!("{}reply 0:0x0 #1 = 0x0\n", HONEST[0]);
    let lies = run(&lying, Backend::Vfio(Some(address)));
    let foreign = run(
        "cofferdam program 1\ntarget virtio-net\nmode model\n",
        Backend::Mock,
    );

    assert!(matches!(none, Err(NotRun::Unavailable(why)) if why.contains("--device")));
    assert!(matches!(lies, Err(NotRun::Unavailable(why)) if why.contains("lie")));
    assert!(matches!(foreign, Err(NotRun::Target(_))));
}
