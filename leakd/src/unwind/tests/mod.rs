//! Tests of the parts together, on real files and on hostile ones.

mod hostile;
mod real_files;
mod synthetic;
mod walker;
