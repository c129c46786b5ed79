//! What the payload's addresses are called.

use crate::guest::ELF;
use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian};
use cofferdam_fuzz::frames::Location;
use object::{Object, ObjectSection};

type Symbols = Context<EndianSlice<'static, LittleEndian>>;

thread_local! {
    static SYMBOLS: Option<Symbols> = load();
}

fn load() -> Option<Symbols> {
    let file = object::read::elf::ElfFile64::<object::Endianness>::parse(ELF).ok()?;
    let section = |name: &str| {
        let section = file.section_by_name(name);
        section.and_then(|it| it.data().ok()).unwrap_or_default()
    };
    let dwarf = Dwarf::load(|id| {
        Ok::<_, addr2line::gimli::Error>(EndianSlice::new(section(id.name()), LittleEndian))
    });
    Context::from_dwarf(dwarf.ok()?).ok()
}

/// What is at an address: the innermost of functions inlined into each other first.
pub fn resolve(at: u64) -> Vec<Location> {
    SYMBOLS.with(|symbols| {
        let mut found = Vec::new();
        let Some(symbols) = symbols else { return found };
        let Ok(mut frames) = symbols.find_frames(at).skip_all_loads() else {
            return found;
        };
        while let Ok(Some(frame)) = frames.next() {
            let Some(Ok(name)) = frame.function.as_ref().map(|it| it.raw_name()) else {
                continue;
            };
            let place = frame.location;
            found.push(Location {
                function: format!("{:#}", rustc_demangle::demangle(&name)),
                file: place
                    .as_ref()
                    .and_then(|place| place.file)
                    .unwrap_or_default()
                    .to_owned(),
                line: place.and_then(|place| place.line).unwrap_or(0),
                via: Vec::new(),
            });
        }
        found
    })
}
