//! What kind of program a process runs.

use std::os::unix::fs::FileExt;

use procfs::process::Process;

use super::ProcessError;
use crate::elf::Machine;

/// Checks that a process's program is a 64-bit one for this machine.
pub(super) fn check(
    process: &Process,
    pid: u32,
    comm: &str,
    path: &str,
) -> Result<(), ProcessError> {
    let file = process
        .open_relative("exe")
        .map_err(|error| ProcessError::from_procfs(pid, "exe", error))?;
    let comm = || comm.to_owned();
    // e_ident, e_type, e_machine
    let mut header = [0; 20];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) if header.starts_with(b"\x7fELF") => {}
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(ProcessError::reading(pid, "exe", error));
        }
        _ => return Err(ProcessError::NotElf { pid, comm: comm(), path: path.to_owned() }),
    }
    if header[4] != 2 {
        return Err(ProcessError::Not64Bit { pid, comm: comm() });
    }
    // The other byte order makes another number of it, and that is right.
    let machine = u16::from_le_bytes([header[18], header[19]]);
    if Machine::from_number(machine) != Some(Machine::OWN) {
        return Err(ProcessError::ForeignMachine { pid, comm: comm(), machine });
    }
    Ok(())
}
