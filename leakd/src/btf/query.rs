//! Answers: sizes, offsets, arguments.

use std::cell::Cell;

use super::format::kind;
use super::table::{Btf, Type, word};

/// Types that are followed from one to the next, at most: a const of a typedef
/// of an array of ...
const MOST_STEPS: u32 = 32;
/// Members that are looked at for one answer, at most, also where structures
/// without a name hold one another. The kernel's largest have some hundreds.
const MOST_MEMBERS: u32 = 1 << 16;
/// Arguments of a function, at most.
const MOST_ARGUMENTS: usize = 64;

/// A member of a structure that lies on bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// From the structure's begin, in bytes.
    pub offset: u32,
    /// In bytes; 0: an array of no fixed size.
    pub size: u32,
}

/// An argument of a function or a tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// As the source calls it; may be empty.
    pub name: String,
    /// What it is.
    pub kind: ArgumentKind,
}

/// What an argument is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentKind {
    /// A number, a truth value or an enumeration, of `size` bytes.
    Integer {
        /// In bytes.
        size: u32,
        /// Whether it can be negative.
        signed: bool,
    },
    /// A pointer: the name of the structure or typedef that it points to; empty
    /// for `void` and other types without a name.
    Pointer(String),
    /// Anything else, as a structure by value.
    Other,
}

impl Btf {
    /// The size of a structure, union or typedef, in bytes. `None`: there is no
    /// such type, or there are several that differ.
    pub fn size(&self, name: &str) -> Option<u32> {
        self.unanimous(name, |structure| Some(structure.size_or_type))
    }

    /// A member of a structure, by a path through named members
    /// (`"page.lru.next"` of something that has a page); those without a name
    /// are looked into. `None`: there is none, it is a bit field, or there are
    /// several structures of that name that differ in it.
    pub fn member(&self, structure: &str, path: &str) -> Option<Member> {
        let budget = Cell::new(MOST_MEMBERS);
        self.unanimous(structure, |structure| self.walk(structure, path, &budget))
    }

    /// The arguments of a raw tracepoint, as programs of the type
    /// `raw_tracepoint` and `tp_btf` get them. `None`: the kernel has no such
    /// tracepoint.
    pub fn raw_tracepoint(&self, name: &str) -> Option<Vec<Argument>> {
        let alias = format!("btf_trace_{name}");
        let (_, alias) = self.named(&alias).find(|(_, one)| one.kind == kind::TYPEDEF)?;
        let pointer = self.at(alias.size_or_type).filter(|one| one.kind == kind::POINTER)?;
        let mut arguments = self.arguments(self.at(pointer.size_or_type)?)?;
        // Only the function that calls the programs names them.
        if let Some(named) = self.function(&format!("__traceiter_{name}"))
            && named.iter().map(|one| &one.kind).eq(arguments.iter().map(|one| &one.kind))
        {
            arguments = named;
        }
        // The first is for who registered the probe.
        if arguments.is_empty() {
            return None;
        }
        arguments.remove(0);
        Some(arguments)
    }

    /// The arguments of a function. `None`: there is none of this name, or it
    /// was inlined everywhere, or several differ.
    pub fn function(&self, name: &str) -> Option<Vec<Argument>> {
        let functions = self.named(name).filter(|(_, one)| one.kind == kind::FUNCTION);
        agreed(functions.map(|(_, one)| self.arguments(self.at(one.size_or_type)?)))
    }

    /// The value of a constant of some enumeration. `None`: there is none of
    /// this name, or several differ.
    pub fn constant(&self, name: &str) -> Option<u64> {
        let values = (1..self.end()).filter_map(|number| {
            let one = self.at(number)?;
            let bytes = match one.kind {
                kind::ENUM => 8,
                kind::ENUM64 => 12,
                _ => return None,
            };
            let part = one
                .rest
                .chunks_exact(bytes)
                .find(|part| word(part, 0).is_some_and(|offset| self.is_named(offset, name)))?;
            let low = word(part, 4)?;
            Some(match word(part, 8) {
                Some(high) => u64::from(high) << 32 | u64::from(low),
                None if one.flag => i64::from(low.cast_signed()).cast_unsigned(),
                None => u64::from(low),
            })
        });
        agreed(values.map(Some))
    }

    /// All types of a name.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (u32, Type<'a>)> {
        (1..self.end()).filter_map(move |number| {
            let one = self.at(number)?;
            (one.name != 0 && self.is_named(one.name, name)).then_some((number, one))
        })
    }

    /// What all structures of a name say.
    fn unanimous<T: PartialEq>(
        &self,
        name: &str,
        ask: impl Fn(Type<'_>) -> Option<T>,
    ) -> Option<T> {
        let structures = self.named(name).filter_map(|(number, one)| {
            let one = if one.kind == kind::TYPEDEF { self.resolved(number)? } else { one };
            matches!(one.kind, kind::STRUCT | kind::UNION).then_some(one)
        });
        agreed(structures.map(ask))
    }

    /// The type behind typedefs, const and the like.
    fn resolved(&self, mut number: u32) -> Option<Type<'_>> {
        for _ in 0..MOST_STEPS {
            let one = self.at(number)?;
            match one.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    number = one.size_or_type;
                }
                _ => return Some(one),
            }
        }
        None
    }

    fn walk(&self, structure: Type<'_>, path: &str, budget: &Cell<u32>) -> Option<Member> {
        let (mut within, mut offset) = (structure, 0u32);
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let (bits, number) = self.find(within, name, 0, budget)?;
            offset = offset.checked_add(bits / 8)?;
            if names.peek().is_none() {
                return Some(Member { offset, size: self.bytes_of(number)? });
            }
            within = self.resolved(number)?;
        }
        None
    }

    /// Offset in bits, and type, of a member that is no bit field.
    fn find(
        &self,
        structure: Type<'_>,
        name: &str,
        depth: u32,
        budget: &Cell<u32>,
    ) -> Option<(u32, u32)> {
        if depth > MOST_STEPS || !matches!(structure.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        for part in structure.rest.chunks_exact(12) {
            budget.set(budget.get().checked_sub(1)?);
            let (label, number, place) = (word(part, 0)?, word(part, 4)?, word(part, 8)?);
            let (bits, width) =
                if structure.flag { (place & 0x00ff_ffff, place >> 24) } else { (place, 0) };
            if label == 0 || self.is_named(label, "") {
                let inner = self.resolved(number);
                let found = inner.and_then(|inner| self.find(inner, name, depth + 1, budget));
                if let Some((inner, number)) = found {
                    return Some((bits.checked_add(inner)?, number));
                }
            } else if self.is_named(label, name) {
                return (width == 0 && bits.is_multiple_of(8)).then_some((bits, number));
            }
        }
        None
    }

    /// The size of a type, in bytes.
    fn bytes_of(&self, number: u32) -> Option<u32> {
        let (mut number, mut count) = (number, 1u32);
        for _ in 0..MOST_STEPS {
            let one = self.resolved(number)?;
            match one.kind {
                kind::POINTER => return count.checked_mul(size_of::<u64>() as u32),
                kind::ARRAY => {
                    number = word(one.rest, 0)?;
                    count = count.checked_mul(word(one.rest, 8)?)?;
                }
                kind::INT
                | kind::STRUCT
                | kind::UNION
                | kind::ENUM
                | kind::ENUM64
                | kind::FLOAT => return count.checked_mul(one.size_or_type),
                _ => return None,
            }
        }
        None
    }

    fn arguments(&self, prototype: Type<'_>) -> Option<Vec<Argument>> {
        let count = prototype.rest.len() / 8;
        if prototype.kind != kind::PROTOTYPE || count > MOST_ARGUMENTS {
            return None;
        }
        prototype.rest.chunks_exact(8).map(|part| self.argument(part)).collect()
    }

    fn argument(&self, part: &[u8]) -> Option<Argument> {
        let (name, number) = (self.text(word(part, 0)?), word(part, 4)?);
        let kind = match self.resolved(number) {
            Some(one) => match one.kind {
                // Bit 0 of the encoding, which is in bits 24 and up.
                kind::INT => ArgumentKind::Integer {
                    size: one.size_or_type,
                    signed: word(one.rest, 0)? >> 24 & 1 == 1,
                },
                kind::ENUM | kind::ENUM64 => {
                    ArgumentKind::Integer { size: one.size_or_type, signed: one.flag }
                }
                kind::POINTER => ArgumentKind::Pointer(self.name_of(one.size_or_type)),
                _ => ArgumentKind::Other,
            },
            None => ArgumentKind::Other,
        };
        Some(Argument { name, kind })
    }

    /// The name of a type, behind const and the like.
    fn name_of(&self, mut number: u32) -> String {
        for _ in 0..MOST_STEPS {
            let Some(one) = self.at(number) else { break };
            match one.kind {
                kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    number = one.size_or_type;
                }
                _ => return self.text(one.name),
            }
        }
        String::new()
    }

    fn text(&self, offset: u32) -> String {
        String::from_utf8_lossy(self.string(offset).unwrap_or_default()).into_owned()
    }
}

/// What all say that say something; `None` if they differ.
fn agreed<T: PartialEq>(said: impl Iterator<Item = Option<T>>) -> Option<T> {
    let mut agreed = None;
    for one in said.flatten() {
        match &agreed {
            Some(first) if *first != one => return None,
            Some(_) => {}
            None => agreed = Some(one),
        }
    }
    agreed
}
