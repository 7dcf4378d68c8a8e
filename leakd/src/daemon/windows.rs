//! What speaks for a leak where the governor lets probes in for a second at a
//! time only.
//!
//! Tables are kept from window to window. A block that was recorded in one and
//! has not been seen to end since may be there still, or may have been freed
//! while no probe was in. Its end is *seen* if it falls into a window, or if its
//! address is handed out again in one. Windows come at irregular times (see
//! [`crate::governor::Controller`]), so ends fall into them by as large a share
//! as they are open, whatever the program's own rhythm: `ended / share`
//! estimates how many have ended, and where the ends are seen by reuse of the
//! address, it is too large, which speaks against a leak.
//!
//! Blocks that were young when their window closed count for nothing: they may
//! have been in flight.
//!
//! A site is told if by that estimate, with its error, at least half of what it took is there
//! still, and one of two more holds:
//!
//! * All such sites together took no more than the process has grown by in the
//!   same time, as the watch has it: then there is nothing else that the
//!   process grew by.
//! * There were so many windows that the ends could not have been missed.
//!
//! Otherwise nothing is said: it is undetermined.

use std::collections::HashMap;

use leakd_common::site::Site;

use crate::engine::snapshot::SiteBlocks;
use crate::verdict::sites::{Grower, TOLD};

/// Windows that must have told the same.
const WINDOWS: usize = 5;
/// Windows that are remembered; then all begins anew.
const MOST_WINDOWS: usize = 4096;
/// Blocks that must have outlived their windows.
const BLOCKS: f64 = 20.0;
/// What sites took may be so many times what the process grew by: a second in
/// a minute is a sample.
const EXPLAINED: f64 = 2.0;
/// The share of ends that are seen, at worst, of that of the time that windows
/// are open: an end within a second after its window is seen less often.
const SEEN: f64 = 0.5;
/// Standard deviations of a Poisson count: one wrong in a thousand ...
const SIGMAS: f64 = 3.3;
/// ... and one in forty.
const LIKELY: f64 = 2.0;

/// A window: blocks born in its first part were old enough at its end.
#[derive(Clone, Copy, Debug)]
struct Window {
    begin_ns: u64,
    /// The end of the first part.
    settled_ns: u64,
    end_ns: u64,
}

/// What became of a site's blocks that had outlived their windows.
#[derive(Clone, Copy, Debug, Default)]
struct Survivors {
    /// All of them.
    blocks: u64,
    /// Those whose end was not seen.
    left: u64,
    /// Windows that they came from.
    windows: usize,
}

/// The windows of a target, since its tables were last empty.
#[derive(Clone, Debug, Default)]
pub struct WindowHistory {
    windows: Vec<Window>,
    sites: HashMap<u64, Survivors>,
}

impl WindowHistory {
    /// Adds a window that ends now: what its tables hold. Times are those of
    /// births, CLOCK_MONOTONIC in nanoseconds.
    pub fn push(&mut self, begin_ns: u64, end_ns: u64, held: &HashMap<u64, SiteBlocks>) {
        let settled_ns = begin_ns + end_ns.saturating_sub(begin_ns) / 2;
        self.windows.push(Window { begin_ns, settled_ns, end_ns });
        for survivors in self.sites.values_mut() {
            survivors.left = 0;
        }
        for (site, blocks) in held {
            let (mut fresh, mut left) = (0, 0);
            for birth in &blocks.births {
                let after = self.windows.partition_point(|window| window.begin_ns <= *birth);
                let Some(window) = self.windows[..after].last() else { continue };
                if *birth <= window.settled_ns {
                    left += 1;
                    fresh += u64::from(window.begin_ns == begin_ns);
                }
            }
            if left > 0 {
                let survivors = self.sites.entry(*site).or_default();
                survivors.left = left;
                survivors.blocks += fresh;
                survivors.windows += usize::from(fresh > 0);
            }
        }
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.windows.len() >= MOST_WINDOWS
    }

    /// Seconds from the first window's begin to the last one's end.
    pub fn span(&self) -> f64 {
        match (self.windows.first(), self.windows.last()) {
            (Some(first), Some(last)) => (last.end_ns - first.begin_ns) as f64 / 1e9,
            _ => 0.0,
        }
    }

    /// The share of the time that windows were open.
    fn open_share(&self) -> f64 {
        let open: u64 = self.windows.iter().map(|window| window.end_ns - window.begin_ns).sum();
        open as f64 / 1e9 / self.span().max(1e-3)
    }

    /// The sites that grow, most growth first. `growth`: that of the process, in
    /// bytes a second, if the watch sees any.
    pub fn growers(
        &self,
        totals: &HashMap<u64, Site>,
        least_slope: f64,
        growth: Option<f64>,
    ) -> Vec<Grower> {
        if self.windows.len() < WINDOWS {
            return Vec::new();
        }
        let share = self.open_share();
        let settled: u64 =
            self.windows.iter().map(|window| window.settled_ns - window.begin_ns).sum();
        let seconds = (settled as f64 / 1e9).max(1e-3);
        let mut growers = Vec::new();
        let mut sure = Vec::new();
        for (key, survivors) in &self.sites {
            let Some(totals) = totals.get(key) else { continue };
            let taken = survivors.blocks as f64;
            let ended = taken - survivors.left as f64;
            let there = taken - ended / share.max(1e-6);
            // Blocks of one window may all end at once, and so count as one.
            let windows = survivors.windows as f64;
            let seen = windows * ended / taken.max(1.0);
            let gone = (seen + LIKELY * seen.sqrt()) / share.max(1e-6);
            if survivors.windows < WINDOWS || taken < BLOCKS || gone > windows / 2.0 {
                continue;
            }
            let bytes = totals.outstanding_bytes() as f64;
            let mean = bytes / totals.outstanding_blocks().max(1) as f64;
            let slope = there * mean / seconds;
            if slope < least_slope {
                continue;
            }
            // Had half of them ended, so many windows' ends would have been seen.
            let expected = windows / 2.0 * share * SEEN;
            sure.push(expected - SIGMAS * expected.sqrt() > seen);
            growers.push(Grower { site: *key, totals: *totals, slope });
        }
        let together: f64 = growers.iter().map(|grower| grower.slope).sum();
        let explained = growth.is_some_and(|growth| together <= growth * EXPLAINED);
        let mut sure = sure.into_iter();
        growers.retain(|_| sure.next() == Some(true) || explained);
        growers.sort_by(|one, other| other.slope.total_cmp(&one.slope));
        growers.truncate(TOLD);
        growers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const SIZE: u64 = 1024;

    /// A site that takes so many blocks a second, each of which lives for a
    /// time that depends on its number.
    struct Program {
        rate: u64,
        lifetime_ns: Box<dyn Fn(u64) -> u64>,
    }

    /// What the tables show of programs over `windows` windows of a second.
    fn watch(windows: u64, sites: &[Program]) -> (WindowHistory, HashMap<u64, Site>) {
        let mut history = WindowHistory::default();
        let mut gaps = crate::governor::gaps::Gaps::default();
        let mut recorded: Vec<(u64, u64, u64)> = Vec::new();
        let mut now = 1000 * SECOND;
        for number in 0..windows {
            let (begin, end) = (now, now + SECOND);
            for (site, program) in (0u64..).zip(sites) {
                recorded.extend((0..program.rate).map(|index| {
                    let birth = begin + index * SECOND / program.rate;
                    let lifetime = (program.lifetime_ns)(number * program.rate + index);
                    (site, birth, birth.saturating_add(lifetime))
                }));
            }
            // Ends are seen while a window is open.
            recorded.retain(|(_, _, end_ns)| !(begin..end).contains(end_ns));
            let mut held: HashMap<u64, SiteBlocks> = HashMap::new();
            for (site, birth, _) in &recorded {
                held.entry(*site).or_default().births.push(*birth);
            }
            history.push(begin, end, &held);
            let gap = (gaps.draw() * 15.0).max(1.0);
            now = end + (gap * SECOND as f64) as u64;
        }
        let total = |site: u64| Site {
            allocated_blocks: recorded.iter().filter(|one| one.0 == site).count() as u64,
            allocated_bytes: recorded.iter().filter(|one| one.0 == site).count() as u64 * SIZE,
            ..Site::EMPTY
        };
        let totals = (0..sites.len() as u64).map(|site| (site, total(site))).collect();
        (history, totals)
    }

    fn program(rate: u64, lifetime_ns: impl Fn(u64) -> u64 + 'static) -> Program {
        Program { rate, lifetime_ns: Box::new(lifetime_ns) }
    }

    fn told(found: &[Grower]) -> Vec<u64> {
        found.iter().map(|grower| grower.site).collect()
    }

    /// Check that a leak beside traffic is told with its rate, where it is what
    /// the process has grown by.
    #[test]
    fn a_leak_explains_the_growth() {
        let sites = [program(20, |_| u64::MAX), program(5000, |number| 1_000_000 + number % 7)];
        let (history, totals) = watch(6, &sites);
        let leak = 20.0 * SIZE as f64;
        let found = history.growers(&totals, 1000.0, Some(leak));
        assert_eq!(told(&found), [0]);
        assert!((found[0].slope / leak - 1.0).abs() < 0.15, "{found:?}");
        // A process that does not grow, or slower by far, proves nothing yet.
        assert!(history.growers(&totals, 1000.0, None).is_empty());
        assert!(history.growers(&totals, 1000.0, Some(leak / 4.0)).is_empty());
        assert!(watch(4, &sites).0.growers(&totals, 1000.0, Some(leak)).is_empty(), "too few");
    }

    /// Check that blocks which live for seconds to minutes and then end are not
    /// told, even where each of them outlives its window and the process grows
    /// by as much elsewhere.
    #[test]
    fn what_ends_later_is_no_leak() {
        for seconds in [2, 5, 11, 30, 60] {
            let sites = [program(200, move |number| seconds * SECOND + number % 200 * 1000)];
            let (history, totals) = watch(100, &sites);
            let found = history.growers(&totals, 1000.0, Some(200.0 * SIZE as f64));
            assert!(found.is_empty(), "{seconds} s: {found:?}");
            assert!(history.growers(&totals, 1000.0, None).is_empty(), "{seconds} s");
        }
    }

    /// Check that blocks of many windows of which none is ever seen to end are told,
    /// whatever the process does: it may have had free memory to fill.
    #[test]
    fn many_that_stay_are_told() {
        let (history, totals) = watch(1000, &[program(20, |_| u64::MAX)]);
        assert_eq!(told(&history.growers(&totals, 1000.0, None)), [0]);
        let (history, totals) = watch(50, &[program(2000, |_| u64::MAX)]);
        assert!(history.growers(&totals, 1000.0, None).is_empty(), "too few windows");
    }

    /// Check that blocks in flight at the end of a window do not count.
    #[test]
    fn in_flight() {
        let (history, totals) = watch(10, &[program(5000, |_| SECOND / 5)]);
        assert!(history.growers(&totals, 0.0, Some(1e12)).is_empty());
    }

    /// Check that a site of which a part leaks is told if it is most of it, and
    /// not if it is little.
    #[test]
    fn parts() {
        let part = |leaking: u64| {
            program(100, move |number| if number % 10 < leaking { u64::MAX } else { 3 * SECOND })
        };
        let told_of = |leaking| {
            let (history, totals) = watch(100, &[part(leaking)]);
            told(&history.growers(&totals, 1000.0, Some(100.0 * SIZE as f64)))
        };
        assert_eq!(told_of(9), [0]);
        assert!(told_of(1).is_empty());
    }
}
