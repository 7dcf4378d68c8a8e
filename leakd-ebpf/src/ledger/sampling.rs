//! Which allocations to keep when not all can be.
//!
//! A block is kept with a probability that grows with its size, as in the
//! Poisson sampling by bytes of tcmalloc and jemalloc: p = 1 - exp(-size/R).
//! Here p depends on the size class only (eight classes for each power of
//! two) and is exactly 1/weight for a whole number `weight`, so that a sum
//! of weights is an unbiased estimate with no correction to be made later.

use super::TARGETS;
use aya_ebpf::{btf_maps::Array, helpers::bpf_get_prandom_u32, macros::btf_map};
use leakd_common::target::{SAMPLE_CLASSES, TARGETS as MAX_TARGETS};

/// Weight of each size class of each slot; 0 counts as 1.
#[btf_map]
static SAMPLING: Array<u32, { SAMPLE_CLASSES * MAX_TARGETS }> = Array::new();

/// How many blocks this one is to stand for; 0: leave it out.
#[inline(always)]
pub fn weight(slot: u32, size: u64) -> u32 {
    let Some(config) = TARGETS.get(slot) else { return 0 };
    if config.sampling == 0 {
        return 1;
    }
    let index = slot * SAMPLE_CLASSES as u32 + leakd_common::target::sample_class(size) as u32;
    let Some(&weight) = SAMPLING.get(index) else { return 1 };
    if weight <= 1 {
        return 1;
    }
    // SAFETY: the helper has no preconditions.
    let random = unsafe { bpf_get_prandom_u32() };
    if random <= u32::MAX / weight { weight } else { 0 }
}
