//! Places where code of several files has been.
//!
//! A walk that comes to a place for which there is no table has a key that tells
//! addresses apart, and not files: calls in the code of each may be counted together.

use std::collections::VecDeque;
use std::ops::Range;

use super::rings::Stack;

/// Mappings that are remembered: those of a large process several times over.
const KEPT: usize = 4096;
/// Places that are told from each other.
const PLACES: usize = 256;

/// Who says what is mapped. Of a file on an overlay, both may name other devices:
/// what they say can be compared with what the same one says only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// /proc/PID/maps.
    List,
    /// The kernel, as it maps.
    Event,
}

/// Code of a file that was found somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    place: Range<u64>,
    source: Source,
    /// Device, inode, and where byte 0 of the file would lie: equal for all parts of
    /// what is the same code.
    code: (u64, u64, u64),
}

/// Places where code of several files has been, since the program began.
#[derive(Debug, Default)]
pub struct Contested {
    found: VecDeque<Found>,
    /// In the order of their addresses, apart from each other.
    places: Vec<Range<u64>>,
}

impl Contested {
    /// Code of a file, given as device and inode, was found from an offset on; gives
    /// whether a place is contested by that which was not before.
    pub fn note(
        &mut self,
        source: Source,
        place: Range<u64>,
        offset: u64,
        (device, inode): (u64, u64),
    ) -> bool {
        let code = (device, inode, place.start.wrapping_sub(offset));
        let new = Found { place, source, code };
        if self.found.contains(&new) {
            return false;
        }
        let mut is_news = false;
        for other in &self.found {
            let (a, b) = (&new.place, &other.place);
            let both = a.start.max(b.start)..a.end.min(b.end);
            if !both.is_empty() && (source, code) != (other.source, other.code) {
                is_news |= source == other.source && contest(&mut self.places, both);
            }
        }
        self.found.push_back(new);
        if self.found.len() > KEPT {
            self.found.pop_front();
        }
        is_news
    }

    /// Whether calls in the code of several files may have the same key as a stack.
    pub fn shares_key(&self, stack: &Stack) -> bool {
        // A call may be the last instruction, and return behind it.
        let is_contested =
            |at: &u64| self.places.iter().any(|place| place.start <= *at && *at <= place.end);
        stack.without_table().iter().any(is_contested)
    }
}

/// Adds a place to others; gives false if it was among them.
fn contest(places: &mut Vec<Range<u64>>, place: Range<u64>) -> bool {
    let first = places.partition_point(|other| other.end < place.start);
    let behind = places.partition_point(|other| other.start <= place.end);
    let touched = &places[first..behind];
    if touched.iter().any(|other| other.start <= place.start && place.end <= other.end) {
        return false;
    }
    let start = touched.first().map_or(place.start, |other| other.start.min(place.start));
    let end = touched.last().map_or(place.end, |other| other.end.max(place.end));
    places.splice(first..behind, std::iter::once(start..end));
    if places.len() > PLACES {
        // Those two that are nearest to each other become one.
        let gap = |at: &usize| places[*at].start - places[*at - 1].end;
        if let Some(at) = (1..places.len()).min_by_key(gap) {
            places[at - 1].end = places[at].end;
            places.remove(at);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use leakd_common::event::StackEnd;

    use super::*;

    fn stack(frames: &[u64], end: StackEnd, frame_pointer_steps: u32) -> Stack {
        Stack {
            slot: 0,
            site: 1,
            epoch: 0,
            end: end as u32,
            frame_pointer_steps,
            time_ns: 0,
            instructions: 0,
            frames: frames.into(),
        }
    }

    /// Check that exactly those stacks are doubted that lead through a place where two
    /// files were, and may have met it without a table.
    #[test]
    fn places() {
        let mut contested = Contested::default();
        let cut = |at| stack(&[at], StackEnd::NoMapping, 0);
        assert!(!contested.note(Source::List, 0x10000..0x20000, 0x1000, (1, 7)));
        assert!(!contested.note(Source::List, 0x20000..0x30000, 0x1000, (1, 8)));
        assert!(!contested.note(Source::List, 0x10000..0x20000, 0x1000, (1, 7)), "it comes again");
        assert!(!contested.shares_key(&cut(0x18000)));
        assert!(contested.note(Source::List, 0x18000..0x1a000, 0x1000, (1, 9)));
        assert!(!contested.note(Source::List, 0x18000..0x1a000, 0x1000, (1, 9)), "known by now");
        assert!(contested.shares_key(&cut(0x18000)) && contested.shares_key(&cut(0x1a000)));
        assert!(!contested.shares_key(&cut(0x17fff)) && !contested.shares_key(&cut(0x1a001)));
        assert!(contested.shares_key(&stack(&[0x18001], StackEnd::NoTable, 0)));
        assert!(contested.shares_key(&stack(&[0x18001], StackEnd::Bottom, 1)));
        assert!(!contested.shares_key(&stack(&[0x18001], StackEnd::Bottom, 0)));
        assert!(!contested.shares_key(&stack(&[0x18001, 0x50000], StackEnd::NoTable, 0)));
        assert!(contested.shares_key(&stack(&[0x18001, 0x50000], StackEnd::NoTable, 1)));
    }

    /// Check that a part of a mapping is not taken for other code.
    #[test]
    fn parts() {
        let mut contested = Contested::default();
        assert!(!contested.note(Source::List, 0x10000..0x20000, 0x1000, (1, 7)));
        assert!(!contested.note(Source::List, 0x14000..0x20000, 0x5000, (1, 7)));
        assert!(
            contested.note(Source::List, 0x14000..0x20000, 0x6000, (1, 7)),
            "other code of the file"
        );
    }

    /// Check that what one says is not held against what the other one says.
    #[test]
    fn sources() {
        let mut contested = Contested::default();
        assert!(!contested.note(Source::List, 0x10000..0x20000, 0, (26, 7)));
        assert!(!contested.note(Source::Event, 0x10000..0x20000, 0, (2, 7)));
        assert!(contested.note(Source::Event, 0x10000..0x20000, 0, (2, 8)));
        assert!(!contested.note(Source::List, 0x10000..0x20000, 0, (26, 8)), "known by now");
    }

    /// Check that places that touch become one, and the nearest when there are many.
    #[test]
    fn unions() {
        let mut places = Vec::new();
        assert!(contest(&mut places, 10..20) && contest(&mut places, 40..50));
        assert!(contest(&mut places, 0..5) && contest(&mut places, 50..60));
        assert!(!contest(&mut places, 41..60));
        assert_eq!(places, [0..5, 10..20, 40..60]);
        assert!(contest(&mut places, 15..45));
        assert_eq!(places, [0..5, 10..60]);
        for number in 1..PLACES as u64 {
            contest(&mut places, (1000 + number * 100)..(1010 + number * 100));
        }
        assert_eq!(places[..2], [0..60, 1100..1110]);
        assert!(places.len() == PLACES && places.is_sorted_by_key(|place| place.start));
    }

    /// Check that nothing is forgotten of too many places, and that what is kept has a
    /// bound.
    #[test]
    fn too_many() {
        let mut contested = Contested::default();
        for number in 0..3 * KEPT as u64 {
            let begin = (number / 2) << 12;
            contested.note(Source::List, begin..begin + 0x1000, 0, (1, number % 2));
            assert!(contested.places.len() <= PLACES && contested.found.len() <= KEPT, "{number}");
        }
        for number in 0..3 * KEPT as u64 / 2 {
            let stack = stack(&[(number << 12) + 8], StackEnd::NoMapping, 0);
            assert!(contested.shares_key(&stack), "{number}");
        }
    }
}
