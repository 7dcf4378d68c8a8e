//! One numbering of rules for all tables.
//!
//! Numbers are never taken back: rows of many tables refer to them.

use std::collections::HashMap;

use leakd_common::unwind::{RULES, Rule};

/// Numbers of rules over all tables.
#[derive(Debug)]
pub(crate) struct RuleNumbers {
    numbers: HashMap<Rule, u32>,
    rules: Vec<Rule>,
    refused: u64,
}

impl RuleNumbers {
    /// Written before any table.
    pub(crate) const FIRST: [Rule; 2] = [Rule::NONE, Rule::UNSUPPORTED];
    /// The number of [`Rule::UNSUPPORTED`].
    pub(crate) const UNSUPPORTED: u32 = 1;
    /// All files of a Debian machine have 5,400 rules together. When this many
    /// are in use, somebody makes them up:
    const CROWDED: usize = RULES / 4 * 3;
    /// from then on a table gets only this many new ones.
    const SHARE: usize = 64;

    /// With [`RuleNumbers::FIRST`] only.
    pub(crate) fn new() -> Self {
        let numbers = (0..).zip(Self::FIRST).map(|(number, rule)| (rule, number)).collect();
        Self { numbers, rules: Self::FIRST.to_vec(), refused: 0 }
    }

    /// Rules that have a number.
    pub(crate) fn count(&self) -> usize {
        self.rules.len()
    }

    /// Rules that found no room and became unsupported.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// The rules from number `first` on.
    pub(crate) fn since(&self, first: usize) -> &[Rule] {
        &self.rules[first..]
    }

    /// As if the rules from number `first` on had not been numbered.
    pub(crate) fn forget_since(&mut self, first: usize) {
        for rule in self.rules.drain(first..) {
            self.numbers.remove(&rule);
        }
    }

    /// The numbers of a table's rules.
    pub(crate) fn number(&mut self, rules: &[Rule]) -> Vec<u32> {
        let mut new = 0;
        let mut number = |rule: &Rule| {
            if let Some(&number) = self.numbers.get(rule) {
                return number;
            }
            let count = self.rules.len();
            if count >= RULES || (count >= Self::CROWDED && new >= Self::SHARE) {
                self.refused += 1;
                return Self::UNSUPPORTED;
            }
            new += 1;
            self.numbers.insert(*rule, count as u32);
            self.rules.push(*rule);
            count as u32
        };
        rules.iter().map(&mut number).collect()
    }
}

#[cfg(test)]
mod tests {
    use leakd_common::unwind::{CfaKind, FpKind};

    use super::*;

    fn made_up(range: std::ops::Range<i64>) -> Vec<Rule> {
        range.map(|n| Rule::pack(CfaKind::StackPointer, n, 0, FpKind::Same, 0).unwrap()).collect()
    }

    /// Check that tables of made-up rules cannot fill the numbering: what others
    /// use is still numbered, each new table gets some, and all is counted.
    #[test]
    fn crowding() {
        let mut numbers = RuleNumbers::new();
        let first = made_up(0..500);
        let of_first = numbers.number(&first);
        let mut next = 500;
        for _ in 0..RULES / 4096 + 4 {
            numbers.number(&made_up(next..next + 4096));
            next += 4096;
        }
        assert!(numbers.count() < RULES);
        assert!(numbers.refused() > 0);
        assert_eq!(numbers.number(&first), of_first);
        let late = numbers.number(&made_up(next..next + 100));
        assert_eq!(late.iter().filter(|&&n| n != RuleNumbers::UNSUPPORTED).count(), 64);
        for _ in 0..RULES {
            next += 1;
            numbers.number(&made_up(next..next + 1));
        }
        assert_eq!(numbers.count(), RULES);
        assert_eq!(numbers.number(&first), of_first);
        assert_eq!(numbers.number(&made_up(-1..0)), [RuleNumbers::UNSUPPORTED]);
    }

    /// Check that rules that could not be written are numbered anew later.
    #[test]
    fn forgetting() {
        let mut numbers = RuleNumbers::new();
        numbers.number(&made_up(0..3));
        let first = numbers.count();
        let lost = numbers.number(&made_up(2..6));
        numbers.forget_since(first);
        assert_eq!(numbers.count(), first);
        assert_eq!(numbers.number(&made_up(2..6)), lost);
        assert_eq!(numbers.since(first), made_up(3..6));
    }
}
