//! Memory a process has to itself, as the host's kernel counts it.

use std::fs;

/// Bytes resident in that process and in no other: its unique set. Pages still shared with the zygote
/// it was forked from, the program's and the machine's memory are not among them. `None` if it is
/// gone, or the host does not let us look: a domain is not dumpable, so that takes CAP_SYS_PTRACE.
pub fn unique_set(pid: i32) -> Option<u64> {
    unique(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn unique(rollup: &str) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        let mut lines = rollup.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"))?;
        value.trim().parse::<u64>().ok()?.checked_mul(1024)
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
    fn own_process_has_memory_to_itself() {
        let pid = i32::try_from(std::process::id()).expect("pid");

        assert!(unique_set(pid).is_some_and(|bytes| bytes > 0));
    }
}
