//! Names as the programmer wrote them.
//!
//! A mangled name of 60 characters can stand for a demangled one of
//! gigabytes (each level of a template may name the level below it twice), and
//! whoever writes an ELF file chooses its names. So the output is bounded
//! while it is made, which the demangling inside blazesym is not.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Characters that are kept of a name.
pub const NAME_LIMIT: usize = 512;

/// Bytes of a mangled name beyond which it is not worth demangling.
const MANGLED_LIMIT: usize = 16 << 10;

/// Demangles a Rust or C++ name, without Rust's hash, and bounds it to
/// [`NAME_LIMIT`] characters. Any other name is only bounded.
pub fn demangle(name: &str) -> String {
    if name.len() <= MANGLED_LIMIT
        && (name.starts_with("_R") || name.starts_with("_Z") || name.starts_with("__Z"))
    {
        if let Ok(demangled) = rustc_demangle::try_demangle(name) {
            let mut output = Bounded::default();
            // An error says that the name is longer than wanted.
            let _ = write!(output, "{demangled:#}");
            return output.finish();
        }
        if let Ok(symbol) = cpp_demangle::Symbol::new(name) {
            let mut output = Bounded::default();
            let options = cpp_demangle::DemangleOptions::new();
            let complete = symbol.structured_demangle(&mut output, &options).is_ok();
            if complete || output.full {
                return output.finish();
            }
        }
    }
    bound(name).into_owned()
}

/// The first [`NAME_LIMIT`] characters, the last of them an ellipsis if there
/// were more.
pub(super) fn bound(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_LIMIT {
        return Cow::Borrowed(name);
    }
    let mut output = Bounded::default();
    let _ = output.write_str(name);
    Cow::Owned(output.finish())
}

/// Text that refuses to grow beyond [`NAME_LIMIT`] characters.
#[derive(Default)]
struct Bounded {
    text: String,
    characters: usize,
    full: bool,
}

impl Bounded {
    fn finish(mut self) -> String {
        const ELLIPSIS: &str = "...";
        if self.full {
            let cut = self.text.char_indices().nth(NAME_LIMIT - ELLIPSIS.len());
            self.text.truncate(cut.map_or(self.text.len(), |(index, _)| index));
            self.text.push_str(ELLIPSIS);
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.characters == NAME_LIMIT {
                self.full = true;
                return Err(fmt::Error);
            }
            self.text.push(character);
            self.characters += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that names of both languages come out, and C's stay.
    #[test]
    fn languages() {
        let cases = [
            ("malloc", "malloc"),
            ("_ZN3app5Cache6insertEi", "app::Cache::insert(int)"),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                "std::vector<int, std::allocator<int> >::push_back(int const&)",
            ),
            ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_Znonsense", "_Znonsense"),
        ];
        for (mangled, expected) in cases {
            assert_eq!(demangle(mangled), expected);
        }
    }

    /// Check that a name which doubles with each level ends, and is bounded.
    #[test]
    fn exponential_names() {
        // f(A<int, int>, A<that, that>, ...): S_ is A, S0_ the first argument.
        let mut name = "_Z1f1AIiiE".to_owned();
        for level in 0..40u32 {
            let below = base_36(level);
            name.push_str(&format!("S_IS{below}_S{below}_E"));
        }
        let demangled = demangle(&name);
        assert!(demangled.starts_with("f(A<"), "{demangled}");
        assert!(demangled.ends_with("..."), "{demangled}");
        assert_eq!(demangled.chars().count(), NAME_LIMIT);
    }

    fn base_36(number: u32) -> String {
        let digit = |value| char::from_digit(value, 36).unwrap().to_ascii_uppercase();
        match number {
            0..36 => digit(number).to_string(),
            _ => format!("{}{}", digit(number / 36), digit(number % 36)),
        }
    }

    /// Check that names of any length and depth are bounded.
    #[test]
    fn long_names() {
        assert_eq!(demangle(&"x".repeat(NAME_LIMIT)).len(), NAME_LIMIT);
        assert!(demangle(&"x".repeat(NAME_LIMIT + 1)).ends_with("x..."));
        assert_eq!(demangle(&"é".repeat(100_000)).chars().count(), NAME_LIMIT);
        for start in ["_Z", "_R", "_ZN", "_Z1fP"] {
            for body in ["N", "P", "I", "1A", "S_"] {
                let name = format!("{start}{}", body.repeat(8_000));
                assert!(demangle(&name).chars().count() <= NAME_LIMIT);
            }
        }
    }
}
