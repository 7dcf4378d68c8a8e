//! Where the kernel hands out memory and takes it back, and how each place can
//! be traced on this kernel.

use std::collections::BTreeSet;
use std::fs;

use leakd_common::kernel::KernelKind;

use super::symbols::Symbols;
use crate::btf::{Argument, ArgumentKind, Btf};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// To a raw tracepoint.
    Tracepoint,
    /// To a function's entry.
    Kprobe,
    /// To a function's return.
    Kretprobe,
}

/// A place in the kernel and the program for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program in the object.
    pub program: &'static str,
    /// How it is attached.
    pub attach: Attach,
    /// The tracepoint or the function.
    pub place: &'static str,
    /// Its arguments as the program reads them: `p` a pointer, `i` a number,
    /// `*` that and all that follow may be anything.
    arguments: &'static str,
}

const fn tracepoint(program: &'static str, place: &'static str, arguments: &'static str) -> Hook {
    Hook { program, attach: Attach::Tracepoint, place, arguments }
}

const fn kprobe(program: &'static str, place: &'static str, arguments: &'static str) -> Hook {
    Hook { program, attach: Attach::Kprobe, place, arguments }
}

const KFREE: [Hook; 2] =
    [tracepoint("kfree", "kfree", "ip"), tracepoint("kfree_again", "kfree", "ip")];

/// What a kind is traced by, best first. No block is recorded while what ends
/// it is not under probe, so what frees stands in front of what allocates.
fn choices(kind: KernelKind) -> Vec<Vec<Hook>> {
    let by_tracepoint = match kind {
        KernelKind::Kmalloc => vec![KFREE[0], KFREE[1], tracepoint("kmalloc", "kmalloc", "ipiiii")],
        KernelKind::Cache => vec![
            KFREE[0],
            KFREE[1],
            tracepoint("cache_free", "kmem_cache_free", "ipp"),
            tracepoint("cache_free_again", "kmem_cache_free", "ipp"),
            tracepoint("cache_alloc", "kmem_cache_alloc", "ippii"),
        ],
        KernelKind::Pages => vec![
            tracepoint("page_free", "mm_page_free", "pi"),
            tracepoint("page_free_again", "mm_page_free", "pi"),
            tracepoint("page_alloc", "mm_page_alloc", "piii"),
        ],
        KernelKind::PerCpu => vec![
            tracepoint("percpu_free", "percpu_free_percpu", "pip"),
            tracepoint("percpu_alloc", "percpu_alloc_percpu", "iiiiipipii"),
        ],
        KernelKind::Vmalloc => vec![
            tracepoint("vmap_free", "free_vmap_area_noflush", "iii"),
            tracepoint("vmap_alloc", "alloc_vmap_area", "iiiiii"),
        ],
    };
    let mut choices = vec![by_tracepoint];
    if kind == KernelKind::Vmalloc {
        // Before 6.2 there are no such tracepoints.
        choices.push(vec![
            kprobe("vmap_free_probe", "free_vmap_area_noflush", "p"),
            Hook {
                program: "vmap_alloc_return",
                attach: Attach::Kretprobe,
                place: "alloc_vmap_area",
                arguments: "*",
            },
        ]);
    }
    choices
}

/// Ways to free blocks that no tracepoint shows.
fn hidden_frees(kinds: &BTreeSet<KernelKind>, symbols: &Symbols) -> Vec<Hook> {
    if !kinds.contains(&KernelKind::Kmalloc) && !kinds.contains(&KernelKind::Cache) {
        return Vec::new();
    }
    let mut hooks = vec![kprobe("bulk_free", "kmem_cache_free_bulk", "pip")];
    // From 6.18 on, kfree_rcu may put blocks into a sheaf, past every kfree.
    if symbols.function("__kfree_rcu_sheaf").is_some() {
        hooks.push(kprobe("rcu_free", "kvfree_call_rcu", "pp"));
    }
    hooks
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

/// The kind of that name.
pub fn kind(name: &str) -> Option<KernelKind> {
    KernelKind::ALL.into_iter().find(|kind| self::name(*kind) == name)
}

/// How a kind can be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The kind.
    pub kind: KernelKind,
    /// What to attach, in this order; or why it cannot be traced.
    pub hooks: Result<Vec<Hook>, String>,
}

/// What this kernel can be attached to, as far as that can be told beforehand.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// Its types.
    pub btf: &'a Btf,
    /// Its functions.
    pub symbols: &'a Symbols,
    /// Whether it has kprobes that BPF programs can be attached to.
    pub kprobes: bool,
}

impl<'a> Kernel<'a> {
    /// The kernel that is running.
    pub fn running(btf: &'a Btf, symbols: &'a Symbols) -> Self {
        const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";
        Self { btf, symbols, kprobes: fs::metadata(KPROBES).is_ok() }
    }

    /// How each of the kinds can be traced.
    pub fn ways(&self, kinds: &BTreeSet<KernelKind>) -> Vec<Way> {
        let way = |&kind: &KernelKind| {
            let mut first_reason = None;
            for hooks in choices(kind) {
                match hooks.iter().find_map(|hook| self.objection(hook)) {
                    None => return Way { kind, hooks: Ok(hooks) },
                    Some(reason) => {
                        first_reason.get_or_insert(reason);
                    }
                }
            }
            Way { kind, hooks: Err(first_reason.unwrap_or_default()) }
        };
        kinds.iter().map(way).collect()
    }

    /// Ways to free blocks that no tracepoint shows: the probe, or why not.
    pub fn hidden_frees(&self, kinds: &BTreeSet<KernelKind>) -> Vec<(Hook, Option<String>)> {
        let hooks = hidden_frees(kinds, self.symbols).into_iter();
        hooks.map(|hook| (hook, self.objection(&hook))).collect()
    }

    /// Why the program does not fit the place.
    fn objection(&self, hook: &Hook) -> Option<String> {
        let place = hook.place;
        if hook.attach == Attach::Tracepoint {
            let Some(found) = self.btf.raw_tracepoint(place) else {
                return Some(format!("this kernel has no tracepoint {place}"));
            };
            return hook.fits(&found).map(|what| format!("the tracepoint {place} {what}"));
        }
        if !self.kprobes {
            return Some("this kernel has no kprobes (CONFIG_KPROBE_EVENTS)".to_owned());
        }
        if self.symbols.function(place).is_none() {
            return Some(format!("this kernel has no function {place}"));
        }
        // Functions that only one file knows may be missing in the types.
        let found = self.btf.function(place)?;
        hook.fits(&found).map(|what| format!("the function {place} {what}"))
    }
}

impl Hook {
    /// Whether its program reads the kernel's `struct vmap_area`.
    pub fn reads_area(&self) -> bool {
        matches!(self.program, "vmap_free_probe" | "vmap_alloc_return")
    }

    /// What is different from what the program expects.
    fn fits(&self, found: &[Argument]) -> Option<String> {
        if self.arguments.ends_with('*') {
            return None;
        }
        if found.len() != self.arguments.len() {
            return Some(format!(
                "has {} arguments on this kernel, not {}",
                found.len(),
                self.arguments.len()
            ));
        }
        let fits = |(argument, expected): (&Argument, char)| match argument.kind {
            ArgumentKind::Pointer(_) => expected == 'p',
            ArgumentKind::Integer { .. } => expected == 'i',
            ArgumentKind::Other => false,
        };
        let all = found.iter().zip(self.arguments.chars()).all(fits);
        (!all).then(|| "has other arguments on this kernel".to_owned())
    }
}

/// Every place that leakd knows, whatever this kernel has.
pub fn all(symbols: &Symbols) -> Vec<Hook> {
    let kinds = BTreeSet::from(KernelKind::ALL);
    let mut hooks: Vec<Hook> = kinds.iter().flat_map(|kind| choices(*kind)).flatten().collect();
    hooks.extend(hidden_frees(&kinds, symbols));
    hooks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(kind: ArgumentKind) -> Argument {
        Argument { name: String::new(), kind }
    }

    /// Check that a tracepoint whose arguments have changed is left alone.
    #[test]
    fn changed_arguments() {
        let pointer = || argument(ArgumentKind::Pointer("page".to_owned()));
        let integer = || argument(ArgumentKind::Integer { size: 4, signed: false });
        let hook = tracepoint("page_free", "mm_page_free", "pi");
        assert_eq!(hook.fits(&[pointer(), integer()]), None);
        let more = hook.fits(&[pointer(), integer(), integer()]).unwrap();
        assert_eq!(more, "has 3 arguments on this kernel, not 2");
        assert!(hook.fits(&[integer(), pointer()]).unwrap().contains("other arguments"));
        assert!(hook.fits(&[pointer(), argument(ArgumentKind::Other)]).is_some());
    }

    /// Check that every kind can be traced on the kernel that runs, but for what
    /// it lacks, and that a kernel without types or names traces nothing.
    #[test]
    fn running_kernel() {
        let (btf, symbols) = (Btf::of_kernel().unwrap(), Symbols::read().unwrap());
        let kernel = Kernel::running(&btf, &symbols);
        for way in kernel.ways(&KernelKind::ALL.into()) {
            assert!(way.hooks.is_ok(), "{way:?}");
        }
        let without = Kernel { kprobes: false, ..kernel };
        for (hook, objection) in without.hidden_frees(&KernelKind::ALL.into()) {
            assert!(objection.unwrap().contains("kprobes"), "{hook:?}");
        }
    }
}
