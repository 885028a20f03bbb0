//! [`available_bytes`] and [`total_bytes`]: the memory of this machine.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// A version of the kernel's control groups.
struct Version {
    /// The place of its groups below `/sys/fs/cgroup`.
    root: &'static str,
    /// Files of the limit, the usage and the statistics.
    files: [&'static str; 3],
    /// The entry of the statistics with the files that the kernel can drop from memory.
    dropped: &'static str,
}

/// The second version, and the first one.
const VERSIONS: [Version; 2] = [
    Version {
        root: "",
        files: ["memory.max", "memory.current", "memory.stat"],
        dropped: "inactive_file",
    },
    Version {
        root: "memory",
        files: [
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "memory.stat",
        ],
        dropped: "total_inactive_file",
    },
];

/// Bytes that new programs can use: what Linux reports as available, and at most what the limits of the
/// process's control group and of the groups above it leave. `None` on other systems.
#[must_use]
pub(crate) fn available_bytes() -> Option<u64> {
    available_in(Path::new("/"))
}

/// Bytes of the machine, or the lowest limit of the process's control group and of the groups above it, and
/// the machine's swap. `None` on other systems than Linux.
#[must_use]
pub(crate) fn total_bytes() -> Option<u64> {
    total_in(Path::new("/"))
}

fn available_in(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let machine = entry_in(&text, "MemAvailable:")?;
    let left = groups(root).filter_map(|(version, group)| {
        let [most, now, stat] = version
            .files
            .map(|file| fs::read_to_string(group.join(file)));
        left_in(
            &most.ok()?,
            &now.ok()?,
            &stat.unwrap_or_default(),
            version.dropped,
        )
    });
    Some(left.fold(machine, u64::min))
}

fn total_in(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let machine = entry_in(&text, "MemTotal:")?;
    let limits = groups(root).filter_map(|(version, group)| {
        bytes(&fs::read_to_string(group.join(version.files[0])).ok()?)
    });
    // The limits are those without swap.
    let memory = limits.fold(machine, u64::min);
    Some(memory + entry_in(&text, "SwapTotal:").unwrap_or(0))
}

/// The folders of the process's control groups and of those above them, in a file system with this root.
/// A container may show only its own group, as the uppermost one.
fn groups(root: &Path) -> impl Iterator<Item = (&'static Version, PathBuf)> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    VERSIONS.iter().flat_map(move |version| {
        // Lines are `number:controllers:/path`; the second version has no controllers.
        let path = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let is_its = controllers.split(',').any(|name| name == version.root);
            is_its.then(|| PathBuf::from(path))
        });
        let top = root.join("sys/fs/cgroup").join(version.root);
        // A group that this process does not see is named with `..`.
        let path = path.filter(|path| !path.components().any(|part| part == Component::ParentDir));
        let path = path.unwrap_or_else(|| "/".into());
        let folders = path.ancestors().map(|path| {
            let below = path.strip_prefix("/").unwrap_or(path);
            (version, top.join(below))
        });
        folders.collect::<Vec<_>>()
    })
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
        let [second, first] = VERSIONS.map(|version| version.dropped);
        assert_eq!(left_in("1000\n", "800\n", stat, second), Some(600));
        let both = "inactive_file 100\ntotal_inactive_file 250\n";
        assert_eq!(left_in("1000\n", "800\n", both, first), Some(450));
        // Without statistics, and with a usage above the limit.
        assert_eq!(left_in("1000\n", "800\n", "", second), Some(200));
        assert_eq!(left_in("1000\n", "1800\n", stat, second), Some(0));
        assert_eq!(left_in("max\n", "800\n", stat, second), None);
    }

    #[test]
    fn limits_of_all_groups_above_the_process_count() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("proc/self")).unwrap();
        let write = |text: &str| fs::write(root.join("proc/self/cgroup"), text).unwrap();
        let found = || -> Vec<String> {
            let folders = groups(root).map(|(_, folder)| {
                let below = folder.strip_prefix(root.join("sys/fs/cgroup")).unwrap();
                below.display().to_string()
            });
            folders.collect()
        };
        write("0::/system.slice/job.scope\n");
        assert_eq!(
            found(),
            ["system.slice/job.scope", "system.slice", "", "memory"]
        );
        write("12:cpu,memory:/slurm/job_1\n3:pids:/other\n0::/\n");
        assert_eq!(
            found(),
            ["", "memory/slurm/job_1", "memory/slurm", "memory"]
        );
        write("0::/../outside\n");
        assert_eq!(found(), ["", "memory"]);

        // A limit above the process's own group, beside a larger one.
        write("0::/slurm/job_1\n");
        let kib = "MemTotal: 1000 kB\nMemAvailable: 900 kB\nSwapTotal: 50 kB\n";
        fs::write(root.join("proc/meminfo"), kib).unwrap();
        let both = || [available_in(root), total_in(root)].map(|bytes| bytes.unwrap() / 1024);
        assert_eq!(both(), [900, 1050]);
        for (group, most) in [("slurm", "307200"), ("slurm/job_1", "max")] {
            let group = root.join("sys/fs/cgroup").join(group);
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join("memory.max"), most).unwrap();
            fs::write(group.join("memory.current"), "102400").unwrap();
        }
        assert_eq!(both(), [200, 350]);
        fs::remove_file(root.join("proc/self/cgroup")).unwrap();
        assert_eq!(both(), [900, 1050]);
    }
}
