//! Which call site comes first.
//!
//! `docs/REPORT.md` explains the ranking to readers; keep both alike.

use leakd_common::site::{FIRST_BUCKET_BITS, LIFETIME_BUCKETS, Site};

/// The upper bound, in nanoseconds, of the lifetimes in a bucket; `None` for
/// the last one.
pub fn bucket_bound(bucket: usize) -> Option<u64> {
    (bucket + 1 < LIFETIME_BUCKETS).then(|| 1 << (FIRST_BUCKET_BITS as usize + bucket))
}

/// A time that at least 99 of 100 freed blocks did not live to see; `None` if
/// nothing was freed, or if that many lived longer than can be told.
pub fn usual_lifetime_ns(site: &Site) -> Option<u64> {
    let freed = site.lifetimes.iter().fold(0u64, |sum, blocks| sum.saturating_add(*blocks));
    if freed == 0 {
        return None;
    }
    let wanted = freed - freed / 100;
    let mut seen = 0u64;
    for (bucket, blocks) in site.lifetimes.iter().enumerate() {
        seen = seen.saturating_add(*blocks);
        if seen >= wanted {
            return bucket_bound(bucket);
        }
    }
    None
}

/// The share of outstanding blocks that are older than freed blocks usually
/// became: 1 if nothing was ever freed, `None` if no ages are known.
pub fn overdue_share(site: &Site, ages_ns: &[u64]) -> Option<f64> {
    if ages_ns.is_empty() {
        return None;
    }
    if site.lifetimes.iter().all(|blocks| *blocks == 0) {
        return Some(1.0);
    }
    let Some(usual) = usual_lifetime_ns(site) else { return Some(0.0) };
    let overdue = ages_ns.iter().filter(|age| **age >= usual).count();
    Some(overdue as f64 / ages_ns.len() as f64)
}

/// The share of all blocks that survive; 0 where nothing was allocated.
pub fn surviving_share(site: &Site) -> f64 {
    if site.allocated_blocks == 0 {
        return 0.0;
    }
    site.outstanding_blocks() as f64 / site.allocated_blocks as f64
}

/// The bytes that a site is ranked by: those of its blocks that have reached
/// the minimum age, weighted by the larger of two shares.
///
/// * The surviving share is high where blocks are never freed.
/// * The overdue share is high where most blocks are freed, but those that
///   are not have outlived the others by far: a leak on one path of many. It
///   is low in a cache or a queue, whose blocks are as old as others became.
pub fn rank_bytes(aged_bytes: u64, surviving: f64, overdue: Option<f64>) -> u64 {
    (aged_bytes as f64 * surviving.max(overdue.unwrap_or(0.0)).clamp(0.0, 1.0)).round() as u64
}

/// How far outstanding blocks can be believed where some of the site's blocks
/// turned out to have been freed unseen, 0 to 1: the more of these, the more of
/// the others may be gone.
pub fn certainty(outstanding: u64, freed_unseen: u64) -> f64 {
    if freed_unseen == 0 {
        return 1.0;
    }
    outstanding as f64 / (outstanding as f64 + freed_unseen as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(allocated: u64, freed: u64, lifetime_ns: u64) -> Site {
        let mut site = Site { allocated_blocks: allocated, freed_blocks: freed, ..Site::EMPTY };
        site.lifetimes[Site::bucket(lifetime_ns)] = freed;
        site
    }

    /// Check that the bound of a bucket is the first value behind it.
    #[test]
    fn bucket_bounds() {
        for bucket in 0..LIFETIME_BUCKETS - 1 {
            let bound = bucket_bound(bucket).unwrap();
            assert_eq!(Site::bucket(bound - 1), bucket);
            assert_eq!(Site::bucket(bound), bucket + 1);
        }
        assert_eq!(bucket_bound(LIFETIME_BUCKETS - 1), None);
    }

    /// Check that blocks are overdue when they outlived the freed ones, and
    /// that nothing is said where nothing is known.
    #[test]
    fn overdue() {
        let traffic = site(1_000, 900, 1_000_000);
        assert_eq!(overdue_share(&traffic, &[500_000, 5_000_000]), Some(0.5));
        assert_eq!(overdue_share(&traffic, &[]), None);
        assert_eq!(overdue_share(&site(10, 0, 0), &[1]), Some(1.0));
        assert_eq!(overdue_share(&site(10, 5, u64::MAX), &[u64::MAX]), Some(0.0));
    }

    /// Check that one block in a hundred that lived long does not make the
    /// others' lifetime unusual.
    #[test]
    fn usual_lifetime() {
        let mut mixed = site(1_000, 990, 1_000_000);
        mixed.lifetimes[30] = 9;
        assert_eq!(usual_lifetime_ns(&mixed), Some(1 << 20));
        mixed.lifetimes[30] = 100;
        assert_eq!(usual_lifetime_ns(&mixed), Some(1 << 41));
        assert_eq!(usual_lifetime_ns(&Site::EMPTY), None);
    }

    /// Check that a rank is a share of the bytes and never more.
    #[test]
    fn ranks() {
        assert_eq!(rank_bytes(1_000, 0.25, Some(0.5)), 500);
        assert_eq!(rank_bytes(1_000, 0.25, None), 250);
        assert_eq!(rank_bytes(1_000, 7.0, Some(f64::NAN)), 1_000);
        assert_eq!((certainty(10, 0), certainty(10, 30), certainty(0, 1)), (1.0, 0.25, 0.0));
    }
}
