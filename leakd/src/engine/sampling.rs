//! Weights for Poisson sampling by bytes.

use leakd_common::target::SAMPLE_CLASSES;

/// For each size class, how many blocks a sampled one stands for, so that on
/// average one sample is taken for every `interval` bytes; 0: all are taken.
///
/// As in tcmalloc and jemalloc, a block of `s` bytes is to be sampled with the
/// probability p = 1 - exp(-s / interval); its weight is 1/p, rounded to a
/// whole number. The probe then samples with exactly 1/weight, so that the sum
/// of weights is unbiased whatever the rounding.
pub fn weights(interval: u64) -> [u32; SAMPLE_CLASSES] {
    if interval == 0 {
        return [1; SAMPLE_CLASSES];
    }
    std::array::from_fn(|class| {
        let power = (class >> 3) as i32;
        // The middle of the class.
        let size = (1.0 + ((class & 7) as f64 + 0.5) / 8.0) * 2f64.powi(power);
        let probability = -(-size / interval as f64).exp_m1();
        (1.0 / probability).round().clamp(1.0, f64::from(u32::MAX)) as u32
    })
}

#[cfg(test)]
mod tests {
    use leakd_common::target::sample_class;

    use super::*;

    /// Check that blocks far above the interval are always kept, and that small
    /// ones stand for about interval / size others.
    #[test]
    fn weights_follow_size() {
        let weights = weights(512 << 10);
        assert_eq!(weights[sample_class(16 << 20)], 1);
        let small = f64::from(weights[sample_class(64)]);
        assert!((small / 8192.0 - 1.0).abs() < 0.1, "{small}");
        assert!(weights.windows(2).all(|pair| pair[0] >= pair[1]));
    }

    /// Check that the classes are in order of size and fill the table.
    #[test]
    fn classes_are_monotonic() {
        let mut last = 0;
        for shift in 0..64 {
            for step in 0..8u64 {
                let size = (8 + step).checked_shl(shift).unwrap_or(0) >> 3;
                if size == 0 || size < 1 << shift {
                    continue;
                }
                let class = sample_class(size);
                assert!(class >= last && class < SAMPLE_CLASSES, "{size}: {class} after {last}");
                last = class;
            }
        }
        assert_eq!(sample_class(u64::MAX), SAMPLE_CLASSES - 1);
    }
}
