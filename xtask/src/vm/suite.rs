//! The tests, to be run on another kernel: built here, run there.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, bail};

use super::initramfs::quote;
use super::{PASSED_ALONE, left_out};
use crate::command::test::{self, TestProgram};
use crate::process::{self, say};
use crate::toolchain;

/// Tests that have a machine of their own.
#[derive(Debug)]
pub struct Part {
    /// Behind the kernel's name.
    pub suffix: &'static str,
    /// The test programs.
    programs: &'static [&'static str],
    /// The tests of theirs, by program and name.
    chosen: fn(&str, &str) -> bool,
    /// They trace the kernel, which costs whatever runs beside them, and so run one
    /// at a time. Those that load a module are `#[ignore]`d, as they run nowhere else.
    pub of_kernel: bool,
}

/// The tests: those that trace processes, and those that trace the kernel.
pub const PARTS: [Part; 2] = [
    Part {
        suffix: "",
        programs: &["end_to_end", "ledger", "stacks"],
        chosen: |program, test| !is_of_kernel(program, test),
        of_kernel: false,
    },
    Part {
        suffix: "-kernel",
        programs: &["end_to_end", "kernel"],
        chosen: is_of_kernel,
        of_kernel: true,
    },
];

/// Whether a test traces the kernel.
fn is_of_kernel(program: &str, test: &str) -> bool {
    match program {
        "kernel" => !test.ends_with(COMPILES),
        _ => {
            test.starts_with("kernel::")
                || (test.starts_with("daemon::kernel::") && test != FOUND_WHILE_BUSY)
        }
    }
}

/// It takes minutes, of which it needs little, and so is not to hold the others up.
const FOUND_WHILE_BUSY: &str = "daemon::kernel::a_leak_is_found_by_itself";

/// How cargo builds them: optimized, since each instruction costs fifty times
/// what it does elsewhere.
const PROFILE: &str = "vm";

/// Stacks among which the tests look for torn ones; on the host a million.
const STACKS: &str = "20000";

/// By how much the tests repeat themselves less often (leakd/tests/support).
const SCALE: &str = "50";

/// Tests at once in a machine: starting a trace is mostly the work of one thread, and
/// a test waits now and then.
const THREADS: &str = "5";

/// Where leakd keeps unwind tables: empty there, since a look at each of the
/// host's takes a request to the server of the files. Nobody else's to write to,
/// or leakd makes all tables anew at each start: a fifth of it.
const CACHE: &str = "/var/cache/leakd";

/// Tests that mostly wait, a minute and longer: they run beside the others of their
/// program from the start on, and not after them.
const WAITING: [&str; 1] = ["verdicts::leaks_and_no_others"];

/// In the test programs that have it, the test that compiles what others run.
const COMPILES: &str = "compiles_programs";

/// Functions of the shell. The first runs a test program with arguments and gives its
/// status. What fails is run once more, alone, if AGAIN is set: where five tests share
/// two emulated processors, one may starve. Both are printed, and what then passed is in
/// a file beside the output. The second ends with a status, or if that is 0, and there
/// are such files in a folder, with another one, and says which tests they were.
const RUN: &str = r#"
run() {
    output=$1
    shift
    { "$@" 2>&1; echo $? >$output.status; } | tee $output
    [ "$(cat $output.status)" != 0 ] || return 0
    failed=$(sed -n '/^failures:$/,/^test result/s/^    \([A-Za-z0-9_:]*\)$/\1/p' $output | sort -u)
    [ -n "$AGAIN" ] && [ -n "$failed" ] || return 1
    echo failed beside others, and run once more: $failed
    "$1" --include-ignored --test-threads=1 --exact $failed || return
    echo $failed >>$output.again
}
finish() {
    [ $1 = 0 ] && cat $3/*.again >$3/all 2>/dev/null || exit $1
    echo passed only when run once more, alone: $(cat $3/all)
    exit $2
}
"#;

/// The test programs, built, and what they run, compiled.
#[derive(Debug)]
pub struct Suite {
    /// With the names of their tests.
    programs: Vec<(TestProgram, Vec<String>)>,
    path: String,
}

impl Suite {
    /// Builds all that runs on the other kernel, where compilers take long.
    pub fn prepare() -> Result<Self> {
        toolchain::ensure()?;
        test::install_programs()?;
        let mut options = vec!["--profile", PROFILE, "--package", "leakd"];
        let names: BTreeSet<&str> = PARTS.iter().flat_map(|part| part.programs).copied().collect();
        options.extend(names.iter().flat_map(|name| ["--test", name]));
        let mut built = test::programs(&options)?;
        // Last: it leaves the kernel locked down.
        built.sort_by_key(|program| program.name == "kernel");
        if built.len() != names.len() {
            bail!("cargo built other test programs than {names:?}");
        }
        let path = test::path_with_rustc()?.to_string_lossy().into_owned();
        let mut programs = Vec::new();
        for program in built {
            let mut list = Command::new(&program.path);
            let list = process::output(list.args(["--list", "--format", "terse"]))?;
            let tests = list.lines().filter_map(|line| line.strip_suffix(": test"));
            let tests: Vec<String> = tests.map(str::to_owned).collect();

            let variables =
                [("CARGO_MANIFEST_DIR", program.directory.as_os_str()), ("PATH", path.as_ref())];
            let reason = "compile what the tests run";
            let mut compile = process::as_root(&program.path, &variables, reason)?;
            process::run(compile.args(["--quiet", COMPILES]).current_dir(&program.directory))?;
            programs.push((program, tests));
        }
        test::give_back()?;
        let is_known =
            |test: &str| programs.iter().any(|(_, tests)| tests.iter().any(|one| one == test));
        if let Some(gone) = left_out::LEFT_OUT.iter().find(|one| !is_known(one.test)) {
            bail!("vm/left_out.rs names a test that there is not: {}", gone.test);
        }
        for left_out::LeftOut { kernels, test, reason } in left_out::LEFT_OUT {
            let on = if kernels.is_empty() {
                String::new()
            } else {
                format!(" on {}", kernels.join(", "))
            };
            say!("left out{on}: {test}: {reason}");
        }
        say!(
            "tests do things {SCALE} times less often there (LEAKD_TEST_SCALE={SCALE}, LEAKD_STACKS={STACKS})"
        );
        Ok(Self { programs, path })
    }

    /// The script that runs them; its status is 1 if any test failed, with `again` also
    /// when it was run once more, and [`PASSED_ALONE`] if some passed only then.
    pub fn script(&self, kernel: &str, part: &Part, again: bool) -> String {
        let mut script = format!(
            "export HOME=/root TERM=dumb RUST_BACKTRACE=0 PATH={}\n\
             export LEAKD_TEST_SCALE={SCALE} LEAKD_TEST_COMPILED=1 LEAKD_STACKS={STACKS}\nstatus=0\n\
             mkdir -p {CACHE} && mount -t tmpfs -o mode=0700 tmpfs {CACHE} || exit\n\
             AGAIN={}\n{RUN}",
            quote(&self.path),
            if again { "1" } else { "" }
        );
        let left_out: BTreeSet<&str> = left_out::on(kernel).map(|one| one.test).collect();
        let threads = if part.of_kernel { "1" } else { THREADS };
        for (program, tests) in &self.programs {
            let name = program.name.rsplit('/').next().unwrap_or_default();
            let is_chosen =
                |test: &&String| (part.chosen)(name, test) && !left_out.contains(test.as_str());
            let chosen: Vec<_> = tests.iter().filter(is_chosen).map(String::as_str).collect();
            if chosen.is_empty() || !part.programs.contains(&name) {
                continue;
            }
            let (waiting, working): (Vec<_>, Vec<_>) =
                chosen.into_iter().partition(|test| WAITING.contains(test));
            let command = |tests: &[&str]| {
                let tests: Vec<_> = tests.iter().map(|test| quote(test)).collect();
                let path = quote(&program.path.to_string_lossy());
                let tests = tests.join(" ");
                format!("{path} --include-ignored --test-threads={threads} --exact {tests}")
            };
            let directory = quote(&program.directory.to_string_lossy());
            script.push_str(&format!(
                "cd {directory} || exit\nexport CARGO_MANIFEST_DIR={directory}\n\
                 echo test {name} on Linux $(uname -r)\n",
                name = program.name,
            ));
            if waiting.is_empty() {
                script.push_str(&format!("run /run/working {} || status=1\n", command(&working)));
            } else {
                script.push_str(&format!(
                    "run /run/waiting {} >/run/shown 2>&1 & waiting=$!\n\
                     run /run/working {} || status=1\n\
                     wait $waiting || status=1\ncat /run/shown\n",
                    command(&waiting),
                    command(&working)
                ));
            }
        }
        script.push_str(&format!("finish $status {PASSED_ALONE} /run\n"));
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    /// Prints as a test program does that fails, and fails, unless it is asked for one
    /// test alone: then `ALONE` is its status.
    const PROGRAM: &str = "#!/bin/sh
echo \"asked: $*\"
case \"$*\" in *--test-threads=1*) exit $ALONE;; esac
printf '\\nfailures:\\n\\n---- room::one stdout ----\\n  left: 1\\n right: 2\\n\\n'
printf 'failures:\\n    room::one\\n    room::two\\n\\ntest result: FAILED. 3 passed; 2 failed\\n'
exit 101
";

    fn run(folder: &Path, again: &str, alone: &str) -> (Option<i32>, String) {
        let program = folder.join("program");
        fs::write(&program, PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let script = format!("{RUN}run output ./program --test-threads=5");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("AGAIN", again).env("ALONE", alone).current_dir(folder);
        let output = shell.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// Check that what fails is run once more, alone, where that is wanted, and that its
    /// second failure counts.
    #[test]
    fn failures_are_run_once_more() {
        let folder = tempfile::tempdir().unwrap();
        let (status, said) = run(folder.path(), "1", "0");
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("room::one\n    room::two"), "the first run is shown: {said}");
        let alone = "asked: --include-ignored --test-threads=1 --exact room::one room::two\n";
        assert!(said.ends_with(alone), "{said}");
        let again = folder.path().join("output.again");
        assert_eq!(fs::read_to_string(&again).unwrap(), "room::one room::two\n");
        fs::remove_file(&again).unwrap();
        assert_eq!(run(folder.path(), "1", "101").0, Some(101));
        assert!(!again.exists(), "it did not pass");
        let (status, said) = run(folder.path(), "", "0");
        assert_eq!(status, Some(1), "{said}");
        assert!(!said.contains("--test-threads=1"), "{said}");
    }

    /// Check that a machine in which a test passed only alone has a status of its own,
    /// and names it, unless another one failed.
    #[test]
    fn who_passed_alone_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let finish = |status: u8| {
            let script = format!("{RUN}finish {status} {PASSED_ALONE} .");
            let mut shell = Command::new("sh");
            let output = shell.args(["-c", &script]).current_dir(folder.path()).output().unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        assert_eq!(finish(0), (Some(0), String::new()));
        fs::write(folder.path().join("working.again"), "room::one room::two\n").unwrap();
        fs::write(folder.path().join("waiting.again"), "room::three\n").unwrap();
        let named = "passed only when run once more, alone: room::three room::one room::two\n";
        assert_eq!(finish(0), (Some(PASSED_ALONE.into()), named.to_owned()));
        assert_eq!(finish(1), (Some(1), String::new()));
    }
}
