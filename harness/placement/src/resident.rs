//! Memory a process has to itself, as the host's kernel counts it.

use crate::shared::WINDOW;
use cofferdam_machine::frames::MEMORY;
use std::fs;
use std::ops::Range;

/// Bytes resident in that process and in no other: its unique set. Pages still shared with the zygote
/// it was forked from, the program's and the machine's memory are not among them. `None` if it is
/// gone, or the host does not let us look: a domain is not dumpable, so that takes CAP_SYS_PTRACE.
pub fn unique_set(pid: i32) -> Option<u64> {
    unique(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

/// Bytes of its window on the machine's memory that are resident in that process, whoever else has
/// them too. `None` as in [`unique_set`].
pub fn window(pid: i32) -> Option<u64> {
    let start = WINDOW as u64;
    within(
        &fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?,
        &(start..start + MEMORY),
    )
}

/// Resident bytes of the mappings that begin within `window`.
fn within(smaps: &str, window: &Range<u64>) -> Option<u64> {
    let mut inside = false;
    let mut resident = 0_u64;
    for line in smaps.lines() {
        let word = line.split_ascii_whitespace().next().unwrap_or("");
        if let Some((start, _)) = word.split_once('-') {
            let start = u64::from_str_radix(start, 16).ok()?;
            inside = window.contains(&start);
        } else if let ("Rss:", true) = (word, inside) {
            resident = resident.checked_add(kilobytes(line, word)?)?;
        }
    }
    Some(resident)
}

/// The bytes that a line of that name tells.
fn kilobytes(line: &str, name: &str) -> Option<u64> {
    let value = line.strip_prefix(name)?.strip_suffix("kB")?;
    value.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn unique(rollup: &str) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        let line = rollup.lines().find(|line| line.starts_with(name))?;
        kilobytes(line, name)
    };
    field("Private_Clean:")?.checked_add(field("Private_Dirty:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_set_is_what_is_private() {
        let rollup = "55e41797b000-7ffc96d06000 ---p 00000000 00:00 0   [rollup]\n\
                      Rss:                1776 kB\n\
                      Shared_Dirty:         12 kB\n\
                      Private_Clean:        48 kB\n\
                      Private_Dirty:       112 kB\n";

        assert_eq!(unique(rollup), Some(160 * 1024));
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        for rollup in [
            "",
            "Private_Clean: 4 kB\n",
            "Private_Clean: 4 kB\nPrivate_Dirty: -1 kB\n",
            "Private_Clean: 18446744073709551615 kB\nPrivate_Dirty: 1 kB\n",
        ] {
            assert_eq!(unique(rollup), None, "{rollup}");
        }
        assert_eq!(unique_set(-1), None);
    }

    #[test]
    fn only_mappings_of_the_window_are_counted() {
        let smaps = "5c0000000000-5c0000100000 ---p 00000000 00:00 0 \n\
                     Rss:                   0 kB\n\
                     5c0000148000-5c0000149000 rw-s 00148000 00:01 7 /memfd:m\n\
                     Size:                  4 kB\n\
                     Rss:                   4 kB\n\
                     7ffc96ce5000-7ffc96d06000 rw-p 00000000 00:00 0 [stack]\n\
                     Rss:                  16 kB\n";
        let start = WINDOW as u64;

        assert_eq!(within(smaps, &(start..start + MEMORY)), Some(4096));
        assert_eq!(within("zz-1 rw-s\n", &(0..1)), None);
        assert_eq!(within("", &(0..1)), Some(0));
    }

    #[test]
    fn own_process_has_memory_to_itself() {
        let pid = i32::try_from(std::process::id()).expect("pid");

        assert!(unique_set(pid).is_some_and(|bytes| bytes > 0));
    }
}
