//! Real files, against an independent reading of the same sections: gimli finds
//! the entry through .eh_frame_hdr, runs its instructions and evaluates its
//! expressions on made-up registers and memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EvaluationResult, LittleEndian, Location,
    Register, RegisterRule, UnwindContext, UnwindSection, Value,
};
use leakd_common::unwind::Rule;
use object::{Object, ObjectSection};

use super::walker::{self, Frame, LINK, Step};
use crate::unwind::{Limits, Table, convert};

/// Files to compare, of which each machine that builds leakd has several.
fn files() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files: Vec<PathBuf> = maps
        .lines()
        .filter(|line| line.contains("r-xp"))
        .filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])))
        .collect();
    for directory in ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"] {
        for name in ["libstdc++.so.6", "libcrypto.so.3", "libm.so.6", "libz.so.1"] {
            files.push(Path::new(directory).join(name));
        }
    }
    for path in ["/usr/bin/python3", "/usr/bin/perl", "/bin/bash", "/bin/ls"] {
        files.push(path.into());
    }
    files.retain(|path| path.exists());
    assert!(files.len() >= 6, "libc, ld.so, the test, libstdc++, perl and bash: {files:?}");
    files
}

fn table(path: &Path) -> Table {
    let file = File::open(path).unwrap();
    let limits = Limits { time: std::time::Duration::from_secs(60), ..Default::default() };
    convert(&file, limits).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Made-up memory.
fn memory(address: u64) -> u64 {
    (address ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31)
}

/// What the DWARF sections say about one address; `None`: no entry covers it.
struct Reference<'data> {
    frames: EhFrame<gimli::EndianSlice<'data, LittleEndian>>,
    index: gimli::ParsedEhFrameHdr<gimli::EndianSlice<'data, LittleEndian>>,
    bases: BaseAddresses,
    context: UnwindContext<usize>,
    aarch64: bool,
}

impl<'data> Reference<'data> {
    fn new(object: &object::File<'data>) -> Self {
        let section = |name: &str| {
            let section = object.section_by_name(name).unwrap();
            (section.data().unwrap(), section.address())
        };
        let (data, address) = section(".eh_frame");
        let (index, index_address) = section(".eh_frame_hdr");
        let text = object.section_by_name(".text").unwrap().address();
        let bases = BaseAddresses::default()
            .set_eh_frame(address)
            .set_eh_frame_hdr(index_address)
            .set_text(text);
        let aarch64 = object.architecture() == object::Architecture::Aarch64;
        let mut frames = EhFrame::new(data, LittleEndian);
        if aarch64 {
            frames.set_vendor(gimli::Vendor::AArch64);
        }
        let index = EhFrameHdr::new(index, LittleEndian).parse(&bases, 8).unwrap();
        Self { frames, index, bases, context: UnwindContext::new(), aarch64 }
    }

    fn step(&mut self, frame: Frame) -> Option<Step> {
        let (fp_register, sp_register) = if self.aarch64 { (29, 31) } else { (6, 7) };
        let fp_register = Register(fp_register);
        let table = self.index.table().unwrap();
        let cie = EhFrame::cie_from_offset;
        let fde = table.fde_for_address(&self.frames, &self.bases, frame.pc, cie).ok()?;
        let row = fde
            .unwind_info_for_address(&self.frames, &self.bases, &mut self.context, frame.pc)
            .expect("instructions that can be run");
        let fp = frame.fp.unwrap();
        let read = |register: Register| match register.0 {
            number if number == fp_register.0 => Some(fp),
            number if number == sp_register => Some(frame.sp),
            16 if !self.aarch64 => Some(frame.pc),
            _ => None,
        };
        let evaluate = |expression: &gimli::UnwindExpression<usize>| {
            let expression = expression.get(&self.frames).unwrap();
            let mut evaluation = expression.evaluation(fde.cie().encoding());
            let mut state = evaluation.evaluate().unwrap();
            loop {
                state = match state {
                    EvaluationResult::Complete => break,
                    EvaluationResult::RequiresRegister { register, .. } => {
                        evaluation.resume_with_register(Value::Generic(read(register)?)).unwrap()
                    }
                    EvaluationResult::RequiresMemory { address, .. } => {
                        evaluation.resume_with_memory(Value::Generic(memory(address))).unwrap()
                    }
                    other => panic!("{other:?}"),
                };
            }
            match evaluation.result()[0].location {
                Location::Address { address } => Some(address),
                other => panic!("{other:?}"),
            }
        };
        let return_rule = row.register(fde.cie().return_address_register());
        if matches!(return_rule, Some(RegisterRule::Undefined)) {
            return Some(Step::Bottom);
        }
        if fde.is_signal_trampoline() {
            return Some(Step::Signal);
        }
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                read(*register).map(|value| value.wrapping_add(*offset as u64))
            }
            CfaRule::Expression(expression) => evaluate(expression),
        };
        let Some(cfa) = cfa else { return Some(Step::Unsupported) };
        let caller_fp = match row.register(fp_register) {
            None | Some(RegisterRule::SameValue) => Some(fp),
            Some(RegisterRule::Offset(offset)) => Some(memory(cfa.wrapping_add(offset as u64))),
            Some(RegisterRule::Expression(expression)) => evaluate(&expression).map(memory),
            Some(_) => None,
        };
        let pc = match return_rule {
            Some(RegisterRule::Offset(offset)) => memory(cfa.wrapping_add(offset as u64)),
            None | Some(RegisterRule::SameValue) if self.aarch64 => LINK,
            _ => return Some(Step::Unsupported),
        };
        Some(Step::Caller(Frame { pc, sp: cfa, fp: caller_fp }))
    }
}

/// Compares `count` random addresses of a file; gives how many an entry covered
/// and how many rules were unsupported.
fn compare(path: &Path, count: u64) -> (u64, u64) {
    let bytes = std::fs::read(path).unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    let mut reference = Reference::new(&object);
    let table = table(path);
    let numbers: Vec<u32> = (0..table.rules.len() as u32).collect();
    let cells = table.cells(&numbers, 0);
    let text = table.segments.iter().find(|segment| segment.executable).unwrap();
    let (mut covered, mut unsupported) = (0, 0);
    for round in 0..count {
        let random = memory(round ^ text.memory_size);
        let pc = text.address + random % text.memory_size;
        let frame = Frame { pc, sp: 0x7ffd_0000_1000, fp: Some(0x7ffd_0000_2000) };
        let rule = table.find(pc);
        let in_kernel = walker::find(&cells, pc).map(|number| table.rules[number as usize]);
        assert_eq!(in_kernel, rule.ok_or("no row"), "{}: the walker at {pc:#x}", path.display());
        let found = walker::step(rule.unwrap_or(Rule::NONE), frame, memory);
        let expected = reference.step(frame);
        covered += u64::from(expected.is_some());
        match (expected.unwrap_or(Step::None), found) {
            // The walker follows two registers and some expressions only.
            (_, Step::Unsupported) => unsupported += 1,
            (Step::None, found) if found != Step::None => {
                // Padding behind a function, up to where another could begin.
                let last = (1..=pc & 15)
                    .find(|back| reference.step(Frame { pc: pc - back, ..frame }).is_some());
                assert!(last.is_some(), "{} at {pc:#x}: {rule:?}", path.display());
            }
            (expected, found) => {
                assert_eq!(expected, found, "{} at {pc:#x}: {rule:?}", path.display());
            }
        }
    }
    (covered, unsupported)
}

/// Check that at random addresses of real files the table gives the caller that
/// DWARF gives, and that the walker's search finds the same rule. At most one
/// address in a hundred may be one that the walker cannot follow.
#[test]
fn random_addresses() {
    let (mut covered, mut unsupported) = (0, 0);
    for path in files() {
        let (covered_here, unsupported_here) = compare(&path, 4000);
        eprintln!("{}: {covered_here} covered, {unsupported_here} unsupported", path.display());
        covered += covered_here;
        unsupported += unsupported_here;
    }
    assert!(covered > 20_000, "{covered}");
    assert!(unsupported * 100 < covered, "{unsupported} of {covered}");
}

/// Check the same on Debian's libraries for aarch64.
#[test]
fn random_addresses_aarch64() {
    let mut covered = 0;
    for name in ["libc.so.6", "libstdc++.so.6", "ld-linux-aarch64.so.1", "libm.so.6"] {
        let path = Path::new("/usr/aarch64-linux-gnu/lib").join(name);
        assert!(path.exists(), "apt-get install libc6-arm64-cross libstdc++6-arm64-cross");
        let (covered_here, unsupported) = compare(&path, 8000);
        eprintln!("{}: {covered_here} covered, {unsupported} unsupported", path.display());
        assert!(unsupported * 100 < covered_here);
        covered += covered_here;
    }
    assert!(covered > 10_000, "{covered}");
}

/// Check that each row of real files begins where DWARF begins one: the rule
/// changes there, and not before.
#[test]
fn every_row() {
    for path in files().into_iter().take(8) {
        let table = table(&path);
        let mut last = None;
        for page in 0..table.pages {
            let begin = table.directory[page as usize] as usize;
            let end = table.directory[page as usize + 1] as usize;
            assert!(begin <= end && end <= table.rows.len());
            for row in &table.rows[begin..end] {
                let address = u64::from(table.first_page + page) << 12 | u64::from(row & 0xfff);
                assert!(last.is_none_or(|last| last < address), "{}", path.display());
                let rule = table.rules[(row >> 12) as usize];
                assert_eq!(table.find(address), Some(rule));
                if last.is_some() {
                    assert_ne!(table.find(address - 1), Some(rule), "{address:#x}");
                }
                last = Some(address);
            }
        }
        assert_eq!(table.directory.last(), Some(&(table.rows.len() as u32)));
    }
}

/// Check that a file without section headers gives the same table, through
/// PT_GNU_EH_FRAME.
#[test]
fn without_section_headers() {
    let path = &files()[0];
    let mut bytes = std::fs::read(path).unwrap();
    let whole = crate::unwind::convert::convert_bytes(&*bytes, Limits::default()).unwrap();
    // e_shoff, e_shnum and e_shstrndx of the ELF header.
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    let stripped = crate::unwind::convert::convert_bytes(&*bytes, Limits::default()).unwrap();
    assert_eq!(whole.rows, stripped.rows);
    assert_eq!(whole.rules, stripped.rules);
    assert_eq!(whole.stats, stripped.stats);
}
