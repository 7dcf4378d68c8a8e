//! Tests of the parts together, on real files and on hostile ones.

mod address_spaces;
mod bounds;
mod elf_file;
mod files;
mod hostile;
mod kernel;
mod making;
mod real_files;
mod synthetic;
mod walker;

/// Longer than any conversion takes.
const AGES: std::time::Duration = std::time::Duration::from_secs(600);
