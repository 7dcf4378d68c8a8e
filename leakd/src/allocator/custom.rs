//! Allocating and freeing functions that the user names.

use leakd_common::cookie::{Arguments, Function};

/// Integer arguments that the x86-64 and aarch64 ABIs pass in registers, as
/// far as both do.
const MAX_ARGUMENT: u8 = 6;
const MAX_NAME: usize = 1000;

/// A function of the program's own that hands memory out or takes it back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomFunction {
    /// Its symbol, mangled where the language does so.
    pub symbol: String,
    /// [`Function::CustomAllocate`] or [`Function::CustomFree`].
    pub function: Function,
    /// Where it has its operands.
    pub arguments: Arguments,
}

/// What is wrong with a description of a custom function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomFunctionError {
    /// There is no name, or it holds what no symbol holds.
    #[error(
        "'{0}' is not a symbol; expected NAME or NAME:size=1,ret, with the \
         name as `nm` prints it (mangled for C++ and Rust)"
    )]
    Symbol(String),
    /// A word that means nothing here.
    #[error("'{word}' in '{text}' is unknown; expected {expected}")]
    Word {
        /// The whole description.
        text: String,
        /// The word.
        word: String,
        /// What could have stood there.
        expected: &'static str,
    },
    /// A number that is not that of an argument.
    #[error("'{word}' in '{text}': arguments count from 1 to 6")]
    Argument {
        /// The whole description.
        text: String,
        /// The word.
        word: String,
    },
    /// A word twice, or two words for the same argument.
    #[error("'{text}' gives {what} twice")]
    Twice {
        /// The whole description.
        text: String,
        /// What it gives twice.
        what: &'static str,
    },
    /// A count without a size.
    #[error("'{0}' has count= but no size=; the count multiplies the size")]
    CountAlone(String),
}

const ALLOCATE: &str = "size=N, count=N, out=N or ret";
const FREE: &str = "ptr=N";

impl CustomFunction {
    /// Reads the description of an allocating function, `NAME` or
    /// `NAME:WORDS`. The words, separated by commas: `size=N` the argument
    /// with the size in bytes, `count=N` one that multiplies it, `ret` the
    /// block's address is returned (which is what it does unless told
    /// otherwise), `out=N` it is stored where argument N points. `NAME` alone
    /// means `NAME:size=1,ret`. With words but no `size=`, the size is
    /// unknown and blocks count as 0 bytes.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse_allocate(text: &str) -> Result<Self, CustomFunctionError> {
        let (symbol, words) = split(text)?;
        let mut arguments = Arguments::default();
        let mut returned = false;
        match words {
            None => arguments.size = 1,
            Some(words) => {
                for word in words.split(',') {
                    let (target, what) = match word.split_once('=').map_or(word, |pair| pair.0) {
                        "ret" if word == "ret" => {
                            if returned || arguments.pointer != 0 {
                                return Err(twice(text, "the result"));
                            }
                            returned = true;
                            continue;
                        }
                        "size" => (&mut arguments.size, "size="),
                        "count" => (&mut arguments.count, "count="),
                        "out" if returned => return Err(twice(text, "the result")),
                        "out" => (&mut arguments.pointer, "out="),
                        _ => return Err(unknown(text, word, ALLOCATE)),
                    };
                    assign(target, what, text, word, ALLOCATE)?;
                }
            }
        }
        if arguments.count != 0 && arguments.size == 0 {
            return Err(CustomFunctionError::CountAlone(clean(text)));
        }
        let used = [arguments.size, arguments.count, arguments.pointer];
        for (index, argument) in used.iter().enumerate() {
            if *argument != 0 && used[index + 1..].contains(argument) {
                return Err(twice(text, "one argument"));
            }
        }
        Ok(Self { symbol, function: Function::CustomAllocate, arguments })
    }

    /// Reads the description of a freeing function, `NAME` or `NAME:ptr=N`;
    /// `NAME` alone means `NAME:ptr=1`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse_free(text: &str) -> Result<Self, CustomFunctionError> {
        let (symbol, words) = split(text)?;
        let mut arguments = Arguments::default();
        for word in words.unwrap_or("ptr=1").split(',') {
            if word.split_once('=').is_none_or(|pair| pair.0 != "ptr") {
                return Err(unknown(text, word, FREE));
            }
            assign(&mut arguments.pointer, "ptr=", text, word, FREE)?;
        }
        Ok(Self { symbol, function: Function::CustomFree, arguments })
    }
}

fn split(text: &str) -> Result<(String, Option<&str>), CustomFunctionError> {
    let (symbol, words) = match text.split_once(':') {
        Some((symbol, words)) => (symbol, Some(words)),
        None => (text, None),
    };
    let of_a_symbol = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$');
    let demangled = words.is_some_and(|words| words.starts_with(':'));
    if symbol.is_empty() || symbol.len() > MAX_NAME || demangled || !symbol.chars().all(of_a_symbol)
    {
        return Err(CustomFunctionError::Symbol(clean(text)));
    }
    Ok((symbol.to_owned(), words))
}

fn assign(
    target: &mut u8,
    what: &'static str,
    text: &str,
    word: &str,
    expected: &'static str,
) -> Result<(), CustomFunctionError> {
    let Some((_, number)) = word.split_once('=') else {
        return Err(unknown(text, word, expected));
    };
    match number.parse::<u8>() {
        Ok(number) if (1..=MAX_ARGUMENT).contains(&number) => {
            if *target != 0 {
                return Err(twice(text, what));
            }
            *target = number;
            Ok(())
        }
        _ => Err(CustomFunctionError::Argument { text: clean(text), word: clean(word) }),
    }
}

fn unknown(text: &str, word: &str, expected: &'static str) -> CustomFunctionError {
    CustomFunctionError::Word { text: clean(text), word: clean(word), expected }
}

fn twice(text: &str, what: &'static str) -> CustomFunctionError {
    CustomFunctionError::Twice { text: clean(text), what }
}

/// What the user typed, fit for an error message.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(size: u8, count: u8, pointer: u8) -> Arguments {
        Arguments { size, count, pointer }
    }

    /// Check that the forms in the documentation are understood.
    #[test]
    fn descriptions_are_read() {
        for (text, expected) in [
            ("xmalloc", arguments(1, 0, 0)),
            ("xmalloc:size=1,ret", arguments(1, 0, 0)),
            ("pool_alloc:size=2,count=3,ret", arguments(2, 3, 0)),
            ("get:size=2,out=1", arguments(2, 0, 1)),
            ("object_new:ret", arguments(0, 0, 0)),
            ("_ZN4pool3getEm:size=2", arguments(2, 0, 0)),
        ] {
            let read = CustomFunction::parse_allocate(text).unwrap();
            assert_eq!(read.arguments, expected, "{text}");
            assert_eq!(read.function, Function::CustomAllocate);
            assert_eq!(Some(read.symbol.as_str()), text.split(':').next());
        }
        for (text, pointer) in [("xfree", 1), ("xfree:ptr=1", 1), ("put:ptr=6", 6)] {
            let read = CustomFunction::parse_free(text).unwrap();
            assert_eq!(read.arguments, arguments(0, 0, pointer), "{text}");
            assert_eq!(read.function, Function::CustomFree);
        }
    }

    /// Check that each mistake gets a message that says what was expected.
    #[test]
    fn mistakes_are_explained() {
        for (text, expected) in [
            ("", "not a symbol"),
            (":size=1", "not a symbol"),
            ("pool::get", "mangled"),
            ("a b", "not a symbol"),
            ("x\u{1b}[31m", "not a symbol"),
            ("f:", "expected size=N"),
            ("f:bytes=1", "expected size=N"),
            ("f:size", "expected size=N"),
            ("f:ret=1", "expected size=N"),
            ("f:size=0", "from 1 to 6"),
            ("f:size=7", "from 1 to 6"),
            ("f:size=x", "from 1 to 6"),
            ("f:size=1,size=2", "size= twice"),
            ("f:size=1,count=1", "one argument twice"),
            ("f:size=1,out=2,ret", "the result twice"),
            ("f:size=1,ret,out=2", "the result twice"),
            ("f:count=1", "multiplies the size"),
        ] {
            let message = CustomFunction::parse_allocate(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains('\u{1b}'), "{text}");
        }
        for (text, expected) in
            [("f:ret", "expected ptr=N"), ("f:ptr=0", "from 1 to 6"), ("f:ptr=1,ptr=2", "twice")]
        {
            let message = CustomFunction::parse_free(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
