//! Sampling: sums of weights estimate what was allocated, and a free takes
//! back exactly what its block had been counted for.

use leakd::engine::Settings;
use leakd_common::target::Counter;

use super::driver::{Driver, Outcome};
use super::operation::{Kind, Operation, THREADS};
use super::trace::{QUOTA, Trace, faults};

/// Mean bytes between samples.
const INTERVAL: u64 = 512;
/// Blocks of a round; half of them are freed in mid-round.
const BLOCKS: usize = 8000;
const ROUNDS: u64 = 12;
/// ln(2 / p), where p = 1e-11 is the chance that a single correct estimate
/// is taken for a wrong one.
const SURENESS: f64 = 26.0;

/// A sum over blocks, and how far an estimate of it may be off.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    sum: f64,
    variance: f64,
    largest: f64,
}

impl Expected {
    /// A block that adds `value` to the sum if nothing is sampled.
    fn add(&mut self, value: f64, size: u64) {
        // As in Poisson sampling by bytes. The ledger's weights are those of
        // the middle of a size class, rounded: at most 10 % away, or by 1/2.
        let weight = 1.0 / -(-(size as f64) / INTERVAL as f64).exp_m1();
        let others = (weight * 1.1 + 0.5) - 1.0;
        self.sum += value;
        self.variance += value * value * others;
        self.largest = self.largest.max(value * others);
    }

    /// How far off the estimate may be, by Bernstein's inequality.
    fn tolerance(&self) -> f64 {
        let linear = self.largest * SURENESS / 3.0;
        linear + (linear * linear + 2.0 * self.variance * SURENESS).sqrt()
    }

    /// `sharpness`: the share of the truth that the estimate may be off by at
    /// most, or the test would prove little.
    fn check(&self, what: &str, seen: u64, sharpness: f64) {
        let off = (seen as f64 - self.sum).abs();
        let tolerance = self.tolerance();
        let share = tolerance / self.sum;
        assert!(share < sharpness, "{what}: too few blocks, tolerance is {share:.2} of the truth");
        assert!(
            off <= tolerance,
            "{what}: the truth is {}, the estimate {seen}; it may be off by {tolerance:.0}",
            self.sum
        );
    }
}

/// Blocks and bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    blocks: Expected,
    bytes: Expected,
}

impl Sums {
    fn add(&mut self, size: u64) {
        self.blocks.add(1.0, size);
        self.bytes.add(size as f64, size);
    }
}

/// Sizes from 16 bytes to many times the interval, many small, few large, in a
/// fixed but irregular order.
fn size(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let power = 4 + ((mixed >> 60) * (mixed >> 56 & 15)) / 25;
    (1 << power) + (mixed >> 20) % (1 << power)
}

fn allocation(number: u64) -> Operation {
    let kind = [Kind::Malloc, Kind::Calloc, Kind::PosixMemalign, Kind::Realloc, Kind::Malloc]
        [(number % 5) as usize];
    let extra = match kind {
        Kind::Calloc => 1,
        Kind::PosixMemalign => 64,
        _ => 0,
    };
    Operation { extra, ..Operation::new(kind, number % THREADS, size(number)) }
}

/// Check that blocks and bytes, allocated in all and outstanding half-way
/// through each round, are estimated without bias, and that after everything
/// is freed nothing is outstanding: not a block, not a byte.
#[test]
fn estimates_are_unbiased_and_frees_cancel() {
    let mut trace =
        Trace::start(Settings { sample_bytes: INTERVAL, quota: QUOTA, ..Settings::default() });
    let mut driver = Driver::start(&[]);
    let slot = trace.attach(driver.pid());
    let mut allocated = Sums::default();
    for round in 0..ROUNDS {
        let blocks: Vec<Operation> =
            (0..BLOCKS as u64).map(|number| allocation(round * BLOCKS as u64 + number)).collect();
        let outcomes = driver.run(0, &blocks);
        assert!(outcomes.iter().all(|outcome: &Outcome| outcome.live != 0), "out of memory");
        let mut outstanding = Sums::default();
        for (number, block) in blocks.iter().enumerate() {
            allocated.add(block.size);
            if number % 2 == 0 {
                outstanding.add(block.size);
            }
        }
        driver.run(BLOCKS, &(1..BLOCKS).step_by(2).map(Operation::free).collect::<Vec<_>>());

        let look = trace.look(slot);
        let mut seen = [0; 4];
        for (key, site) in &look.sites {
            seen[0] += site.allocated_blocks;
            seen[1] += site.allocated_bytes;
            seen[2] += site.outstanding_blocks();
            seen[3] += site.outstanding_bytes();
            let ledger = look.blocks.as_ref().and_then(|blocks| blocks.get(key));
            let ledger = ledger.cloned().unwrap_or_default();
            assert_eq!(site.outstanding_blocks(), ledger.aged_blocks, "site and ledger differ");
            assert_eq!(site.outstanding_bytes(), ledger.aged_bytes, "site and ledger differ");
        }
        let sharpness = if round + 1 == ROUNDS { 0.1 } else { 0.5 };
        allocated.blocks.check("blocks allocated", seen[0], sharpness);
        allocated.bytes.check("bytes allocated", seen[1], sharpness);
        outstanding.blocks.check("blocks outstanding", seen[2], 0.5);
        outstanding.bytes.check("bytes outstanding", seen[3], 0.5);

        driver.run(BLOCKS, &(0..BLOCKS).step_by(2).map(Operation::free).collect::<Vec<_>>());
        let look = trace.look(slot);
        for site in look.sites.values() {
            assert_eq!(site.outstanding_blocks(), 0, "blocks left of {site:?}");
            assert_eq!(site.outstanding_bytes(), 0, "bytes left of {site:?}");
        }
        assert_eq!(look.blocks.map(|blocks| blocks.len()), Some(0), "blocks left in the ledger");
        let count = |counter| look.counters.get(counter);
        let calls = (round + 1) * BLOCKS as u64;
        assert_eq!(count(Counter::Inserted) + count(Counter::SampledOut), calls);
        assert_eq!(count(Counter::Removed), count(Counter::Inserted));
        assert_eq!(count(Counter::UnknownFrees), count(Counter::SampledOut));
        let mut faults = faults(&look.counters);
        faults.remove("sampled out");
        assert!(faults.is_empty(), "{faults:?}");
    }
}
