//! `leakctl top` in a real terminal (tmux), with a real leak. Needs root.

mod tmux;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tmux::Terminal;

const LEAKCTL: &str = env!("CARGO_BIN_EXE_leakctl");
const LEAKD: &str = env!("CARGO_BIN_EXE_leakd");

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that leaks, by a name of its own (15 characters are kept).
fn leaking(directory: &Path, name: &str) -> Running {
    let program = directory.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/terminal/leak.c");
    let mut compiler = Command::new("gcc");
    compiler.args(["-g", "-O1", "-o"]).arg(&program).arg(source);
    assert!(compiler.status().expect("there is a C compiler").success());
    Running(Command::new(program).spawn().expect("it can be run"))
}

/// Starts leakd with a socket in this directory, and waits for it.
fn daemon(directory: &Path) -> (Running, PathBuf) {
    let (config, socket) = (directory.join("leakd.toml"), directory.join("leakd.sock"));
    let text = format!(
        "mode = \"off\"\n[watch]\ninterval = \"1s\"\n[server]\nsocket = \"{}\"\ngroup = \"\"\n",
        socket.display()
    );
    fs::write(&config, text).expect("it can be written");
    let mut command = Command::new(LEAKD);
    command.arg("--config").arg(config).stderr(Stdio::null());
    let mut daemon = Running(command.spawn().expect("leakd can be run"));
    while !socket.exists() {
        assert!(daemon.0.try_wait().expect("it is our child").is_none(), "leakd has ended");
        sleep(Duration::from_millis(50));
    }
    (daemon, socket)
}

/// Goes from the list to the line that leaks.
fn find_leak(terminal: &Terminal, name: &str) {
    terminal.wait_for("VERDICT");
    terminal.type_text(&format!("/{name}"));
    terminal.wait_for("filter:");
    terminal.press(&["Enter"]);
    // Once it is in the list, the filter leaves only it.
    terminal.wait_until("one process", |screen| {
        screen.lines().nth(3).is_some_and(|line| line.contains(name))
    });
    terminal.type_text("a");
    terminal.wait_for("? y/n");
    terminal.type_text("y");
    terminal.wait_for("attached to");
    terminal.press(&["Enter"]);
    let sites = terminal.wait_for("leak_orders leak.c:9");
    let governor = sites.lines().nth(1).unwrap_or_default();
    assert!(governor.starts_with("governor: full") && governor.ends_with("lost 0"), "{sites}");
    terminal.press(&["Enter"]);
    let stack = terminal.wait_for("tests/terminal/leak.c:9");
    assert!(stack.contains("main") && stack.contains("leak.c:15"), "{stack}");
}

/// Check that a leak is found by keys alone without a daemon, down to its line,
/// and that the terminal is restored after `q`.
#[test]
fn from_list_to_line_without_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let _leaking = leaking(directory.path(), "leak_alone");
    let terminal = Terminal::open("alone");
    let before = terminal.modes();
    terminal.run(&format!("{LEAKCTL} top --no-daemon; echo ended: $?"));
    find_leak(&terminal, "leak_alone");
    terminal.type_text("q");
    terminal.wait_for("ended: 0");
    terminal.assert_restored(&before);
}

/// Check the same through a daemon, that a larger screen is used, and that the
/// daemon's end is told and outlived.
#[test]
fn from_list_to_line_through_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let _leaking = leaking(directory.path(), "leak_daemon");
    let (daemon, socket) = daemon(directory.path());
    let terminal = Terminal::open("daemon");
    let before = terminal.modes();
    terminal.run(&format!("{LEAKCTL} top --socket {}; echo ended: $?", socket.display()));
    find_leak(&terminal, "leak_daemon");
    terminal.press(&["Escape"]);
    terminal.wait_for("BLOCKS");
    terminal.resize(120, 40);
    terminal.wait_until("the columns of a wide screen", |screen| {
        screen.contains("SUSPECT") && screen.lines().count() == 40
    });
    drop(daemon);
    terminal.wait_for("NO ANSWER");
    terminal.press(&["C-c"]);
    terminal.wait_for("ended: 0");
    terminal.assert_restored(&before);
}

/// Check that SIGTERM and a panic restore the terminal, too.
#[test]
fn terminal_is_restored_however_it_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_daemon, socket) = daemon(directory.path());
    let terminal = Terminal::open("ends");
    let before = terminal.modes();
    let top = format!("{LEAKCTL} top --socket {}", socket.display());
    terminal.run(&format!(
        "sh -c 'echo $$ >{}/pid; exec {top}'; echo ended: $?",
        directory.path().display()
    ));
    terminal.wait_for("VERDICT");
    assert_ne!(terminal.modes(), before, "the test must be able to see a difference");
    let pid = fs::read_to_string(directory.path().join("pid")).expect("the shell wrote it");
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    terminal.wait_for("ended: 0");
    terminal.assert_restored(&before);

    terminal.run(&format!("clear; LEAKD_TEST_PANIC=1 {top}; echo ended: $?"));
    let screen = terminal.wait_for("ended: 2");
    assert!(screen.contains("asked for by LEAKD_TEST_PANIC"), "{screen}");
    terminal.assert_restored(&before);
}

/// Check that without a daemon it is said what to do.
#[test]
fn no_daemon() {
    let terminal = Terminal::open("none");
    terminal.run(&format!("{LEAKCTL} top --socket /nonexistent/leakd.sock; echo ended: $?"));
    let screen = terminal.wait_for("ended: 2");
    assert!(screen.contains("systemctl start leakd"), "{screen}");
    assert!(screen.contains("sudo leakctl top --no-daemon"), "{screen}");
}
