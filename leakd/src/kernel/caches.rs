//! Slab caches by name, as sysfs shows them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use leakd_common::kernel::CACHE_NAME;

/// What a filter lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    #[default]
    All,
    /// The caches of these names.
    Caches(Vec<String>),
}

const SLAB: &str = "/sys/kernel/slab";

/// Every name of a cache: the kernel merges caches that are alike, and keeps
/// the name of the first. `None`: there is no such cache, as far as sysfs says.
pub fn names(name: &str) -> Option<Vec<String>> {
    names_in(Path::new(SLAB), name)
}

fn names_in(slab: &Path, name: &str) -> Option<Vec<String>> {
    if name.contains('/') || name.is_empty() || name.starts_with('.') {
        return None;
    }
    let wanted = fs::canonicalize(slab.join(name)).ok()?;
    let entries = fs::read_dir(slab).ok()?.flatten();
    let alike =
        |entry: &fs::DirEntry| fs::canonicalize(entry.path()).ok().as_ref() == Some(&wanted);
    let mut names: Vec<String> = entries
        .filter(alike)
        .filter_map(|entry| entry.file_name().into_string().ok())
        // `:0000192` is what sysfs calls merged caches, not a name.
        .filter(|name| !name.starts_with(':'))
        .collect();
    names.sort_unstable();
    Some(names)
}

/// Of each cache that the kernel has merged with others, all of their names, by
/// each name. Empty where sysfs does not tell.
pub fn merged() -> HashMap<String, Vec<String>> {
    merged_in(Path::new(SLAB))
}

fn merged_in(slab: &Path) -> HashMap<String, Vec<String>> {
    let mut by_place: HashMap<PathBuf, Vec<String>> = HashMap::new();
    for entry in fs::read_dir(slab).into_iter().flatten().flatten() {
        // What is no link stands for itself alone.
        let (Ok(place), Ok(name)) = (fs::read_link(entry.path()), entry.file_name().into_string())
        else {
            continue;
        };
        by_place.entry(place).or_default().push(name);
    }
    let several = by_place.into_values().filter(|names| names.len() > 1);
    let mut merged = HashMap::new();
    for mut names in several {
        names.sort_unstable();
        for name in &names {
            merged.insert(name.clone(), names.clone());
        }
    }
    merged
}

/// Names that are close to one that does not exist.
pub fn similar(name: &str) -> Vec<String> {
    let entries = fs::read_dir(SLAB).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut close: Vec<(f64, String)> = names
        .map(|one| (strsim::jaro_winkler(&one, name), one))
        .filter(|(closeness, _)| *closeness > 0.8)
        .collect();
    close.sort_by(|a, b| b.0.total_cmp(&a.0));
    close.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Whether the kernel can take a cache's blocks back when memory is short.
pub fn is_reclaimable(name: &str) -> Option<bool> {
    if name.contains('/') || name.is_empty() || name.starts_with('.') {
        return None;
    }
    let text = fs::read_to_string(Path::new(SLAB).join(name).join("reclaim_account")).ok()?;
    Some(text.trim() == "1")
}

/// The size of a general cache by its name (`kmalloc-1k`, `kmalloc-rcl-96`),
/// in bytes.
pub fn kmalloc_bytes(name: &str) -> Option<u64> {
    let (kind, size) = name.rsplit_once('-')?;
    if !(kind == "kmalloc" || kind.starts_with("kmalloc-") || kind == "dma-kmalloc") {
        return None;
    }
    match size.strip_suffix(['k', 'K']) {
        Some(kilobytes) => kilobytes.parse::<u64>().ok()?.checked_mul(1024),
        None => match size.strip_suffix('M') {
            Some(megabytes) => megabytes.parse::<u64>().ok()?.checked_mul(1 << 20),
            None => size.parse().ok(),
        },
    }
}

/// Text up to a zero.
pub fn text(bytes: &[u8; CACHE_NAME]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(CACHE_NAME);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check sizes in the names of general caches.
    #[test]
    fn general_caches() {
        assert_eq!(kmalloc_bytes("kmalloc-96"), Some(96));
        assert_eq!(kmalloc_bytes("kmalloc-cg-1k"), Some(1024));
        assert_eq!(kmalloc_bytes("kmalloc-rnd-03-8k"), Some(8192));
        assert_eq!(kmalloc_bytes("dma-kmalloc-192"), Some(192));
        assert_eq!(kmalloc_bytes("dentry"), None);
        assert_eq!(kmalloc_bytes("ext4-64"), None);
        assert_eq!(kmalloc_bytes("kmalloc-99999999999999999999k"), None);
    }

    /// Check that merged caches are known by all of their names, and that a
    /// name leads nowhere else.
    #[test]
    fn merged_caches() {
        let slab = tempfile::tempdir().unwrap();
        fs::create_dir(slab.path().join(":0000192")).unwrap();
        fs::create_dir(slab.path().join("dentry")).unwrap();
        for alias in ["skb", "cred"] {
            std::os::unix::fs::symlink(":0000192", slab.path().join(alias)).unwrap();
        }
        let names = |name| names_in(slab.path(), name);
        assert_eq!(names("skb"), Some(vec!["cred".to_owned(), "skb".to_owned()]));
        assert_eq!(names("dentry"), Some(vec!["dentry".to_owned()]));
        assert_eq!(names("nothing"), None);
        assert_eq!(names("../dentry"), None);
        assert_eq!(names("."), None);
        let merged = merged_in(slab.path());
        assert_eq!(merged.len(), 2);
        assert_eq!(merged["cred"], ["cred", "skb"]);
        assert!(merged_in(&slab.path().join("nothing")).is_empty());
    }
}
