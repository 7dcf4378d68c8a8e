//! How wide the terminal is.

use std::os::fd::{AsFd, AsRawFd};

/// Columns where there is no terminal to ask.
pub const DEFAULT_WIDTH: usize = 80;

/// Columns of the terminal behind a stream, or [`DEFAULT_WIDTH`]. Between 40
/// and 400: outside of that a report cannot be read.
pub fn width(stream: &impl AsFd) -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize to the pointer that it is given
    // (ioctl_tty(2)), and `size` outlives the call.
    let result =
        unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    match usize::from(size.ws_col) {
        columns if result == 0 && columns > 0 => columns.clamp(40, 400),
        _ => DEFAULT_WIDTH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::FromRawFd;

    /// Check that a file has the default width.
    #[test]
    fn no_terminal() {
        assert_eq!(width(&File::open("/dev/null").unwrap()), DEFAULT_WIDTH);
    }

    /// Check that a terminal is asked, and that absurd answers are bounded.
    #[test]
    fn a_terminal() {
        for (columns, expected) in [(132, 132), (0, DEFAULT_WIDTH), (7, 40), (60_000, 400)] {
            let size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let (mut controller, mut terminal) = (-1, -1);
            // SAFETY: openpty(3) writes the two descriptors, takes a null name
            // and null attributes, and only reads `size`.
            let result = unsafe {
                libc::openpty(
                    &raw mut controller,
                    &raw mut terminal,
                    std::ptr::null_mut(),
                    std::ptr::null(),
                    &raw const size,
                )
            };
            assert_eq!(result, 0, "openpty: {}", std::io::Error::last_os_error());
            // SAFETY: openpty made both descriptors, and nobody else owns them.
            let (_controller, terminal) =
                unsafe { (File::from_raw_fd(controller), File::from_raw_fd(terminal)) };
            assert_eq!(width(&terminal), expected);
        }
    }
}
