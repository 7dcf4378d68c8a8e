//! What reaches a terminal: safe text, numbers for people, colours.
//!
//! Every string that a traced program, a file or a socket gave goes through
//! [`safe`] before it is printed: names of processes, files and functions are
//! written by whoever wants to, and a terminal obeys what it is sent.

mod number;
mod style;
mod text;
mod width;

pub use number::{bytes, count, duration, percent, rate, rate_bytes};
pub use style::{Role, Style};
pub use text::{
    LIMIT, columns, pad, safe, safe_within, shorten_end, shorten_middle, shorten_start,
};
pub use width::{DEFAULT_WIDTH, width};
