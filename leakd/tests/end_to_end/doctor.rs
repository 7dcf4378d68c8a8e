//! `leakctl doctor PID` says how far stacks lead, where they end and why.

use crate::support::{invocation::leakctl, process::Process, programs::program};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `leakctl doctor` on processes; gives what it says of each.
fn doctor(processes: &[&Process]) -> Vec<Value> {
    let pids = processes.iter().map(|process| process.pid().to_string());
    let arguments = ["doctor", "--json", "--for", "2s"].map(str::to_owned);
    let outcome = leakctl(arguments.into_iter().chain(pids));
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let diagnosis: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    diagnosis["processes"].as_array().expect("a list").clone()
}

/// The reason why a file has no unwind table, if it is said to have none.
fn reason(process: &Value, file: &Path) -> Option<String> {
    let files = process["without_table"].as_array().expect("a list");
    let found = files.iter().find(|one| Path::new(one["module"].as_str().unwrap()) == file)?;
    Some(found["reason"].as_str().expect("a reason").to_owned())
}

/// Check that stacks through a library without unwind information are said to
/// end in it, for that reason, in the text as well; all others are whole.
#[test]
fn library_without_unwind_information() {
    let library = program("plugin_bare.so");
    let mut host = Command::new(program("plugin_host"));
    host.arg(&library);
    let mut process = Process::start_ready(host);
    process.write("go\n");
    assert_eq!(process.line(), "loaded");
    let found = &doctor(&[&process])[0];
    assert_eq!(found["pid"], process.pid());
    assert_eq!(reason(found, &library).as_deref(), Some("no .eh_frame and no .debug_frame"));
    let stopped = found["stopped"].as_array().expect("a list");
    assert_eq!(stopped.len(), 1, "{stopped:?}");
    assert_eq!(stopped[0]["module"].as_str().map(Path::new), Some(&*library));
    assert_eq!(stopped[0]["end"], "no_table");
    let number = |value: &Value| value.as_u64().expect("a number");
    let (walked, complete) =
        (number(&found["stacks"]["walked"]), number(&found["stacks"]["complete"]));
    assert!(complete > 0, "{found:#}");
    assert_eq!(number(&stopped[0]["walked"]), walked - complete, "{found:#}");

    let pid = process.pid().to_string();
    let text = leakctl(["doctor", &pid, "--for", "1s"]).stdout;
    assert!(text.contains("end in plugin_bare.so: "), "{text}");
    assert!(text.contains("no .eh_frame and no .debug_frame"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    process.end();
}

/// Check that files of all kinds that give no table are named, each with its
/// reason, and that files that were deleted or replaced are not among them.
#[test]
fn files_without_a_table() {
    let libc = crate::support::mappings::executable_mappings(std::process::id() as i32)
        .into_iter()
        .find(|mapping| mapping.path.contains("libc"))
        .expect("the tests run on a shared libc");
    let libc = std::fs::read(libc.link).expect("cannot read libc");
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let start = |name: &str, content: &[u8]| -> (Process, PathBuf) {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("cannot write");
        let mut command = Command::new(program("mapped"));
        command.arg(&path);
        (Process::start_ready(command), path)
    };
    let mut for_arm = libc.clone();
    for_arm[18] = 40;
    let (headers, third) = (&libc[..200], &libc[..libc.len() / 3]);
    let mut processes: Vec<((Process, PathBuf), Option<&str>)> = vec![
        (start("noise", &[0x5a; 70_000]), Some("not an ELF file")),
        (start("headers", headers), Some("damaged ELF file: ")),
        (start("third", third), Some("damaged ELF file: ")),
        (start("arm", &for_arm), Some("ELF machine 40 is not supported")),
        (start("deleted", &libc), None),
        (start("replaced", &libc), None),
    ];
    std::fs::remove_file(folder.path().join("deleted")).expect("it is there");
    let other = folder.path().join("other");
    std::fs::write(&other, "another file").expect("cannot write");
    std::fs::rename(&other, folder.path().join("replaced")).expect("it is there");

    let traced: Vec<&Process> = processes.iter().map(|((process, _), _)| process).collect();
    let found = doctor(&traced);
    assert_eq!(found.len(), processes.len());
    for (((_, path), expected), found) in processes.iter().zip(&found) {
        let said = reason(found, path);
        match expected {
            Some(expected) => {
                assert!(said.as_ref().is_some_and(|said| said.starts_with(expected)), "{said:?}");
            }
            None => assert_eq!(found["without_table"], Value::Array(Vec::new())),
        }
        assert_ne!(found["stacks"]["complete"], 0, "{found:#}");
    }
    for ((process, _), _) in &mut processes {
        process.end();
    }
}
