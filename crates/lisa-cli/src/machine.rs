//! [`available_bytes`] and [`total_bytes`]: the memory of this machine.

use std::fs;
use std::path::Path;

/// Files of the limit, the usage and the statistics of the process's group, and the entry of the
/// statistics with the files that the kernel can drop from memory. For both versions of the groups.
const GROUPS: [[&str; 4]; 2] = [
    [
        "memory.max",
        "memory.current",
        "memory.stat",
        "inactive_file",
    ],
    [
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ],
];

/// Bytes that new programs can use: what Linux reports as available, and at most what the limits of
/// the process's group leave. `None` on other systems.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let machine = entry_in(&text, "MemAvailable:")?;
    let left = GROUPS.into_iter().filter_map(|[most, now, stat, entry]| {
        left_in(
            &read(most)?,
            &read(now)?,
            &read(stat).unwrap_or_default(),
            entry,
        )
    });
    Some(left.fold(machine, u64::min))
}

/// Bytes of the machine, or of the limits of the process's group, with the machine's swap. `None` on other
/// systems than Linux.
#[must_use]
pub fn total_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let entry = |name| entry_in(&text, name);
    let machine = entry("MemTotal:")? + entry("SwapTotal:").unwrap_or(0);
    let limits = GROUPS
        .into_iter()
        .filter_map(|[most, ..]| bytes(&read(most)?));
    Some(limits.fold(machine, u64::min))
}

/// A file of the process's group.
fn read(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()
}

fn entry_in(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// What the limit of a group leaves. Its usage includes the pages of files that were read. The kernel
/// drops the inactive ones when the memory is needed, so they do not count. `None` without a limit.
fn left_in(most: &str, now: &str, stat: &str, entry: &str) -> Option<u64> {
    let cached = stat.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == entry).then(|| bytes(value))?
    });
    let used = bytes(now)?.saturating_sub(cached.unwrap_or(0));
    Some(bytes(most)?.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_available_memory_is_read() {
        let text = "MemTotal:  100 kB\nMemFree:  10 kB\nMemAvailable:    64 kB\n";
        assert_eq!(entry_in(text, "MemAvailable:"), Some(64 * 1024));
        assert_eq!(entry_in("MemFree: 1 kB", "MemAvailable:"), None);
        if cfg!(target_os = "linux") {
            let (available, total) = (available_bytes().unwrap(), total_bytes().unwrap());
            assert!(0 < available && available <= total);
        }
    }

    #[test]
    fn files_that_were_read_are_not_used_memory() {
        let stat = "anon 300\nfile 500\ninactive_anon 1\ninactive_file 400\nactive_file 100\n";
        let [[.., second], [.., first]] = GROUPS;
        assert_eq!(left_in("1000\n", "800\n", stat, second), Some(600));
        let both = "inactive_file 100\ntotal_inactive_file 250\n";
        assert_eq!(left_in("1000\n", "800\n", both, first), Some(450));
        // Without statistics, and with a usage above the limit.
        assert_eq!(left_in("1000\n", "800\n", "", second), Some(200));
        assert_eq!(left_in("1000\n", "1800\n", stat, second), Some(0));
        assert_eq!(left_in("max\n", "800\n", stat, second), None);
    }
}
