//! Notes, the least recently used of which are dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// A cache of a fixed number of notes.
#[derive(Debug)]
pub struct Cache {
    room: usize,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    by_number: HashMap<u64, String>,
    /// Numbers of the notes, the one used last at the end.
    order: VecDeque<u64>,
}

impl Cache {
    /// A cache for `room` notes.
    pub fn new(room: usize) -> Self {
        Self { room, notes: Mutex::default() }
    }

    /// Keeps a note; the one that was not used for longest makes room.
    #[inline(never)]
    pub fn insert(&self, number: u64, note: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.by_number.insert(number, note.to_owned()).is_some() {
            notes.order.retain(|&other| other != number);
        }
        notes.order.push_back(number);
        if notes.order.len() > self.room
            && let Some(oldest) = notes.order.pop_front()
        {
            notes.by_number.remove(&oldest);
        }
    }

    /// A copy of a note, if it is still there.
    #[inline(never)]
    pub fn find(&self, number: u64) -> Option<String> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let note = notes.by_number.get(&number)?.clone();
        notes.order.retain(|&other| other != number);
        notes.order.push_back(number);
        Some(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the cache holds no more than it has room for, and that the
    /// note used least recently goes first.
    #[test]
    fn is_bounded() {
        let cache = Cache::new(2);
        cache.insert(1, "one");
        cache.insert(2, "two");
        assert_eq!(cache.find(1).as_deref(), Some("one"));
        cache.insert(3, "three");
        assert_eq!(cache.find(2), None);
        assert_eq!(cache.find(1).as_deref(), Some("one"));
        cache.insert(3, "again");
        assert_eq!(cache.find(3).as_deref(), Some("again"));
        assert_eq!(cache.find(1).as_deref(), Some("one"));
    }
}
