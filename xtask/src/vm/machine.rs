//! A virtual machine: boots a kernel, runs one command, and ends.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::archive::{self, Image, Temporary};
use super::qemu::Qemu;
use super::share::Share;
use super::{end_with_us, initramfs, interrupted};
use crate::process::say;

/// The virtual machine's processors: races between threads are to happen.
const PROCESSORS: &str = "2";
/// Its memory in MiB; three quarters can be files that the command writes.
const MEMORY: u32 = 3072;

/// For the kernel, with reasons: output from the first line on; a panic ends
/// the machine; nothing is measured, so nothing is to cost time; tests change
/// the code of their own programs through /proc/PID/mem; nobody waits for RCU
/// longer than it takes; a processor that is stuck for two minutes is no slow one.
const PARAMETERS: &str = "console=ttyS0 loglevel=5 panic=-1 mitigations=off \
                          random.trust_cpu=on tsc=reliable no_timer_check \
                          proc_mem.force_override=always rcupdate.rcu_expedited=1 \
                          watchdog_thresh=60 softlockup_panic=1";

/// How much of the console is shown of a kernel that has panicked, in lines.
const LAST_WORDS: usize = 80;

/// The kernel itself remembers who allocates from two caches, which leakd is
/// compared with. That makes it slow: the verifier uses one of them.
const WITNESS: &str = "slub_debug=U,kmalloc-*1k,leaky_cache";

/// How the command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended by itself, with this status.
    Ended(u8),
    /// It took too long.
    TimedOut {
        /// Until then, a test had failed.
        failed: bool,
    },
    /// The kernel panicked, or the machine went without a result: why.
    Lost(String),
    /// The kernel met a breakpoint that it had taken out of its own code already: the
    /// emulator ran what was there before.
    StaleCode {
        /// Until then, a test had failed.
        failed: bool,
    },
    /// Ctrl-C.
    Interrupted,
}

/// What the virtual machine's processors are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's own processors.
    Kvm,
    /// Emulated ones.
    Emulation,
}

impl Accelerator {
    /// The best that there is, and why it is no better.
    pub fn choose() -> (Self, &'static str) {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return (Self::Emulation, "/dev/kvm is missing or not for you");
        }
        // Without these, KVM interprets the guest's kernel, which takes longer
        // than emulation or does not boot at all.
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if !processors.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
            return (Self::Emulation, "the processor's virtualization is not to be had here");
        }
        (Self::Kvm, "by /dev/kvm")
    }

    /// For the kernel, beside [`PARAMETERS`]. Emulated, the time-stamp counter is
    /// the host's, but the kernel measures it by a timer that a busy host lets
    /// wait: time went 48 times too fast once.
    fn parameters(self, with_witness: bool) -> String {
        let mut parameters = PARAMETERS.to_owned();
        if let (Self::Emulation, Some(khz)) = (self, time_stamp_khz()) {
            parameters.push_str(&format!(" tsc_early_khz={khz}"));
        }
        if with_witness {
            parameters.push(' ');
            parameters.push_str(WITNESS);
        }
        parameters
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Debian's kernels of 6.1 do not boot with 5-level paging emulated.
            // String instructions are emulated byte by byte: without ERMS and
            // FSRM, neither kernel nor C library copies or clears memory by
            // them. SMAP makes each copy to user space leave translated code.
            Self::Emulation => {
                ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off,erms=off,fsrm=off,smap=off"]
            }
        }
    }
}

/// The frequency of this machine's time-stamp counter.
#[cfg(target_arch = "x86_64")]
fn time_stamp_khz() -> Option<u64> {
    /// The counter, and the time halfway between just before and just after; of
    /// several looks the one that was interrupted least.
    fn look() -> Option<(u64, Instant)> {
        let looks = (0..100).map(|_| {
            let before = Instant::now();
            // SAFETY: reads a counter; every processor of this architecture has it.
            let counter = unsafe { std::arch::x86_64::_rdtsc() };
            (before.elapsed(), counter, before)
        });
        let (took, counter, before) = looks.min()?;
        Some((counter, before + took / 2))
    }
    let (first, begin) = look()?;
    thread::sleep(Duration::from_millis(100));
    let (last, end) = look()?;
    let time = end.checked_duration_since(begin)?.as_nanos();
    u64::try_from(u128::from(last.checked_sub(first)?) * 1_000_000 / time).ok()
}

#[cfg(not(target_arch = "x86_64"))]
fn time_stamp_khz() -> Option<u64> {
    None
}

/// What a machine is made of.
#[derive(Debug)]
pub struct Tools {
    /// The emulator.
    pub qemu: Qemu,
    /// The server of the host's files.
    pub server: PathBuf,
    /// The processors.
    pub accelerator: Accelerator,
}

/// What is to run on a kernel.
#[derive(Debug)]
pub struct Job {
    /// What it is called: in front of its lines, if they are of tests.
    pub name: String,
    /// The kernel.
    pub image: Image,
    /// The kernel remembers who allocates from the caches of the tests' module.
    pub with_witness: bool,
    /// A script for sh, run as root.
    pub script: String,
    /// For how long it may take.
    pub limit: Duration,
    /// It runs the tests: its lines are printed behind its name.
    pub are_tests: bool,
}

/// Boots the kernel and runs the script in the host's files. What it prints is
/// printed here.
pub fn run(job: &Job, tools: &Tools, limit: Duration) -> Result<Outcome> {
    let accelerator = tools.accelerator;
    let Job { name, image, script, .. } = job;
    let directory = Temporary(archive::cache()?.join(archive::directory("run", name)));
    let directory = &directory.0;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot write to {}", directory.display()))?;
    let initramfs = initramfs::write(directory, image, script)?;
    let share = Share::start(&tools.server, directory)?;

    let (console, result) = (directory.join("console"), directory.join("result"));
    let mut qemu = tools.qemu.command();
    qemu.args(accelerator.arguments()).args(["-smp", PROCESSORS, "-m", &MEMORY.to_string()]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(initramfs);
    qemu.args(["-append", &accelerator.parameters(job.with_witness)]);
    // The memory is shared with the server of the files.
    qemu.args(["-object", &format!("memory-backend-memfd,id=memory,size={MEMORY}M,share=on")]);
    qemu.args(["-numa", "node,memdev=memory", "-chardev"]);
    qemu.arg(format!("socket,id=files,path={}", comma(&share.socket)));
    qemu.args(["-device", "vhost-user-fs-pci,chardev=files,tag=host,queue-size=1024"]);
    // ttyS0, ttyS1 and ttyS2: see init.sh.
    let file = |id: &str, path: &Path| format!("file,id={id},path={}", comma(path));
    qemu.args(["-chardev", &file("console", &console), "-serial", "chardev:console"]);
    qemu.args(["-chardev", "stdio,id=output,signal=off", "-serial", "chardev:output"]);
    qemu.args(["-chardev", &file("result", &result), "-serial", "chardev:result"]);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());

    let mut machine = Machine(end_with_us(&mut qemu).spawn().context("cannot start qemu")?);
    let label = if job.are_tests { format!("{name}: ") } else { String::new() };
    let output =
        machine.0.stdout.take().map(|output| relay(output, Labelled::new(io::stdout(), label)));
    let errors = machine.0.stderr.take().map(|errors| relay(errors, io::sink()));
    let ended = machine.wait(limit)?;
    drop(machine);
    let said = [output, errors].map(|thread| thread.and_then(|thread| thread.join().ok()));
    match ended {
        Ended::Interrupted => Ok(Outcome::Interrupted),
        Ended::TimedOut => {
            Ok(Outcome::TimedOut { failed: said[0].as_ref().is_some_and(|said| said.failed) })
        }
        Ended::ByItself => {
            let read = |path: &Path| {
                String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
            };
            let errors = said[1].as_ref().map_or("", |said| &said.last);
            let console = read(&console);
            let outcome = outcome(&read(&result), &console, errors);
            if !matches!(outcome, Outcome::Lost(_)) {
                return Ok(outcome);
            }
            say!("kernel {name}: the last of its console:\n{}", last_words(&console));
            let is_stale = accelerator == Accelerator::Emulation && ran_stale_code(&console);
            let failed = said[0].as_ref().is_some_and(|said| said.failed);
            Ok(if is_stale { Outcome::StaleCode { failed } } else { outcome })
        }
    }
}

/// A qemu, killed when this is dropped.
#[derive(Debug)]
struct Machine(Child);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    ByItself,
    TimedOut,
    Interrupted,
}

impl Machine {
    fn wait(&mut self, limit: Duration) -> Result<Ended> {
        let begin = Instant::now();
        loop {
            if interrupted() {
                return Ok(Ended::Interrupted);
            }
            if let Some(status) = self.0.try_wait()? {
                // Ctrl-C is for qemu, too, and may reach it first.
                let killed = status.signal().is_some();
                return Ok(if killed && interrupted() {
                    Ended::Interrupted
                } else {
                    Ended::ByItself
                });
            }
            if begin.elapsed() >= limit {
                return Ok(Ended::TimedOut);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is kept of what a program has printed.
#[derive(Debug)]
struct Said {
    /// The end of it.
    last: String,
    /// A line said that a test had failed.
    failed: bool,
}

/// How such a line ends.
const FAILED: &[u8] = b" ... FAILED\n";

/// Passes on what a program prints.
fn relay(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> JoinHandle<Said> {
    const KEPT: usize = 4096;
    thread::spawn(move || {
        let (mut piece, mut last) = ([0; 4096], Vec::new());
        let mut failed = false;
        while let Ok(length @ 1..) = from.read(&mut piece) {
            // That nobody reads us any more does not end the machine.
            let _ = to.write_all(&piece[..length]).and_then(|()| to.flush());
            last.extend_from_slice(&piece[..length]);
            let new = last.len().saturating_sub(length + FAILED.len() - 1);
            failed |= last[new..].windows(FAILED.len()).any(|window| window == FAILED);
            last.drain(..last.len().saturating_sub(KEPT));
        }
        Said { last: String::from_utf8_lossy(&last).into_owned(), failed }
    })
}

/// Writes whole lines, each behind a label; without one, what comes as it comes.
#[derive(Debug)]
struct Labelled<To: Write> {
    to: To,
    label: String,
    line: Vec<u8>,
}

impl<To: Write> Labelled<To> {
    fn new(to: To, label: String) -> Self {
        Self { to, label, line: Vec::new() }
    }
}

impl<To: Write> Write for Labelled<To> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.label.is_empty() {
            return self.to.write(bytes);
        }
        let mut whole = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                whole.extend_from_slice(self.label.as_bytes());
                whole.append(&mut self.line);
            }
        }
        // At once, since other machines write there, too.
        self.to.write_all(&whole)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<To: Write> Drop for Labelled<To> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            let _ = self.write(b"\n");
        }
    }
}

/// A path in an option of qemu's, where commas separate.
fn comma(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// From where the kernel's trouble began; the end, if it has said nothing of that.
fn last_words(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let is_trouble =
        |line: &&str| ["BUG", "Oops", "panic", "WARNING"].iter().any(|word| line.contains(word));
    let begin = lines.iter().position(is_trouble);
    let begin = begin.unwrap_or(lines.len().saturating_sub(LAST_WORDS));
    lines[begin..].iter().take(LAST_WORDS).copied().collect::<Vec<_>>().join("\n")
}

/// Whether the first that went wrong was a breakpoint in the kernel's own code, as
/// that of 7.2 in finish_task_switch, a static key. qemu (10.0, a thread for each
/// processor) did that once in some twenty runs. It has nothing to do with probes in
/// programs: those trap in user mode.
fn ran_stale_code(console: &str) -> bool {
    let is_trouble =
        |line: &&str| ["BUG", "Oops", "panic", "int3:"].iter().any(|word| line.contains(word));
    console.lines().find(is_trouble).is_some_and(|line| line.contains("int3: 0000 [#1]"))
}

/// What became of a machine that has ended: by its result, its console and what
/// qemu said.
fn outcome(result: &str, console: &str, errors: &str) -> Outcome {
    let result = result.trim();
    if let Some(status) = result.strip_prefix("status ").and_then(|status| status.parse().ok()) {
        return Outcome::Ended(status);
    }
    let panic = console.lines().find(|line| line.contains("Kernel panic"));
    // Behind the time in brackets.
    let panic = panic.map(|line| line.split_once("] ").map_or(line, |(_, text)| text).trim());
    let last = errors.lines().last().filter(|line| !line.is_empty());
    Outcome::Lost(match (panic, result, last) {
        (Some(panic), ..) => panic.to_owned(),
        (None, "", Some(last)) => last.to_owned(),
        (None, "", None) => "the machine went without a result".into(),
        (None, result, _) => format!("the machine could not be set up: {result}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the counter's frequency is that of no broken measurement: the
    /// same twice.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn measures_the_time_stamp_counter() {
        let measure = || time_stamp_khz().expect("there is a counter");
        let (one, other) = (measure(), measure());
        assert!(one.abs_diff(other) < one / 1000, "{one} and {other}");
    }

    /// Check that the beginning of a kernel's trouble is shown, and not all of it.
    #[test]
    fn shows_last_words() {
        assert_eq!(last_words("up\nOops: 0\nRIP\n"), "Oops: 0\nRIP");
        assert_eq!(last_words("up\nand on"), "up\nand on");
        assert_eq!(last_words(&"BUG: a\n".repeat(1000)).lines().count(), LAST_WORDS);
    }

    /// Check that lines are labelled as a whole, also the last one without an end.
    #[test]
    fn labels_lines() {
        let mut to = Vec::new();
        let mut labelled = Labelled::new(&mut to, "6.1: ".into());
        for piece in ["a", "b\nc\n", "", "d"] {
            labelled.write_all(piece.as_bytes()).expect("memory");
        }
        drop(labelled);
        assert_eq!(to, b"6.1: ab\n6.1: c\n6.1: d\n");
    }

    /// Check that a breakpoint of the kernel's own is known, and only where it came
    /// first.
    #[test]
    fn knows_stale_code() {
        assert!(ran_stale_code("up\n[  209.857416] Oops: int3: 0000 [#1] SMP NOPTI\nRIP"));
        assert!(ran_stale_code("[   20.1] int3: 0000 [#1] PREEMPT SMP NOPTI\nKernel panic"));
        assert!(!ran_stale_code("BUG: bad page\nOops: int3: 0000 [#1] SMP"));
        assert!(!ran_stale_code("Oops: general protection fault: 0000 [#1]"));
    }

    /// Check that a test's failure is seen, also where it comes in pieces.
    #[test]
    fn sees_failures() {
        struct Pieces(&'static [u8]);
        impl Read for Pieces {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                let (piece, rest) = self.0.split_at(self.0.len().min(7));
                self.0 = rest;
                to[..piece.len()].copy_from_slice(piece);
                Ok(piece.len())
            }
        }
        let failed = |text: &'static str| {
            relay(Pieces(text.as_bytes()), io::sink()).join().expect("it ends").failed
        };
        assert!(failed("running 2 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ok\n"));
        assert!(!failed("running 2 tests\ntest a ... ok\nFAILED\ntest c ... ok\n"));
    }

    /// Check that a command's status is told from a machine that broke, and
    /// that why it broke is said.
    #[test]
    fn reads_outcomes() {
        assert_eq!(outcome("status 0\r\n", "", ""), Outcome::Ended(0));
        assert_eq!(outcome("status 101\n", "[ 1.0] Kernel panic", ""), Outcome::Ended(101));
        let lost = |result, console, errors| match outcome(result, console, errors) {
            Outcome::Lost(why) => why,
            other => panic!("{other:?}"),
        };
        let panic = "[    2.101] Kernel panic - not syncing: sysrq triggered crash";
        assert_eq!(lost("", panic, ""), "Kernel panic - not syncing: sysrq triggered crash");
        assert_eq!(lost("", "booting", "qemu: no memory\n"), "qemu: no memory");
        assert_eq!(lost("", "booting", ""), "the machine went without a result");
        assert!(lost("failed: mount", "", "").ends_with("failed: mount"));
        assert!(lost("status x", "", "").ends_with("status x"));
    }
}
