//! The files that targets have mapped code from, read once for all of them.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use crate::allocator::{CustomFunction, Discovery, Emulation, discover};
use crate::elf::{ElfError, ElfObject, FileIdentity};
use crate::process::{ExecutableMapping, MappingKind, open_object};
use crate::symbol::{Object, ObjectRef};
use crate::unwind;

/// A file with code.
#[derive(Debug)]
pub struct CodeObject {
    /// The open file, for whoever names addresses in it or probes it.
    pub file: ObjectRef,
    /// What it has to be probed; empty where it could not be read.
    pub discovery: Discovery,
    /// The open file and its identity, for the unwind tables.
    pub unwind_source: unwind::MappingSource,
    /// Why it could not be read.
    pub error: Option<ElfError>,
}

/// The code objects in use, by identity.
#[derive(Debug)]
pub struct CodeObjects {
    known: HashMap<FileIdentity, Weak<CodeObject>>,
    custom: Vec<CustomFunction>,
    emulation: Emulation,
}

impl CodeObjects {
    /// Objects are searched for these functions besides the known allocators.
    pub fn new(custom: Vec<CustomFunction>) -> Self {
        Self { known: HashMap::new(), custom, emulation: Emulation::of_running_kernel() }
    }

    /// The functions that the user named.
    pub fn custom(&self) -> &[CustomFunction] {
        &self.custom
    }

    /// The object behind a mapping of a process.
    pub fn open(&mut self, pid: u32, mapping: &ExecutableMapping) -> io::Result<Arc<CodeObject>> {
        let file = open_object(pid, mapping)?;
        let identity = FileIdentity::of(&file)?;
        if let Some(object) = self.known.get(&identity).and_then(Weak::upgrade) {
            return Ok(object);
        }
        let path = match &mapping.kind {
            MappingKind::File { path, .. } => path.to_path_buf(),
            _ => PathBuf::new(),
        };
        let read =
            ElfObject::read(&file).and_then(|elf| discover(&elf, &self.custom, self.emulation));
        let (discovery, error) = match read {
            Ok(discovery) => (discovery, None),
            Err(error) => (Discovery::default(), Some(error)),
        };
        let unwind_source =
            unwind::MappingSource::File { identity, file: Arc::new(file.try_clone()?) };
        let file = Object::identified(file, identity, path)?;
        let object = Arc::new(CodeObject { file, discovery, unwind_source, error });
        self.known.retain(|_, object| object.strong_count() > 0);
        self.known.insert(identity, Arc::downgrade(&object));
        Ok(object)
    }
}
