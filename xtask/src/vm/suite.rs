//! The tests, to be run on another kernel: built here, run there.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, bail};

use super::initramfs::quote;
use super::left_out;
use crate::command::test::{self, TestProgram};
use crate::process::{self, say};
use crate::toolchain;

/// The test programs: those that trace processes, and the kernel.
const PROGRAMS: [&str; 4] =
    ["leakd/test/end_to_end", KERNEL, "leakd/test/ledger", "leakd/test/stacks"];

/// The one whose tests are run nowhere else, as they load a kernel module, and
/// one at a time.
const KERNEL: &str = "leakd/test/kernel";

/// Stacks among which the tests look for torn ones; on the host a million.
const STACKS: &str = "20000";

/// By how much the tests repeat themselves less often (leakd/tests/support).
const SCALE: &str = "50";

/// Tests at once. Starting a trace is mostly the work of one thread, and almost
/// half of its time is waiting.
const THREADS: &str = "4";

/// Where leakd keeps unwind tables: empty there, since a look at each of the
/// host's takes a request to the server of the files.
const CACHE: &str = "/var/cache/leakd";

/// In the test programs that have it, the test that compiles what others run.
const COMPILES: &str = "compiles_programs";

/// The test programs, built, and what they run, compiled.
#[derive(Debug)]
pub struct Suite {
    programs: Vec<TestProgram>,
    path: String,
}

impl Suite {
    /// Builds all that runs on the other kernel, where compilers take long.
    pub fn prepare() -> Result<Self> {
        toolchain::ensure()?;
        test::install_programs()?;
        let mut programs = test::programs()?;
        programs.retain(|program| PROGRAMS.contains(&program.name.as_str()));
        // Last: it leaves the kernel locked down.
        programs.sort_by_key(|program| program.name == KERNEL);
        let path = test::path_with_rustc()?.to_string_lossy().into_owned();
        let mut known = BTreeSet::new();
        for program in &programs {
            let mut list = Command::new(&program.path);
            let list = process::output(list.args(["--list", "--format", "terse"]))?;
            known.extend(
                list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned),
            );

            let variables =
                [("CARGO_MANIFEST_DIR", program.directory.as_os_str()), ("PATH", path.as_ref())];
            let reason = "compile what the tests run";
            let mut compile = process::as_root(&program.path, &variables, reason)?;
            process::run(compile.args(["--quiet", COMPILES]).current_dir(&program.directory))?;
        }
        test::give_back()?;
        if programs.len() != PROGRAMS.len() {
            bail!("cargo built other test programs than {}", PROGRAMS.join(", "));
        }
        if let Some(gone) = left_out::LEFT_OUT.iter().find(|one| !known.contains(one.test)) {
            bail!("vm/left_out.rs names a test that there is not: {}", gone.test);
        }
        say!(
            "tests do things {SCALE} times less often there (LEAKD_TEST_SCALE={SCALE}, LEAKD_STACKS={STACKS})"
        );
        Ok(Self { programs, path })
    }

    /// The script that runs them; its status is 1 if any test failed.
    pub fn script(&self, kernel: &str) -> String {
        let mut script = format!(
            "export HOME=/root TERM=dumb RUST_BACKTRACE=0 PATH={}\n\
             export LEAKD_TEST_SCALE={SCALE} LEAKD_TEST_COMPILED=1 LEAKD_STACKS={STACKS}\nstatus=0\n\
             mkdir -p {CACHE} && mount -t tmpfs tmpfs {CACHE} || exit\n",
            quote(&self.path)
        );
        let mut skipped = String::new();
        for left_out::LeftOut { test, reason, .. } in left_out::on(kernel) {
            say!("kernel {kernel}: left out: {test}: {reason}");
            skipped.push_str(&format!(" --skip {}", quote(test)));
        }
        for program in &self.programs {
            let which = match program.name.as_str() {
                KERNEL => "--ignored --test-threads=1".to_owned(),
                _ => format!("--test-threads={THREADS}"),
            };
            let directory = quote(&program.directory.to_string_lossy());
            script.push_str(&format!(
                "cd {directory} || exit\nexport CARGO_MANIFEST_DIR={directory}\n\
                 echo test {name} on Linux $(uname -r)\n\
                 {path} {which} --exact{skipped} || status=1\n",
                name = program.name,
                path = quote(&program.path.to_string_lossy()),
            ));
        }
        script.push_str("exit $status\n");
        script
    }
}
