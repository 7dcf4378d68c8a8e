//! What of the kernel's memory to look at: as little as there is a reason for,
//! since a trace costs every allocation of the machine that it looks at.

use super::meminfo::Total;
use super::{KernelWatch, LEAST_GROWTH_BYTES, Series, slabinfo};

/// A part of the kernel's memory that grows and is not taken back when memory is
/// short.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// What grows, as /proc/slabinfo or /proc/meminfo calls it.
    pub name: String,
    /// How fast, in bytes a second.
    pub slope: f64,
    /// What to look at.
    pub part: Part,
}

/// A part of the kernel's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A slab cache.
    Cache(String),
    /// All that a total is made of.
    Total(Total),
}

impl KernelWatch {
    /// What grows fastest: a cache, or a total if no cache is known to grow. Of
    /// slabs that grow together the cache that has most of it, where one has:
    /// that one cache grows is known later, since caches are looked at seldom.
    pub fn suspect(&self) -> Option<Suspect> {
        let growing: Vec<_> =
            self.growing().into_iter().filter(|one| !one.is_reclaimable).collect();
        let first = growing.iter().find(|one| one.is_cache).or(growing.first())?;
        let slope = first.judgement.slope;
        if first.is_cache {
            let part = Part::Cache(first.name.clone());
            return Some(Suspect { name: first.name.clone(), slope, part });
        }
        let total = Total::ALL.into_iter().find(|total| total.name() == first.name)?;
        let cache = (total == Total::SlabUnreclaimable).then(|| self.most_of_it()).flatten();
        let part = cache.map_or(Part::Total(total), Part::Cache);
        Some(Suspect { name: first.name.clone(), slope, part })
    }

    /// The cache that has at least half of what all caches have grown by lately.
    fn most_of_it(&self) -> Option<String> {
        let rise = |series: &Series| {
            let recent = series.history.recent();
            let (first, last) = (recent.front()?, recent.back()?);
            Some(last.bytes.saturating_sub(first.bytes))
        };
        let rises = self.caches.iter().filter_map(|(name, series)| Some((rise(series)?, name)));
        let counts = |(bytes, name): &(u64, &String)| *bytes > 0 && !slabinfo::is_reclaimable(name);
        let rises: Vec<_> = rises.filter(counts).collect();
        let sum: u64 = rises.iter().map(|(bytes, _)| bytes).sum();
        let (most, name) = rises.into_iter().max()?;
        (most as f64 >= LEAST_GROWTH_BYTES && most * 2 >= sum).then(|| name.clone())
    }
}
