//! Tests of the reader, with the running kernel and with bytes of ours.

use proptest::prelude::*;

use super::format::{HEADER_BYTES, MAGIC, VERSION, information, kind};
use super::*;

/// BTF in the making.
#[derive(Default)]
struct Maker {
    types: Vec<u8>,
    strings: Vec<u8>,
    first_string: u32,
}

impl Maker {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    /// Split BTF, whose strings begin at an offset.
    fn upon(first_string: u32) -> Self {
        Self { first_string, ..Self::default() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let offset = self.first_string + self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        offset
    }

    fn add(&mut self, name: &str, information: u32, size_or_type: u32, rest: &[u32]) {
        let name = self.name(name);
        let words = [name, information, size_or_type].into_iter().chain(rest.iter().copied());
        self.types.extend(words.flat_map(u32::to_ne_bytes));
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([VERSION, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [HEADER_BYTES, 0, types, types, strings] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

/// One of each that is asked for.
fn example() -> Maker {
    let mut maker = Maker::new();
    maker.add("int", information(kind::INT, 0), 4, &[1 << 24 | 32]); // 1
    let [first, second, third, fourth] = ["first", "second", "third", "bit"].map(|n| maker.name(n));
    // 2: a union without a name; 3: what holds it.
    maker.add("", information(kind::UNION, 2), 4, &[first, 1, 0, second, 1, 0]);
    let members = [third, 1, 0, 0, 2, 32, fourth, 1, 3 << 24 | 64];
    maker.add("outer", information(kind::STRUCT, 3) | 1 << 31, 12, &members);
    maker.add("alias", information(kind::TYPEDEF, 0), 3, &[]); // 4
    maker.add("", information(kind::POINTER, 0), 5, &[]); // 5, to itself
    maker.add("", information(kind::ARRAY, 0), 0, &[3, 1, 7]); // 6
    let [list, inner] = ["list", "inner"].map(|name| maker.name(name));
    maker.add("holder", information(kind::STRUCT, 2), 100, &[inner, 4, 0, list, 6, 96]); // 7
    let [one, two] = ["ONE", "MINUS"].map(|name| maker.name(name));
    maker.add("", information(kind::ENUM, 2) | 1 << 31, 4, &[one, 1, two, u32::MAX]); // 8
    // Two of one name, which differ in a member.
    let same = maker.name("same");
    maker.add("twice", information(kind::STRUCT, 2), 8, &[first, 1, 0, same, 1, 32]); // 9
    maker.add("twice", information(kind::STRUCT, 2), 8, &[same, 1, 32, second, 1, 0]); // 10
    maker.add("", information(kind::PROTOTYPE, 3), 0, &[0, 5, first, 1, second, 5]); // 11
    maker.add("", information(kind::POINTER, 0), 11, &[]); // 12
    maker.add("btf_trace_event", information(kind::TYPEDEF, 0), 12, &[]); // 13
    maker.add("function", information(kind::FUNCTION, 1), 11, &[]); // 14
    maker.add("round", information(kind::TYPEDEF, 0), 15, &[]); // 15, of itself
    // The same as 11, as tracepoints have it, with the names elsewhere.
    maker.add("", information(kind::PROTOTYPE, 3), 0, &[0, 5, 0, 1, 0, 5]); // 16
    maker.add("", information(kind::POINTER, 0), 16, &[]); // 17
    maker.add("btf_trace_nameless", information(kind::TYPEDEF, 0), 17, &[]); // 18
    maker.add("__traceiter_nameless", information(kind::FUNCTION, 1), 11, &[]); // 19
    maker
}

fn parsed(maker: &Maker) -> Btf {
    Btf::parse(maker.bytes()).expect("good BTF")
}

/// All questions; what comes of them is not looked at.
fn ask(btf: &Btf) {
    for name in ["outer", "alias", "holder", "twice", "round", "", "first"] {
        let _ = btf.size(name);
        for path in ["first", "inner.first", "list", "bit", "", ".", "same"] {
            let _ = btf.member(name, path);
        }
    }
    let _ = btf.raw_tracepoint("event");
    let _ = btf.raw_tracepoint("nameless");
    let _ = btf.function("function");
    let _ = btf.constant("MINUS");
}

/// Check that sizes and members are found: through structures without a name,
/// typedefs and paths; and that what is no byte of its own is not.
#[test]
fn structures() {
    let btf = parsed(&example());
    assert_eq!(btf.size("outer"), Some(12));
    assert_eq!(btf.size("alias"), Some(12));
    assert_eq!(btf.size("round"), None);
    assert_eq!(btf.size("inner"), None, "the name of a member");
    let member = |offset, size| Some(Member { offset, size });
    assert_eq!(btf.member("outer", "third"), member(0, 4));
    assert_eq!(btf.member("outer", "second"), member(4, 4));
    assert_eq!(btf.member("alias", "second"), member(4, 4));
    assert_eq!(btf.member("outer", "bit"), None);
    assert_eq!(btf.member("holder", "inner.second"), member(4, 4));
    assert_eq!(btf.member("holder", "list"), member(12, 84));
    assert_eq!(btf.member("holder", "inner.fifth"), None);
    assert_eq!(btf.member("holder", "list.first"), None);
    assert_eq!(btf.member("holder", ""), None);
}

/// Check that of structures with the same name that differ nothing is said but
/// what is so in all that say something.
#[test]
fn ambiguous_structures() {
    let btf = parsed(&example());
    assert_eq!(btf.member("twice", "same"), Some(Member { offset: 4, size: 4 }));
    let mut maker = example();
    let same = maker.name("same");
    maker.add("twice", information(kind::STRUCT, 1), 4, &[same, 1, 0]);
    let btf = parsed(&maker);
    assert_eq!(btf.member("twice", "same"), None);
    assert_eq!(btf.size("twice"), None);
    assert!(btf.member("twice", "first").is_some());
}

/// Check what functions, tracepoints and constants come to.
#[test]
fn functions() {
    let btf = parsed(&example());
    let integer = ArgumentKind::Integer { size: 4, signed: true };
    let first = Argument { name: "first".into(), kind: integer };
    let second = Argument { name: "second".into(), kind: ArgumentKind::Pointer(String::new()) };
    let both = Some(vec![first, second]);
    assert_eq!(btf.raw_tracepoint("event"), both);
    assert_eq!(btf.raw_tracepoint("nameless"), both);
    assert_eq!(btf.function("function").map(|arguments| arguments.len()), Some(3));
    assert_eq!(btf.raw_tracepoint("function"), None);
    assert_eq!(btf.function("event"), None);
    assert_eq!(btf.constant("ONE"), Some(1));
    assert_eq!(btf.constant("MINUS"), Some(u64::MAX));
    assert_eq!(btf.constant("TWO"), None);
}

/// Check that a module's types refer to the kernel's, and are found with them.
#[test]
fn split() {
    let kernel = example();
    let base = Arc::new(parsed(&kernel));
    let mut module = Maker::upon(kernel.strings.len() as u32);
    let own = module.name("own");
    module.add("of_module", information(kind::STRUCT, 1), 16, &[own, 4, 32]); // 20
    let btf = Btf::parse_upon(&base, module.bytes()).expect("split BTF");
    assert_eq!(btf.member("of_module", "own.second"), Some(Member { offset: 8, size: 4 }));
    assert_eq!(btf.size("outer"), Some(12));
    assert_eq!(base.size("of_module"), None);
}

/// Check that a kind that came later is skipped if the file says how, and is
/// named if not.
#[test]
fn unknown_kinds() {
    let mut maker = Maker::new();
    maker.add("", information(99, 2), 0, &[1, 2, 3]);
    maker.add("behind", information(kind::STRUCT, 0), 8, &[]);
    let bytes = maker.bytes();
    let error = Btf::parse(bytes.clone()).expect_err("unknown").to_string();
    assert_eq!(error, "BTF has a type of kind 99, which leakd does not know");

    // With a layout section: 4 bytes once, 4 for each part.
    let mut layouts = vec![0; 100 * 4];
    layouts[99 * 4..].copy_from_slice(&[4, 4, 0, 0]);
    let mut with = bytes[..24].to_vec();
    with[4..8].copy_from_slice(&32u32.to_ne_bytes());
    with.extend((bytes.len() as u32 - 24).to_ne_bytes());
    with.extend((layouts.len() as u32).to_ne_bytes());
    with.extend(&bytes[24..]);
    with.extend(layouts);
    assert_eq!(Btf::parse(with).expect("told").size("behind"), Some(8));
}

/// Check that structures that hold one another without names end.
#[test]
fn structures_without_end() {
    let mut maker = Maker::new();
    // 1 holds itself, a thousand times.
    let members: Vec<u32> = (0..1000).flat_map(|_| [0, 1, 0]).collect();
    maker.add("round", information(kind::STRUCT, 1000), 8, &members);
    assert_eq!(parsed(&maker).member("round", "x"), None);
}

/// Check what the running kernel says against what its interface to programs
/// promises, and tracepoints and functions against what they have been for long.
#[test]
fn running_kernel() {
    let btf = Btf::of_kernel().expect("this kernel has BTF");
    assert_eq!(btf.size("list_head"), Some(16));
    let offset = |structure, path| btf.member(structure, path).map(|member| member.offset);
    assert_eq!(btf.size("stat"), Some(size_of::<libc::stat>() as u32));
    assert_eq!(offset("stat", "st_size"), Some(std::mem::offset_of!(libc::stat, st_size) as u32));
    // In unions without a name.
    assert_eq!(offset("perf_event_attr", "sample_freq"), Some(16));
    assert_eq!(offset("perf_event_attr", "bp_addr"), Some(56));
    assert_eq!(offset("perf_event_attr", "disabled"), None, "a bit field");
    assert_eq!(offset("task_struct", "there_is_none"), None);
    let comm = btf.member("task_struct", "comm").expect("every task has a name");
    assert_eq!(comm.size, 16);
    assert_eq!(btf.constant("BPF_MAP_TYPE_RINGBUF"), Some(27));

    let event = btf.raw_tracepoint("kfree").expect("every kernel has it");
    let names: Vec<_> = event.iter().map(|argument| argument.name.as_str()).collect();
    assert_eq!(names, ["call_site", "ptr"]);
    assert_eq!(event[0].kind, ArgumentKind::Integer { size: 8, signed: false });
    assert_eq!(event[1].kind, ArgumentKind::Pointer(String::new()));
    let free = btf.function("kmem_cache_free").expect("every kernel has it");
    assert_eq!(free[0].kind, ArgumentKind::Pointer("kmem_cache".into()));
    assert_eq!(btf.raw_tracepoint("there_is_none"), None);
    assert_eq!(btf.function("there_is_none"), None);
}

/// Check that there are no types of modules that cannot be.
#[test]
fn modules_that_are_not() {
    let kernel = Arc::new(parsed(&example()));
    for name in ["", "..", "../vmlinux", "a/b", "there_is_none"] {
        assert!(matches!(Btf::of_module(&kernel, name), Err(BtfError::Read(..))), "{name:?}");
    }
}

proptest! {
    /// Check that nothing panics on a file that is rotten here and there, or cut.
    #[test]
    fn rotten(
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        words in prop::collection::vec((any::<prop::sample::Index>(), 0u32..40), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = example().bytes();
        for (at, word) in words {
            let at = at.index(file.len() / 4) * 4;
            file[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        for (at, byte) in bytes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let base = Arc::new(parsed(&example()));
        for btf in [Btf::parse(file.clone()), Btf::parse_upon(&base, file)].into_iter().flatten() {
            ask(&btf);
        }
    }
}
