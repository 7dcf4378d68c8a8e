//! BTF as it is in bytes (Documentation/bpf/btf.rst, include/uapi/linux/btf.h).

/// At the begin; other bytes are no BTF, or that of the other byte order.
pub(crate) const MAGIC: u16 = 0xeb9f;
/// The only version that there is.
pub(crate) const VERSION: u8 = 1;
/// Bytes of the header that every BTF has.
pub(crate) const HEADER_BYTES: u32 = 24;
/// Bytes of it with the section that gives the layout of each kind (7.1).
pub(super) const HEADER_WITH_LAYOUT_BYTES: u32 = 32;
/// Bytes of what is alike in all types: name, information, size or type.
pub(super) const TYPE_BYTES: usize = 12;

/// What a type is. Numbers of kinds, which stand in bits 24 and up of a type's
/// information; see [`information`].
pub(crate) mod kind {
    pub(crate) const INT: u32 = 1;
    pub(crate) const POINTER: u32 = 2;
    pub(crate) const ARRAY: u32 = 3;
    pub(crate) const STRUCT: u32 = 4;
    pub(crate) const UNION: u32 = 5;
    pub(crate) const ENUM: u32 = 6;
    pub(crate) const FORWARD: u32 = 7;
    pub(crate) const TYPEDEF: u32 = 8;
    pub(crate) const VOLATILE: u32 = 9;
    pub(crate) const CONST: u32 = 10;
    pub(crate) const RESTRICT: u32 = 11;
    pub(crate) const FUNCTION: u32 = 12;
    pub(crate) const PROTOTYPE: u32 = 13;
    pub(crate) const VARIABLE: u32 = 14;
    pub(crate) const DATA_SECTION: u32 = 15;
    pub(crate) const FLOAT: u32 = 16;
    pub(crate) const DECLARATION_TAG: u32 = 17;
    pub(crate) const TYPE_TAG: u32 = 18;
    pub(crate) const ENUM64: u32 = 19;
}

/// A type's information: its kind and the number of its parts.
pub(crate) const fn information(kind: u32, parts: u32) -> u32 {
    kind << 24 | parts
}

/// The kind in a type's information. Five bits until 7.1, and zeros above.
pub(super) const fn kind_of(information: u32) -> u32 {
    information >> 24 & 0x7f
}

/// The number of parts in a type's information. 16 bits until 7.1, and zeros
/// above.
pub(super) const fn parts_of(information: u32) -> u32 {
    information & 0x00ff_ffff
}

/// The bit above the kind: of structures, that members have a size in bits; of
/// enumerations, that values have a sign.
pub(super) const fn flag_of(information: u32) -> bool {
    information >> 31 == 1
}

/// Bytes that follow a type of a kind: once, and for each of its parts. `None`:
/// the kind is not known.
pub(super) const fn layout(kind: u32) -> Option<(usize, usize)> {
    Some(match kind {
        kind::INT | kind::VARIABLE | kind::DECLARATION_TAG => (4, 0),
        kind::ARRAY => (12, 0),
        kind::STRUCT | kind::UNION | kind::DATA_SECTION | kind::ENUM64 => (0, 12),
        kind::ENUM | kind::PROTOTYPE => (0, 8),
        // A function's number of parts is its linkage.
        kind::POINTER
        | kind::FORWARD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNCTION
        | kind::FLOAT
        | kind::TYPE_TAG => (0, 0),
        _ => return None,
    })
}
