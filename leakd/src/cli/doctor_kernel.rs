//! What `leakctl doctor` says of tracing the kernel's own memory.

use std::collections::BTreeSet;
use std::fs;

use leakd_common::kernel::KernelKind;

use super::doctor::{Row, row};
use crate::btf::Btf;
use crate::kernel::hooks::{Attach, Hook, Kernel};
use crate::kernel::symbols::Symbols;
use crate::preflight::Facts;

/// A line for each kind of memory, and for what else tells of the kernel's.
pub fn rows(facts: &Facts) -> Vec<Row> {
    let symbols = Symbols::read().unwrap_or_default();
    let mut rows = vec![names(&symbols)];
    match Btf::of_kernel() {
        Ok(btf) if facts.check_kernel().is_ok() => {
            kinds(&Kernel::running(&btf, &symbols), &mut rows);
        }
        Ok(_) => {}
        Err(error) => rows.push(row("kernel memory", "no", true, error.to_string())),
    }
    rows.push(allocinfo());
    rows.push(kmemleak());
    rows
}

fn names(symbols: &Symbols) -> Row {
    let restrict = fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap_or_default();
    if symbols.is_empty() {
        return row(
            "kernel symbols",
            "hidden",
            true,
            format!(
                "call sites of the kernel have no names: kptr_restrict is {}, \
                 sysctl kernel.kptr_restrict=0 or 1 shows them to root",
                restrict.trim()
            ),
        );
    }
    row("kernel symbols", "yes", true, "call sites of the kernel have names")
}

fn kinds(kernel: &Kernel<'_>, rows: &mut Vec<Row>) {
    let all = BTreeSet::from(KernelKind::ALL);
    for way in kernel.ways(&all) {
        let feature = match way.kind {
            KernelKind::Kmalloc => "kernel kmalloc",
            KernelKind::Cache => "kernel caches",
            KernelKind::Pages => "kernel pages",
            KernelKind::PerCpu => "kernel percpu",
            KernelKind::Vmalloc => "kernel vmalloc",
        };
        rows.push(match way.hooks {
            Ok(hooks) => row(feature, how(&hooks), true, places(&hooks)),
            Err(reason) => row(feature, "no", true, format!("not traced: {reason}")),
        });
    }
    for (hook, objection) in kernel.hidden_frees(&all) {
        let feature = if hook.program == "rcu_free" { "kfree_rcu" } else { "bulk frees" };
        rows.push(match objection {
            None => row(feature, how(&[hook]), true, places(&[hook])),
            Some(reason) => row(
                feature,
                "no",
                true,
                format!(
                    "{reason}: what is freed by {} counts as held until its address is \
                     handed out again",
                    hook.place
                ),
            ),
        });
    }
}

fn how(hooks: &[Hook]) -> &'static str {
    if hooks.iter().all(|hook| hook.attach == Attach::Tracepoint) { "raw tp" } else { "kprobe" }
}

fn places(hooks: &[Hook]) -> String {
    let mut places: Vec<&str> = hooks.iter().map(|hook| hook.place).collect();
    places.dedup();
    places.join(", ")
}

fn allocinfo() -> Row {
    let text = fs::read_to_string("/proc/sys/vm/mem_profiling").unwrap_or_default();
    match (fs::metadata("/proc/allocinfo").is_ok(), text.trim()) {
        (true, "1") => {
            row("/proc/allocinfo", "on", true, "the kernel counts memory by line itself")
        }
        (true, _) => row("/proc/allocinfo", "off", true, "sysctl vm.mem_profiling=1 has it count"),
        (false, _) => row(
            "/proc/allocinfo",
            "no",
            true,
            "the kernel does not count memory by line (CONFIG_MEM_ALLOC_PROFILING)",
        ),
    }
}

fn kmemleak() -> Row {
    if fs::metadata("/sys/kernel/debug/kmemleak").is_ok() {
        row("kmemleak", "yes", true, "read /sys/kernel/debug/kmemleak for what it has found")
    } else {
        row("kmemleak", "no", true, "not built into this kernel, or debugfs is not mounted")
    }
}
