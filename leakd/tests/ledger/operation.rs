//! Sequences of allocator calls: random ones, and how the driver is told.

use std::fmt;

use proptest::prelude::*;

/// Threads that the driver does operations on.
pub const THREADS: u64 = 4;

/// What the driver calls; the numbers are those of `driver.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Malloc,
    Calloc,
    Realloc,
    Reallocarray,
    Memalign,
    AlignedAlloc,
    PosixMemalign,
    Valloc,
    Strdup,
    Free,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Malloc,
        Self::Calloc,
        Self::Realloc,
        Self::Reallocarray,
        Self::Memalign,
        Self::AlignedAlloc,
        Self::PosixMemalign,
        Self::Valloc,
        Self::Strdup,
        Self::Free,
    ];

    /// Whether its block comes from an earlier operation.
    fn has_source(self) -> bool {
        matches!(self, Self::Realloc | Self::Reallocarray | Self::Free)
    }
}

/// Which block a call is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// NULL.
    Null,
    /// One that was allocated before the attach.
    Unknown,
    /// One of those that earlier operations left: this number modulo theirs.
    Block(u16),
}

/// One call, as it is drawn at random.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Which thread makes it.
    pub thread: u8,
    /// What is called.
    pub kind: Kind,
    /// Bytes asked for; strdup: with the final zero.
    pub size: u64,
    /// calloc, reallocarray: the count; those that align: the alignment.
    pub extra: u64,
    /// realloc, reallocarray, free: the block.
    pub source: Source,
}

impl fmt::Debug for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread, kind, size, extra, source } = self;
        write!(to, "{thread}:{kind:?}({size:#x},{extra:#x}")?;
        match source {
            _ if !kind.has_source() => write!(to, ")"),
            Source::Null => write!(to, ",NULL)"),
            Source::Unknown => write!(to, ",unknown)"),
            Source::Block(block) => write!(to, ",block {block})"),
        }
    }
}

/// What is drawn at random, and what not.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// memalign and aligned_alloc, with alignments that are no power of two,
    /// too.
    pub odd_alignments: bool,
    /// The functions that align.
    pub aligned: bool,
}

impl Limits {
    /// Everything is called.
    pub const NONE: Self = Self { odd_alignments: true, aligned: true };
}

/// No machine has that much; the products of some wrap to small numbers, or
/// to 0.
const HUGE: [u64; 4] = [u64::MAX / 2, u64::MAX - 4096, 1 << 63, u64::MAX];

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0u64),
        12 => 1..200u64,
        8 => 200..5_000u64,
        2 => 5_000..300_000u64,
    ]
}

fn size_or_huge() -> impl Strategy<Value = u64> {
    prop_oneof![12 => size(), 1 => prop::sample::select(HUGE.as_slice())]
}

/// Count and size of each element; the product may wrap.
fn array() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![
        10 => (0..40u64, 0..300u64),
        1 => Just((1 << 32, 1 << 32)),
        1 => Just((1 << 63, 2)),
        1 => Just((3, u64::MAX / 2)),
        1 => Just((u64::MAX, u64::MAX)),
        1 => Just((1 << 33, (1 << 31) + 1)),
    ]
}

fn alignment(odd: bool) -> impl Strategy<Value = u64> {
    let power = (3..13u32).prop_map(|power| 1u64 << power);
    if odd {
        prop_oneof![10 => power, 1 => prop::sample::select(vec![0u64, 1, 2, 3, 24, 48, 1000])]
            .boxed()
    } else {
        power.boxed()
    }
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        1 => Just(Source::Null),
        1 => Just(Source::Unknown),
        14 => any::<u16>().prop_map(Source::Block),
    ]
}

/// One random call.
pub fn step(limits: Limits) -> impl Strategy<Value = Step> {
    let plain = |kind| size_or_huge().prop_map(move |size| (kind, size, 0, Source::Null));
    let aligned = |kind, odd| {
        (alignment(odd), size_or_huge())
            .prop_map(move |(alignment, size)| (kind, size, alignment, Source::Null))
    };
    let odd = limits.odd_alignments;
    let align = |weight: u32| if limits.aligned { weight } else { 0 };
    // Those that may be left out come last: shrinking goes to the front.
    let call = prop_oneof![
        24 => source().prop_map(|from| (Kind::Free, 0, 0, from)),
        14 => plain(Kind::Malloc),
        5 => array().prop_map(|(count, size)| (Kind::Calloc, size, count, Source::Null)),
        10 => (size_or_huge(), source()).prop_map(|(size, from)| (Kind::Realloc, size, 0, from)),
        5 => (array(), source())
            .prop_map(|((count, size), from)| (Kind::Reallocarray, size, count, from)),
        3 => (1..2_000u64).prop_map(|size| (Kind::Strdup, size, 0, Source::Null)),
        align(2) => aligned(Kind::Memalign, odd),
        align(2) => aligned(Kind::AlignedAlloc, odd),
        align(4) => aligned(Kind::PosixMemalign, true),
        align(2) => plain(Kind::Valloc),
    ];
    (0..THREADS as u8, call).prop_map(|(thread, (kind, size, extra, source))| Step {
        thread,
        kind,
        size,
        extra,
        source,
    })
}

/// One call, as the driver is told. Operations are numbered from 0 by their
/// place in the shared file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What is called.
    pub kind: Kind,
    /// By which thread.
    pub thread: u64,
    /// Bytes.
    pub size: u64,
    /// Count or alignment.
    pub extra: u64,
    /// The operation whose block is resized or freed; `None`: NULL.
    pub source: Option<usize>,
    /// One that must be done before this one begins.
    pub after: Option<usize>,
}

impl Operation {
    /// A call without a block to begin with.
    pub fn new(kind: Kind, thread: u64, size: u64) -> Self {
        Self { kind, thread, size, extra: 0, source: None, after: None }
    }

    /// free() of what an operation left, on some thread.
    pub fn free(source: usize) -> Self {
        let thread = source as u64 % THREADS;
        Self { source: Some(source), ..Self::new(Kind::Free, thread, 0) }
    }
}

/// Gives each step the blocks that it works on. The operations will be numbered
/// from `first`; `unknown` are those whose blocks were allocated unseen.
///
/// No block is used by two operations. One made by another thread is waited
/// for; apart from that, threads run side by side.
pub fn plan(
    steps: &[Step],
    first: usize,
    unknown: &mut impl Iterator<Item = usize>,
) -> Vec<Operation> {
    let mut blocks: Vec<usize> = Vec::new();
    let mut operations: Vec<Operation> = Vec::with_capacity(steps.len());
    for step in steps {
        let (kind, thread) = (step.kind, u64::from(step.thread) % THREADS);
        let source = match step.source {
            _ if !kind.has_source() => None,
            Source::Null => None,
            Source::Unknown => unknown.next(),
            Source::Block(_) if blocks.is_empty() => None,
            Source::Block(pick) => Some(blocks.swap_remove(usize::from(pick) % blocks.len())),
        };
        let after = source.filter(|&source| {
            source.checked_sub(first).is_some_and(|earlier| operations[earlier].thread != thread)
        });
        if kind != Kind::Free {
            blocks.push(first + operations.len());
        }
        let (size, extra) = (step.size, step.extra);
        operations.push(Operation { kind, thread, size, extra, source, after });
    }
    operations
}
