//! Programs in numbers: each is played through, and judged.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::verdict::sites::{Keep, SiteHistories};

const SECOND: u64 = 1_000_000_000;
const SIZE: u64 = 1000;

/// What a program does with one call site: births in seconds, and when each block ends.
struct Play {
    blocks: Vec<(f64, f64)>,
    span: f64,
    replaced: f64,
    memory: Option<f64>,
    from_start: bool,
}

impl Play {
    /// `rate` blocks a second for `span` seconds; `ends` says how long the block lives
    /// that is born at this time, by its number.
    fn new(rate: f64, span: f64, lives: impl Fn(f64, u64) -> f64) -> Self {
        let count = (rate * span) as u64;
        let birth = |number: u64| (number as f64 + 0.5) / rate;
        let blocks =
            (0..count).map(|number| (birth(number), birth(number) + lives(birth(number), number)));
        Self { blocks: blocks.collect(), span, replaced: 0.0, memory: None, from_start: false }
    }

    /// Without those blocks.
    fn without(mut self, unwanted: impl Fn(f64) -> bool) -> Self {
        self.blocks.retain(|(birth, _)| !unwanted(*birth));
        self
    }

    fn totals(&self, now: f64) -> Site {
        let mut site = Site::EMPTY;
        for (birth, end) in self.blocks.iter().filter(|(birth, _)| *birth <= now) {
            site.allocated_blocks += 1;
            site.allocated_bytes += SIZE;
            if *end <= now {
                site.freed_blocks += 1;
                site.freed_bytes += SIZE;
                site.lifetimes[Site::bucket(((end - birth) * SECOND as f64) as u64)] += 1;
            }
        }
        site
    }

    fn judge(&self) -> Opinion {
        let mut histories = SiteHistories::new(Keep::Whole);
        let mut now = 0.0;
        while now <= self.span {
            histories.push(now, &HashMap::from([(1, self.totals(now))]));
            let memory = self.memory.map(|slope| (slope * now) as u64);
            histories.push_process(now, memory, (self.replaced * now) as u64);
            now += 1.0;
        }
        let span_ns = (self.span * SECOND as f64) as u64;
        let there =
            self.blocks.iter().filter(|(birth, end)| *birth <= self.span && *end > self.span);
        let births = Births::of(there.map(|one| (one.0 * SECOND as f64) as u64), 0, span_ns);
        let totals = self.totals(self.span);
        let site = SiteFacts {
            totals: &totals,
            births: Some(&births),
            growth: histories.site(1),
            is_one_stack: true,
            freed_unseen: 0,
        };
        judge(
            &site,
            &ProcessFacts {
                replaced_per_second: histories.replaced_per_second().unwrap_or(0.0),
                memory: histories.memory(),
                from_start: self.from_start,
                ..process(span_ns)
            },
        )
    }
}

fn process(span_ns: u64) -> ProcessFacts {
    ProcessFacts {
        span_ns,
        from_start: false,
        windows: 1,
        lost_share: 0.0,
        sampled: false,
        replaced_per_second: 0.0,
        memory: None,
    }
}

const NEVER: f64 = 1e9;

/// A number that looks random, 0 to 1.
fn random(number: u64) -> f64 {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 24)
}

/// Check that leaks of many kinds are told as such, after two minutes.
#[test]
fn leaks() {
    let leaks = [
        ("all", Play::new(20.0, 120.0, |_, _| NEVER)),
        ("slowly", Play::new(0.25, 120.0, |_, _| NEVER)),
        (
            "one in a hundred",
            Play::new(100.0, 120.0, |_, n| if n % 100 == 7 { NEVER } else { 0.01 }),
        ),
        (
            "one in a thousand",
            Play::new(400.0, 120.0, |_, n| if n % 1000 == 7 { NEVER } else { 0.001 }),
        ),
        (
            "of sessions",
            Play::new(10.0, 120.0, |_, n| if n % 5 == 0 { NEVER } else { 5.0 + random(n) * 20.0 }),
        ),
        ("in lumps", Play::new(40.0, 120.0, |_, _| NEVER).without(|birth| birth % 15.0 > 1.0)),
        ("after a table", {
            let mut play = Play::new(2.0, 120.0, |_, _| NEVER);
            play.blocks.extend((0..5000).map(|number| (f64::from(number) / 1000.0, NEVER)));
            play
        }),
        (
            "beside waves",
            Play::new(30.0, 120.0, |birth, n| if n % 3 == 0 { NEVER } else { 15.0 - birth % 15.0 }),
        ),
    ];
    for (name, play) in leaks {
        let opinion = play.judge();
        assert_eq!(opinion.verdict, Verdict::Leak, "{name}: {}", opinion.evidence);
        assert!(opinion.confidence.is_some() && opinion.rate.is_some(), "{name}");
    }
}

/// Check that programs which do not leak are not told as such, and as what they are.
#[test]
fn others() {
    use Verdict::{CacheLike, Growing, Stable, Undetermined, WarmUp};
    let after = |limit: f64| move |birth: f64| birth > limit;
    let cases: [(&str, Play, &[Verdict]); 17] = [
        ("traffic", Play::new(200.0, 120.0, |_, n| random(n) * 0.3), &[Stable]),
        ("cache of 20 s", Play::new(50.0, 120.0, |_, _| 20.0), &[CacheLike]),
        ("cache of 70 s", Play::new(20.0, 120.0, |_, _| 70.0), &[CacheLike, WarmUp, Growing]),
        ("cache of 100 s", Play::new(20.0, 120.0, |_, _| 100.0), &[WarmUp, Growing]),
        ("sessions", Play::new(20.0, 120.0, |_, n| 30.0 * random(n)), &[CacheLike, Stable]),
        (
            "long sessions",
            Play::new(20.0, 120.0, |_, n| -600.0 * (1.0 - random(n)).ln()),
            &[Growing, WarmUp],
        ),
        (
            "mean sessions",
            Play::new(20.0, 120.0, |_, n| -30.0 * (1.0 - random(n)).ln()),
            &[CacheLike, WarmUp],
        ),
        ("start-up", Play::new(100.0, 120.0, |_, _| NEVER).without(after(10.0)), &[WarmUp]),
        ("slow start-up", Play::new(20.0, 120.0, |_, _| NEVER).without(after(40.0)), &[WarmUp]),
        (
            "one step",
            Play::new(1000.0, 120.0, |_, _| NEVER).without(|b| !(60.0..61.0).contains(&b)),
            &[Stable, Undetermined],
        ),
        ("batches", Play::new(100.0, 110.0, |birth, _| 20.0 - birth % 20.0), &[CacheLike, Stable]),
        ("double buffer", Play::new(100.0, 120.0, |birth, _| 40.0 - birth % 20.0), &[CacheLike]),
        (
            "Zipf",
            Play::new(50.0, 120.0, |birth, n| {
                if n % 10 == 0 && birth < 15.0 { NEVER } else { 10.0 + 5.0 * random(n) }
            }),
            &[CacheLike, Stable],
        ),
        (
            "fading",
            Play::new(100.0, 120.0, |_, _| NEVER)
                .without(|b| random((b * 1000.0) as u64) > (-b / 40.0).exp()),
            &[WarmUp],
        ),
        ("few", Play::new(0.1, 120.0, |_, _| NEVER), &[Undetermined]),
        (
            "heavy tail",
            Play::new(200.0, 120.0, |_, n| 0.01 / (1.0 - random(n))),
            &[Stable, Undetermined, CacheLike],
        ),
        ("short", Play::new(20.0, 40.0, |_, _| NEVER), &[Growing]),
    ];
    for (name, play, expected) in cases {
        let opinion = play.judge();
        assert!(expected.contains(&opinion.verdict), "{name}: {opinion:?}");
    }
}

/// Check what held-out programs have taught: entries whose time has just come, a queue
/// and a buffer that grow, and a leak under a load that goes down a little.
#[test]
fn learnt_from_the_held_out() {
    use Verdict::{CacheLike, Leak, Stable, WarmUp};
    let due = Play::new(40.0, 120.0, |_, _| 118.0).judge();
    assert_ne!(due.verdict, Leak, "{due:?}");
    let queue = Play::new(40.0, 120.0, |birth, _| birth).judge();
    assert!(![Leak, CacheLike, WarmUp, Stable].contains(&queue.verdict), "{queue:?}");
    let calmer = Play::new(40.0, 120.0, |_, _| NEVER);
    let calmer =
        calmer.without(|birth| birth > 60.0 && ((birth * 40.0) as u64).is_multiple_of(4)).judge();
    assert_eq!(calmer.verdict, Leak, "{calmer:?}");
}

/// Check that a cache which was full at the attach is not told as a leak, unless the
/// process grows by as much, or was watched from its start.
#[test]
fn full_at_the_attach() {
    let cache = || Play { replaced: 20.0, ..Play::new(20.0, 120.0, |_, _| NEVER) };
    assert_eq!(cache().judge().verdict, Verdict::Undetermined);
    let flat = Play { memory: Some(100.0), ..cache() };
    assert_eq!(flat.judge().verdict, Verdict::Undetermined);
    let grows = Play { memory: Some(20_000.0), ..cache() };
    assert_eq!(grows.judge().verdict, Verdict::Leak);
    let whole = Play { from_start: true, ..cache() };
    assert_eq!(whole.judge().verdict, Verdict::Leak);
}

/// Check that a leak is withheld, with the reason, where too little was seen.
#[test]
fn withheld() {
    let totals = Site { allocated_blocks: 2000, allocated_bytes: 2000 * SIZE, ..Site::EMPTY };
    let span_ns = 120 * SECOND;
    let births = Births::of((0..2000).map(|number| number * span_ns / 2000), 0, span_ns);
    let site = SiteFacts {
        totals: &totals,
        births: Some(&births),
        growth: None,
        is_one_stack: true,
        freed_unseen: 0,
    };
    let plain = process(span_ns);
    assert_eq!(judge(&site, &plain).verdict, Verdict::Leak);
    assert_eq!(judge(&site, &plain).confidence, Some(Confidence::Medium));
    for (site, process, reason) in [
        (site, ProcessFacts { windows: 3, ..plain }, "a part of the time"),
        (site, ProcessFacts { lost_share: 0.2, ..plain }, "20.0 % of the process's"),
        (site, ProcessFacts { sampled: true, ..plain }, "samples alone"),
        (site, ProcessFacts { span_ns: 5 * SECOND, ..plain }, "watched for 5 s only"),
        (SiteFacts { is_one_stack: false, ..site }, plain, "several"),
        (SiteFacts { freed_unseen: 3, ..site }, plain, "freed unseen"),
        (SiteFacts { births: None, ..site }, plain, "not known"),
    ] {
        let opinion = judge(&site, &process);
        assert_eq!(opinion.verdict, Verdict::Undetermined, "{reason}");
        assert!(opinion.evidence.contains(reason), "{}", opinion.evidence);
        assert_eq!(opinion.confidence, None);
    }
    let lossy = ProcessFacts { lost_share: 0.05, ..plain };
    assert_eq!(judge(&site, &lossy).confidence, Some(Confidence::Low));
}

/// Check the line of evidence of a leak, and of a leak beside others.
#[test]
fn evidence() {
    let leak = Play::new(20.0, 120.0, |_, _| NEVER).judge();
    assert_eq!(leak.confidence, Some(Confidence::Medium));
    assert!(leak.evidence.starts_with("2,320 of 2,320 blocks older than 2.1 s"), "{leak:?}");
    assert!(leak.evidence.contains("grows by 1.14 MiB/min"), "{}", leak.evidence);
    let beside = Play::new(100.0, 120.0, |_, n| if n % 100 == 7 { NEVER } else { 0.01 }).judge();
    assert_eq!(beside.confidence, Some(Confidence::High));
    assert!(beside.evidence.contains("younger ones were"), "{}", beside.evidence);
    let rate = beside.rate.unwrap();
    assert!(rate.low <= 1000.0 && 1000.0 <= rate.high, "{rate:?}");
}

/// Check that the process's verdict is that of its worst site, and that growth which
/// no site explains is told.
#[test]
fn of_a_process() {
    let leak = Play::new(20.0, 120.0, |_, _| NEVER).judge();
    let calm = Play::new(50.0, 120.0, |_, _| 20.0).judge();
    let quiet = process(120 * SECOND);
    let of =
        |sites: &[&Opinion], process: &ProcessFacts| judge_process(sites.iter().copied(), process);
    assert_eq!(of(&[&calm, &leak], &quiet).verdict, Verdict::Leak);
    assert!(of(&[&calm, &leak], &quiet).evidence.starts_with("1 call site leaks"));
    assert_eq!(of(&[&calm], &quiet).verdict, Verdict::Stable);
    assert_eq!(of(&[], &quiet).verdict, Verdict::Stable);
    let mut histories = SiteHistories::default();
    for second in 0..100u64 {
        histories.push_process(second as f64, Some(second << 20), 0);
    }
    let growing = ProcessFacts { memory: histories.memory(), ..quiet };
    assert_eq!(of(&[&calm], &growing).verdict, Verdict::Growing);
    assert!(of(&[&calm], &growing).evidence.contains("no call site does"));
    let open = Opinion { evidence: "watched for 3 s only".to_owned(), ..Opinion::default() };
    let grows = of(&[&calm, &open], &growing);
    assert_eq!(grows.verdict, Verdict::Growing);
    assert!(grows.evidence.contains("cannot be told yet: watched for 3 s"), "{grows:?}");
    assert_eq!(of(&[&open], &quiet).verdict, Verdict::Undetermined);
    assert_eq!(of(&[&open], &quiet).evidence, open.evidence);
}

proptest! {
    /// Check that whatever the numbers, there is a verdict with its reason and no
    /// control characters, and a leak only with a confidence.
    #[test]
    fn always_a_reason(
        lifetimes in prop::collection::vec((0u64..1 << 50, any::<u32>()), 0..8),
        outstanding in any::<u32>(),
        births in prop::collection::vec(any::<u64>(), 0..200),
        span in any::<u64>(),
        sampled in any::<bool>(),
    ) {
        let mut totals = Site::EMPTY;
        for (lifetime, blocks) in lifetimes {
            totals.lifetimes[Site::bucket(lifetime)] += u64::from(blocks);
            totals.freed_blocks += u64::from(blocks);
        }
        totals.allocated_blocks = totals.freed_blocks + u64::from(outstanding);
        totals.allocated_bytes = totals.allocated_blocks * SIZE;
        let births = Births::of(births, 0, span);
        let site = SiteFacts {
            totals: &totals,
            births: Some(&births),
            growth: None,
            is_one_stack: true,
            freed_unseen: 0,
        };
        let opinion = judge(&site, &ProcessFacts { sampled, ..process(span) });
        prop_assert!(!opinion.evidence.is_empty());
        prop_assert!(!opinion.evidence.contains(char::is_control));
        prop_assert_eq!(opinion.confidence.is_some(), opinion.verdict == Verdict::Leak);
        if let Some(rate) = opinion.rate {
            prop_assert!(rate.low <= rate.bytes_per_second && rate.bytes_per_second <= rate.high);
        }
    }

    /// Check that blocks which all end within a third of the time are never a leak,
    /// however many there are and whatever their rhythm.
    #[test]
    fn what_ends_is_no_leak(
        rate in 0.2f64..40.0,
        life in 0.001f64..40.0,
        jitter in 0.0f64..1.0,
        period in 0.5f64..30.0,
        duty in 0.05f64..1.0,
    ) {
        let play = Play::new(rate, 120.0, |_, n| life * (1.0 - jitter * random(n)))
            .without(|birth| birth % period > duty * period);
        let opinion = play.judge();
        prop_assert_ne!(opinion.verdict, Verdict::Leak, "{}", opinion.evidence);
    }

    /// Check that of blocks that all stay, allocated at a steady pace, a leak is told.
    #[test]
    fn what_stays_is_a_leak(rate in 0.3f64..40.0, span in 61.0f64..300.0) {
        prop_assume!(rate * span > 30.0);
        prop_assert_eq!(Play::new(rate, span, |_, _| NEVER).judge().verdict, Verdict::Leak);
    }
}
