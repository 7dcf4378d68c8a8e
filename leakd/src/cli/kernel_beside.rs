//! What the kernel itself says of its memory, beside what leakd has seen.

use std::fmt::Write;

use crate::terminal::{self, Role, Style};
use crate::watch::kernel::{allocinfo, kmemleak};

/// Rows of each.
const ROWS: usize = 5;
/// Frames of a stack that are shown.
const FRAMES: usize = 4;

/// The text; empty where the kernel keeps no books. It ends with a newline.
pub fn text(style: Style, width: usize) -> String {
    let mut text = String::new();
    match allocinfo::read(ROWS) {
        Ok(Some(rows)) => push_allocinfo(&mut text, &rows, style, width),
        Ok(None) => {}
        Err(error) => tracing::warn!("/proc/allocinfo: {error}"),
    }
    match kmemleak::read(ROWS) {
        Ok(Some(findings)) => push_kmemleak(&mut text, &findings, style, width),
        Ok(None) => {}
        Err(error) => tracing::warn!("/sys/kernel/debug/kmemleak: {error}"),
    }
    text
}

fn push_allocinfo(text: &mut String, rows: &[allocinfo::Row], style: Style, width: usize) {
    let title = "The kernel's own count since it booted (/proc/allocinfo):";
    let _ = writeln!(text, "\n{}", style.paint(Role::Dim, title));
    for row in rows {
        let module = row.module.as_deref().map(|name| format!(" [{name}]")).unwrap_or_default();
        line(
            text,
            width,
            &format!(
                "{:>10} {:>10}  {}  {}:{}{module}",
                terminal::bytes(row.bytes),
                terminal::count(row.blocks),
                row.function,
                row.file.rsplit('/').next().unwrap_or_default(),
                row.line
            ),
        );
    }
}

fn push_kmemleak(text: &mut String, findings: &kmemleak::Findings, style: Style, width: usize) {
    let more = if findings.is_cut { ", the largest of them" } else { "" };
    let title = format!("What kmemleak found at its last scan{more}:");
    let _ = writeln!(text, "\n{}", style.paint(Role::Dim, &title));
    if findings.rows.is_empty() {
        line(text, width, "  nothing");
    }
    for row in &findings.rows {
        let (bytes, blocks) = (terminal::bytes(row.bytes), terminal::count(row.blocks));
        line(text, width, &format!("{bytes:>10} {blocks:>10}  by {} (pid {})", row.comm, row.pid));
        for frame in row.frames.iter().take(FRAMES) {
            line(text, width, &format!("    {frame}"));
        }
    }
}

/// One line, safe and no wider than the terminal.
fn line(text: &mut String, width: usize, content: &str) {
    let safe = terminal::safe(content);
    let _ = writeln!(text, "{}", terminal::shorten_end(&safe, width).trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that both fit 80 columns, whatever names a module has.
    #[test]
    fn fits() {
        let mut text = String::new();
        let row = allocinfo::Row {
            file: "drivers/net/ethernet/a_rather_long_directory/with_a_long_name.c".to_owned(),
            line: 1234,
            function: "probe\x1b[2J".to_owned(),
            module: Some("module".to_owned()),
            bytes: 3 << 30,
            blocks: 1_234_567,
        };
        push_allocinfo(&mut text, &[row], Style::PLAIN, 80);
        let row = kmemleak::Row {
            frames: vec!["kmalloc_trace+0x1b/0x20".to_owned(); 6],
            bytes: 96,
            blocks: 1,
            comm: "insmod".to_owned(),
            pid: 12,
        };
        let findings = kmemleak::Findings { rows: vec![row], is_cut: true };
        push_kmemleak(&mut text, &findings, Style::PLAIN, 80);
        push_kmemleak(&mut text, &kmemleak::Findings::default(), Style::PLAIN, 80);
        assert!(text.lines().all(|line| terminal::columns(line) <= 80), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        insta::assert_snapshot!(text);
    }
}
