//! What the model says of what was seen.

use super::*;
use crate::report::fixture::*;
use leakd_common::site;

fn planted(target: TargetSnapshot) -> Vec<(String, u64)> {
    report(target).targets.remove(0).sites.into_iter().map(|s| (s.id, s.rank_bytes)).collect()
}

fn at(address: u64) -> Vec<Vec<symbol::Frame>> {
    vec![vec![frame(address, "function", "file.c", 1, "/bin/program")]]
}

/// Check that leaks come before honest traffic and caches, though these hold
/// more memory.
#[test]
fn leaks_come_first() {
    // 100 B x 1000, all of which stay.
    let leak = Planted {
        key: 0xa,
        size: 100,
        blocks: 1_000,
        kept: 1_000,
        aged: 700,
        oldest_ns: 30 * SECOND,
        lifetime_ns: 0,
    };
    // 1 MB in flight, 0.01 % of what was allocated; some of it slow.
    let traffic = Planted {
        key: 0xb,
        size: 10_000,
        blocks: 1_000_000,
        kept: 100,
        aged: 5,
        oldest_ns: 12 * SECOND,
        lifetime_ns: 10 * SECOND,
    };
    // A cache of 10 MB, through which 1 GB went; entries stay for 20 s.
    let cache = Planted {
        key: 0xc,
        size: 1_000,
        blocks: 1_000_000,
        kept: 10_000,
        aged: 5_000,
        oldest_ns: 21 * SECOND,
        lifetime_ns: 20 * SECOND,
    };
    // One request of a hundred forgets its block: 1 MB.
    let rare = Planted {
        key: 0xd,
        size: 1_000,
        blocks: 100_000,
        kept: 1_000,
        aged: 800,
        oldest_ns: 30 * SECOND,
        lifetime_ns: 1_000_000,
    };
    let sites = [traffic, cache, leak, rare];
    let sites = sites.iter().map(|one| one.site(at(one.key))).collect();
    let order = planted(target(sites));
    let names: Vec<&str> = order.iter().map(|(id, _)| id.trim_start_matches('0')).collect();
    assert_eq!(names, ["d", "a", "c", "b"], "{order:?}");
    assert_eq!(order[1].1, 70_000, "all 700 old blocks of the leak");
}

/// Check that blocks younger than the minimum age rank nobody, and that of
/// two sites that nobody ranks the larger comes first.
#[test]
fn young_blocks_rank_last() {
    let young = Planted {
        key: 1,
        size: 1 << 20,
        blocks: 50,
        kept: 50,
        aged: 0,
        oldest_ns: SECOND,
        lifetime_ns: 0,
    };
    let younger = Planted { key: 2, size: 1 << 10, ..young };
    let old = Planted {
        key: 3,
        size: 8,
        blocks: 2,
        kept: 1,
        aged: 1,
        oldest_ns: 20 * SECOND,
        lifetime_ns: 1,
    };
    let sites = [younger, young, old].iter().map(|one| one.site(at(one.key))).collect();
    let order: Vec<u64> = planted(target(sites)).into_iter().map(|(_, rank)| rank).collect();
    assert_eq!(order, [8, 0, 0]);
}

/// What stands at call sites that are to become one.
const TO_MERGE: Planted = Planted {
    key: 7,
    size: 10,
    blocks: 100,
    kept: 40,
    aged: 30,
    oldest_ns: 20 * SECOND,
    lifetime_ns: 5_000,
};

/// Check that sites with equal stacks become one, whose numbers are the sums.
#[test]
fn equal_stacks_are_merged() {
    let one = TO_MERGE;
    let two = Planted { key: 5, kept: 10, aged: 10, oldest_ns: 25 * SECOND, ..one };
    let other = Planted { key: 6, ..one };
    let sites = vec![one.site(at(1)), other.site(at(2)), two.site(at(1))];
    let sites = report(target(sites)).targets.remove(0).sites;
    assert_eq!(sites.len(), 2);
    let merged = sites.iter().find(|site| site.id == "0000000000000005").unwrap();
    assert_eq!(merged.outstanding_blocks, 50);
    assert_eq!(merged.outstanding_bytes, 500);
    assert_eq!(merged.allocated_blocks, 200);
    assert_eq!(merged.freed_bytes, 1_500);
    assert_eq!(merged.aged_blocks, 40);
    assert_eq!(merged.oldest_age_ns, Some(25 * SECOND));
    assert_eq!(merged.lifetimes.iter().map(|one| one.blocks).sum::<u64>(), 150);
}

/// Check that a stack that may be of several files does not pass for the true one with
/// the same addresses, and that a doubt is not lost where nothing speaks against it.
#[test]
fn doubted_stacks() {
    let site = |key, end, frame_pointer_steps| {
        let site = Planted { key, ..TO_MERGE }.site(at(1));
        SiteSnapshot { end: Some(end), frame_pointer_steps, ..site }
    };
    let ends = |sites| -> Vec<StackEnd> {
        let sites = report(target(sites)).targets.remove(0).sites;
        sites.iter().map(|site| site.stack_end).collect()
    };
    let of_several = site(2, WalkEnd::Stale, 1);
    let mut apart = ends(vec![site(1, WalkEnd::Bottom, 1), of_several]);
    apart.sort_by_key(|end| *end != StackEnd::Bottom);
    assert_eq!(apart, [StackEnd::Bottom, StackEnd::Stale]);

    let doubted = site(2, WalkEnd::Stale, 0);
    assert_eq!(ends(vec![site(1, WalkEnd::Bottom, 0), doubted.clone()]), [StackEnd::Bottom]);
    let cut = site(3, WalkEnd::NoTable, 0);
    assert_eq!(ends(vec![cut.clone(), doubted.clone()]), [StackEnd::Stale]);
    assert_eq!(ends(vec![doubted, cut]), [StackEnd::Stale]);
}

/// Check that sites without a stack stay apart, and say why they have none.
#[test]
fn sites_without_a_stack() {
    let one = Planted {
        key: 1,
        size: 8,
        blocks: 4,
        kept: 4,
        aged: 4,
        oldest_ns: 20 * SECOND,
        lifetime_ns: 0,
    };
    let mut unseen = one.site(Vec::new());
    unseen.end = None;
    let mut overflow = Planted { key: site::OVERFLOW_SITE, ..one }.site(Vec::new());
    overflow.end = None;
    let sites = report(target(vec![unseen, overflow])).targets.remove(0).sites;
    let ends: Vec<StackEnd> = sites.iter().map(|site| site.stack_end).collect();
    assert_eq!(ends, [StackEnd::NotSeen, StackEnd::SiteTableFull]);
}

/// Check that what is left out is counted, and what was freed is not listed.
#[test]
fn left_out() {
    let one = |key| Planted {
        key,
        size: 8,
        blocks: 4,
        kept: 3,
        aged: 3,
        oldest_ns: 20 * SECOND,
        lifetime_ns: 1,
    };
    let mut sites: Vec<_> = (1..=13).map(|key| one(key).site(at(key))).collect();
    sites.push(Planted { kept: 0, ..one(14) }.site(at(14)));
    let target = report(target(sites)).targets.remove(0);
    assert_eq!(target.sites.len(), 10);
    assert_eq!(target.omitted, Omitted { sites: 3, bytes: 72, blocks: 9 });
    assert_eq!(target.outstanding, Outstanding { bytes: 312, blocks: 39, estimated: false });
}

/// Check that numbers at their limits neither overflow nor divide by zero.
#[test]
fn extreme_numbers() {
    let mut site = Planted {
        key: 1,
        size: 1,
        blocks: 1,
        kept: 1,
        aged: 1,
        oldest_ns: u64::MAX,
        lifetime_ns: 1,
    }
    .site(at(1));
    site.site.allocated_bytes = u64::MAX;
    site.site.allocated_blocks = u64::MAX;
    site.site.lifetimes = [u64::MAX; site::LIFETIME_BUCKETS];
    let mut other = site.clone();
    other.key = 2;
    let mut target = target(Vec::new());
    target.sites = vec![site, other];
    (target.duration_ns, target.filling_ns) = (0, 0);
    target.counters.counts = [u64::MAX; leakd_common::target::COUNTERS];
    let report = report(target);
    assert_eq!(report.targets[0].sites[0].outstanding_bytes, u64::MAX);
    assert_eq!(report.targets[0].sites[0].growth_bytes_per_second, 0.0);
    let text = crate::report::text::render(&report, &Default::default());
    assert!(text.contains("LOST"), "{text}");
}
