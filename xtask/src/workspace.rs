//! Where the workspace and what cargo makes of it are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The top directory of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The cargo that runs xtask, at the top of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The directory for all that cargo makes.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// The directory of finished programs, `target/release` or `target/debug`.
pub fn programs(release: bool) -> PathBuf {
    target().join(if release { "release" } else { "debug" })
}
