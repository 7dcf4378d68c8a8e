//! What the targets share.

use leakd::unwind::Table;

/// Does with a table what leakd does, and checks what must hold for any.
pub fn ask(table: &Table) {
    assert_eq!(table.directory.len(), table.pages as usize + 1);
    assert!(table.directory.is_sorted());
    assert_eq!(table.directory.last(), Some(&(table.rows.len() as u32)));
    assert!(table.rows.iter().all(|row| ((row >> 12) as usize) < table.rules.len()));
    let first = u64::from(table.first_page) << 12;
    for step in 0..64 {
        let _ = table.find(first + step * (u64::from(table.pages) << 12) / 64);
    }
    assert_eq!(table.find(u64::MAX), None);
    let numbers: Vec<u32> = (0..table.rules.len() as u32).collect();
    let cells = table.cells(&numbers, 1);
    assert_eq!(cells.cells.len() as u64 * 64, table.cell_bytes());
}
