//! Writes inputs to begin with: `seed CORPUS FILE...`.
//!
//! Of each ELF file, the beginning of its section of call frame information for
//! `unwind_section`, and the file itself for `unwind_file` if it is small.

use std::path::Path;
use std::{env, fs, io};

use object::{Object, ObjectSection};

/// Longer inputs make the fuzzer slow.
const SECTION_BYTES: usize = 4096;
const FILE_BYTES: usize = 64 << 10;

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let Some(corpus) = arguments.next() else {
        return Err(io::Error::other("usage: seed CORPUS FILE..."));
    };
    let [sections, files] =
        ["unwind_section", "unwind_file"].map(|name| Path::new(&corpus).join(name));
    fs::create_dir_all(&sections)?;
    fs::create_dir_all(&files)?;
    for (number, path) in arguments.enumerate() {
        let Ok(bytes) = fs::read(&path) else { continue };
        let Ok(object) = object::File::parse(&*bytes) else { continue };
        let aarch64 = u8::from(object.architecture() == object::Architecture::Aarch64);
        for (name, format) in [(".eh_frame", 0), (".debug_frame", 2)] {
            let Some(section) = object.section_by_name(name) else { continue };
            let Ok(data) = section.data() else { continue };
            let data = &data[..data.len().min(SECTION_BYTES)];
            let seed = [&[aarch64 | format], data].concat();
            fs::write(sections.join(format!("{number}{name}")), seed)?;
        }
        if bytes.len() <= FILE_BYTES {
            fs::write(files.join(number.to_string()), &bytes)?;
        }
    }
    Ok(())
}
