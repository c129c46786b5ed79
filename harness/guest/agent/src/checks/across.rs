//! A fuzzer's program on a real device, and on the model of it.

use super::NotPassed;
use cofferdam_across::{Access, Backend, Trace, first_difference, run};
use serde_json::{Value, json};

/// Runs a program on the model and, through VFIO, on a device, and tells the first access in which they
/// differ; judges nothing. Arguments: the program's text, the device's PCI address.
pub fn tells_the_difference(arguments: &[String]) -> Result<Value, NotPassed> {
    let [program, address, ..] = arguments else {
        let error = "which program, on which device?";
        return Err(NotPassed::Failed(json!({ "error": error })));
    };
    let address = address.parse()?;
    let model = run(program, Backend::Mock)?;
    let device = run(program, Backend::Vfio(Some(address)))?;
    let difference = first_difference(&model.heard, &device.heard);
    Ok(json!({
        "difference": difference.map(|difference| difference.to_string()),
        "accesses": device.heard.len(), "calls": calls(&device),
    }))
}

/// How the calls on a device ended.
fn calls(trace: &Trace) -> Vec<&str> {
    let calls = trace.heard.iter().filter_map(|heard| match &heard.access {
        Access::Call(how) => Some(how.as_str()),
        _ => None,
    });
    calls.collect()
}
