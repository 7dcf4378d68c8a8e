//! What `leakctl kernel` says of the module that leaks.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::load;
use crate::module::{FORGOTTEN, KINDS, Module, TAKEN};
use crate::support::invocation::Leakctl;
use crate::support::report::{Frame, Report, Site};
use crate::support::wait_for;
use crate::witness;

/// Starts `leakctl kernel` and waits until it is attached.
pub fn attached(arguments: &[&str]) -> Leakctl {
    let mut leakctl = Leakctl::start([&["kernel", "--json", "--for", "1h"], arguments].concat());
    leakctl.wait_attached();
    leakctl
}

/// Ends it; gives its report, whether or not that has leaks.
pub fn report(mut leakctl: Leakctl) -> Report {
    leakctl.signal(Signal::SIGINT);
    let outcome = leakctl.outcome();
    assert!(matches!(outcome.status, 0 | 1), "{outcome:?}");
    Report::parse(&outcome.stdout)
}

/// The call sites of a kind whose innermost function in the module is this one.
fn sites<'a>(
    report: &'a Report,
    function: &'a str,
    kind: &'a str,
) -> impl Iterator<Item = Site<'a>> {
    let target = report.targets().next().expect("the kernel");
    target.sites().filter(move |site| {
        let mut frames = site.stack();
        let is_inlined = |frame: &Frame<'_>| frame.0["inlined"] == true;
        let ours = frames.find(|frame| frame.module() == Some("leaky") && !is_inlined(frame));
        ours.and_then(|frame| frame.function()) == Some(function)
            && site.0["kernel"]["kind"] == kind
    })
}

/// Outstanding, allocated and freed blocks.
pub fn blocks<'a>(sites: impl Iterator<Item = Site<'a>>) -> [u64; 3] {
    let fields = ["outstanding_blocks", "allocated_blocks", "freed_blocks"];
    sites.fold([0; 3], |sum, site| [0, 1, 2].map(|index| sum[index] + site.number(fields[index])))
}

/// Whether the kernel keeps such blocks for later when they are given back: areas
/// of vmalloc, in pools of its own (from 6.9 on) or until there are many.
fn is_pooled(site: Site<'_>) -> bool {
    site.0["kernel"]["cache"] == "vmap_area"
}

/// That nothing of the module's honest traffic is held any more. What goes by
/// RCU goes late.
fn settle() {
    wait_for("RCU to free what is due", || {
        (witness::slab("kmalloc-1k", "leaky_rcu_honest") == 0).then_some(())
    });
}

/// Check that of each kind exactly those blocks are outstanding that the module
/// has forgotten, at the function that took them, and none of those that honest
/// functions take by the same calls, or by unequal pairs of calls; the module's
/// own account and the kernel's books agree.
#[test]
#[ignore = "needs the module: run by cargo xtask vm"]
fn a_hundred_of_each_kind() {
    let module = Module::load();
    let leakctl = attached(&[]);
    module.run("leak all");
    module.run("honest all");
    settle();
    let report = report(leakctl);

    let forgotten = module.forgotten();
    for (name, kind) in KINDS {
        assert_eq!(forgotten[name], FORGOTTEN, "{name}: the module's own account");
        let function = format!("leaky_{name}_leak");
        let seen = blocks(sites(&report, &function, kind));
        assert_eq!(
            seen,
            [FORGOTTEN, TAKEN, TAKEN - FORGOTTEN],
            "{name}: outstanding, allocated and freed in {function}"
        );
    }
    assert_eq!(witness::slab("kmalloc-1k", "leaky_kmalloc_leak"), FORGOTTEN);
    assert_eq!(witness::slab("leaky_cache", "leaky_cache_leak"), FORGOTTEN);
    assert_eq!(witness::vmalloc("leaky_vmalloc_leak"), FORGOTTEN);

    for site in report.targets().next().expect("the kernel").sites() {
        let is_honest = site.stack().any(|frame| {
            frame.module() == Some("leaky")
                && frame.function().is_some_and(|function| function.ends_with("_honest"))
        });
        if is_honest && !is_pooled(site) {
            assert_eq!(site.number("outstanding_blocks"), 0, "honest: {:#}", site.0);
        }
    }
    assert_eq!(report.targets().next().expect("the kernel").lost(), 0);
    drop(module);
}

/// Check that a module's call sites have the file and the line where its file is
/// in its place, the module being built with debug info.
#[test]
#[ignore = "needs the module: run by cargo xtask vm"]
fn file_and_line() {
    let release = nix::sys::utsname::uname().expect("uname(2)");
    let place = std::path::Path::new("/lib/modules").join(release.release()).join("extra");
    std::fs::create_dir_all(&place).expect("we are root");
    let file = place.join("leaky.ko");
    std::fs::copy(crate::module::path(), &file).expect("room for it");
    let module = Module::load();
    let leakctl = attached(&["--only", "kmalloc"]);
    module.run("leak kmalloc");
    let report = report(leakctl);
    let site = sites(&report, "leaky_kmalloc_leak", "kmalloc").next().expect("the leak");
    // In front of it is kmalloc, which was inlined.
    let stack = site.0["stack"].as_array().expect("a list");
    let frame = stack.iter().find(|frame| frame["function"] == "leaky_kmalloc_leak");
    let frame = frame.expect("it was found by its name");
    let named = frame["file"].as_str().expect("a file");
    assert!(named.ends_with("leaky.c"), "{named}");
    let source = include_str!("module/leaky.c");
    let line = frame["line"].as_u64().expect("a line") as usize;
    let text = source.lines().nth(line - 1).expect("a line of the source");
    assert!(text.starts_with("SITES(kmalloc,"), "line {line}: {text}");
    std::fs::remove_file(&file).expect("our own file");
    drop(module);
}

/// Check that with one cache alone under trace, nothing else is, and it is
/// exact; and that what is given back later is not outstanding.
#[test]
#[ignore = "needs the module: run by cargo xtask vm"]
fn one_cache_alone() {
    let module = Module::load();
    for is_given_back in [false, true] {
        let leakctl = attached(&["--cache", "leaky_cache"]);
        module.run("leak all");
        module.run("honest all");
        if is_given_back {
            module.run("release");
        }
        let report = report(leakctl);
        let expected = if is_given_back { 0 } else { FORGOTTEN };
        assert_eq!(witness::slab("leaky_cache", "leaky_cache_leak"), expected);
        let target = report.targets().next().expect("the kernel");
        assert_eq!(target.outstanding().0, expected);
        let seen = blocks(sites(&report, "leaky_cache_leak", "cache"));
        assert_eq!(seen[0], expected, "{:#}", report.0);
        for site in target.sites() {
            assert_eq!(site.0["kernel"]["cache"], "leaky_cache", "{:#}", site.0);
        }
        if !is_given_back {
            module.run("release");
        }
    }
}

/// Check that a module may go while it is traced: what it gives back as it goes
/// is seen, and what it has left to say is said.
#[test]
#[ignore = "needs the module: run by cargo xtask vm"]
fn unloaded_in_mid_trace() {
    let module = Module::load();
    let leakctl = attached(&[]);
    module.run("leak all");
    drop(module);
    let report = report(leakctl);
    for (name, kind) in KINDS {
        let function = format!("leaky_{name}_leak");
        assert_eq!(blocks(sites(&report, &function, kind))[0], 0, "{name}: {:#}", report.0);
    }
}

/// Check that after a minute of honest load, no call site holds more than one in
/// a hundred of the blocks that it took, apart from what is taken back when
/// memory is short, and the leak.
#[test]
#[ignore = "needs the module: run by cargo xtask vm"]
fn a_minute_of_load() {
    /// A site with fewer blocks has no survival to speak of.
    const LEAST_BLOCKS: u64 = 1000;
    let module = Module::load();
    // Names that are gone are remembered by file systems on disk: there, what
    // hangs on them comes back only when memory is short.
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    // What is made once and kept is made before.
    (0..50).for_each(|number| load::turn(directory.path(), number));
    let leakctl = attached(&[]);
    let began = Instant::now();
    let mut turns = 0;
    while began.elapsed() < Duration::from_secs(60) {
        load::turn(directory.path(), turns);
        turns += 1;
    }
    module.run("honest all");
    module.run("leak kmalloc");
    drop(directory);
    settle();
    let report = report(leakctl);

    assert!(turns > 100, "{turns} turns are no load");
    let target = report.targets().next().expect("the kernel");
    let leak = blocks(sites(&report, "leaky_kmalloc_leak", "kmalloc"));
    assert_eq!(leak, [FORGOTTEN, TAKEN, TAKEN - FORGOTTEN]);
    let wrong = target.sites().filter(|site| {
        let share = site.0["surviving_share"].as_f64().expect("a share");
        let is_leak = site.stack().any(|frame| frame.function() == Some("leaky_kmalloc_leak"));
        site.number("allocated_blocks") >= LEAST_BLOCKS
            && share > 0.01
            && site.0["kernel"]["reclaimable"] != true
            && !is_leak
            && !is_pooled(*site)
    });
    let wrong: Vec<String> = wrong
        .map(|site| {
            let names = site.stack().filter_map(|frame| frame.function()).collect::<Vec<_>>();
            let [outstanding, allocated, _] = blocks([site].into_iter());
            format!("{outstanding} of {allocated} by {}", names.join(" < "))
        })
        .collect();
    assert!(wrong.is_empty(), "after {turns} turns: {wrong:#?}");
}
