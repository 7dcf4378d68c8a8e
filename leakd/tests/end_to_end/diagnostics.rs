//! What the BPF programs say of themselves.

use crate::support::invocation::{Leakctl, Outcome};

/// Runs a shell that makes a process and then replaces its own program.
fn run(log: Option<&str>) -> Outcome {
    let mut command = Leakctl::command();
    command.args(["run", "--", "sh", "-c", "ls / >/dev/null; exec sleep 1"]);
    match log {
        Some(log) => command.env("LEAKD_LOG", log),
        None => command.env_remove("LEAKD_LOG"),
    };
    Leakctl::start_command(command).outcome()
}

/// Check that they say what they do where that is asked for, and nothing where
/// it is not.
#[test]
fn programs_speak_when_asked() {
    let asked = run(Some("leakd::bpf=debug"));
    assert_eq!(asked.status, 0, "{asked:?}");
    assert!(asked.stderr.contains("DEBUG bpf: target "), "{asked:?}");
    assert!(asked.stderr.contains("replaced its program: epoch 1"), "{asked:?}");
    assert!(asked.stderr.contains(" made "), "{asked:?}");
    let not_asked = run(None);
    assert_eq!(not_asked.status, 0, "{not_asked:?}");
    assert!(!not_asked.stderr.contains("bpf: "), "{not_asked:?}");
}
