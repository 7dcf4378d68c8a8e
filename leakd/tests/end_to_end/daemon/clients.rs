//! Clients of every kind: the daemon serves the others on.

use super::QUIET;
use crate::support::{
    invocation::Leakctl, leakd::Leakd, process::Process, programs::program, wait_for,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
};

/// Check that rubbish is answered with an error and the connection goes on,
/// that too long a line ends it, and that others are served all the while.
#[test]
fn rubbish() {
    let daemon = Leakd::start(QUIET);
    for (text, code) in [
        ("rubbish\n", "bad_request"),
        ("\u{1b}[2J\u{0}\n", "bad_request"),
        ("{\"v\":1,\"ask\":\"reboot\"}\n", "bad_request"),
        ("{\"v\":1,\"ask\":\"status\",\"x\":1}\n", "bad_request"),
        ("{\"v\":7,\"ask\":\"status\"}\n", "version"),
        ("{\"v\":1,\"ask\":\"attach\",\"pid\":4194305}\n", "not_found"),
        ("{\"v\":1,\"ask\":\"detach\",\"pid\":1}\n", "not_found"),
        ("{\"v\":1,\"ask\":\"report\",\"pid\":1}\n", "not_found"),
        ("{\"v\":1,\"ask\":\"set\"}\n", "bad_request"),
        ("{\"v\":1,\"ask\":\"set\",\"mode\":\"x\"}\n", "bad_request"),
        ("{\"v\":1,\"ask\":\"set\",\"max_targets\":0}\n", "bad_request"),
    ] {
        let answer = daemon.say(text);
        assert_eq!(answer["answer"], "error", "{text}: {answer}");
        assert_eq!(answer["code"], code, "{text}: {answer}");
    }
    // One connection: rubbish, then a question.
    let mut stream = daemon.connect();
    stream.write_all(b"{\n\n{\"v\":1,\"id\":[1],\"ask\":\"status\"}\n").expect("it reads");
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.next().expect("an answer").expect("a line").contains("bad_request"));
    let second = lines.next().expect("an answer").expect("a line");
    assert!(second.contains("\"id\":[1]") && second.contains("\"answer\":\"status\""), "{second}");
    // Without a newline, then the end: as `echo -n | nc -N` has it.
    let stream = daemon.connect();
    (&stream).write_all(b"{\"v\":1,\"ask\":\"status\"}").expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    let mut answer = String::new();
    (&stream).read_to_string(&mut answer).expect("an answer, then the end");
    assert!(answer.contains("\"answer\":\"status\""), "{answer}");
    daemon.end(Signal::SIGTERM);
}

/// Check that of a gigabyte without an end, no more than a request's length
/// is read.
#[test]
fn a_gigabyte() {
    let daemon = Leakd::start(QUIET);
    let mut stream = daemon.connect();
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0u64;
    // It answers and hangs up long before.
    while sent < 1 << 30 && stream.write_all(&piece).is_ok() {
        sent += piece.len() as u64;
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    let status = daemon.ask(json!({"ask": "status"}));
    assert_eq!(status["answer"], "status");
    daemon.end(Signal::SIGTERM);
}

/// Check that clients which say half a request, or do not read what they asked
/// for, hold nobody back, and that there may be only so many.
#[test]
fn slow_and_many_clients() {
    let daemon = Leakd::start(QUIET);
    let mut half = daemon.connect();
    half.write_all(b"{\"v\":1,").expect("it reads");
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = daemon.connect();
        let question = b"{\"v\":1,\"ask\":\"targets\",\"all\":true,\"series\":true}\n";
        for _ in 0..50 {
            stream.write_all(question).expect("the socket's buffer takes it");
        }
        deaf.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(daemon.ask(json!({"ask": "status"}))["answer"], "status");
    }
    // A client that takes nothing of its answers is let go of, though it has not
    // hung up: each answer fills a socket's buffer but for the first few.
    for stream in &deaf {
        wait_for("the daemon to hang up on one that does not read", || {
            let (fd, events) = (stream.as_raw_fd(), libc::POLLRDHUP);
            let mut one = libc::pollfd { fd, events, revents: 0 };
            // SAFETY: one structure, which lives until the call returns.
            unsafe { libc::poll(&raw mut one, 1, 0) };
            (one.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0).then_some(())
        });
    }
    let mut many = Vec::new();
    let refused = wait_for("one client too many", || {
        let stream = daemon.connect();
        let timeout = Some(std::time::Duration::from_millis(200));
        stream.set_read_timeout(timeout).expect("a socket");
        let mut line = String::new();
        let said = BufReader::new(stream.try_clone().expect("a socket")).read_line(&mut line);
        many.push(stream);
        said.is_ok().then_some(line)
    });
    assert!(refused.contains("\"busy\""), "{refused}");
    // 64, and the one that is told so.
    assert!(many.len() <= 65, "{}", many.len());
    drop((many, deaf, half));
    wait_for("room for others", || {
        (daemon.ask(json!({"ask": "status"}))["answer"] == "status").then_some(())
    });
    daemon.end(Signal::SIGTERM);
}

/// Check that others than root are kept out by the socket's mode.
#[test]
fn strangers_are_kept_out() {
    let daemon = Leakd::start(QUIET);
    let mut command = Leakctl::command();
    command.args(["status", "--socket"]).arg(daemon.socket()).uid(65534).gid(65534);
    let outcome = Leakctl::start_command(command).outcome();
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert!(outcome.stderr.contains("not permitted"), "{outcome:?}");
    daemon.end(Signal::SIGTERM);
}

/// Check that leakctl shows what the daemon says, that names of processes do
/// not get to the terminal as they are, and that attach goes through it.
#[test]
fn leakctl_asks_the_daemon() {
    let daemon = Leakd::start(QUIET);
    let socket = daemon.socket().display().to_string();
    let run = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--socket", &socket]);
        crate::support::invocation::leakctl(all)
    };
    let status = run(&["status"]);
    assert_eq!(status.status, 0, "{status:?}");
    assert!(status.stdout.contains("mode      off"), "{status:?}");
    assert!(status.stdout.lines().all(|line| line.chars().count() <= 80), "{status:?}");

    let mut evil = Process::start({
        let mut command = Command::new("sh");
        command
            .args(["-c", "printf '\\033]0;x\\007' > /proc/$$/comm; echo ready $$; read x; exit 0"]);
        command
    });
    let pid = evil.wait_ready();
    daemon.wait_watched(pid);
    let targets = run(&["targets", "--all", "--sort", "pid"]);
    assert_eq!(targets.status, 0, "{targets:?}");
    assert!(targets.stdout.contains(&format!("{pid} ")), "{targets:?}");
    assert!(!targets.stdout.contains(['\u{1b}', '\u{7}']), "{targets:?}");
    assert!(targets.stdout.lines().all(|line| line.chars().count() <= 80), "{targets:?}");
    evil.end();

    let mut target = Process::start_ready(Command::new(program("orders")));
    let pid = target.pid().to_string();
    let attached = run(&["attach", &pid, "--detach"]);
    assert_eq!(attached.status, 0, "{attached:?}");
    assert!(attached.stderr.contains("through leakd"), "{attached:?}");
    let before = target.truth();
    target.wait_until_leaked(before.blocks + 50);
    let report = run(&["report", &pid, "--min-age", "0s"]);
    assert_eq!(report.status, 1, "{report:?}");
    assert!(report.stdout.contains("leak_orders"), "{report:?}");
    assert_eq!(run(&["detach", &pid]).status, 0);
    assert_eq!(run(&["detach", &pid]).status, 2, "twice");
    let waited = run(&["attach", &pid, "--for", "2s", "--min-age", "0s", "--json"]);
    assert_eq!(waited.status, 1, "{waited:?}");
    let report: serde_json::Value = serde_json::from_str(&waited.stdout).expect("JSON");
    assert_eq!(report["schema"], "leakd.report/1");
    assert_eq!(report["targets"][0]["pid"], target.pid());
    assert_eq!(run(&["set", "--mode", "all"]).status, 0);
    assert_eq!(daemon.ask(json!({"ask": "status"}))["mode"], "all");
    target.end();
    daemon.end(Signal::SIGTERM);
    let outcome = crate::support::invocation::leakctl(["status", "--socket", &socket]);
    outcome.assert_refused(&["no daemon"]);
}
