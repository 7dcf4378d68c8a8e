//! The kernel's own memory over time: totals and slab caches.
//!
//! | file | concern |
//! |---|---|
//! | [`meminfo`] | totals, from /proc/meminfo: read at each look |
//! | [`slabinfo`] | caches, from /proc/slabinfo: read seldom |
//! | [`suspect`] | what of it to look at |
//! | [`allocinfo`] | what the kernel knows of its call sites, if it was built to |
//! | [`kmemleak`] | what kmemleak has found, likewise |
//!
//! The last two are nothing that is watched: `leakctl kernel` shows them beside
//! what leakd has found.

pub mod allocinfo;
pub mod kmemleak;
pub mod meminfo;
pub mod slabinfo;
mod source;
mod suspect;

use std::collections::HashMap;
use std::time::Duration;

use super::growth::{Judge, Judgement, Trend};
use super::history::History;
use meminfo::{Total, Totals};
use slabinfo::Cache;
use source::Source;
pub use suspect::{Part, Suspect};

/// Seconds between two looks at the caches, at least: the kernel takes a lock
/// of each, and walks a list under it.
const CACHES_EVERY: f64 = 30.0;
/// The share of a CPU that looks at the caches may take.
const CACHES_SHARE: f64 = 0.0005;
/// Smaller caches have no history: what leaks becomes larger.
const LEAST_CACHE_BYTES: u64 = 256 << 10;
/// Caches that have a history, the largest first.
const MOST_CACHES: usize = 512;
/// Less growth within a span is none.
const LEAST_GROWTH_BYTES: f64 = (1 << 20) as f64;

/// A series of the kernel's memory, and what it does.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// What was read last, in bytes.
    pub bytes: u64,
    /// What it was over time.
    pub history: History,
    /// What it does.
    pub judgement: Judgement,
}

impl Series {
    fn record(&mut self, now: f64, bytes: u64, judge: &Judge) {
        self.bytes = bytes;
        self.history.push(now, bytes);
        self.judgement = judge.judge(&self.history);
    }
}

/// What grows: a total or a cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Growing {
    /// Its name, in /proc/meminfo or /proc/slabinfo.
    pub name: String,
    /// Whether it is a slab cache.
    pub is_cache: bool,
    /// Whether the kernel takes it back when memory is short: growth of such a
    /// cache alone is no leak.
    pub is_reclaimable: bool,
    /// What it takes, in bytes.
    pub bytes: u64,
    /// How it grows.
    pub judgement: Judgement,
}

/// The kernel's memory over time.
#[derive(Debug)]
pub struct KernelWatch {
    judge: Judge,
    meminfo: Source,
    slabinfo: Source,
    totals: HashMap<Total, Series>,
    caches: HashMap<String, Series>,
    /// When the caches are looked at next, in seconds.
    next_caches: f64,
    /// Caches that there was no room for.
    left_out: usize,
}

impl KernelWatch {
    /// `least_slope` in bytes a second: slower growth is none.
    pub fn new(least_slope: f64) -> Self {
        Self {
            judge: judge(least_slope),
            meminfo: Source::new("/proc/meminfo", meminfo::MOST_BYTES),
            slabinfo: Source::new("/proc/slabinfo", slabinfo::MOST_BYTES),
            totals: HashMap::new(),
            caches: HashMap::new(),
            next_caches: 0.0,
            left_out: 0,
        }
    }

    /// Other settings, from the next look on.
    pub fn configure(&mut self, least_slope: f64) {
        self.judge = judge(least_slope);
    }

    /// Looks at what is due; `now` in seconds on the clock of the histories.
    pub fn look(&mut self, now: f64) {
        if let Some(totals) = self.meminfo.read().map(meminfo::parse) {
            self.record_totals(now, totals);
        }
        if now < self.next_caches {
            return;
        }
        let began = super::thread_time();
        let caches = self.slabinfo.read().map(|text| slabinfo::parse(text, slabinfo::page_bytes()));
        if let Some(caches) = caches {
            self.record_caches(now, caches);
        }
        let took: Duration = super::thread_time().saturating_sub(began);
        self.next_caches = now + CACHES_EVERY.max(took.as_secs_f64() / CACHES_SHARE);
    }

    fn record_totals(&mut self, now: f64, totals: Totals) {
        for (total, bytes) in totals.iter() {
            self.totals.entry(total).or_default().record(now, bytes, &self.judge);
        }
    }

    fn record_caches(&mut self, now: f64, mut caches: Vec<Cache>) {
        caches.retain(|cache| cache.bytes >= LEAST_CACHE_BYTES);
        caches.sort_by_key(|cache| std::cmp::Reverse(cache.bytes));
        self.left_out = caches.len().saturating_sub(MOST_CACHES);
        caches.truncate(MOST_CACHES);
        let mut there = HashMap::with_capacity(caches.len());
        for Cache { name, bytes } in caches {
            let mut series = self.caches.remove(&name).unwrap_or_default();
            series.record(now, bytes, &self.judge);
            there.insert(name, series);
        }
        // What is not there any more is gone, or too small to matter.
        self.caches = there;
    }

    /// What was read last of a total, in bytes; `None`: this kernel has none.
    pub fn total(&self, total: Total) -> Option<u64> {
        self.totals.get(&total).map(|series| series.bytes)
    }

    /// Caches that are watched.
    pub fn caches(&self) -> usize {
        self.caches.len()
    }

    /// Caches of at least 256 KiB that there was no room to watch.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Why there are no caches.
    pub fn caches_error(&self) -> Option<&str> {
        self.slabinfo.error()
    }

    /// What grows, the fastest first.
    pub fn growing(&self) -> Vec<Growing> {
        let grows = |series: &&Series| series.judgement.trend == Trend::Growing;
        let totals = self.totals.iter().map(|(total, series)| {
            (total.name().to_owned(), false, total.is_reclaimable(), series)
        });
        let caches = self.caches.iter().map(|(name, series)| (name.clone(), true, false, series));
        let mut growing: Vec<Growing> = totals
            .chain(caches)
            .filter(|(.., series)| grows(series))
            .map(|(name, is_cache, is_reclaimable, series)| Growing {
                is_reclaimable: is_reclaimable || (is_cache && slabinfo::is_reclaimable(&name)),
                name,
                is_cache,
                bytes: series.bytes,
                judgement: series.judgement,
            })
            .collect();
        growing.sort_by(|one, other| {
            let slopes = other.judgement.slope.total_cmp(&one.judgement.slope);
            slopes.then_with(|| one.name.cmp(&other.name))
        });
        growing
    }
}

fn judge(least_slope: f64) -> Judge {
    Judge { least_slope, least_growth: LEAST_GROWTH_BYTES, startup: Duration::ZERO }
}

#[cfg(test)]
mod tests;
