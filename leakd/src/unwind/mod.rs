//! Unwind tables from .eh_frame, and the maps that the walker in the kernel
//! reads them from.
//!
//! ```text
//! file -> image -> entries -> rule -> table     convert: one file, hostile
//!                                       |
//!            cache (on disk) <-> maker: threads, who is next
//!                                       |
//!                                     store: numbers, rules, memory, who uses what
//!                                       |
//!   address_space: a process's mappings -> kernel_maps: bpf(2)
//! ```
//!
//! Layouts are pinned in [`leakd_common::unwind`].
//!
//! Invariant: `image`, `entries`, `rule`, `table` and `convert` know nothing of
//! BPF or of processes; `store` and `address_space` reach the kernel only
//! through [`store::UnwindMaps`].

pub mod address_space;
pub mod cache;
pub mod convert;
mod entries;
pub mod error;
pub mod image;
pub mod kernel_maps;
pub mod limits;
mod maker;
pub mod prefix;
mod rule;
mod rule_numbers;
pub mod source;
pub mod store;
pub mod table;
pub mod vdso;

pub use address_space::{AddressSpaces, ExecutableMapping, MappingSource, SyncReport};
pub use convert::convert;
pub use error::ConvertError;
pub use image::ElfImage;
pub use kernel_maps::KernelMaps;
pub use limits::Limits;
pub use store::TableStore;
pub use table::Table;

#[cfg(test)]
mod tests;
