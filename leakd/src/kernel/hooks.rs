//! Where the kernel hands out memory and takes it back, and how each place can
//! be traced on this kernel.

use std::collections::BTreeSet;

use leakd_common::kernel::KernelKind;

use crate::btf::{ArgumentKind, Btf};

/// A raw tracepoint and the program for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program in the object.
    pub program: &'static str,
    /// The tracepoint.
    pub tracepoint: &'static str,
    /// Its arguments as the program reads them: `p` a pointer, `i` a number.
    arguments: &'static str,
}

const fn hook(program: &'static str, tracepoint: &'static str, arguments: &'static str) -> Hook {
    Hook { program, tracepoint, arguments }
}

const KFREE: [Hook; 2] = [hook("kfree", "kfree", "ip"), hook("kfree_again", "kfree", "ip")];

/// The places where blocks of a kind end.
fn frees(kind: KernelKind) -> Vec<Hook> {
    match kind {
        KernelKind::Kmalloc => KFREE.to_vec(),
        KernelKind::Cache => {
            let mut hooks = KFREE.to_vec();
            hooks.push(hook("cache_free", "kmem_cache_free", "ipp"));
            hooks.push(hook("cache_free_again", "kmem_cache_free", "ipp"));
            hooks
        }
        KernelKind::Pages => vec![
            hook("page_free", "mm_page_free", "pi"),
            hook("page_free_again", "mm_page_free", "pi"),
        ],
        KernelKind::PerCpu => vec![hook("percpu_free", "percpu_free_percpu", "pip")],
        KernelKind::Vmalloc => vec![hook("vmap_free", "free_vmap_area_noflush", "iii")],
    }
}

/// The place where blocks of a kind begin.
const fn allocation(kind: KernelKind) -> Hook {
    match kind {
        KernelKind::Kmalloc => hook("kmalloc", "kmalloc", "ipiiii"),
        KernelKind::Cache => hook("cache_alloc", "kmem_cache_alloc", "ippii"),
        KernelKind::Pages => hook("page_alloc", "mm_page_alloc", "piii"),
        KernelKind::PerCpu => hook("percpu_alloc", "percpu_alloc_percpu", "iiiiipipii"),
        KernelKind::Vmalloc => hook("vmap_alloc", "alloc_vmap_area", "iiiiii"),
    }
}

/// A kind's name, as the command line and the report have it.
pub const fn name(kind: KernelKind) -> &'static str {
    match kind {
        KernelKind::Kmalloc => "kmalloc",
        KernelKind::Cache => "cache",
        KernelKind::Pages => "pages",
        KernelKind::PerCpu => "percpu",
        KernelKind::Vmalloc => "vmalloc",
    }
}

/// How a kind can be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The kind.
    pub kind: KernelKind,
    /// What to attach, in this order; or why it cannot be traced.
    pub hooks: Result<Vec<Hook>, String>,
}

/// How each of the kinds can be traced on the kernel with these types.
pub fn ways(btf: &Btf, kinds: &BTreeSet<KernelKind>) -> Vec<Way> {
    let way = |&kind: &KernelKind| {
        // No block is recorded while what ends it is not under probe.
        let mut hooks = frees(kind);
        hooks.push(allocation(kind));
        let wrong = hooks.iter().find_map(|hook| hook.objection(btf));
        Way { kind, hooks: wrong.map_or(Ok(hooks), Err) }
    };
    kinds.iter().map(way).collect()
}

/// Everything that the kinds are traced by, as far as leakd has it.
pub fn all(kinds: &BTreeSet<KernelKind>) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = kinds.iter().flat_map(|kind| frees(*kind)).collect();
    hooks.extend(kinds.iter().map(|kind| allocation(*kind)));
    hooks
}

impl Hook {
    /// Why the program does not fit the kernel's tracepoint.
    fn objection(&self, btf: &Btf) -> Option<String> {
        let name = self.tracepoint;
        let Some(found) = btf.raw_tracepoint(name) else {
            return Some(format!("this kernel has no tracepoint {name}"));
        };
        if found.len() != self.arguments.len() {
            return Some(format!(
                "the tracepoint {name} has {} arguments on this kernel, not {}",
                found.len(),
                self.arguments.len()
            ));
        }
        let fits = |(argument, expected): (&ArgumentKind, char)| match argument {
            ArgumentKind::Pointer(_) => expected == 'p',
            ArgumentKind::Integer { .. } => expected == 'i',
            ArgumentKind::Other => false,
        };
        let kinds = found.iter().map(|argument| &argument.kind);
        (!kinds.zip(self.arguments.chars()).all(fits))
            .then(|| format!("the tracepoint {name} has other arguments on this kernel"))
    }
}
