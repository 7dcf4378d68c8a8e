//! Any bytes as a section of call frame information.
#![no_main]

use std::time::Duration;

use leakd::unwind::convert::convert_image;
use leakd::unwind::image::{Architecture, FrameFormat, FrameSection, Segment};
use leakd::unwind::{ElfImage, Limits};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&choice, data)) = input.split_first() else { return };
    let architecture = if choice & 1 == 0 { Architecture::X86_64 } else { Architecture::Aarch64 };
    let format = if choice & 2 == 0 { FrameFormat::EhFrame } else { FrameFormat::DebugFrame };
    // Everything up to 1 GiB is text, so that most entries are inside it.
    let text = Segment {
        file_offset: 0,
        file_size: 1 << 30,
        address: 0,
        memory_size: 1 << 30,
        executable: true,
    };
    let frames = FrameSection {
        format,
        address: 0x10_0000,
        data: data.to_vec(),
        ends_at_zero: choice & 4 != 0,
    };
    let image = ElfImage {
        architecture,
        segments: vec![text],
        frames: vec![frames],
        text_address: Some(0x1000),
        got_address: Some(0x20_0000),
    };
    let limits = Limits { bytes: 64 << 20, time: Duration::from_secs(2) };
    if let Ok(table) = convert_image(&image, limits) {
        leakd_fuzz::ask(&table);
    }
});
