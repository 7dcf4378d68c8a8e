//! Unwind tables, as the walker in the kernel reads them.
//!
//! A table is an array of 64-byte cells of sixteen 32-bit words:
//! * a *directory*, one word for each 4 KiB page of text and one more: the
//!   index of the first row of that page;
//! * from cell [`TableGeometry::row_cell`] on, the *rows*: bits 0..12 the
//!   offset in its page at which the row begins to hold, bits 12..32 the
//!   number of its rule.
//!
//! Rules are shared by all tables; see [`Rule`].

use crate::plain_data;

/// Words in a cell.
pub const CELL_WORDS: usize = 16;
/// One array element of a table.
pub type Cell = [u32; CELL_WORDS];
/// Tables that can be loaded at the same time.
pub const TABLES: usize = 4096;
/// Distinct rules over all tables.
pub const RULES: usize = 64 << 10;
/// Mappings over all targets, in prefixes.
pub const MAPPINGS: usize = 256 << 10;
/// Bits of a row that hold the offset in its page; also log2 of the page.
pub const PAGE_BITS: u32 = 12;

/// Where a table's parts are. Index in the map: the table's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableGeometry {
    /// Virtual address of the first page of text, as the ELF file counts it,
    /// shifted right by [`PAGE_BITS`].
    pub first_page: u32,
    /// Pages of text; 0: no table under this number.
    pub pages: u32,
    /// The cell in which the rows begin.
    pub row_cell: u32,
    /// 0.
    pub reserved: u32,
}

plain_data!(TableGeometry = 16);

/// Key of the mapping trie: the process, then the address, both big-endian;
/// prefixes are 64 to 128 bits long.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingKey {
    /// The process, big-endian.
    pub tgid: u32,
    /// 0.
    pub reserved: u32,
    /// Upper half of the address, big-endian.
    pub address_high: u32,
    /// Lower half of the address, big-endian.
    pub address_low: u32,
}

plain_data!(MappingKey = 16);

impl MappingKey {
    /// The key for one address of a process.
    #[inline(always)]
    pub const fn new(tgid: u32, address: u64) -> Self {
        Self {
            tgid: tgid.to_be(),
            reserved: 0,
            address_high: ((address >> 32) as u32).to_be(),
            address_low: (address as u32).to_be(),
        }
    }
}

/// An executable mapping of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub begin: u64,
    /// First address behind it.
    pub end: u64,
    /// Address in the process minus virtual address in the ELF file.
    pub bias: u64,
    /// The number of its table, or [`NO_TABLE`].
    pub table: u32,
    /// 0.
    pub reserved: u32,
}

plain_data!(Mapping = 32);

/// A mapping whose file gave no table: stop there, or step by frame pointer.
pub const NO_TABLE: u32 = u32::MAX;

/// How to find the canonical frame address (CFA).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CfaKind {
    /// No unwind information here.
    None = 0,
    /// Stack pointer plus offset.
    StackPointer = 1,
    /// Frame pointer plus offset.
    FramePointer = 2,
    /// In a PLT stub: stack pointer + 8, and 8 more once `pc & 15` has
    /// reached `extra`.
    Plt = 3,
    /// `*(stack pointer + offset) + 8 * extra`.
    DerefStackPointer = 4,
    /// `*(frame pointer + offset) + 8 * extra`.
    DerefFramePointer = 5,
    /// The kernel's signal frame lies at the stack pointer.
    Signal = 6,
    /// A rule that the walker cannot follow.
    Unsupported = 7,
    /// The outermost frame: there is no caller.
    Bottom = 8,
}

/// How to find the caller's frame pointer.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FpKind {
    /// It has not changed.
    Same = 0,
    /// Saved at CFA plus offset.
    AtCfa = 1,
    /// It cannot be known; a later rule that needs it will fail its checks.
    Unknown = 2,
    /// Saved at frame pointer plus offset (gcc's realigned stacks).
    AtFramePointer = 4,
}

/// One rule, packed: bits 0..4 [`CfaKind`], 4..7 [`FpKind`], 7..9 where the
/// return address is, 9..16 `extra`, 16..40 the CFA's offset, 40..64 the frame
/// pointer's offset, both signed.
///
/// Return address: 0 at CFA - 8 (x86-64), 1 in the link register, 2 saved at
/// CFA + frame pointer's offset + 8 * `extra`, `extra` being signed there
/// (both aarch64). A usual frame record, {x29, x30}, has `extra` 1. The offset
/// is set also where the frame pointer itself is [`FpKind::Same`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule(pub u64);

plain_data!(Rule = 8);

impl Rule {
    /// No unwind information.
    pub const NONE: Self = Self(CfaKind::None as u64);
    /// The outermost frame.
    pub const BOTTOM: Self = Self(CfaKind::Bottom as u64);
    /// A signal frame.
    pub const SIGNAL: Self = Self(CfaKind::Signal as u64);
    /// Something that the walker cannot follow.
    pub const UNSUPPORTED: Self = Self(CfaKind::Unsupported as u64);

    /// Packs a rule; `None` if an operand does not fit (24 bits, signed; 7
    /// bits for `extra`): the caller then uses [`Rule::UNSUPPORTED`].
    pub const fn pack(
        cfa: CfaKind,
        cfa_offset: i64,
        extra: u8,
        fp: FpKind,
        fp_offset: i64,
    ) -> Option<Self> {
        const LIMIT: i64 = 1 << 23;
        if cfa_offset < -LIMIT
            || cfa_offset >= LIMIT
            || fp_offset < -LIMIT
            || fp_offset >= LIMIT
            || extra > 0x7f
        {
            return None;
        }
        Some(Self(
            cfa as u64
                | (fp as u64) << 4
                | (extra as u64) << 9
                | (cfa_offset as u64 & 0xff_ffff) << 16
                | (fp_offset as u64 & 0xff_ffff) << 40,
        ))
    }

    /// The rule with the return address in the link register (aarch64).
    pub const fn with_return_in_link(self) -> Self {
        Self(self.0 | 1 << 7)
    }

    /// Packs a rule whose return address is saved at CFA plus `return_offset`
    /// (aarch64). `None` as for [`Rule::pack`], and also where frame pointer
    /// and return address are more than 63 words apart, or the frame pointer's
    /// place does not count from the CFA.
    pub const fn pack_saved_link(
        cfa: CfaKind,
        cfa_offset: i64,
        fp: FpKind,
        fp_offset: i64,
        return_offset: i64,
    ) -> Option<Self> {
        let (fp_offset, words) = match fp {
            FpKind::AtCfa => match return_offset.checked_sub(fp_offset) {
                Some(apart) if apart % 8 == 0 => (fp_offset, apart / 8),
                _ => return None,
            },
            FpKind::Same | FpKind::Unknown => (return_offset, 0),
            FpKind::AtFramePointer => return None,
        };
        let plain = matches!(cfa, CfaKind::StackPointer | CfaKind::FramePointer);
        if words < -64 || words > 63 || !plain {
            return None;
        }
        match Self::pack(cfa, cfa_offset, (words & 0x7f) as u8, fp, fp_offset) {
            Some(rule) => Some(Self(rule.0 | 2 << 7)),
            None => None,
        }
    }

    /// Number of the [`CfaKind`].
    #[inline(always)]
    pub const fn cfa_kind(self) -> u64 {
        self.0 & 15
    }

    /// Number of the [`FpKind`].
    #[inline(always)]
    pub const fn fp_kind(self) -> u64 {
        (self.0 >> 4) & 7
    }

    /// Where the return address is: 0 at CFA - 8, 1 in the link register, 2
    /// saved elsewhere; see [`Rule`].
    #[inline(always)]
    pub const fn return_kind(self) -> u64 {
        (self.0 >> 7) & 3
    }

    /// The extra operand.
    #[inline(always)]
    pub const fn extra(self) -> u64 {
        (self.0 >> 9) & 0x7f
    }

    /// The CFA's offset, sign-extended.
    #[inline(always)]
    pub const fn cfa_offset(self) -> u64 {
        (((self.0 << 24) as i64) >> 40) as u64
    }

    /// The frame pointer's offset, sign-extended.
    #[inline(always)]
    pub const fn fp_offset(self) -> u64 {
        ((self.0 as i64) >> 40) as u64
    }
}
