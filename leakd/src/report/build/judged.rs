//! Verdicts, from what the engine saw.

use super::super::input::{SiteSnapshot, TargetSnapshot};
use super::super::model::{Coverage, Judged, SeenFrom, Site, StackEnd};
use super::{Watched, stack_end};
use crate::verdict::judge::{Opinion, ProcessFacts, SiteFacts, judge, judge_process};

/// What verdicts rest on, of the process.
pub(super) fn process_facts(target: &TargetSnapshot, coverage: &Coverage) -> ProcessFacts {
    let seconds = target.duration_ns as f64 / 1e9;
    ProcessFacts {
        span_ns: target.duration_ns,
        // A new program's memory begins at exec: of the old one's, nothing is left.
        from_start: target.seen_from == SeenFrom::Start || target.execs > 0,
        windows: target.windows.count,
        lost_share: coverage.lost_total() as f64 / coverage.allocations.max(1) as f64,
        sampled: target.sample_bytes > 0,
        // Of all of them, if it is not known when they were: more than lately.
        replaced_per_second: target
            .replaced_per_second
            .unwrap_or(coverage.unknown_frees as f64 / seconds.max(1e-3)),
        memory: target.memory_growth,
    }
}

/// The verdict on a call site.
pub(super) fn site_opinion(snapshot: &SiteSnapshot, watched: Watched) -> Opinion {
    let site = SiteFacts {
        totals: &snapshot.site,
        births: snapshot.ages.as_ref().map(|ages| &ages.births),
        growth: snapshot.growth,
        is_one_stack: !matches!(
            stack_end(snapshot),
            StackEnd::SiteTableFull | StackEnd::NotSeen | StackEnd::Stale
        ),
        freed_unseen: snapshot.kernel.as_ref().map_or(0, |kernel| kernel.reused),
    };
    judge(&site, &watched.facts)
}

/// The verdict on a process.
pub(super) fn of_process(sites: &[Site], facts: &ProcessFacts) -> Judged {
    let opinions: Vec<Opinion> = sites.iter().map(|site| site.verdict.clone().into()).collect();
    judge_process(opinions.iter(), facts).into()
}

impl From<Opinion> for Judged {
    fn from(opinion: Opinion) -> Self {
        let Opinion { verdict, confidence, evidence, rate } = opinion;
        Self { word: verdict, confidence, evidence, growth: rate }
    }
}

impl From<Judged> for Opinion {
    fn from(judged: Judged) -> Self {
        let Judged { word, confidence, evidence, growth } = judged;
        Self { verdict: word, confidence, evidence, rate: growth }
    }
}
