//! What the walker in the kernel knows of each target's code.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::target::Target;
use crate::bpf::object::{BpfObject, ObjectError};
use crate::process::MappingKind;
use crate::unwind::address_space::WithoutTable;
use crate::unwind::kernel_maps::MapDescriptors;
use crate::unwind::store::StoreLimits;
use crate::unwind::{
    AddressSpaces, ExecutableMapping, KernelMaps, MappingSource, SyncReport, TableStore, cache,
};

/// The unwind tables of all targets.
#[derive(Debug)]
pub struct Stacks {
    spaces: AddressSpaces<KernelMaps>,
}

impl Stacks {
    /// Takes handles of the object's maps.
    pub fn new(object: &BpfObject) -> Result<Self, ObjectError> {
        let map = |name: &str| object.owned_map(name);
        let failed = |error: io::Error| ObjectError::Missing(format!("unwind maps: {error}"));
        let maps = KernelMaps::new(MapDescriptors {
            tables: map("TABLES")?,
            geometry: map("GEOMETRY")?,
            rules: map("RULES")?,
            mappings: map("MAPPINGS")?,
            cache: map("RULE_CACHE")?,
        })
        .map_err(failed)?;
        let store = TableStore::new(maps, StoreLimits::default(), cache::open_default());
        Ok(Self { spaces: AddressSpaces::new(store.map_err(failed)?) })
    }

    /// Tells the kernel of a target's mappings. Tables that have to be made are
    /// waited for `at_most` so long.
    pub(super) fn sync(&mut self, target: &Target, at_most: Duration) -> io::Result<SyncReport> {
        let mappings: Vec<ExecutableMapping> = target
            .code
            .current()
            .filter_map(|code| {
                let mapping = &code.mapping;
                let source = match (&mapping.kind, &code.object) {
                    (MappingKind::File { .. }, Some(object)) => object.unwind_source.clone(),
                    (MappingKind::Vdso, _) => MappingSource::Vdso,
                    (MappingKind::Anonymous, _) => MappingSource::Anonymous,
                    _ => return None,
                };
                Some(ExecutableMapping {
                    begin: mapping.begin,
                    end: mapping.end,
                    file_offset: mapping.offset,
                    source,
                })
            })
            .collect();
        self.spaces.sync(target.pid(), &mappings, at_most)
    }

    /// Puts tables in their places that have been made; gives the processes that
    /// waited for them.
    pub(super) fn collect(&mut self) -> Vec<u32> {
        self.spaces.collect().unwrap_or_else(|error| {
            tracing::warn!("unwind tables: {error}");
            Vec::new()
        })
    }

    /// Whether the kernel was told of a process's mappings, and has them still.
    pub(super) fn knows(&self, pid: u32) -> bool {
        self.spaces.knows(pid)
    }

    /// Mappings of a process that have no table, or none yet.
    pub(super) fn without_table(&self, pid: u32) -> Vec<WithoutTable> {
        self.spaces.without_table(pid)
    }

    /// Told when there is something to collect.
    pub(super) fn made(&self) -> Arc<Notify> {
        self.spaces.store().made()
    }

    /// Forgets a process.
    pub fn forget(&mut self, pid: u32) {
        if let Err(error) = self.spaces.forget(pid) {
            tracing::warn!("forgetting the mappings of process {pid}: {error}");
        }
    }

    /// Memory of all tables, in bytes.
    pub fn bytes(&self) -> u64 {
        self.spaces.store().counts().bytes
    }
}
