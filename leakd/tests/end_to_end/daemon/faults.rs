//! What goes wrong around the daemon.

use super::{QUIET, QUIET_WITHOUT_LIMIT};
use crate::host::scaled;
use crate::support::{
    invocation::leakctl,
    leakd::Leakd,
    probes::{assert_nothing_left, wait_until_nothing_left},
    process::Process,
    programs::{private_copy, program, system_library},
    wait_for,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::Command,
    sync::mpsc::{TryRecvError, channel},
};

/// Check that `status` is answered, again and again, while an attach to a
/// process with many libraries goes on.
#[test]
fn status_waits_for_nothing() {
    let daemon = Leakd::start(QUIET);
    let directory = tempfile::tempdir().expect("a directory");
    let library = system_library("libstdc++.so.6", "libstdc++6");
    for number in 0..scaled(60, 10) {
        let copy = directory.path().join(format!("{number}.so"));
        fs::copy(&library, copy).expect("our own directory");
    }
    let target = Process::start_ready({
        let mut command = Command::new("python3");
        command.args([
            "-c",
            "import ctypes, glob, os, sys\nfor name in glob.glob(sys.argv[1] + '/*.so'): \
             ctypes.CDLL(name)\nprint('ready', os.getpid(), flush=True)\ninput()",
        ]);
        command.arg(directory.path());
        command
    });
    let mut stream = daemon.connect();
    let question = json!({"v": 1, "ask": "attach", "pid": target.pid()});
    stream.write_all(format!("{question}\n").as_bytes()).expect("it reads");
    let (sender, attached) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        sender.send(line)
    });
    // The core is at it from some time on, and then answers nobody else.
    let mut answered = 0;
    let mut oldest = 0;
    let answer = loop {
        match attached.try_recv() {
            Ok(answer) => break answer,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => panic!("no answer to the attach"),
        }
        let status = daemon.ask(json!({"ask": "status"}));
        assert_eq!(status["answer"], "status");
        oldest = status["age_ms"].as_u64().expect("a number").max(oldest);
        answered += 1;
    };
    assert!(answer.contains("\"attached\""), "{answer}");
    eprintln!("{answered} answers meanwhile, figures up to {oldest} ms old");
    assert!(answered > 20, "{answered} answers");
    let core = daemon.ask(json!({"ask": "status"}));
    assert_eq!(core["tracing"]["targets"], 1, "it is told at once: {core}");
    drop(target);
    daemon.end(Signal::SIGTERM);
}

/// Check that a time of day that jumps by a year at each look changes nothing
/// but the times of day that are told.
#[test]
fn the_clock_jumps() {
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = Leakd::start_as(directory, QUIET_WITHOUT_LIMIT, |mut command| {
        command.env("LD_PRELOAD", program("jump.so"));
        command
    });
    let mut target = Process::start_ready(Command::new(program("orders_no_debug")));
    let pid = target.pid();
    daemon.attach(pid);
    let before = target.truth();
    target.wait_until_leaked(before.blocks + 100);
    let year = |time: &serde_json::Value| time.as_str().expect("a time")[..4].to_owned();
    let statuses = [(); 4].map(|()| daemon.ask(json!({"ask": "report", "pid": pid})));
    let years: Vec<String> = statuses.iter().map(|one| year(&one["report"]["ended"])).collect();
    let report = &statuses[3]["report"]["targets"][0];
    let hour = 3_600_000_000_000u64;
    assert!(report["duration_ns"].as_u64() < Some(hour), "{report}");
    let site = &report["sites"][0];
    assert!(site["oldest_age_ns"].as_u64() < Some(hour), "{site}");
    assert!(site["outstanding_blocks"].as_u64() >= Some(1), "{site}");
    let status = daemon.ask(json!({"ask": "status"}));
    assert!(status["uptime_ms"].as_u64() < Some(hour / 1_000_000), "{status}");
    assert!(status["watch"]["passes"].as_u64() > Some(0), "{status}");
    let points = |view: &serde_json::Value| {
        let all = [&view["series"], &view["trace"]["series"]];
        all.map(|series| series.as_array().cloned().unwrap_or_default())
    };
    let view = wait_for("a few looks at its memory, and at its call sites", || {
        daemon.process(pid).filter(|view| points(view).iter().all(|series| series.len() > 1))
    });
    assert!(view["age_ms"].as_u64() < Some(hour / 1_000_000), "{view}");
    let recent = |point: &serde_json::Value| point[0].as_f64().expect("seconds").abs() < 3600.0;
    assert!(points(&view).concat().iter().all(recent), "{view}");
    assert!(years.iter().any(|year| *year != years[0]), "it jumped: {years:?}");
    assert_eq!(daemon.ask(json!({"ask": "detach", "pid": pid}))["answer"], "done");
    target.end();
    daemon.end(Signal::SIGTERM);
}

/// Check that it traces as ever where its cache finds no room, and leaves no
/// half-written files there.
#[test]
fn the_disk_is_full() {
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = Leakd::start_as(directory, QUIET, |command| {
        let script = "mount -t tmpfs -o size=64k full /var/cache && mkdir -m 700 /var/cache/leakd && \
                      ! head -c 1M /dev/zero > /var/cache/rest 2>/dev/null && exec \"$@\"";
        let mut wrapped = Command::new("unshare");
        wrapped.args(["-m", "sh", "-c", script, "sh"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped
    });
    let mut target = Process::start_ready(Command::new(program("orders")));
    let pid = target.pid();
    daemon.attach(pid);
    let look = || {
        let report = daemon.ask(json!({"ask": "report", "pid": pid, "min_age_ms": 0}));
        report["report"]["targets"][0].clone()
    };
    let stacks = |report: &serde_json::Value| {
        let stacks = &report["coverage"]["stacks"];
        let number = |name: &str| stacks[name].as_u64().expect("a number");
        (number("walked"), number("complete"))
    };
    // Its tables are made beside the trace: the first stacks may go without.
    wait_for("whole stacks", || {
        let (walked, complete) = stacks(&look());
        let leaked = target.truth().blocks;
        target.wait_until_leaked(leaked + 100);
        let after = look();
        let more = stacks(&after);
        (more.0 > walked && more.0 - walked == more.1 - complete).then_some(after)
    });
    assert!(look()["sites"].to_string().contains("leak_orders"), "{}", look());
    let cache = format!("/proc/{}/root/var/cache", daemon.pid());
    assert!(fs::metadata(format!("{cache}/rest")).expect("the small disk").len() > 0);
    wait_for("nothing half-written", || {
        let mut files = fs::read_dir(format!("{cache}/leakd")).expect("the cache");
        files.next().is_none().then_some(())
    });
    target.end();
    daemon.end(Signal::SIGTERM);
}

/// Check that a client that hangs up in the middle of a request, of an answer
/// or of a watch leaves nothing behind.
#[test]
fn half_a_message() {
    let daemon = Leakd::start(QUIET);
    for text in [
        "{\"v\":1,\"ask\":\"attach\",\"pid\"",
        "{\"v\":1,\"ask\":\"targets\",\"all\":true}\n{\"v\":1",
        "{\"v\":1,\"ask\":\"watch\"}\n",
    ] {
        for _ in 0..20 {
            daemon.connect().write_all(text.as_bytes()).expect("it reads");
        }
    }
    wait_for("the clients to be forgotten", || {
        let status = daemon.ask(json!({"ask": "status"}));
        (status["clients"] == 1).then_some(())
    });
    daemon.end(Signal::SIGTERM);
}

/// Check that the name of a process does nothing to a terminal, wherever it is
/// shown: in lists, reports, events and the log.
#[test]
fn names_with_escape_sequences() {
    let mut daemon = Leakd::start(QUIET);
    let socket = daemon.socket().display().to_string();
    let mut evil = Process::start({
        let mut command = Command::new("python3");
        command.args([
            "-c",
            "import os\nopen('/proc/self/comm','w').write('\\x1b]0;x\\x07\\n\\x9b2J')\n\
             print('ready', os.getpid(), flush=True)\nkept=[]\n\
             while input() != 'end': kept.append(bytearray(3000))",
        ]);
        command
    });
    let pid = evil.wait_ready();
    let text = pid.to_string();
    let mut watching =
        crate::support::invocation::Leakctl::start(["watch", "--verbose", "--socket", &socket]);
    wait_for("the watching client", || {
        (daemon.ask(json!({"ask": "status"}))["clients"] == 2).then_some(())
    });
    daemon.wait_watched(pid);
    let run = |arguments: &[&str]| leakctl(arguments.iter().copied().chain(["--socket", &socket]));
    let attached = run(&["attach", &text, "--detach"]);
    assert_eq!(attached.status, 0, "{attached:?}");
    for _ in 0..20 {
        evil.go();
    }
    let shown = [
        attached,
        run(&["targets"]),
        run(&["report", &text, "--min-age", "0s"]),
        run(&["status"]),
        run(&["detach", &text]),
    ];
    daemon.wait_said("trace of");
    watching.signal(Signal::SIGTERM);
    let watched = watching.outcome();
    assert!(watched.stdout.contains("tracing"), "{watched:?}");
    for outcome in shown.iter().chain([&watched]) {
        let safe = |text: &str| !text.chars().any(|one| one.is_control() && one != '\n');
        assert!(safe(&outcome.stdout) && safe(&outcome.stderr), "{outcome:?}");
    }
    let log = daemon.log();
    assert!(log.contains(&text) && !log.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{log:?}");
    evil.signal(Signal::SIGKILL);
    daemon.end(Signal::SIGTERM);
}

/// Check that with mode "all" everything that may be is traced, as far as there
/// is room, while processes come and go: that places are handed on, and that
/// neither descriptors, nor links, nor memory pile up.
#[test]
fn all_that_come_and_go() {
    let folder = tempfile::tempdir().expect("a directory");
    let name = private_copy("orders_no_debug", &folder);
    let daemon = Leakd::start(&format!(
        "mode = 'all'\n[watch]\ninterval = '500ms'\nstartup = '0s'\n[trace]\n\
         max_targets = 3\nwindow = '10s'\nrest = '10s'\n[budget]\ntarget_percent = 100\n\
         machine_percent = 100\n[include]\nexe = [{name:?}]"
    ));
    let descriptors = |kind: &str| {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .expect("it runs")
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter(|link| {
                let link = link.to_string_lossy();
                link.contains(kind) && !link.starts_with("/proc/")
            })
            .count()
    };
    let traced = || daemon.ask(json!({"ask": "status"}))["tracing"]["targets"].as_u64();
    let mut seen = Vec::new();
    let rounds = scaled(15, 6) as usize;
    for _ in 0..rounds {
        let mut targets: Vec<Process> =
            (0..4).map(|_| Process::start_ready(Command::new(&name))).collect();
        wait_for("three traces", || (traced() == Some(3)).then_some(()));
        assert!(traced() <= Some(3));
        for target in &mut targets {
            target.end();
        }
        wait_for("the ends of the traces", || (traced() == Some(0)).then_some(()));
        let status = daemon.ask(json!({"ask": "status"}));
        let resident = status["own"]["resident_bytes"].as_u64().expect("a number");
        seen.push((descriptors(""), descriptors("bpf_link"), resident >> 20));
    }
    eprintln!("descriptors, links, MiB after each round: {seen:?}");
    let (early, late) = (&seen[rounds / 6..rounds / 2], &seen[rounds * 2 / 3..]);
    let most = |part: &[(usize, usize, u64)], of: fn(&(usize, usize, u64)) -> u64| {
        part.iter().map(of).max().expect("rounds")
    };
    wait_for("its descriptors to be given back", || {
        (descriptors("") as u64 <= most(early, |one| one.0 as u64)).then_some(())
    });
    assert!(most(late, |one| one.1 as u64) <= most(early, |one| one.1 as u64), "{seen:?}");
    assert!(most(late, |one| one.2) <= most(early, |one| one.2) + 8, "{seen:?}");
    let mut last = Process::start_ready(Command::new(&name));
    wait_for("one more trace", || (traced() == Some(1)).then_some(()));
    assert_eq!(daemon.ask(json!({"ask": "set", "mode": "off"}))["answer"], "done");
    wait_until_nothing_left(last.pid());
    assert_nothing_left(last.pid());
    last.end();
    daemon.end(Signal::SIGTERM);
}
