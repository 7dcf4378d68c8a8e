//! Where resident memory goes, as bars.

use super::Page;
use crate::report::memory::Memory;
use crate::report::model::SeenFrom;
use crate::terminal::{Role, bytes, columns, pad, percent, shorten_end};

/// Columns of the longest bar.
const BAR: usize = 20;
/// Parts below this share are summed up.
const SMALL: f64 = 0.01;

/// Adds the parts, largest first.
pub fn push(page: &mut Page, memory: &Memory, seen_from: SeenFrom) {
    let total = memory.resident_bytes;
    if total == 0 {
        return;
    }
    let swapped = match memory.swapped_bytes {
        0 => String::new(),
        swapped => format!(", and {} in swap", bytes(swapped)),
    };
    page.blank();
    page.line(Role::Heading, &format!("Resident memory: {}{swapped}", bytes(total)));
    let (mut parts, mut small) = (parts(memory, seen_from), 0);
    parts.sort_by_key(|part| std::cmp::Reverse(part.0));
    parts.retain(|(size, ..)| {
        let is_small = (*size as f64) < total as f64 * SMALL;
        small += if is_small { *size } else { 0 };
        !is_small
    });
    if small > 0 {
        parts.push((small, Role::Dim, "the rest"));
    }
    let sizes: Vec<String> = parts.iter().map(|(size, ..)| bytes(*size)).collect();
    let width = sizes.iter().map(|size| columns(size)).max().unwrap_or(0);
    let largest = parts.iter().map(|(size, ..)| *size).max().unwrap_or(1).max(1);
    // The bars go first where there is no room.
    let bar_room = if page.width < 60 { 0 } else { BAR };
    for ((size, role, what), text) in parts.iter().zip(&sizes) {
        let share = percent(*size as f64 / total as f64);
        let length = (*size as f64 / largest as f64 * bar_room as f64).round() as usize;
        let bar = pad(&"#".repeat(length), bar_room);
        let bar = page.style.paint(*role, &bar);
        let indent = pad("", width - columns(text));
        let share = format!("{}{share}", pad("", 6usize.saturating_sub(columns(&share))));
        let front = format!("  {indent}{text}  {share}  ");
        let room = page.width.saturating_sub(columns(&front) + bar_room + 2);
        let gap = if bar_room == 0 { "" } else { "  " };
        page.raw(&format!("{front}{bar}{gap}{}", shorten_end(what, room)));
    }
}

fn parts(memory: &Memory, seen_from: SeenFrom) -> Vec<(u64, Role, &'static str)> {
    let before = match seen_from {
        SeenFrom::Attach => "from before the attach, or cached",
        SeenFrom::Start => "cached by malloc's threads",
    };
    let mut parts = match (memory.outstanding_bytes, memory.unseen_bytes) {
        (Some(outstanding), Some(unseen)) => {
            vec![
                (outstanding, Role::Leak, "not freed: the call sites"),
                (unseen, Role::Dim, before),
            ]
        }
        _ => vec![(memory.used_bytes, Role::Leak, "in use, seen or not")],
    };
    parts.extend([
        (memory.allocator_bytes, Role::Warning, "free, kept by malloc: no leak"),
        (memory.unresolved_bytes, Role::Warning, "unseen or free: not glibc's malloc"),
        (memory.stacks_bytes, Role::Dim, "stacks"),
        (memory.files_bytes, Role::Dim, "mapped files"),
        (memory.shared_bytes, Role::Dim, "shared memory"),
        (memory.other_bytes, Role::Dim, "variables, own mappings"),
    ]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::Options;

    fn show(memory: &Memory, seen_from: SeenFrom, width: usize) -> String {
        let mut page = Page::new(&Options { width, ..Options::default() });
        push(&mut page, memory, seen_from);
        page.finish()
    }

    fn memory() -> Memory {
        Memory {
            resident_bytes: 118 << 20,
            outstanding_bytes: Some(60 << 20),
            unseen_bytes: Some(10 << 20),
            used_bytes: 70 << 20,
            allocator_bytes: 40 << 20,
            stacks_bytes: 100 << 10,
            files_bytes: 7 << 20,
            other_bytes: (1 << 20) - (100 << 10),
            ..Memory::default()
        }
    }

    #[test]
    fn bars() {
        insta::assert_snapshot!(show(&memory(), SeenFrom::Attach, 80));
        let part = Memory { outstanding_bytes: None, unseen_bytes: None, ..memory() };
        let part = Memory { swapped_bytes: 3 << 20, ..part };
        insta::assert_snapshot!("partly_traced", show(&part, SeenFrom::Attach, 80));
        assert_eq!(show(&Memory::default(), SeenFrom::Start, 80), "");
    }
}
