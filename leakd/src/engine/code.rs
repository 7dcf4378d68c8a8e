//! What code a target has mapped, now and a moment ago.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use super::changes::{Change, Changes};
use super::contested::{Contested, Source};
use super::objects::CodeObject;
use super::rings::Stack;
use super::watch::Mapped;
use crate::process::{ExecutableMapping, MappingKind};
use crate::symbol::{CodeAddress, Lookup};

/// Mappings that a target may map code from and still be followed.
const MAPPINGS_LIMIT: usize = 16 << 10;
/// Mappings that have gone and are remembered, for stacks that are announced
/// late.
const PAST: usize = 1024;

/// A mapping of a target, with the file behind it.
#[derive(Clone, Debug)]
pub struct MappedCode {
    /// The mapping.
    pub mapping: ExecutableMapping,
    /// The file; `None` for what is none or could not be opened.
    pub object: Option<Arc<CodeObject>>,
}

impl MappedCode {
    /// Whether it should have a file and could not be given one.
    fn lacks_file(&self) -> bool {
        matches!(self.mapping.kind, MappingKind::File { .. }) && self.object.is_none()
    }

    /// What is at an address in it.
    pub fn address(&self, pid: u32, address: u64, lookup: Lookup) -> CodeAddress {
        match (&self.mapping.kind, &self.object) {
            (MappingKind::File { .. }, Some(object)) => CodeAddress::File {
                object: Arc::clone(&object.file),
                offset: address - self.mapping.begin + self.mapping.offset,
                address,
                lookup,
            },
            (MappingKind::Anonymous, _) => CodeAddress::Jit { pid, address, lookup },
            _ => CodeAddress::Unmapped { address },
        }
    }
}

/// The mapped code of one target.
#[derive(Debug, Default)]
pub struct Code {
    /// Sorted by address; they do not overlap.
    current: Vec<Arc<MappedCode>>,
    /// The mappings as they were last read.
    mappings: Vec<ExecutableMapping>,
    /// Mapped no more, with the time when that was found out (CLOCK_MONOTONIC,
    /// ns) in rising order.
    past: VecDeque<(Arc<MappedCode>, u64)>,
    /// When the mappings were last read: before that.
    looked_ns: u64,
    /// When the program began, if it has replaced another one (CLOCK_MONOTONIC, ns).
    began_ns: u64,
    changes: Changes,
    contested: Contested,
    /// Places are contested that were not when it was last asked.
    contested_anew: bool,
}

impl Code {
    /// What is mapped, by address.
    pub fn current(&self) -> impl Iterator<Item = &Arc<MappedCode>> {
        self.current.iter()
    }

    /// The code that ran at some time: `address` is a return address or that of
    /// an instruction, as `lookup` says.
    pub fn at(&self, address: u64, lookup: Lookup, time_ns: u64) -> Option<&Arc<MappedCode>> {
        let call = match lookup {
            // The call is the instruction before.
            Lookup::Return => address.saturating_sub(1),
            Lookup::Instruction => address,
        };
        let holds =
            |code: &&Arc<MappedCode>| (code.mapping.begin..code.mapping.end).contains(&call);
        let gone = self.past.iter().filter(|(_, gone_ns)| time_ns < *gone_ns);
        let gone = gone.map(|(code, _)| code).find(holds);
        gone.or_else(|| {
            let behind = self.current.partition_point(|code| code.mapping.begin <= call);
            self.current[..behind].last().filter(holds)
        })
    }

    /// Whether calls in the code of several files may have the same key as a stack.
    pub fn shares_key(&self, stack: &Stack) -> bool {
        self.contested.shares_key(stack)
    }

    /// Whether this may be so of more stacks since it was last asked.
    pub fn take_contested_anew(&mut self) -> bool {
        std::mem::take(&mut self.contested_anew)
    }

    /// Whether a stack may have been walked by a table that did not belong
    /// there.
    pub fn misled(&self, stack: &Stack) -> bool {
        self.changes.misled(stack)
    }

    /// The same, for a stack that was found right before; see
    /// [`Changes::misled_by_pending`].
    pub fn newly_misled(&self, stack: &Stack) -> bool {
        self.changes.misled_by_pending(stack)
    }

    /// Whether the walker knows of all changes.
    pub fn all_settled(&self) -> bool {
        self.changes.all_settled()
    }

    /// The kernel says that something was mapped; gives whether that may have
    /// misled a walk.
    pub fn note(&mut self, mapped: &Mapped) -> bool {
        let Mapped { begin, end, offset, device, inode, time_ns, .. } = *mapped;
        let is_it = |code: &Arc<MappedCode>| {
            let known = &code.mapping;
            known.begin <= begin
                && end <= known.end
                && (known.device, known.inode) == (device, inode)
                && (inode == 0
                    || known.begin.wrapping_sub(known.offset) == begin.wrapping_sub(offset))
        };
        if self.touched(begin, end).next().is_some_and(is_it) {
            return false;
        }
        if inode != 0 && time_ns >= self.began_ns {
            let file = (device, inode);
            self.contested_anew |= self.contested.note(Source::Event, begin..end, offset, file);
        }
        let is_file =
            |code: &Arc<MappedCode>| matches!(code.mapping.kind, MappingKind::File { .. });
        let replaces_code = self.touched(begin, end).any(is_file);
        // Code that a JIT makes has no table, neither before nor afterwards.
        if inode == 0 && !replaces_code {
            return false;
        }
        self.changes.add(Change { begin, end, from_ns: time_ns, replaces_code });
        true
    }

    /// All may have changed from some time on.
    pub fn doubt_all(&mut self, from_ns: u64) {
        self.changes.add(Change { from_ns, ..super::changes::ALL });
    }

    /// The program was replaced, at some time: nothing is mapped as before.
    pub fn replace_all(&mut self, time_ns: u64) {
        self.doubt_all(time_ns);
        self.mappings.clear();
        (self.began_ns, self.contested) = (time_ns, Contested::default());
        let gone = std::mem::take(&mut self.current);
        self.bury(gone, time_ns);
    }

    /// Takes over a list of mappings that was read after `looked_ns`; gives
    /// whether anything is new. Files that are still mapped are not opened
    /// again.
    pub fn set(
        &mut self,
        mappings: Vec<ExecutableMapping>,
        looked_ns: u64,
        mut open: impl FnMut(&ExecutableMapping) -> io::Result<Arc<CodeObject>>,
    ) -> bool {
        let before_ns = std::mem::replace(&mut self.looked_ns, looked_ns);
        if self.mappings == mappings && !self.current.iter().any(|code| code.lacks_file()) {
            return false;
        }
        self.mappings = mappings.clone();
        let mut known: HashMap<ExecutableMapping, Arc<MappedCode>> =
            self.current.iter().map(|code| (code.mapping.clone(), Arc::clone(code))).collect();
        let mut fresh = Vec::with_capacity(mappings.len());
        for mapping in mappings.into_iter().take(MAPPINGS_LIMIT) {
            let code = known.remove(&mapping).filter(|code| !code.lacks_file());
            fresh.push(code.unwrap_or_else(|| {
                let is_file = matches!(mapping.kind, MappingKind::File { .. });
                let object = if is_file { open(&mapping).ok() } else { None };
                if is_file {
                    let ExecutableMapping { begin, end, offset, device, inode, .. } = mapping;
                    let file = (device, inode);
                    self.contested_anew |=
                        self.contested.note(Source::List, begin..end, offset, file);
                }
                Arc::new(MappedCode { mapping, object })
            }));
        }
        fresh.sort_by_key(|code| code.mapping.begin);
        for code in &fresh {
            self.doubt_unannounced(code, before_ns);
        }
        self.current = fresh;
        self.bury(known.into_values(), looked_ns);
        true
    }

    /// What was opened for these mappings may be other files: they are without one
    /// until the next [`Code::set`].
    pub fn disown(&mut self, mappings: &HashSet<ExecutableMapping>) {
        for code in &mut self.current {
            if mappings.contains(&code.mapping) {
                *code = Arc::new(MappedCode { mapping: code.mapping.clone(), object: None });
            }
        }
    }

    /// The walker has lost all that the last [`Code::set`] took away; see
    /// [`Changes::removed`].
    pub fn removed(&mut self, removed_ns: u64) {
        self.changes.removed(removed_ns);
    }

    /// The walker knows of all that is mapped; see [`Changes::inserted`].
    pub fn inserted(&mut self, inserted_ns: u64) {
        self.changes.inserted(inserted_ns);
    }

    /// A place waits for its table since some time: whatever goes through it by
    /// the frame pointer is not to be trusted.
    pub fn lacks_table(&mut self, begin: u64, end: u64, from_ns: u64) {
        if !self.changes.is_open(begin, end) {
            self.changes.add(Change { begin, end, from_ns, replaces_code: false });
        }
    }

    /// When the mappings were last read: before that (CLOCK_MONOTONIC, ns).
    pub fn looked_ns(&self) -> u64 {
        self.looked_ns
    }

    /// Where a file has taken another one's place and the kernel said nothing
    /// (mremap), it can have happened any time since the last look.
    fn doubt_unannounced(&mut self, code: &MappedCode, before_ns: u64) {
        let mapping = &code.mapping;
        let differs = |was: &Arc<MappedCode>| {
            let was = &was.mapping;
            matches!(was.kind, MappingKind::File { .. })
                && ((was.device, was.inode) != (mapping.device, mapping.inode)
                    || was.begin.wrapping_sub(was.offset)
                        != mapping.begin.wrapping_sub(mapping.offset))
        };
        let (begin, end) = (mapping.begin, mapping.end);
        if self.touched(begin, end).any(differs) && !self.changes.pending_in(begin, end) {
            let replaces_code = true;
            self.changes.add(Change { begin, end, from_ns: before_ns, replaces_code });
        }
    }

    /// What is mapped in a range, as far as is known.
    fn touched(&self, begin: u64, end: u64) -> impl Iterator<Item = &Arc<MappedCode>> {
        let first = self.current.partition_point(|code| code.mapping.end <= begin);
        self.current[first..].iter().take_while(move |code| code.mapping.begin < end)
    }

    fn bury(&mut self, gone: impl IntoIterator<Item = Arc<MappedCode>>, time_ns: u64) {
        self.past.extend(gone.into_iter().map(|code| (code, time_ns)));
        let excess = self.past.len().saturating_sub(PAST);
        self.past.drain(..excess);
    }
}
