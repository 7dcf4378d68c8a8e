//! Man pages and completions are generated from the command line's definition
//! and committed; this holds them to it. `cargo xtask generate` writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

/// Set by `cargo xtask generate`: write instead of compare.
const WRITE: &str = "LEAKD_WRITE_GENERATED";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/generated")
}

/// The files by their path below the directory.
fn files() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let programs = [
        ("leakctl", "1", leakd::cli::Arguments::command()),
        ("leakd", "8", leakd::daemon::Arguments::command()),
    ];
    for (name, section, command) in programs {
        for (shell, directory, file) in [
            (Shell::Bash, "bash", name.to_owned()),
            (Shell::Zsh, "zsh", format!("_{name}")),
            (Shell::Fish, "fish", format!("{name}.fish")),
        ] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), name, &mut script);
            let path = Path::new("completions").join(directory).join(file);
            files.insert(path, text(script));
        }
        let mut command = command.disable_help_subcommand(true);
        command.build();
        pages(&command, section, &mut files);
    }
    files
}

fn pages(command: &Command, section: &str, files: &mut BTreeMap<PathBuf, String>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    let man = Man::new(command.clone()).section(section).manual("leakd");
    man.render(&mut page).expect("a page can be written to memory");
    files.insert(Path::new("man").join(format!("{name}.{section}")), text(page));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages(sub, section, files);
    }
}

/// Without spaces at ends of lines, which git would complain about.
fn text(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).expect("it is UTF-8");
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn committed(below: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory().join(below)) else { return };
    for entry in entries.map(|entry| entry.expect("it can be listed")) {
        let path = below.join(entry.file_name());
        match entry.file_type().expect("it has a type").is_dir() {
            true => committed(&path, found),
            false => found.push(path),
        }
    }
}

/// Check that what is committed is what the code says, no file more or less.
#[test]
fn generated_files_are_in_step() {
    let files = files();
    assert!(files.contains_key(Path::new("man/leakctl-top.1")), "{:?}", files.keys());
    if std::env::var_os(WRITE).is_some() {
        let _ = fs::remove_dir_all(directory());
        for (path, text) in &files {
            let path = directory().join(path);
            fs::create_dir_all(path.parent().expect("it has a parent")).expect("a directory");
            fs::write(path, text).expect("it can be written");
        }
        return;
    }
    let mut found = Vec::new();
    committed(Path::new(""), &mut found);
    found.sort();
    assert_eq!(found, files.keys().cloned().collect::<Vec<_>>(), "run `cargo xtask generate`");
    for (path, text) in files {
        let there = fs::read_to_string(directory().join(&path)).expect("it can be read");
        assert!(there == text, "{}: run `cargo xtask generate`", path.display());
    }
}
