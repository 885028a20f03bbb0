//! [`available_bytes`]: the memory that this machine has available.

use std::fs;
use std::path::Path;

/// Bytes that new programs can use: what Linux reports as available, and at most what the limits of
/// the process's group leave. `None` on other systems.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let machine = available_in(&text)?;
    let group = Path::new("/sys/fs/cgroup");
    let left = [
        ("memory.max", "memory.current"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
        ),
    ]
    .into_iter()
    .filter_map(|(most, now)| {
        let bytes = |name| {
            fs::read_to_string(group.join(name))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        };
        Some(bytes(most)?.saturating_sub(bytes(now)?))
    });
    Some(left.fold(machine, u64::min))
}

fn available_in(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_available_memory_is_read() {
        let text = "MemTotal:  100 kB\nMemFree:  10 kB\nMemAvailable:    64 kB\n";
        assert_eq!(available_in(text), Some(64 * 1024));
        assert_eq!(available_in("MemFree: 1 kB"), None);
        if cfg!(target_os = "linux") {
            assert!(available_bytes().unwrap() > 0);
        }
    }
}
