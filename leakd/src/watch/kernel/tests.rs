//! Tests of the watch for the kernel.

use proptest::prelude::*;

use super::*;

const SLABINFO: &str = "slabinfo - version: 2.1\n\
    # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables \
    <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n\
    a b : slabdata 1      10     42    192   21    1 : tunables    0    0    0 : slabdata      2      3      0\n\
    dentry            100    420    192   21    2 : tunables    0    0    0 : slabdata     20     20      0\n\
    dentry            100    420    192   21    2 : tunables    0    0    0 : slabdata      1      1      0\n\
    broken            100    420    x   21    2 : tunables    0    0    0 : slabdata     20     20      0\n\
    huge 1 1 1 1 18446744073709551615 : tunables 0 0 0 : slabdata 1 2 0\n";

/// Check that caches are read, whatever they are called, and that what is no
/// line of a cache is none.
#[test]
fn caches() {
    let mut caches = slabinfo::parse(SLABINFO.as_bytes(), 4096);
    caches.sort_by(|one, other| one.name.cmp(&other.name));
    let cache = |name: &str, bytes| Cache { name: name.to_owned(), bytes };
    assert_eq!(caches, [cache("a b : slabdata 1", 3 * 4096), cache("dentry", 42 * 4096)]);
}

/// Check what the running kernel says: its caches add up to what its totals are.
#[test]
fn running_kernel() {
    let mut meminfo = Source::new("/proc/meminfo", meminfo::MOST_BYTES);
    let text = meminfo.read().expect("every kernel has it");
    let totals: HashMap<Total, u64> = meminfo::parse(text).iter().collect();
    assert_eq!(totals.len(), Total::ALL.len());
    let mut slabinfo = Source::new("/proc/slabinfo", slabinfo::MOST_BYTES);
    let caches = slabinfo::parse(slabinfo.read().expect("we are root"), slabinfo::page_bytes());
    let sum: u64 = caches.iter().map(|cache| cache.bytes).sum();
    // KReclaimable may have more in it than slab, and large blocks are no slab's.
    let least = totals[&Total::SlabUnreclaimable] / 4;
    assert!(sum > least, "{sum} of at least {least}");
    assert!(caches.iter().any(|cache| cache.name == "dentry" && cache.bytes > 0));
    assert!(slabinfo::is_reclaimable("dentry"));
    assert!(!slabinfo::is_reclaimable("task_struct"));
    assert!(!slabinfo::is_reclaimable("../slab/dentry"));
}

/// Check that a file that is read again says what is so by then, and that one
/// that cannot be read says why.
#[test]
fn sources() {
    let mut source = Source::new("/proc/thread-self/comm", 3);
    std::fs::write("/proc/thread-self/comm", "first").expect("our own name");
    assert_eq!(source.read(), Some(&b"fir"[..]));
    std::fs::write("/proc/thread-self/comm", "other").expect("our own name");
    assert_eq!(source.read(), Some(&b"oth"[..]));
    let mut missing = Source::new("/proc/there/is/none", 3);
    assert_eq!(missing.read(), None);
    assert!(missing.error().is_some_and(|error| error.contains("/proc/there/is/none")));
}

fn feed(watch: &mut KernelWatch, bytes: impl Fn(u64) -> u64) {
    for step in 0..40u64 {
        let cache = |name: &str, bytes| Cache { name: name.to_owned(), bytes };
        let caches = vec![cache("fed", bytes(step)), cache("steady", 9 << 20), cache("small", 1)];
        watch.record_caches(step as f64 * 30.0, caches);
        let text = format!("Percpu: {} kB\nSlab: 1 kB\nVmallocUsed: x kB\n", bytes(step) / 1024);
        watch.record_totals(step as f64 * 30.0, meminfo::parse(text.as_bytes()));
    }
}

/// Check that a cache and a total that grow are told from those that do not,
/// and that both are once they are given back.
#[test]
fn growth_is_found() {
    let mut watch = KernelWatch::new(1000.0);
    feed(&mut watch, |step| (4 << 20) + step * (100 << 10));
    let growing = watch.growing();
    let names: Vec<_> = growing.iter().map(|one| (one.name.as_str(), one.is_cache)).collect();
    assert_eq!(names, [("Percpu", false), ("fed", true)]);
    for one in &growing {
        assert!((one.judgement.slope - 102_400.0 / 30.0).abs() < 40.0, "{one:?}");
        assert_eq!(one.bytes, (4 << 20) + 39 * (100 << 10));
        assert!(!one.is_reclaimable);
    }
    assert_eq!(watch.caches(), 2);
    assert_eq!(watch.total(Total::Vmalloc), None);

    let mut watch = KernelWatch::new(1000.0);
    feed(&mut watch, |step| (4 << 20) + step % 2 * (100 << 10));
    assert_eq!(watch.growing(), []);
}

/// Check that a cache that is gone and comes again begins anew.
#[test]
fn caches_go() {
    let mut watch = KernelWatch::new(1000.0);
    feed(&mut watch, |step| (4 << 20) + step * (100 << 10));
    assert_eq!(watch.caches["fed"].history.series().len(), 40);
    watch.record_caches(2000.0, Vec::new());
    assert_eq!(watch.caches(), 0);
    watch.record_caches(2030.0, vec![Cache { name: "fed".into(), bytes: 1 << 20 }]);
    assert_eq!(watch.caches["fed"].history.series().len(), 1);
}

/// Check that a cache that grows is what to look at; before that is known, the
/// cache that has most of what slabs have grown by, where there is one.
#[test]
fn suspects() {
    const MIB: u64 = 1 << 20;
    let grown = |shares: [u64; 2], looks: u32| {
        let mut watch = KernelWatch::new(1000.0);
        for look in 0..40u64 {
            let slab = meminfo::parse(format!("SUnreclaim: {} kB", 4096 + look * 200).as_bytes());
            watch.record_totals(look as f64 * 5.0, slab);
        }
        for look in 0..u64::from(looks) {
            let bytes = |share: u64| 4 * MIB + look * share * MIB / 4;
            let cache = |name: &str, share| Cache { name: name.to_owned(), bytes: bytes(share) };
            let caches = vec![cache("one", shares[0]), cache("other", shares[1])];
            watch.record_caches(f64::from(look as u32) * 30.0, caches);
        }
        watch.suspect().map(|suspect| (suspect.name, suspect.part))
    };
    let cache = |name: &str| Part::Cache(name.to_owned());
    let total = || "SUnreclaim".to_owned();
    assert_eq!(grown([5, 1], 20), Some(("one".to_owned(), cache("one"))));
    assert_eq!(grown([5, 1], 5), Some((total(), cache("one"))));
    assert_eq!(grown([0, 0], 5), Some((total(), Part::Total(Total::SlabUnreclaimable))));
    assert_eq!(KernelWatch::new(1000.0).suspect(), None);
}

/// Check that caches are not read at each look, and that there is room for so
/// many only.
#[test]
fn reads_seldom() {
    let mut watch = KernelWatch::new(1000.0);
    for second in 0..60 {
        watch.look(f64::from(second));
    }
    let looks = watch.caches.values().map(|one| one.history.series().len()).max();
    assert!(matches!(looks, Some(1..=2)), "{looks:?}");
    let caches = (0..600).map(|index| Cache { name: format!("{index}"), bytes: 1 << 20 });
    watch.record_caches(100.0, caches.collect());
    assert_eq!((watch.caches(), watch.left_out()), (MOST_CACHES, 600 - MOST_CACHES));
}

/// Check lines of /proc/allocinfo as they are in both versions.
#[test]
fn allocation_profile() {
    let text = "allocinfo - version: 1.0\n#     <size>  <calls> <tag info>\n\
        \x20       4096        1 drivers/a.c:12 [a_driver] func:probe\n\
        \x20        -64        0 mm/b.c:9 func:below_zero\n\
        \x20          0        0 mm/c.c:9 func:nothing\n\
        \x20        160        5 mm/d.c:77 func:taker accurate:no\n\
        \x20        160        5 mm/d.c func:taker\n";
    let row = |file: &str, line, function: &str, module: Option<&str>, bytes, blocks| {
        let (file, function) = (file.to_owned(), function.to_owned());
        allocinfo::Row { file, line, function, module: module.map(str::to_owned), bytes, blocks }
    };
    assert_eq!(
        allocinfo::parse(text),
        [
            row("drivers/a.c", 12, "probe", Some("a_driver"), 4096, 1),
            row("mm/d.c", 77, "taker", None, 160, 5),
        ]
    );
}

const KMEMLEAK: &str = "unreferenced object 0xffff88810aa0c0 (size 32):\n\
    \x20 comm \"a\", pid 1\", pid 77, jiffies 4294892300 (age 12.340s)\n\
    \x20 hex dump (first 16 bytes):\n\
    \x20   73 65 63 72 65 74 00 00 00 00 00 00 00 00 00 00  secret..........\n\
    \x20 backtrace:\n\
    \x20   [<ffffffff81234567>] kmalloc_trace+0x26/0x90\n\
    \x20   [<00000000c0ffee00>] take+0x1b/0x20 [leaky]\n\
    unreferenced object 0xffff88810aa100 (size 48):\n\
    \x20 comm \"b\", pid 78, jiffies 4294892301\n\
    \x20 hex dump (first 16 bytes):\n\
    \x20   73 65 63 72 65 74 00 00 00 00 00 00 00 00 00 00  secret..........\n\
    \x20 backtrace (crc 1234abcd):\n\
    \x20   kmalloc_trace+0x26/0x90\n\
    \x20   take+0x1b/0x20 [leaky]\n\
    unreferenced object 0xffff88810aa200 (size x):\n\
    \x20 backtrace:\n\
    \x20   kmalloc_trace+0x26/0x90\n\
    unreferenced object 0xffff88810aa300 (size 8):\n";

/// Check that objects are added up by stack, in the texts of older and newer
/// kernels, and that what was in the memory is not told.
#[test]
fn kmemleak_findings() {
    let rows = kmemleak::parse(KMEMLEAK);
    let frames = vec!["kmalloc_trace+0x26/0x90".to_owned(), "take+0x1b/0x20 [leaky]".to_owned()];
    let comm = "a\", pid 1".to_owned();
    assert_eq!(
        rows,
        [
            kmemleak::Row { frames, bytes: 80, blocks: 2, comm, pid: 77 },
            kmemleak::Row { bytes: 8, blocks: 1, ..kmemleak::Row::default() },
        ]
    );
}

/// Check that the running kernel's own findings, which most have not, are none
/// or are read.
#[test]
fn witnesses_of_the_running_kernel() {
    let there = |path: &str| std::path::Path::new(path).exists();
    let profile = allocinfo::read(10).expect("it is not there, or can be read");
    assert!(profile.is_none() || there("/proc/allocinfo"));
    let found = kmemleak::read(10).expect("it is not there, or can be read");
    assert!(found.is_none() || there("/sys/kernel/debug/kmemleak"));
}

proptest! {
    /// Check that nothing panics on texts that are rotten here and there, or cut.
    #[test]
    fn rotten_texts(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        for text in [SLABINFO, KMEMLEAK, "Percpu: 1 kB\n4096 1 a.c:1 [m] func:f\n"] {
            let mut bytes = text.as_bytes().to_vec();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            let text = String::from_utf8_lossy(&bytes);
            let _ = (slabinfo::parse(&bytes, 4096), meminfo::parse(&bytes));
            let _ = (kmemleak::parse(&text), allocinfo::parse(&text));
        }
    }
}
