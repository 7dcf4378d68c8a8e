//! The files that targets have mapped code from, read once for all of them.

use std::collections::HashMap;
use std::fs::File;
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

/// What was opened for a mapping.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub object: Arc<CodeObject>,
    /// Device and inode are the mapping's. Else it may be what was mapped there in the
    /// meantime; or the file system, an overlay or btrfs, gives others.
    pub is_it: bool,
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
    pub fn open(&mut self, pid: u32, mapping: &ExecutableMapping) -> io::Result<Opened> {
        let file = open_object(pid, mapping)?;
        let identity = FileIdentity::of(&file)?;
        let is_it = mapping.is_of(identity.device, identity.inode);
        Ok(Opened { object: self.read(file, identity, mapping)?, is_it })
    }

    fn read(
        &mut self,
        file: File,
        identity: FileIdentity,
        mapping: &ExecutableMapping,
    ) -> io::Result<Arc<CodeObject>> {
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::engine::code::Code;
    use crate::process::mappings;

    /// Check that it shows when what is mapped is not what was said to be mapped, and
    /// that a file which is disowned is looked for again.
    #[test]
    fn another_file() {
        let pid = std::process::id();
        let mut objects = CodeObjects::new(Vec::new());
        let is_file =
            |mapping: &ExecutableMapping| matches!(mapping.kind, MappingKind::File { .. });
        let mut mapped = mappings(pid).expect("our own");
        mapped.retain(is_file);
        let mapped = mapped.remove(0);
        assert!(objects.open(pid, &mapped).expect("it is mapped").is_it);
        let before = ExecutableMapping { inode: mapped.inode + 1, ..mapped.clone() };
        assert!(!objects.open(pid, &before).expect("another one is mapped").is_it);

        let mut code = Code::default();
        let mut look = |code: &mut Code| {
            code.set(vec![mapped.clone()], 1, |mapping| Ok(objects.open(pid, mapping)?.object))
        };
        let has_file = |code: &Code| code.current().all(|code| code.object.is_some());
        assert!(look(&mut code) && has_file(&code));
        assert!(!look(&mut code));
        code.disown(&HashSet::from([mapped.clone()]));
        assert!(!has_file(&code));
        assert!(look(&mut code) && has_file(&code));
    }
}
