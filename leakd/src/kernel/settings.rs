//! What is to be traced of the kernel's memory.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use leakd_common::kernel::{KERNEL_BLOCKS, KernelKind};

use super::caches::{self, Wanted};
use super::hooks;

/// What is to be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The kinds.
    pub kinds: BTreeSet<KernelKind>,
    /// The caches.
    pub wanted: Wanted,
    /// The cache as it was asked for.
    pub cache: Option<String>,
    /// Blocks of these sizes, in bytes.
    pub bytes: RangeInclusive<u64>,
    /// Outstanding blocks to keep track of.
    pub quota: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kinds: KernelKind::ALL.into(),
            wanted: Wanted::All,
            cache: None,
            bytes: 0..=u64::MAX,
            quota: KERNEL_BLOCKS,
        }
    }
}

impl Settings {
    /// Only this slab cache from now on, as /proc/slabinfo calls it; of general
    /// caches, every kmalloc of that size.
    ///
    /// # Errors
    /// If there is no such cache: one line for a person.
    pub fn restrict(&mut self, cache: &str) -> Result<(), String> {
        self.cache = Some(cache.to_owned());
        if let Some(bytes) = caches::kmalloc_bytes(cache) {
            self.kinds = [KernelKind::Kmalloc].into();
            self.bytes = bytes..=bytes;
            return Ok(());
        }
        let names = caches::names(cache).ok_or_else(|| {
            let similar = caches::similar(cache);
            let hint = match similar.is_empty() {
                true => "see the names in /proc/slabinfo".to_owned(),
                false => format!("did you mean {}?", similar.join(", ")),
            };
            format!("there is no slab cache {cache}: {hint}")
        })?;
        self.kinds = [KernelKind::Cache].into();
        self.wanted = Wanted::Caches(names);
        Ok(())
    }

    /// What is traced, in some words.
    pub fn scope(&self) -> String {
        match &self.cache {
            Some(cache) => format!("cache {cache}"),
            None => {
                let names: Vec<&str> = self.kinds.iter().copied().map(hooks::name).collect();
                names.join(", ")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a general cache stands for its size, and that a name that
    /// there is not is refused.
    #[test]
    fn restricted() {
        let mut settings = Settings::default();
        assert_eq!(settings.scope(), "kmalloc, cache, pages, percpu, vmalloc");
        settings.restrict("kmalloc-cg-1k").unwrap();
        assert_eq!(settings.bytes, 1024..=1024);
        assert_eq!(settings.kinds, [KernelKind::Kmalloc].into());
        assert_eq!(settings.scope(), "cache kmalloc-cg-1k");
        let error = Settings::default().restrict("../dentry").unwrap_err();
        assert!(error.contains("no slab cache"), "{error}");
    }
}
