//! Call sites that leak, as a daemon learns it while a trace goes on.

use std::collections::HashMap;

use leakd_common::site::{OVERFLOW_SITE, Site};
use leakd_common::target::Counter;

use super::view::lost;
use crate::engine::target::{SeenFrom, Target, TargetLook};
use crate::verdict::Verdict;
use crate::verdict::births::Births;
use crate::verdict::judge::{Opinion, ProcessFacts, SiteFacts, judge};
use crate::verdict::sites::{Grower, SiteHistories, TOLD};

/// Seconds between two looks at a target's blocks: each takes a quarter of a
/// microsecond for each block.
const BETWEEN: f64 = 30.0;

/// The leaks of one target, as of the last look at its blocks.
#[derive(Clone, Debug, Default)]
pub struct Leaks {
    found: HashMap<u64, Opinion>,
    looked: Option<f64>,
}

impl Leaks {
    /// Whether it is time to look at blocks.
    pub fn are_due(&self, now: f64) -> bool {
        self.looked.is_none_or(|looked| now - looked >= BETWEEN)
    }

    /// Judges all sites, if the look has their blocks; keeps the leaks.
    pub fn judge(
        &mut self,
        now: f64,
        target: &Target,
        look: &TargetLook,
        history: &SiteHistories,
        least_slope: f64,
    ) {
        let Some(blocks) = &look.blocks else { return };
        self.looked = Some(now);
        self.found.clear();
        let process = facts(target, look, history);
        for (key, blocks) in blocks {
            let Some(totals) = look.sites.get(key) else { continue };
            let births = Births::of(blocks.births.iter().copied(), target.began_ns(), look.now_ns);
            let site = SiteFacts {
                totals,
                births: Some(&births),
                growth: history.site(*key),
                is_one_stack: *key != OVERFLOW_SITE && target.stack(*key).is_some(),
                freed_unseen: 0,
            };
            let opinion = judge(&site, &process);
            let slope = opinion.rate.map_or(0.0, |rate| rate.bytes_per_second);
            // A leak may be spread over some sites.
            if opinion.verdict == Verdict::Leak && slope >= least_slope / 8.0 {
                self.found.insert(*key, opinion);
            }
        }
    }

    /// What is held of a site, if it leaks.
    pub fn of(&self, site: u64) -> Option<&Opinion> {
        self.found.get(&site)
    }

    /// Puts leaks in front of what only grows.
    pub fn put_first(&self, growers: &mut Vec<Grower>, totals: &HashMap<u64, Site>) {
        growers.retain(|grower| !self.found.contains_key(&grower.site));
        let mut all: Vec<Grower> = self
            .found
            .iter()
            .filter_map(|(site, opinion)| {
                let slope = opinion.rate?.bytes_per_second;
                Some(Grower { site: *site, totals: *totals.get(site)?, slope })
            })
            .collect();
        all.sort_by(|one, other| other.slope.total_cmp(&one.slope));
        all.append(growers);
        all.truncate(TOLD);
        *growers = all;
    }
}

fn facts(target: &Target, look: &TargetLook, history: &SiteHistories) -> ProcessFacts {
    let span_ns = look.now_ns.saturating_sub(target.began_ns());
    let allocations = look.counters.allocations().max(1);
    let unknown = look.counters.get(Counter::UnknownFrees) as f64;
    ProcessFacts {
        span_ns,
        from_start: target.seen_from() == SeenFrom::Start,
        windows: target.windows().count(),
        lost_share: lost(&look.counters) as f64 / allocations as f64,
        sampled: target.sample_bytes() > 0,
        replaced_per_second: history
            .replaced_per_second()
            .unwrap_or(unknown * 1e9 / span_ns.max(1) as f64),
        memory: history.memory(),
    }
}
