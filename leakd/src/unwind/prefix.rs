//! Address ranges as the prefixes of a trie.

/// The 2^n-sized, 2^n-aligned blocks that cover `begin..end` exactly, in rising
/// order: each its first address and the number of leading bits (0 to 64) that
/// its addresses share. At most 126 for any range; 2 * log2(pages) for one of
/// whole pages.
pub fn prefixes(begin: u64, end: u64) -> impl Iterator<Item = (u64, u32)> {
    let mut at = begin;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|&left| left != 0)?;
        let bits = at.trailing_zeros().min(left.ilog2());
        let block = (at, 64 - bits);
        at += 1 << bits;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Check that the prefixes of any range cover it exactly, one behind the
        /// other, each aligned to its own size.
        #[test]
        fn cover(begin: u64, length in 0u64..1 << 50, page_aligned: bool) {
            let mask = if page_aligned { !0xfff } else { !0 };
            let begin = begin & mask;
            let end = begin.saturating_add(length) & mask;
            prop_assume!(begin <= end);
            let mut at = begin;
            let mut count = 0;
            for (address, bits) in prefixes(begin, end) {
                prop_assert_eq!(address, at);
                let size = 1u64 << (64 - bits);
                prop_assert_eq!(address & (size - 1), 0);
                at += size;
                count += 1;
            }
            prop_assert_eq!(at, end);
            prop_assert!(count <= 126);
        }
    }

    /// Check the ends of the address space, and that an empty or reversed range
    /// has no prefix.
    #[test]
    fn edges() {
        assert_eq!(prefixes(5, 5).count(), 0);
        assert_eq!(prefixes(6, 5).count(), 0);
        assert_eq!(prefixes(0, 1 << 63).collect::<Vec<_>>(), [(0, 1)]);
        assert_eq!(prefixes(u64::MAX, u64::MAX).count(), 0);
        assert_eq!(prefixes(u64::MAX - 1, u64::MAX).collect::<Vec<_>>(), [(u64::MAX - 1, 64)]);
        assert_eq!(prefixes(1, u64::MAX).count(), 126);
    }
}
