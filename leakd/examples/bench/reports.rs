//! What tracers report, read as their users read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use leakd::report::model::Report;
use leakd::verdict::Verdict;

/// A call site in a tracer's report.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Bytes that it holds.
    pub bytes: u64,
    /// Blocks, if it tells.
    pub blocks: Option<u64>,
    /// Functions, the innermost first.
    pub frames: Vec<String>,
    /// It says that this is a leak, not only that it is held.
    pub leak: bool,
}

/// Reads the report of a tracer; its first call site is the one that it shows
/// first, or as the largest.
pub fn read(tracer: &str, report: &Path) -> Result<Vec<Site>> {
    match tracer {
        "memleak" => Ok(memleak(&text(report)?)),
        "bpftrace" => Ok(bpftrace(&text(report)?)),
        "valgrind" => Ok(by_size(valgrind(&text(report)?))),
        "lsan" => Ok(by_size(leaksanitizer(&text(&with_pid(report)?)?))),
        "heaptrack" => heaptrack(report).map(by_size),
        _ if tracer.starts_with("leakd") => leakd(report),
        _ => bail!("{tracer} makes no report"),
    }
}

fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("{} is not there", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// LeakSanitizer appends the pid. No file: nothing was found.
fn with_pid(path: &Path) -> Result<PathBuf> {
    let stem = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let entries = fs::read_dir(path.parent().context("a directory")?)?.flatten();
    let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&stem));
    Ok(found.next().context("it found nothing")?.path())
}

fn by_size(mut sites: Vec<Site>) -> Vec<Site> {
    sites.sort_by_key(|site| std::cmp::Reverse(site.bytes));
    sites
}

fn leakd(report: &Path) -> Result<Vec<Site>> {
    let report: Report = serde_json::from_slice(&fs::read(report)?)?;
    let target = report.targets.first().context("the report has no target")?;
    let site = |site: &leakd::report::model::Site| Site {
        bytes: site.outstanding_bytes,
        blocks: Some(site.outstanding_blocks),
        frames: site.stack.iter().map(|frame| frame.function.clone().unwrap_or_default()).collect(),
        leak: site.verdict.word == Verdict::Leak,
    };
    Ok(target.sites.iter().map(site).collect())
}

/// "1234 bytes in 56 allocations from stack", then "0 [<address>] name+0x1 [file]".
fn memleak(text: &str) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [bytes, "bytes", "in", blocks, "allocations", ..] => sites.push(Site {
                bytes: bytes.parse().unwrap_or(0),
                blocks: blocks.parse().ok(),
                ..Site::default()
            }),
            [_, address, name, ..] if address.starts_with("[<") => {
                push_frame(&mut sites, name);
            }
            _ => {}
        }
    }
    sites
}

/// "@stacks[", a line for each frame ("name+1"), "]: bytes"; the largest last.
fn bpftrace(text: &str) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("@stacks[") {
            sites.push(Site::default());
        } else if let Some(bytes) = line.strip_prefix("]: ") {
            if let Some(site) = sites.last_mut() {
                site.bytes = bytes.parse().unwrap_or(0);
            }
        } else if !line.is_empty() {
            push_frame(&mut sites, line);
        }
    }
    sites.retain(|site| site.bytes > 0);
    by_size(sites)
}

/// "==1== 1,234 bytes in 56 blocks are definitely lost in loss record 1 of 2", then
/// "==1==    by 0x1: name (file.c:1)".
fn valgrind(text: &str) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        match words[..] {
            [bytes, "bytes", "in", blocks, "blocks", "are", class, ..]
            | [bytes, _, _, "bytes", "in", blocks, "blocks", "are", class, ..] => {
                let number = |word: &str| word.replace(',', "").parse().ok();
                inside = true;
                sites.push(Site {
                    bytes: number(bytes).unwrap_or(0),
                    blocks: number(blocks),
                    leak: class == "definitely",
                    ..Site::default()
                });
            }
            ["at" | "by", _, name, ..] if inside => push_frame(&mut sites, name),
            [] => inside = false,
            _ => {}
        }
    }
    sites
}

/// "Direct leak of 1234 byte(s) in 56 object(s) allocated from:", then "#1 0x1 in
/// name file.c:1".
fn leaksanitizer(text: &str) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Direct" | "Indirect", "leak", "of", bytes, _, "in", blocks, ..] => {
                sites.push(Site {
                    bytes: bytes.parse().unwrap_or(0),
                    blocks: blocks.parse().ok(),
                    leak: true,
                    ..Site::default()
                });
            }
            [number, _, "in", name, ..] if number.starts_with('#') => push_frame(&mut sites, name),
            _ => {}
        }
    }
    sites
}

/// heaptrack_print's stacks for flame graphs: "outer;inner bytes".
fn heaptrack(report: &Path) -> Result<Vec<Site>> {
    let stacks = report.with_extension("stacks");
    let mut command = Command::new("heaptrack_print");
    command.arg("-f").arg(report).arg("-F").arg(&stacks).args([
        "--flamegraph-cost-type=leaked",
        "-p0",
        "-a0",
        "-T0",
        "-l0",
    ]);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.context("heaptrack_print is not installed")?;
    ensure!(status.success(), "heaptrack_print failed ({status})");
    let text = text(&stacks)?;
    let site = |line: &str| {
        let (frames, bytes) = line.rsplit_once(' ')?;
        let frames = frames.split(';').rev().filter(|frame| !frame.is_empty());
        Some(Site {
            bytes: bytes.parse().ok()?,
            frames: frames.map(name_of).collect(),
            ..Site::default()
        })
    };
    Ok(text.lines().filter_map(site).filter(|site| site.bytes > 0).collect())
}

/// The allocator's own function is no part of the program's stack.
fn push_frame(sites: &mut [Site], name: &str) {
    let Some(site) = sites.last_mut() else { return };
    if site.frames.is_empty() && name.contains("malloc") {
        return;
    }
    site.frames.push(name_of(name));
}

/// Without what is behind the name: "+0x1", " (file.c)".
fn name_of(text: &str) -> String {
    text.split(['+', ' ']).next().unwrap_or_default().to_owned()
}
