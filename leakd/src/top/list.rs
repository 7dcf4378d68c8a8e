//! A list with a cursor that stays with its entry when the order changes.

/// Some of many entries, in some order, and which is chosen.
#[derive(Clone, Debug)]
pub struct List<Key> {
    order: Vec<u32>,
    selected: usize,
    key: Option<Key>,
    offset: usize,
    height: usize,
}

impl<Key> Default for List<Key> {
    fn default() -> Self {
        Self { order: Vec::new(), selected: 0, key: None, offset: 0, height: 0 }
    }
}

impl<Key: PartialEq> List<Key> {
    /// Another order; `key` tells who an entry is. The cursor stays with who it
    /// was on. Where that one has gone, or nobody has moved it yet, it stays
    /// where it was.
    pub fn set(&mut self, order: Vec<u32>, key: impl Fn(u32) -> Key) {
        self.order = order;
        let found = self
            .key
            .as_ref()
            .and_then(|wanted| self.order.iter().position(|&entry| key(entry) == *wanted));
        self.selected = found.unwrap_or(self.selected).min(self.order.len().saturating_sub(1));
        self.scroll();
    }

    /// The entry under the cursor.
    pub fn selected(&self) -> Option<u32> {
        self.order.get(self.selected).copied()
    }

    /// The number of the line that the cursor is on, from 0.
    pub fn position(&self) -> usize {
        self.selected
    }

    /// Moves the cursor to a line, as far as there is one.
    pub fn go(&mut self, line: isize, key: impl Fn(u32) -> Key) {
        let last = self.order.len().saturating_sub(1);
        self.selected = usize::try_from(line).unwrap_or(0).min(last);
        self.key = self.selected().map(key);
        self.scroll();
    }

    /// From now on the cursor follows the entry that it is on.
    pub fn hold(&mut self, key: impl Fn(u32) -> Key) {
        self.key = self.selected().map(key);
    }

    /// The cursor goes to the top and follows nobody.
    pub fn release(&mut self) {
        (self.key, self.selected) = (None, 0);
        self.scroll();
    }

    /// How many lines there is room for.
    pub fn set_height(&mut self, height: usize) {
        self.height = height;
        self.scroll();
    }

    /// How many lines there is room for.
    pub fn height(&self) -> usize {
        self.height
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The visible entries, and whether the cursor is on each.
    pub fn visible(&self) -> impl Iterator<Item = (u32, bool)> {
        let end = self.order.len().min(self.offset + self.height);
        let selected = self.selected;
        let offset = self.offset.min(end);
        let lines = self.order[offset..end].iter().enumerate();
        lines.map(move |(line, &entry)| (entry, offset + line == selected))
    }

    /// The number of the first visible line.
    pub fn offset(&self) -> usize {
        self.offset
    }

    fn scroll(&mut self) {
        let most = self.order.len().saturating_sub(self.height);
        let least = (self.selected + 1).saturating_sub(self.height);
        self.offset = self.offset.clamp(least.min(self.selected), self.selected.max(least));
        self.offset = self.offset.min(most.max(least));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that the cursor follows its entry through a new order, and stays
    /// in its place when the entry has gone.
    #[test]
    fn cursor_follows() {
        let key = |entry: u32| entry;
        let mut list = List::default();
        list.set_height(3);
        list.set(vec![10, 11, 12, 13, 14], key);
        list.set(vec![14, 13, 12, 11, 10], key);
        assert_eq!(list.selected(), Some(14), "nobody has moved it");
        list.go(1, key);
        list.set(vec![10, 11, 12, 13, 14], key);
        assert_eq!((list.selected(), list.offset()), (Some(13), 1));
        list.set(vec![10, 11, 12], key);
        assert_eq!(list.selected(), Some(12));
    }

    proptest! {
        /// Check that the cursor is always visible and always on an entry.
        #[test]
        fn cursor_is_visible(steps in prop::collection::vec((0u32..60, -5isize..70, 0usize..20), 1..40)) {
            let mut list = List::default();
            for (length, line, height) in steps {
                list.set((0..length).collect(), |entry| entry);
                list.set_height(height);
                list.go(line, |entry| entry);
                prop_assert_eq!(list.selected().is_some(), length > 0);
                let marked = list.visible().filter(|(_, here)| *here).count();
                prop_assert_eq!(marked, usize::from(length > 0 && height > 0));
                let seen = list.visible().count();
                prop_assert_eq!(seen, height.min(length as usize), "no line is wasted");
            }
        }
    }
}
