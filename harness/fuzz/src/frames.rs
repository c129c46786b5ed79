//! Where in a driver something happened: the stack, and what its addresses are called.

mod trails;

use crate::arena;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Frames worth keeping.
pub(crate) const DEPTH: usize = 48;

/// Says what is at an address: the innermost of functions inlined into each other first.
pub type Resolve = fn(u64) -> Vec<Location>;

/// Marks addresses of drivers that run elsewhere: no process has such.
const AWAY: usize = 1 << 62;

thread_local! {
    /// Where the driver of this execution stands, if it runs elsewhere.
    static STANDS: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
    /// What its addresses mean, from then on.
    static MEANS: Cell<Option<Resolve>> = const { Cell::new(None) };
}

/// The driver of this execution runs elsewhere.
pub(crate) fn stand_in(resolve: Resolve) {
    MEANS.set(Some(resolve));
}

/// It came back, or the execution is over.
pub(crate) fn stand_down() {
    let _outside = arena::outside();
    STANDS.set(None);
}

fn away(at: u64) -> usize {
    usize::try_from(at).unwrap_or(0) & (AWAY - 1) | AWAY
}

/// Its instruction.
pub(crate) fn stands_at(instruction: u64) {
    STANDS.with_borrow_mut(|stands| {
        if let Some(innermost) = stands.as_mut().and_then(|stands| stands.first_mut()) {
            *innermost = away(instruction) + 1;
        }
    });
}

/// Where it stands: its instruction, and what is returned to.
pub(crate) fn stands(stack: &[u64]) {
    STANDS.with_borrow_mut(|stands| {
        let stands = stands.get_or_insert_default();
        stands.clear();
        stands.extend(stack.iter().map(|at| away(*at)));
        if let Some(innermost) = stands.first_mut() {
            // Addresses are those that calls return to; this one is not.
            *innermost += 1;
        }
    });
}

/// A place in a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Location {
    /// The function, without type arguments and hashes.
    pub function: String,
    /// The file, as the compiler was told it.
    pub file: String,
    /// The line, from 1; 0 if unknown.
    pub line: u32,
    /// The driver's functions that led there: by which its file was entered, and who called that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
}

/// Return addresses of this thread's stack, innermost first.
pub fn capture() -> Vec<usize> {
    innermost(DEPTH)
}

/// The innermost of them, of a driver's stack.
pub(crate) fn glance(depth: usize) -> Vec<usize> {
    elsewhere(depth).unwrap_or_else(|| trails::innermost(depth))
}

/// The innermost of them. Each costs some microseconds.
pub fn innermost(depth: usize) -> Vec<usize> {
    if let Some(away) = elsewhere(depth) {
        return away;
    }
    let mut frames = Vec::with_capacity(depth);
    backtrace::trace(|frame| {
        frames.push(frame.ip() as usize);
        frames.len() < depth
    });
    frames
}

/// The same of a driver that runs elsewhere, if this one does.
fn elsewhere(depth: usize) -> Option<Vec<usize>> {
    STANDS.with_borrow(|stands| {
        let stands = stands.as_ref()?;
        Some(stands[..stands.len().min(depth)].to_vec())
    })
}

thread_local! {
    static KNOWN: RefCell<HashMap<usize, Vec<Location>>> = RefCell::new(HashMap::new());
}

/// What is at an address: the innermost of functions inlined into each other first.
fn resolve(address: usize) -> Vec<Location> {
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&address).cloned()) {
        return known;
    }
    let mut found = Vec::new();
    if address & AWAY != 0 {
        let call = (address & (AWAY - 1)).wrapping_sub(1);
        if let Some(resolve) = MEANS.get() {
            found = resolve(call as u64);
        }
        for place in &mut found {
            place.function = plain(&place.function);
        }
        KNOWN.with_borrow_mut(|known| known.insert(address, found.clone()));
        return found;
    }
    // The instruction before the one that is returned to.
    let call = address.wrapping_sub(1) as *mut _;
    backtrace::resolve(call, |symbol| {
        let Some(name) = symbol.name() else {
            return;
        };
        found.push(Location {
            function: plain(&format!("{name:#}")),
            file: symbol
                .filename()
                .map(|file| file.display().to_string())
                .unwrap_or_default(),
            line: symbol.lineno().unwrap_or(0),
            via: Vec::new(),
        });
    });
    KNOWN.with_borrow_mut(|known| known.insert(address, found.clone()));
    found
}

/// A function's name without type arguments: those of a generic driver name the adapter's types.
fn plain(name: &str) -> String {
    let mut depth = 0_u32;
    let mut out = String::new();
    let mut before = ' ';
    let name = name.strip_prefix('<').map_or(name, |name| {
        // `<a::B<C> as d::E>::f`: the type says more than the trait.
        out.clear();
        name
    });
    for letter in name.chars() {
        match letter {
            '<' => depth += 1,
            // An arrow is no bracket.
            '>' if before == '-' => {}
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(letter),
            _ => {}
        }
        before = letter;
    }
    let out = out.replace("::::", "::");
    match out.split_once(" as ") {
        Some((kind, rest)) => {
            let method = rest.rsplit("::").next().unwrap_or_default();
            format!("{kind}::{method}")
        }
        None => out,
    }
}

/// All that is at the addresses, innermost first.
pub fn stack(frames: &[usize]) -> Vec<Location> {
    frames
        .iter()
        .flat_map(|address| resolve(*address))
        .collect()
}

/// Whether the place belongs to the crate under test.
pub fn is_inside(place: &Location, crate_name: &str) -> bool {
    let code = crate_name.replace('-', "_");
    place
        .function
        .strip_prefix(code.as_str())
        .is_some_and(|rest| rest.starts_with("::"))
        || place.file.contains(&format!("/{crate_name}-"))
        || place.file.contains(&format!("/{crate_name}/"))
}

/// The innermost place that belongs to the crate under test, and how it was reached; else the innermost
/// of anything that is neither this harness nor the standard library.
pub fn of_driver(stack: &[Location], crate_name: &str) -> Option<Location> {
    const HARNESS: [&str; 12] = [
        "cofferdam_fuzz::",
        "cofferdam_fuzz_vm::",
        "cofferdam_microvm",
        "cofferdam_instrument::",
        "backtrace::",
        "core::",
        "std::",
        "alloc::",
        "__rust",
        "__asan",
        "__wrap___asan",
        "rust_",
    ];
    let foreign = |place: &&Location| {
        let name = place.function.as_str();
        !name.is_empty()
            && !name.starts_with("__sanitizer")
            && !HARNESS.iter().any(|prefix| name.starts_with(prefix))
    };
    let inside = stack.iter().filter(|place| is_inside(place, crate_name));
    let mut outward = inside.peekable();
    let Some(innermost) = outward.next() else {
        return stack.iter().find(foreign).cloned();
    };
    let mut entry = innermost;
    while let Some(next) = outward.next_if(|place| place.file == innermost.file) {
        entry = next;
    }
    let outward = [Some(entry), outward.next()].into_iter().flatten();
    let via = outward.map(|place| named(&place.function).to_owned());
    let via = via.collect();
    Some(Location {
        via,
        ..innermost.clone()
    })
}

/// The function that a closure lies in.
fn named(function: &str) -> &str {
    function
        .split_once("::{{closure}}")
        .map_or(function, |(outer, _)| outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_arguments_are_left_out_of_names() {
        for (name, expected) in [
            (
                "a::queue::VirtQueue<H, _>::pop_used",
                "a::queue::VirtQueue::pop_used",
            ),
            ("<a::Blk<H> as core::ops::Drop>::drop", "a::Blk::drop"),
            ("a::b::{{closure}}", "a::b::{{closure}}"),
        ] {
            assert_eq!(plain(name), expected);
        }
    }

    #[test]
    fn innermost_frame_of_the_driver_is_its_place() {
        let place = |function: &str| Location {
            function: function.to_owned(),
            ..Location::default()
        };
        let stack = [
            "core::panicking::panic",
            "virtio_drivers::queue::pop",
            "adapter::call",
        ]
        .map(place);

        let found = of_driver(&stack, "virtio-drivers").unwrap_or_default();

        assert_eq!(found.function, "virtio_drivers::queue::pop");
        assert_eq!(of_driver(&stack[..1], "virtio-drivers"), None);
    }

    #[test]
    fn place_knows_by_which_function_its_file_was_entered_and_from_where() {
        let place = |(function, file): (&str, &str)| Location {
            function: function.to_owned(),
            file: file.to_owned(),
            line: 7,
            via: Vec::new(),
        };
        let stack = [
            ("adapter::share", "/adapter/hal.rs"),
            ("d::queue::Descriptor::set_buf", "/d-1.0.0/src/queue.rs"),
            ("d::queue::Queue::add", "/d-1.0.0/src/queue.rs"),
            ("core::iter::map", "/core/iter.rs"),
            (
                "d::queue::Queue::add_all::{{closure}}",
                "/d-1.0.0/src/queue.rs",
            ),
            ("d::net::Net::receive::{{closure}}", "/d-1.0.0/src/net.rs"),
            ("d::net::Net::new", "/d-1.0.0/src/net.rs"),
        ]
        .map(place);

        let found = of_driver(&stack, "d").unwrap_or_default();
        let alone = of_driver(&stack[5..], "d").unwrap_or_default();

        assert_eq!(found.function, "d::queue::Descriptor::set_buf");
        assert_eq!(
            found.via,
            ["d::queue::Queue::add_all", "d::net::Net::receive"]
        );
        assert_eq!(alone.via, ["d::net::Net::new"]);
    }
}
