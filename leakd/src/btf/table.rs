//! Types and strings by number.

use std::ops::Range;
use std::sync::Arc;

use super::BtfError;
use super::format::{
    HEADER_BYTES, HEADER_WITH_LAYOUT_BYTES, MAGIC, TYPE_BYTES, VERSION, flag_of, kind_of, layout,
    parts_of,
};

/// Types: the kernel's, or those of a module, which build upon the kernel's.
#[derive(Debug)]
pub struct Btf {
    base: Option<Arc<Btf>>,
    bytes: Vec<u8>,
    strings: Range<usize>,
    /// Where each type begins in `bytes`.
    starts: Vec<u32>,
    /// The number of the first of them; 0 is `void`, everywhere.
    first: u32,
    /// The offset of the first string here: a module's come behind the kernel's.
    first_string: usize,
}

/// A type, as it is in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type<'a> {
    /// Offset of its name; 0: it has none.
    pub name: u32,
    /// See [`super::format::kind`].
    pub kind: u32,
    /// See [`flag_of`].
    pub flag: bool,
    /// Its size in bytes, or the number of the type that it refers to.
    pub size_or_type: u32,
    /// What follows it, once or for each of its parts.
    pub rest: &'a [u8],
}

impl Btf {
    /// Reads BTF that stands alone, as a kernel's does.
    ///
    /// # Errors
    /// If it is none, or damaged.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        Self::parse_with(None, bytes)
    }

    /// Reads BTF that refers to other's types and strings, as a module's does
    /// to the kernel's ("split BTF").
    ///
    /// # Errors
    /// If it is none, or damaged.
    pub fn parse_upon(base: &Arc<Self>, bytes: Vec<u8>) -> Result<Self, BtfError> {
        Self::parse_with(Some(base.clone()), bytes)
    }

    fn parse_with(base: Option<Arc<Self>>, bytes: Vec<u8>) -> Result<Self, BtfError> {
        if bytes.get(..2) != Some(&MAGIC.to_ne_bytes()) || bytes.get(2) != Some(&VERSION) {
            return Err(BtfError::NotBtf);
        }
        let header = word(&bytes, 4).ok_or(BtfError::NotBtf)?;
        if header < HEADER_BYTES {
            return Err(BtfError::Damaged("the header is too short"));
        }
        let types = section(&bytes, header, 8)?;
        let strings = section(&bytes, header, 16)?;
        let layouts =
            if header < HEADER_WITH_LAYOUT_BYTES { 0..0 } else { section(&bytes, header, 24)? };
        if strings.end > strings.start && bytes[strings.end - 1] != 0 {
            return Err(BtfError::Damaged("the last string has no end"));
        }
        let starts = starts(&bytes, types, &bytes[layouts])?;
        let (first, first_string) = base
            .as_ref()
            .map_or((1, 0), |base| (base.end(), base.first_string + base.strings.len()));
        Ok(Self { base, bytes, strings, starts, first, first_string })
    }

    /// The number behind the last type's. Types are fewer than bytes.
    pub(super) fn end(&self) -> u32 {
        self.first.saturating_add(self.starts.len() as u32)
    }

    /// The type with a number; `None`: `void`, or there is none.
    pub(super) fn at(&self, number: u32) -> Option<Type<'_>> {
        let Some(index) = number.checked_sub(self.first) else {
            return self.base.as_ref()?.at(number);
        };
        let start = *self.starts.get(index as usize)? as usize;
        let end = self.starts.get(index as usize + 1).map_or(self.bytes.len(), |&end| end as usize);
        let bytes = self.bytes.get(start..end)?;
        let information = word(bytes, 4)?;
        let (kind, parts) = (kind_of(information), parts_of(information) as usize);
        let (once, each) = layout(kind).unwrap_or_default();
        Some(Type {
            name: word(bytes, 0)?,
            kind,
            flag: flag_of(information),
            size_or_type: word(bytes, 8)?,
            rest: bytes.get(TYPE_BYTES..TYPE_BYTES + once + each * parts)?,
        })
    }

    /// The string at an offset, without its NUL.
    pub(super) fn string(&self, offset: u32) -> Option<&[u8]> {
        let Some(offset) = (offset as usize).checked_sub(self.first_string) else {
            return self.base.as_ref()?.string(offset);
        };
        let text = self.bytes[self.strings.clone()].get(offset..)?;
        Some(&text[..memchr::memchr(0, text)?])
    }

    /// Whether the string at an offset is `name`.
    pub(super) fn is_named(&self, offset: u32, name: &str) -> bool {
        let Some(offset) = (offset as usize).checked_sub(self.first_string) else {
            return self.base.as_ref().is_some_and(|base| base.is_named(offset, name));
        };
        let text = self.bytes[self.strings.clone()].get(offset..).unwrap_or_default();
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// The range of a section whose offset, from the header's end, and length are
/// in the header at `field`.
fn section(bytes: &[u8], header: u32, field: usize) -> Result<Range<usize>, BtfError> {
    let damaged = BtfError::Damaged("a section reaches past the end");
    let fields = word(bytes, field).zip(word(bytes, field + 4));
    let Some((offset, length)) = fields else { return Err(damaged) };
    let begin = header as usize + offset as usize;
    let end = begin + length as usize;
    if end > bytes.len() { Err(damaged) } else { Ok(begin..end) }
}

/// Where each type begins. `layouts` has bytes of what follows a type of each
/// kind (`struct btf_layout`), for kinds that are not known here.
fn starts(bytes: &[u8], types: Range<usize>, layouts: &[u8]) -> Result<Vec<u32>, BtfError> {
    // Most types are some 20 bytes.
    let mut starts = Vec::with_capacity(types.len() / 20);
    let mut at = types.start;
    while at < types.end {
        let information = word(&bytes[..types.end], at + 4)
            .ok_or(BtfError::Damaged("a type reaches past the end"))?;
        let kind = kind_of(information);
        let told = || {
            let entry = layouts.get(4 * kind as usize..)?.first_chunk::<4>()?;
            Some((usize::from(entry[0]), usize::from(entry[1])))
        };
        let (once, each) = layout(kind).or_else(told).ok_or(BtfError::UnknownKind(kind))?;
        starts.push(u32::try_from(at).map_err(|_| BtfError::TooLarge)?);
        at += TYPE_BYTES + once + each * parts_of(information) as usize;
    }
    if at > types.end {
        return Err(BtfError::Damaged("a type reaches past the end"));
    }
    Ok(starts)
}

/// The u32 at an offset.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
