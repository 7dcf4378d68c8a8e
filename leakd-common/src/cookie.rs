//! The attach cookie: all that a probe must know about where it was placed,
//! in the 64 bits that the kernel hands to the program for free.

/// What the probed function does, as far as the ledger is concerned.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// `malloc(size)` and whatever else takes a size and gives a block or NULL.
    Malloc = 1,
    /// `calloc(count, size)`.
    Calloc = 2,
    /// `realloc(pointer, size)`.
    Realloc = 3,
    /// `reallocarray(pointer, count, size)`.
    Reallocarray = 4,
    /// `memalign(alignment, size)`, `aligned_alloc(alignment, size)`.
    Memalign = 5,
    /// `posix_memalign(out, alignment, size)`.
    PosixMemalign = 6,
    /// `free(pointer)`; also `cfree` and `operator delete`.
    Free = 7,
    /// An allocating function that the user named; see [`Cookie::arguments`].
    CustomAllocate = 8,
    /// A freeing function that the user named.
    CustomFree = 9,
    /// `valloc(size)`, `pvalloc(size)`: like malloc, but they call others.
    Valloc = 10,
    /// `operator new(size)`, where it throws if there is nothing to give.
    New = 11,
}

impl Function {
    /// The function with this number, as found in a cookie.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Malloc,
            2 => Self::Calloc,
            3 => Self::Realloc,
            4 => Self::Reallocarray,
            5 => Self::Memalign,
            6 => Self::PosixMemalign,
            7 => Self::Free,
            8 => Self::CustomAllocate,
            9 => Self::CustomFree,
            10 => Self::Valloc,
            11 => Self::New,
            _ => return None,
        })
    }

    /// Whether the function gives memory back and needs no return probe.
    pub const fn frees(self) -> bool {
        matches!(self, Self::Free | Self::CustomFree)
    }
}

/// Where a custom function has its operands. Arguments count from 1, as in
/// the command line's `--alloc NAME:size=1,ret`; 0 stands for "has none".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arguments {
    /// The argument with the size in bytes; 0: the size is unknown, count 0.
    pub size: u8,
    /// The argument that multiplies the size (as in calloc).
    pub count: u8,
    /// For an allocating function, the argument that points to where the
    /// block's address is stored (0: it is the return value); for a freeing
    /// function, the argument with the block's address.
    pub pointer: u8,
}

/// The attach cookie of one probe.
///
/// | bits | holds |
/// |---|---|
/// | 0..8 | [`Function`] |
/// | 8..12, 12..16, 16..20 | [`Arguments`] `size`, `count`, `pointer` |
/// | 20..24 | unused, 0 |
/// | 24..32 | owner: the number of the allocator's object in its target |
/// | 32..48 | slot of the target |
/// | 48..64 | unused, 0 |
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cookie(pub u64);

/// The owner number of functions that the user named.
pub const CUSTOM_OWNER: u8 = 255;

impl Cookie {
    /// Packs a cookie. Arguments above 15 are cut to 4 bits.
    pub const fn new(function: Function, arguments: Arguments, owner: u8, slot: u16) -> Self {
        Self(
            function as u64
                | ((arguments.size & 15) as u64) << 8
                | ((arguments.count & 15) as u64) << 12
                | ((arguments.pointer & 15) as u64) << 16
                | (owner as u64) << 24
                | (slot as u64) << 32,
        )
    }

    /// The number of the [`Function`].
    #[inline(always)]
    pub const fn function(self) -> u8 {
        self.0 as u8
    }

    /// Operands of a custom function.
    #[inline(always)]
    pub const fn arguments(self) -> Arguments {
        Arguments {
            size: (self.0 >> 8) as u8 & 15,
            count: (self.0 >> 12) as u8 & 15,
            pointer: (self.0 >> 16) as u8 & 15,
        }
    }

    /// The number of the allocator's object in its target.
    #[inline(always)]
    pub const fn owner(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The slot of the target in the per-target maps.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 >> 32) as u32 & 0xffff
    }
}
