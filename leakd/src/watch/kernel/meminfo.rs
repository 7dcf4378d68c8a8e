//! Totals of the kernel's memory, from /proc/meminfo (proc_meminfo(5)).

/// The kernel's is about 1.5 KiB.
pub const MOST_BYTES: usize = 16 << 10;

/// A total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Total {
    /// Slab memory that the kernel does not take back when memory is short.
    SlabUnreclaimable,
    /// What it does take back: slab and other.
    Reclaimable,
    /// Memory that each CPU has a part of.
    PerCpu,
    /// Pages that vmalloc has mapped.
    Vmalloc,
    /// Page tables of processes.
    PageTables,
    /// Stacks of tasks.
    Stacks,
}

impl Total {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SlabUnreclaimable,
        Self::Reclaimable,
        Self::PerCpu,
        Self::Vmalloc,
        Self::PageTables,
        Self::Stacks,
    ];

    /// As /proc/meminfo calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SlabUnreclaimable => "SUnreclaim",
            Self::Reclaimable => "KReclaimable",
            Self::PerCpu => "Percpu",
            Self::Vmalloc => "VmallocUsed",
            Self::PageTables => "PageTables",
            Self::Stacks => "KernelStack",
        }
    }

    /// Whether the kernel takes it back when memory is short.
    pub const fn is_reclaimable(self) -> bool {
        matches!(self, Self::Reclaimable)
    }
}

/// What the totals are, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([Option<u64>; Total::ALL.len()]);

impl Totals {
    /// Those that this kernel has.
    pub fn iter(self) -> impl Iterator<Item = (Total, u64)> {
        Total::ALL.into_iter().zip(self.0).filter_map(|(total, bytes)| Some((total, bytes?)))
    }
}

/// Reads lines such as `Percpu:   1288 kB`.
pub fn parse(text: &[u8]) -> Totals {
    let mut totals = Totals::default();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let index = Total::ALL.iter().position(|total| total.name().as_bytes() == &line[..colon]);
        let Some(index) = index else { continue };
        let value = line[colon + 1..].trim_ascii();
        if let Some(kib) = value.strip_suffix(b" kB") {
            totals.0[index] = std::str::from_utf8(kib)
                .ok()
                .and_then(|kib| kib.parse::<u64>().ok())
                .and_then(|kib| kib.checked_mul(1024));
        }
    }
    totals
}
