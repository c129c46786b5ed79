//! `cofferdam vfio` where there is no device to take.

use std::process::{Command, Output};

fn vfio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cofferdam"))
        .arg("vfio")
        .args(arguments)
        .output()
        .unwrap()
}

fn says(output: &[u8], wanted: &str) {
    let text = String::from_utf8_lossy(output);
    assert!(text.contains(wanted), "no `{wanted}` in:\n{text}");
}

#[test]
fn device_that_is_not_there_is_wrong_usage() {
    for arguments in [
        &["info", "ffff:ff:1f.7"][..],
        &["run", "edu", "--device", "ffff:ff:1f.7", "--fault", "d8"],
    ] {
        let output = vfio(arguments);
        assert_eq!(output.status.code(), Some(2));
        says(&output.stderr, "there is no PCI device ffff:ff:1f.7");
    }
}

#[test]
fn wrong_arguments_are_answered_with_the_right_ones() {
    let output = vfio(&["info", "eth0"]);
    assert_eq!(output.status.code(), Some(2));
    says(&output.stderr, "write it as 0000:00:01.0");

    let output = vfio(&["run", "edu", "--device", "00:01.0", "--fault", "D9"]);
    assert_eq!(output.status.code(), Some(2));
    says(&output.stderr, "D4.in-page");

    let output = vfio(&["run", "edu", "--device", "00:01.0", "--force", "all"]);
    assert_eq!(output.status.code(), Some(2));
    says(&output.stderr, "interface-up");
}

#[test]
fn every_device_of_this_machine_is_listed_with_what_speaks_against_it() {
    if !std::path::Path::new("/sys/bus/pci/devices").exists() {
        eprintln!("SKIPPED: this machine has no PCI bus");
        return;
    }
    let output = vfio(&["list", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for device in listed.as_array().unwrap() {
        let address = device["function"]["address"].as_str().unwrap();
        assert!(device["obstacles"].is_array());
        let info = vfio(&["info", address]);
        assert_eq!(info.status.code(), Some(0));
        says(&info.stdout, address);
        if device["function"]["vendor"] != 0x1234 {
            let run = vfio(&["run", "edu", "--device", address]);
            assert_eq!(run.status.code(), Some(2));
            says(&run.stderr, "the driver drives 1234:11e8");
        }
    }
}
