//! The memory that a process' control groups leave it.
//!
//! Version 2 (Documentation/admin-guide/cgroup-v2.rst) and version 1
//! (cgroup-v1/memory.rst), whichever has the memory controller. The limits of all
//! groups from the process' own to the outermost count; the tightest is told.

use std::fs;
use std::path::{Path, PathBuf};

use procfs::process::Process;

/// Bytes of a file of a control group that are read.
const MOST: u64 = 64 << 10;
/// Groups around a process that are looked at: the kernel has no bound.
const DEEPEST: usize = 64;

/// The tightest limit of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// The control group that has it.
    pub group: String,
    /// The limit, in bytes.
    pub limit_bytes: u64,
    /// What the group has taken of it and the kernel cannot take back: without the
    /// page cache and without slabs that it may shrink.
    pub used_bytes: u64,
    /// Swap that the group may use besides.
    pub swap_left_bytes: u64,
}

impl Limit {
    /// Bytes until the kernel kills one of the group.
    pub fn left(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes).saturating_add(self.swap_left_bytes)
    }
}

/// Where the memory controller is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    hierarchy: Option<Hierarchy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// The group that is mounted there: "/" but in containers.
    root: String,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Limits {
    /// Finds it. Nothing is limited where there is none.
    pub fn find() -> Self {
        let mounts = Process::myself().and_then(|own| own.mountinfo()).ok();
        let mounts = mounts.into_iter().flatten();
        let mut two = None;
        for mount in mounts {
            let at = |version| Hierarchy {
                mount: mount.mount_point.clone(),
                root: mount.root.clone(),
                version,
            };
            match mount.fs_type.as_str() {
                "cgroup" if mount.super_options.contains_key("memory") => {
                    return Self { hierarchy: Some(at(Version::One)) };
                }
                "cgroup2" => two = Some(at(Version::Two)),
                _ => {}
            }
        }
        Self { hierarchy: two }
    }

    /// The tightest limit of a process; `None`: it has none.
    pub fn of(&self, pid: u32) -> Option<Limit> {
        let hierarchy = self.hierarchy.as_ref()?;
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let group = group_of(&text, hierarchy.version)?;
        hierarchy.tightest(group)
    }
}

/// The control group in /proc/PID/cgroup that the memory controller knows.
fn group_of(text: &str, version: Version) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = match version {
            Version::Two => number == "0" && controllers.is_empty(),
            Version::One => controllers.split(',').any(|one| one == "memory"),
        };
        fits.then_some(path)
    })
}

impl Hierarchy {
    fn tightest(&self, group: &str) -> Option<Limit> {
        // A group outside of what is mounted here is shown with "..".
        let below = match self.root.as_str() {
            "/" => group,
            root => group.strip_prefix(root).unwrap_or(group),
        };
        let relative = Path::new(below.trim_start_matches('/'));
        if relative.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return None;
        }
        let groups = relative.ancestors().take(DEEPEST);
        let limits = groups.filter_map(|group| {
            let files = Files(self.mount.join(group));
            let mut limit = match self.version {
                Version::Two => files.second(),
                Version::One => files.first(),
            }?;
            limit.group = format!("/{}", group.display());
            Some(limit)
        });
        limits.min_by_key(Limit::left)
    }
}

/// The files of a control group.
struct Files(PathBuf);

impl Files {
    fn text(&self, name: &str) -> Option<String> {
        use std::io::Read;
        let mut text = String::new();
        fs::File::open(self.0.join(name)).ok()?.take(MOST).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// A number; `None`: there is none, or it is "max".
    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }

    /// The sum of some lines of memory.stat.
    fn sum(&self, names: &[&str]) -> u64 {
        let text = self.text("memory.stat").unwrap_or_default();
        let value = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            names.contains(&name).then(|| value.parse::<u64>().ok())?
        };
        text.lines().filter_map(value).fold(0, u64::saturating_add)
    }

    fn second(&self) -> Option<Limit> {
        let limit_bytes = self.number("memory.max")?;
        let used = self.number("memory.current")?;
        let back = self.sum(&["active_file", "inactive_file", "slab_reclaimable"]);
        let swap_used = self.number("memory.swap.current").unwrap_or(0);
        // No file: no swap is accounted for; "max": as much as the machine has.
        let swap_left = match self.text("memory.swap.max").as_deref().map(str::trim) {
            None => 0,
            Some("max") => u64::MAX,
            Some(number) => number.parse::<u64>().unwrap_or(0).saturating_sub(swap_used),
        };
        Some(Limit {
            group: String::new(),
            limit_bytes,
            used_bytes: used.saturating_sub(back),
            swap_left_bytes: swap_left.min(free_swap()),
        })
    }

    fn first(&self) -> Option<Limit> {
        // "Unlimited" is the largest number of whole pages.
        const UNLIMITED: u64 = 1 << 62;
        let limited = |name| self.number(name).filter(|limit| *limit < UNLIMITED);
        let limit_bytes = limited("memory.limit_in_bytes")?;
        let used = self.number("memory.usage_in_bytes")?;
        let back = self.sum(&["total_active_file", "total_inactive_file"]);
        // Memory and swap together.
        let both = self.number("memory.memsw.usage_in_bytes").unwrap_or(used);
        let swap_left = match limited("memory.memsw.limit_in_bytes") {
            Some(limit) => limit.saturating_sub(limit_bytes).saturating_sub(both - used.min(both)),
            None => u64::MAX,
        };
        Some(Limit {
            group: String::new(),
            limit_bytes,
            used_bytes: used.saturating_sub(back),
            swap_left_bytes: swap_left.min(free_swap()),
        })
    }
}

/// Swap that the machine has left.
fn free_swap() -> u64 {
    use procfs::Current;
    procfs::Meminfo::current().map_or(0, |memory| memory.swap_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    /// Check that of nested groups the one with least left is told, and that the page
    /// cache does not count, for both versions.
    #[test]
    fn tightest_of_nested_groups() {
        let folder = tempfile::tempdir().unwrap();
        let two = folder.path().join("two");
        let stat = "anon 5\nactive_file 1000\ninactive_file 500\nslab_reclaimable 100\nslab 7\n";
        write(&two.join("a"), &[("memory.max", "9000"), ("memory.current", "8000")]);
        write(
            &two.join("a/b"),
            &[("memory.max", "7000\n"), ("memory.current", "3000"), ("memory.stat", stat)],
        );
        write(&two.join("a/b/c"), &[("memory.max", "max\n"), ("memory.current", "10")]);
        let hierarchy = |version, mount| Hierarchy { mount, root: "/".to_owned(), version };
        let hierarchy_two = hierarchy(Version::Two, two);
        let tightest = hierarchy_two.tightest("/a/b/c").unwrap();
        assert_eq!((tightest.group.as_str(), tightest.left()), ("/a", 1000));
        write(&hierarchy_two.mount.join("a"), &[("memory.max", "90000")]);
        let tightest = hierarchy_two.tightest("/a/b/c").unwrap();
        assert_eq!((tightest.group.as_str(), tightest.used_bytes), ("/a/b", 1400));
        assert_eq!(hierarchy_two.tightest("/../a"), None);
        assert_eq!(hierarchy_two.tightest("/"), None);
        let in_container = Hierarchy { root: "/a".to_owned(), ..hierarchy_two };
        assert_eq!(in_container.tightest("/a/x"), None);

        let one = folder.path().join("one");
        write(
            &one.join("a"),
            &[("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.usage_in_bytes", "5")],
        );
        write(
            &one.join("a/b"),
            &[
                ("memory.limit_in_bytes", "4096\n"),
                ("memory.usage_in_bytes", "2048"),
                ("memory.memsw.limit_in_bytes", "4096\n"),
                ("memory.stat", "total_inactive_file 1024\ninactive_file 9\n"),
            ],
        );
        let tightest = hierarchy(Version::One, one).tightest("/a/b").unwrap();
        assert_eq!((tightest.limit_bytes, tightest.used_bytes), (4096, 1024));
        assert_eq!(tightest.left(), 3072);
    }

    /// Check which group of a process the memory controller knows.
    #[test]
    fn group_of_either_version() {
        let text = "5:cpu,memory:/one:with:colons\n1:name=systemd:/s\n0::/two\n";
        assert_eq!(group_of(text, Version::One), Some("/one:with:colons"));
        assert_eq!(group_of(text, Version::Two), Some("/two"));
        assert_eq!(group_of("0::/two\n", Version::One), None);
    }

    /// Check the limit of a real group on this machine, with a process in it.
    #[test]
    fn real_group() {
        let limits = Limits::find();
        let hierarchy = limits.hierarchy.as_ref().expect("a memory controller");
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let name = format!("leakd-limit-{}", std::process::id());
        // In the outermost group, so that no process stands in between.
        let group = hierarchy.mount.join(&name);
        fs::create_dir(&group).unwrap();
        struct Remove(PathBuf);
        impl Drop for Remove {
            fn drop(&mut self) {
                let _ = fs::remove_dir(&self.0);
            }
        }
        let _remove = Remove(group.clone());
        let file = match hierarchy.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        assert!(group_of(&own, hierarchy.version).is_some(), "{own}");
        fs::write(group.join(file), (64 << 20).to_string()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        let limit = limits.of(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let limit = limit.expect("a limit");
        assert_eq!((limit.group, limit.limit_bytes), (format!("/{name}"), 64 << 20));
        assert!(limit.used_bytes < 64 << 20, "{}", limit.used_bytes);
    }
}
