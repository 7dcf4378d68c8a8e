//! Tests of the configuration, with real files.

use std::fs;
use std::path::PathBuf;

use super::*;

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("leakd.d")).expect("a directory");
        for (name, text) in files {
            fs::write(directory.path().join(name), text).expect("a file");
        }
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("leakd.toml")
    }

    fn error(files: &[(&str, &str)]) -> String {
        let files = Self::new(files);
        let error = load(&files.path(), true).expect_err("refused").to_string();
        error.replace(&format!("{}/", files.directory.path().display()), "")
    }
}

/// Check that the file that is installed is what the code prints, and says
/// what the code does by itself.
#[test]
fn installed_file_is_in_step() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/leakd.toml");
    let printed = print(&Config::default());
    let installed = fs::read_to_string(path).expect("systemd/leakd.toml");
    assert_eq!(installed, printed, "write it anew: leakd --print-config > systemd/leakd.toml");
    assert!(installed.lines().all(|line| line.chars().count() <= 80));
    let loaded = load(path.as_ref(), true).expect("it can be read");
    assert_eq!(loaded.config, Config::default());
}

/// Check that every key of the configuration is documented, and no other.
#[test]
fn every_key_is_documented() {
    let value = toml::Value::try_from(Config::default()).expect("TOML");
    let mut names = Vec::new();
    for (name, value) in value.as_table().expect("a table") {
        match value {
            toml::Value::Table(table) => {
                names.extend(table.keys().map(|key| format!("{name}.{key}")));
            }
            _ => names.push(name.clone()),
        }
    }
    names.sort();
    let mut documented: Vec<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    documented.sort();
    assert_eq!(names, documented);
    assert!(KEYS.iter().all(|key| key.meaning.lines().all(|line| line.chars().count() <= 77)));
}

/// Check that what is printed is read as the same.
#[test]
fn printed_is_read() {
    let files = Files::new(&[(
        "leakd.toml",
        "mode = 'off'\n[include]\nunit = ['a*.service', \"b\\\"\"]\nuser = ['root', '33']\n\
         [budget]\ntarget_percent = 2.5\n[watch]\ninterval = '1500ms'\n",
    )]);
    let config = load(&files.path(), true).expect("right").config;
    assert_eq!(config.mode, Mode::Off);
    fs::write(files.path(), print(&config)).expect("a file");
    assert_eq!(load(&files.path(), true).expect("right").config, config);
}

/// Check that drop-ins win in order of their names, key by key, and that
/// other files beside them do not count.
#[test]
fn drop_ins_win() {
    let files = Files::new(&[
        ("leakd.toml", "mode = 'off'\n[trace]\nmax_targets = 2\nrest = '1h'\n"),
        ("leakd.d/10-a.toml", "[trace]\nmax_targets = 3\n"),
        ("leakd.d/20-b.toml", "[trace]\nmax_targets = 4\n"),
        ("leakd.d/30-c.toml.bak", "rubbish"),
        ("leakd.d/.40-d.toml", "rubbish"),
    ]);
    let loaded = load(&files.path(), true).expect("right");
    assert_eq!(loaded.config.mode, Mode::Off);
    assert_eq!(loaded.config.trace.max_targets.get(), 4);
    assert_eq!(loaded.config.trace.rest.as_secs(), 3600);
    let names: Vec<_> = loaded.files.iter().filter_map(|path| path.file_name()).collect();
    assert_eq!(names, ["leakd.toml", "10-a.toml", "20-b.toml"]);
    assert_eq!(load("/nonexistent/leakd.toml".as_ref(), false).expect("none"), Loaded::default());
    assert!(load("/nonexistent/leakd.toml".as_ref(), true).is_err());
}

/// Check that an error names file, line and key, and what may have been meant.
#[test]
fn errors_say_where() {
    for (file, text, parts) in [
        ("leakd.toml", "\nmodee = 'off'", ["leakd.toml:2", "`modee`", "`mode`"]),
        ("leakd.toml", "mode = 'of'", ["leakd.toml:1", "`mode`", "adaptive"]),
        ("leakd.toml", "mode = 1", ["leakd.toml:1", "`mode`", "string"]),
        ("leakd.toml", "interval = '1s'", ["leakd.toml:1", "`interval`", "`watch.interval`"]),
        ("leakd.toml", "[wach]\ninterval = '1s'", ["leakd.toml:1", "`wach`", "`watch`"]),
        ("leakd.toml", "[watch]\n\ninterval = '1x'", ["leakd.toml:3", "`interval`", "1x"]),
        ("leakd.toml", "[watch]\ninterval = '1ms'", ["leakd.toml:2", "`interval`", "500ms"]),
        (
            "leakd.d/x.toml",
            "[trace]\nmax_targets = 0",
            ["leakd.d/x.toml:2", "`max_targets`", "128"],
        ),
        (
            "leakd.d/x.toml",
            "[trace]\nmax_target = 1",
            ["x.toml:2", "max_target", "trace.max_targets"],
        ),
        (
            "leakd.d/x.toml",
            "[budget]\ntarget_percent = 101",
            ["x.toml:2", "`target_percent`", "100"],
        ),
        (
            "leakd.d/x.toml",
            "[budget]\ntarget_percent = nan",
            ["x.toml:2", "`target_percent`", "100"],
        ),
        (
            "leakd.d/x.toml",
            "[include]\nuser = ['nobody-here']",
            ["x.toml:2", "user", "nobody-here"],
        ),
        ("leakd.d/x.toml", "[include]\nunit = ['[']", ["x.toml:2", "unit", "pattern"]),
        ("leakd.d/x.toml", "a = \n", ["x.toml:1", "", ""]),
        ("leakd.d/x.toml", "mode = 'off'\nmode = 'all'", ["x.toml:2", "mode", "dupl"]),
    ] {
        let mut files = vec![("leakd.toml", "")];
        files.push((file, text));
        let error = Files::error(&files);
        for part in parts {
            assert!(error.contains(part), "{text:?}: {part:?} is not in {error:?}");
        }
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// Check that processes are told by each of the keys.
#[test]
fn selection() {
    let subject = Subject {
        pid: 7,
        comm: "nginx",
        exe: "/usr/sbin/nginx",
        uid: 0,
        cgroup: "/system.slice/nginx.service",
        unit: Some("nginx.service"),
    };
    for (text, fits) in [
        ("pid = [7]", true),
        ("pid = [8]", false),
        ("comm = ['ngin?']", true),
        ("comm = ['ngin']", false),
        ("exe = ['/usr/*']", true),
        ("user = ['root']", true),
        ("user = ['1']", false),
        ("cgroup = ['/system.slice/*']", true),
        ("unit = ['nginx.*']", true),
        ("unit = ['apache.*', 'nginx.service']", true),
        ("", false),
    ] {
        let select: Select = toml::from_str(text).expect("right");
        assert_eq!(select.fits(&subject), fits, "{text}");
        assert_eq!(select.is_empty(), text.is_empty());
    }
}
