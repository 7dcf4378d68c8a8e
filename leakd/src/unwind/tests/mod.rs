//! Tests of the parts together, on real files and on hostile ones.

mod address_spaces;
mod hostile;
mod kernel;
mod real_files;
mod synthetic;
mod walker;
