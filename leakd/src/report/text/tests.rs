//! Reports as people see them.

use super::*;
use crate::report::fixture::*;
use crate::report::heap_summary;
use crate::report::input::TargetSnapshot;
use crate::report::model::SeenFrom;
use crate::watch::growth::Trend;
use leakd_common::event::StackEnd;
use leakd_common::target::Counter;

/// The text of a report, held to what holds of all of them.
fn show(target: TargetSnapshot) -> String {
    let report = report(target);
    let text = render(&report, &Options::default());
    assert_sane(&text, 80);
    for width in [40, 60, 132] {
        assert_sane(&render(&report, &Options { width, ..Options::default() }), width);
    }
    let coloured = render(&report, &Options { style: Style::COLOURED, ..Options::default() });
    assert_eq!(uncoloured(&coloured), text, "colours change nothing else");
    text
}

fn assert_sane(text: &str, width: usize) {
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        assert!(terminal::columns(line) <= width, "wider than {width}: {line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert_eq!(line.trim_end(), line);
    }
}

fn uncoloured(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        result.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    result + rest
}

/// Check the report of a server with three leaks among honest traffic.
#[test]
fn leaky_server() {
    insta::assert_snapshot!(show(target(leaky_sites())));
}

/// Check the report of the same after two minutes: what leaks comes first, even if
/// it holds least.
#[test]
fn verdicts() {
    let mut target = target(leaky_sites());
    let span = 120 * SECOND;
    (target.duration_ns, target.filling_ns) = (span, span);
    target.windows.open_ns = span;
    for site in &mut target.sites {
        let held = site.site.outstanding_blocks();
        // Of the largest, all is from the beginning; the others went on.
        let last = if site.key == 1 { span / 6 } else { span };
        let births = (0..held).map(|block| last / held * block);
        let ages = site.ages.as_mut().unwrap();
        // What has no old blocks is traffic.
        if ages.aged_blocks == 0 {
            continue;
        }
        ages.births = crate::verdict::births::Births::of(births, 0, span);
    }
    let text = show(target);
    assert!(text.contains("#1  LEAK"), "{text}");
    insta::assert_snapshot!(text);
}

/// Check that frees that were wrong are told of first, and that there are none is
/// said, too.
#[test]
fn wrong_frees() {
    let found = TargetSnapshot { bad_frees: Some(bad_frees()), ..target(Vec::new()) };
    insta::assert_snapshot!(show(found.clone()));
    let none = show(TargetSnapshot { bad_frees: Some(Vec::new()), ..target(Vec::new()) });
    assert!(none.contains("no block was freed twice"), "{none}");
    let mut unsure = found;
    unsure.counters.counts[Counter::LostNoMemory as usize] = 3;
    // Of four wrong ones, all were told of; five could not be remembered.
    unsure.counters.counts[Counter::BadFrees as usize] = 4;
    unsure.counters.counts[Counter::LostFrees as usize] = 5;
    assert!(show(unsure.clone()).contains("5 frees could not be looked at"));
    assert!(show(unsure).contains("not every allocation was seen"));
}

/// Check that it is told when a limit will be reached, of a process that grows and of
/// no other, and that the group's name is made safe.
#[test]
fn out_of_memory() {
    let limited = |trend| {
        let target = target(leaky_sites());
        TargetSnapshot { limit: Some(limit()), memory_growth: Some(growth(trend)), ..target }
    };
    let text = show(limited(Trend::Growing));
    let told = "out of memory in 8m 32s to 34m 08s: 1.00 GiB of 2.00 GiB are left of /a\\x1b[2Jb";
    assert!(text.replace("\n  ", " ").contains(told), "{text}");
    assert!(!show(limited(Trend::Bounded)).contains("out of memory"));
}

/// Check the report of the kernel, with all that is said only of it.
#[test]
fn kernel() {
    insta::assert_snapshot!(show(crate::report::fixture::kernel()));
}

/// Check that one cache of the kernel without anything to hide says no more.
#[test]
fn kernel_cache() {
    let mut target = crate::report::fixture::kernel();
    target.unprobed.clear();
    target.sites.truncate(1);
    target.kernel = Some(crate::report::kernel::KernelTrace {
        traced: vec!["cache".to_owned()],
        cache: Some("fi\x1b[2Jlp".to_owned()),
        ..Default::default()
    });
    insta::assert_snapshot!(show(target));
}

/// Check that nothing found is said plainly, with what was not seen.
#[test]
fn nothing_found() {
    let freed = Planted {
        key: 1,
        size: 8,
        blocks: 1_000,
        kept: 0,
        aged: 0,
        oldest_ns: 0,
        lifetime_ns: 5_000,
    };
    insta::assert_snapshot!(show(target(vec![freed.site(Vec::new())])));
}

/// Check that blocks in flight are no leak.
#[test]
fn only_young_blocks() {
    let young = Planted {
        key: 1,
        size: 800,
        blocks: 1_000,
        kept: 12,
        aged: 0,
        oldest_ns: 5_000,
        lifetime_ns: 5_000,
    };
    insta::assert_snapshot!(show(target(vec![young.site(stack(Vec::new()))])));
}

/// Check that a process of which nothing was seen is not called clean.
#[test]
fn nothing_seen() {
    let mut target = target(Vec::new());
    target.counters = counters(&[]);
    target.ended = Ended::Exited;
    insta::assert_snapshot!(show(target));
}

/// Check that estimates are marked.
#[test]
fn sampled() {
    let mut target = target(leaky_sites());
    target.sample_bytes = 512 << 10;
    target.counters.counts[Counter::SampledOut as usize] = 440_123;
    target.windows.count = 4;
    target.windows.open_ns = 12 * SECOND;
    insta::assert_snapshot!(show(target));
}

/// Check that losses and incomplete stacks are loud.
#[test]
fn lost() {
    let mut sites = leaky_sites();
    sites.truncate(3);
    sites[2].end = Some(StackEnd::NoTable);
    sites[2].frames.truncate(2);
    sites[1].ages = None;
    let mut target = target(sites);
    for (counter, value) in [
        (Counter::LostLedgerFull, 12_000),
        (Counter::LostNoMemory, 345),
        (Counter::LostBytes, 7 << 20),
        (Counter::SitesFull, 17),
        (Counter::DoubleFrees, 2),
        (Counter::Failed, 3),
    ] {
        target.counters.counts[counter as usize] = value;
    }
    insta::assert_snapshot!(show(target));
}

/// Check that long names are shortened to what tells them apart, and deep
/// stacks to their ends.
#[test]
fn wide_names() {
    let module = "/opt/vendor/lib/libvendor-orderprocessing-backend-runtime.so.12.4.1";
    let template = "void std::vector<std::pair<std::__cxx11::basic_string<char, std::char_traits<char>, \
         std::allocator<char> >, vendor::Order>, std::allocator<std::pair<std::string, \
         vendor::Order> > >::_M_realloc_insert<vendor::Order const&>(vendor::Order const&)";
    let lambda = "vendor::orders::(anonymous namespace)::Processor<vendor::orders::Policy>::run(\
         std::chrono::duration<long, std::ratio<1l, 1000l> >)::{lambda(vendor::Order const&)#1}::\
         operator()(vendor::Order const&) const";
    let file = "/build/vendor/src/backend/orders/a_file_with_a_rather_long_name_for_a_source.cpp";
    let mut inner = vec![
        vec![frame(1, template, "/usr/include/c++/14/bits/vector.tcc", 459, module)],
        vec![frame(2, lambda, file, 12_345, module)],
        vec![frame(3, "", "", 0, module)],
        vec![frame(
            4,
            "<vendor::ffi::Handle<T> as core::ops::drop::Drop>::drop::<vendor::A>",
            file,
            7,
            "",
        )],
        vec![frame(
            5,
            "注文を処理する関数の名前が長い場合の表示を確認するための関数",
            "注文.cpp",
            3,
            module,
        )],
    ];
    for depth in 6..40 {
        inner.push(vec![frame(depth, &format!("recurse_{depth}"), "r.c", 1, "/bin/r")]);
    }
    let leak = Planted {
        key: 1,
        size: 64,
        blocks: 10,
        kept: 10,
        aged: 10,
        oldest_ns: 29 * SECOND,
        lifetime_ns: 0,
    };
    let text = show(target(vec![leak.site(stack(inner.clone()))]));
    insta::assert_snapshot!(text);
    let all = Options { all_frames: true, ..Options::default() };
    let text = render(&report(target(vec![leak.site(stack(inner))])), &all);
    assert_eq!(text.matches("recurse_").count(), 34);
    assert_sane(&text, 80);
}

/// Check that names which try to command the terminal are shown instead.
#[test]
fn hostile_names() {
    let evil = "\x1b]0;owned\x07\x1b[2Jfree\r\nfake line\u{202e}\u{9b}31m";
    let inner = vec![vec![frame(1, evil, &format!("/tmp/{evil}.c"), 1, &format!("/tmp/{evil}"))]];
    let leak = Planted {
        key: 1,
        size: 64,
        blocks: 10,
        kept: 10,
        aged: 10,
        oldest_ns: 29 * SECOND,
        lifetime_ns: 0,
    };
    let mut target = target(vec![leak.site(stack(inner))]);
    target.comm = evil.to_owned();
    target.exe = format!("/tmp/{evil}");
    insta::assert_snapshot!(show(target));
}

/// Check that nothing is said of what an exec has thrown away, but that it has.
#[test]
fn after_an_exec() {
    let mut text = String::new();
    for (sites, execs) in [(Vec::new(), 1), (leaky_sites(), 3)] {
        text += &show(TargetSnapshot { execs, ended: Ended::Exec, ..target(sites) });
    }
    insta::assert_snapshot!(text);
}

/// Check the heap summary of a command that leaks, and of one that does not.
#[test]
fn heap_summaries() {
    let mut leaky = target(leaky_sites());
    leaky.seen_from = SeenFrom::Start;
    leaky.ended = Ended::Exited;
    let freed = Planted {
        key: 1,
        size: 8,
        blocks: 1_000,
        kept: 0,
        aged: 0,
        oldest_ns: 0,
        lifetime_ns: 5_000,
    };
    let mut clean = target(vec![freed.site(Vec::new())]);
    clean.seen_from = SeenFrom::Start;
    let mut sampled = leaky.clone();
    sampled.sample_bytes = 1 << 20;
    let mut text = String::new();
    let exec = TargetSnapshot { execs: 1, ..clean.clone() };
    let sampled_exec = TargetSnapshot { execs: 2, ..sampled.clone() };
    for target in [leaky, clean, sampled, exec, sampled_exec] {
        text += &heap_summary(&report(target), &Options::default());
    }
    assert_sane(&text, 80);
    insta::assert_snapshot!(text);
}
