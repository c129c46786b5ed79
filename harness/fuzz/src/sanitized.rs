//! What AddressSanitizer sees, in runners that are built with it: a finding, after which the driver is left
//! where it stands, as after a [fault](crate::fault), and the next execution follows.
//!
//! It looks at instrumented code: drivers and adapters. Forbidden are what lies around the blocks of the
//! [arena] and around DMA memory, what was freed of both in this execution, and what lies around variables
//! on the stack.

use crate::oracle::Oracle;
use crate::{arena, coroutine, executor, fault, frames, world};
use cofferdam_instrument::asan::{self, Access};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Frames that tell one place from another while fuzzing.
const GLANCE: usize = 8;

/// Answers AddressSanitizer from now on.
pub(crate) fn install() {
    asan::answer(on_access);
    asan::run_on(coroutine::addresses);
}

fn on_access(access: Access) {
    leave(|| in_words(access));
}

/// The driver freed a block of the arena that it had freed. The process ends if the driver cannot be left.
pub(crate) fn freed_twice(block: usize) {
    leave(|| match arena::around(block) {
        Some(block) => format!("the driver frees once more {block}"),
        None => "the driver frees a block once more".to_owned(),
    });
    std::process::abort();
}

/// Notes a finding and leaves the driver's stack. Returns where that cannot be done.
fn leave(words: impl FnOnce() -> String) {
    if !fault::is_driver_alone() {
        return;
    }
    let _outside = arena::outside();
    let close = world::try_with(|world| world.state.is_close()).unwrap_or(false);
    let told = if close {
        frames::capture()
    } else {
        frames::innermost(GLANCE)
    };
    let mut key = DefaultHasher::new();
    told[..told.len().min(GLANCE)].hash(&mut key);
    executor::on_fault(fault::Fault {
        oracle: Oracle::MemoryError,
        key: key.finish(),
        frames: if close { told } else { Vec::new() },
        words: if close { words() } else { String::new() },
    });
    coroutine::leave();
}

/// What happened: the same words each time, so no address of this process.
fn in_words(access: Access) -> String {
    let kind = if access.write { "write" } else { "read" };
    let memory = world::try_with(|world| world.state.memory.addresses()).unwrap_or(0..0);
    let place = if coroutine::addresses().contains(&access.address) {
        "beyond a variable on its stack, or one that is no more".to_owned()
    } else if memory.contains(&access.address) {
        "beyond DMA memory, or in such that it gave back".to_owned()
    } else if let Some(block) = arena::around(access.address) {
        block
    } else {
        "to memory that is not its own".to_owned()
    };
    format!("a {kind} of {} bytes, {place}", access.len)
}
