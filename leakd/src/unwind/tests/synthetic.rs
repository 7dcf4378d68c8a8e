//! Sections made by hand: each rule, and how entries share an address space.

use leakd_common::unwind::{CfaKind, FpKind, Rule};

use super::hostile::image;
use crate::unwind::convert::convert_image;
use crate::unwind::image::{Architecture, FrameFormat};
use crate::unwind::{Limits, Table};

/// An .eh_frame section: one CIE and its FDEs, with absolute 8-byte addresses.
pub(super) struct Section {
    pub(super) bytes: Vec<u8>,
}

impl Section {
    /// A CIE without augmentation. Code alignment 1, data alignment -8.
    pub(super) fn new(return_register: u8, instructions: &[u8]) -> Self {
        Self::augmented(b"", return_register, instructions)
    }

    /// One with an augmentation string that takes no data.
    pub(super) fn augmented(augmentation: &[u8], return_register: u8, instructions: &[u8]) -> Self {
        let mut body = vec![0, 0, 0, 0, 1];
        body.extend(augmentation);
        body.extend([0, 1, 0x78, return_register]);
        body.extend(instructions);
        Self { bytes: Self::framed(body) }
    }

    fn framed(body: Vec<u8>) -> Vec<u8> {
        [&(body.len() as u32).to_le_bytes()[..], &body].concat()
    }

    pub(super) fn entry(&mut self, begin: u64, length: u64, instructions: &[u8]) {
        let cie_pointer = self.bytes.len() as u32 + 4;
        let mut body = cie_pointer.to_le_bytes().to_vec();
        body.extend(begin.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(instructions);
        self.bytes.extend(Self::framed(body));
    }
}

fn table(architecture: Architecture, section: Section) -> Table {
    let image = image(architecture, FrameFormat::EhFrame, section.bytes);
    convert_image(&image, Limits::default()).unwrap()
}

/// `def_cfa rsp, 8; offset rip, cfa - 8`, as every x86-64 compiler begins.
const X86: &[u8] = &[0x0c, 7, 8, 0x90, 1];

/// The rule at the beginning of an x86-64 entry with these instructions.
fn x86(instructions: &[u8]) -> Rule {
    let mut section = Section::new(16, X86);
    section.entry(0x2000, 16, instructions);
    table(Architecture::X86_64, section).find(0x2000).unwrap()
}

fn packed(cfa: CfaKind, offset: i64, extra: u8, fp: FpKind, fp_offset: i64) -> Rule {
    Rule::pack(cfa, offset, extra, fp, fp_offset).unwrap()
}

/// Check each kind of rule that x86-64 compilers, linkers and libraries use.
#[test]
fn x86_rules() {
    use CfaKind::{DerefFramePointer, DerefStackPointer, FramePointer, Plt, StackPointer};
    use FpKind::{AtCfa, AtFramePointer, Same, Unknown};
    // push %rbp; mov %rsp,%rbp
    assert_eq!(x86(&[]), packed(StackPointer, 8, 0, Same, 0));
    assert_eq!(x86(&[0x0e, 16, 0x86, 2]), packed(StackPointer, 16, 0, AtCfa, -16));
    assert_eq!(x86(&[0x0e, 16, 0x86, 2, 0x0d, 6]), packed(FramePointer, 16, 0, AtCfa, -16));
    // A frame of 500,000 bytes, and one that does not fit.
    assert_eq!(x86(&[0x0e, 0xa0, 0xc2, 0x1e]), packed(StackPointer, 500_000, 0, Same, 0));
    assert_eq!(x86(&[0x0e, 0x80, 0x80, 0x80, 0x04]), Rule::UNSUPPORTED);
    // .plt
    let plt = [0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
    assert_eq!(x86(&plt), packed(Plt, 0, 11, Same, 0));
    // gcc's realigned stack: CFA at *(rbp - 8), rbp at *(rbp).
    let realigned = [0x10, 6, 2, 0x76, 0, 0x0f, 3, 0x76, 0x78, 0x06];
    assert_eq!(x86(&realigned), packed(DerefFramePointer, -8, 0, AtFramePointer, 0));
    // Assembler that saves the stack pointer: *(rsp + 56) + 8.
    let saved = [0x0f, 5, 0x77, 56, 0x06, 0x23, 8];
    assert_eq!(x86(&saved), packed(DerefStackPointer, 56, 1, Same, 0));
    // Not a multiple of 8, and too far.
    assert_eq!(x86(&[0x0f, 5, 0x77, 56, 0x06, 0x23, 4]), Rule::UNSUPPORTED);
    assert_eq!(x86(&[0x0f, 6, 0x77, 56, 0x06, 0x23, 0x80, 0x08]), Rule::UNSUPPORTED);
    // The CFA in r10.
    assert_eq!(x86(&[0x0c, 10, 0]), Rule::UNSUPPORTED);
    // The frame pointer in another register, or gone.
    assert_eq!(x86(&[0x09, 6, 3]), packed(StackPointer, 8, 0, Unknown, 0));
    assert_eq!(x86(&[0x07, 6]), packed(StackPointer, 8, 0, Unknown, 0));
    // _start, and a return address in another place.
    assert_eq!(x86(&[0x07, 16]), Rule::BOTTOM);
    assert_eq!(x86(&[0x90, 2]), Rule::UNSUPPORTED);
    // An instruction that does not exist.
    assert_eq!(x86(&[0x3b]), Rule::UNSUPPORTED);
}

/// Check that the kernel's signal frame is told by its mark and its expression
/// together.
#[test]
fn x86_signal_frame() {
    // DW_CFA_def_cfa_expression: breg7 160; deref
    let saved = [0x0f, 4, 0x77, 0xa0, 0x01, 0x06];
    for (augmentation, expected) in [
        (&b"S"[..], Rule::SIGNAL),
        (b"", packed(CfaKind::DerefStackPointer, 160, 0, FpKind::Same, 0)),
    ] {
        let mut section = Section::augmented(augmentation, 16, X86);
        section.entry(0x2000, 16, &saved);
        assert_eq!(table(Architecture::X86_64, section).find(0x2000), Some(expected));
    }
    let mut section = Section::augmented(b"S", 16, X86);
    section.entry(0x2000, 16, &[]);
    let plain = packed(CfaKind::StackPointer, 8, 0, FpKind::Same, 0);
    assert_eq!(table(Architecture::X86_64, section).find(0x2000), Some(plain));
}

/// Check aarch64: return address in the link register, in a frame record, alone
/// on the stack, and signed.
#[test]
fn aarch64_rules() {
    let rule = |instructions: &[u8]| {
        // def_cfa sp, 0
        let mut section = Section::new(30, &[0x0c, 31, 0]);
        section.entry(0x2000, 16, instructions);
        table(Architecture::Aarch64, section).find(0x2000).unwrap()
    };
    let leaf = packed(CfaKind::StackPointer, 0, 0, FpKind::Same, 0);
    assert_eq!(rule(&[]), leaf.with_return_in_link());
    assert_eq!(rule(&[]).return_kind(), 1);
    // paciasp: DW_CFA_AARCH64_negate_ra_state
    assert_eq!(rule(&[0x2d]), leaf.with_return_in_link());
    // stp x29, x30, [sp, -32]!
    let record = rule(&[0x2d, 0x0e, 32, 0x9d, 4, 0x9e, 3]);
    assert_eq!(record.return_kind(), 2);
    assert_eq!((record.fp_offset() as i64, record.extra()), (-32, 1));
    assert_eq!(record.fp_kind(), FpKind::AtCfa as u64);
    // str x30, [sp, -16]!
    let alone = rule(&[0x0e, 16, 0x9e, 2]);
    assert_eq!(alone.return_kind(), 2);
    assert_eq!((alone.fp_offset() as i64, alone.extra()), (-16, 0));
    assert_eq!(alone.fp_kind(), FpKind::Same as u64);
    // x30 below x29, and further away than a rule can say.
    let below = rule(&[0x0e, 64, 0x9d, 2, 0x9e, 4]);
    assert_eq!((below.fp_offset() as i64, below.extra()), (-16, 0x7e));
    assert_eq!(rule(&[0x0e, 64, 0x9d, 2, 0x9e, 80]), Rule::UNSUPPORTED);
    assert_eq!(rule(&[0x07, 30]), Rule::BOTTOM);
}

/// Check that gaps have no rule, padding up to 16 bytes excepted, that the first of two overlapping entries
/// stays, that the second of two rows for an address wins, and that repeated
/// rules make no row.
#[test]
fn sharing_an_address_space() {
    let mut section = Section::new(16, X86);
    // advance_loc 4; def_cfa_offset 16; advance_loc 0 (set twice);
    // def_cfa_offset 24; advance_loc 4; def_cfa_offset 24
    section.entry(0x2000, 16, &[0x44, 0x0e, 16, 0x40, 0x0e, 24, 0x44, 0x0e, 24]);
    section.entry(0x2008, 16, &[0x0e, 64]);
    section.entry(0x2020, 16, &[0x0e, 24]);
    section.entry(0x5000, 16, &[0x0e, 24]);
    section.entry(0x5020, 3, &[0x0e, 24]);
    section.entry(0x5030, 3, &[0x0e, 16]);
    section.entry(0x5041, 3, &[0x0e, 24]);
    // A zero-length entry, which linkers leave behind.
    section.entry(0x6000, 0, &[0x0e, 32]);
    let table = table(Architecture::X86_64, section);
    let cfa = |offset| Some(packed(CfaKind::StackPointer, offset, 0, FpKind::Same, 0));
    for (address, expected) in [
        (0x1fff, None),
        (0x2000, cfa(8)),
        (0x2003, cfa(8)),
        (0x2004, cfa(24)),
        (0x200f, cfa(24)),
        (0x2010, Some(Rule::NONE)),
        (0x201f, Some(Rule::NONE)),
        (0x2020, cfa(24)),
        (0x2030, Some(Rule::NONE)),
        (0x3abc, Some(Rule::NONE)),
        (0x5000, cfa(24)),
        (0x5010, Some(Rule::NONE)),
        (0x502f, cfa(24)),
        (0x5030, cfa(16)),
        (0x5032, cfa(16)),
        (0x5033, Some(Rule::NONE)),
        (0x5041, cfa(24)),
        (0x5044, Some(Rule::NONE)),
        (0x6000, None),
    ] {
        assert_eq!(table.find(address), expected, "{address:#x}");
    }
    assert_eq!(table.rows.len(), 12);
    assert_eq!(table.stats.overlapping, 1);
    // The overwritten one keeps its number.
    assert_eq!(table.rules.len(), 4);
}

/// Check that .debug_frame fills what .eh_frame leaves open, and no more.
#[test]
fn both_formats() {
    let mut section = Section::new(16, X86);
    section.entry(0x2000, 16, &[]);
    let mut image = image(Architecture::X86_64, FrameFormat::EhFrame, section.bytes);
    let mut debug = Section::new(16, X86);
    debug.entry(0x2000, 16, &[0x0e, 64]);
    debug.entry(0x3000, 16, &[0x0e, 32]);
    // In .debug_frame a CIE's id is all ones, and CIE pointers count from the
    // section's beginning.
    debug.bytes[4..8].fill(0xff);
    let mut at = 4 + debug.bytes[0] as usize;
    while at < debug.bytes.len() {
        debug.bytes[at + 4..at + 8].fill(0);
        at += 4 + debug.bytes[at] as usize;
    }
    let mut frames = image.frames[0].clone();
    frames.format = FrameFormat::DebugFrame;
    frames.data = debug.bytes;
    image.frames.push(frames);
    let table = convert_image(&image, Limits::default()).unwrap();
    let cfa = |offset| Some(packed(CfaKind::StackPointer, offset, 0, FpKind::Same, 0));
    assert_eq!(table.find(0x2000), cfa(8));
    assert_eq!(table.find(0x2800), Some(Rule::NONE));
    assert_eq!(table.find(0x3000), cfa(32));
}

/// Check that a file with more rules than a table may have keeps the first
/// ones, and calls the others unsupported.
#[test]
fn too_many_rules() {
    let mut section = Section::new(16, X86);
    for index in 0..6000u64 {
        let offset = 0x80 + index;
        section.entry(0x2000 + 16 * index, 16, &[0x0e, offset as u8 | 0x80, (offset >> 7) as u8]);
    }
    let table = table(Architecture::X86_64, section);
    assert_eq!(table.rules.len(), crate::unwind::table::MAX_RULES);
    let first = packed(CfaKind::StackPointer, 0x80, 0, FpKind::Same, 0);
    assert_eq!(table.find(0x2000), Some(first));
    assert_eq!(table.find(0x2000 + 16 * 5999), Some(Rule::UNSUPPORTED));
}

/// Check that where text ends on a page boundary with a multiple of sixteen
/// rows, the walker still finds a cell to look at.
#[test]
fn last_cell() {
    let mut section = Section::new(16, X86);
    for index in 0..16u64 {
        section.entry(0x2000 + 16 * index, 16, &[0x0e, 8 + 8 * (index as u8 & 1)]);
    }
    section.entry(0x2100, 0x3000, &[0x0e, 8]);
    let table = table(Architecture::X86_64, section);
    let numbers: Vec<u32> = (0..table.rules.len() as u32).collect();
    let cells = table.cells(&numbers, 0);
    for address in (0x2000..0x5100).step_by(8) {
        let number = super::walker::find(&cells, address).unwrap();
        assert_eq!(Some(table.rules[number as usize]), table.find(address), "{address:#x}");
    }
}
