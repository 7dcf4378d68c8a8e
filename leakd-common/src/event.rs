//! What the BPF programs announce through the ring buffers.

use crate::plain_data;

/// Frames of a stack that are walked and kept.
pub const MAX_FRAMES: usize = 128;

/// Set in a frame that is the address of an instruction, and not a return
/// address: where a signal interrupted the thread, or where it faulted. No user
/// address has this bit.
pub const INSTRUCTION_FRAME: u64 = 1 << 63;

/// The first word of each record.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A [`StackRecord`]: a call site seen for the first time.
    Stack = 1,
    /// A [`ProcessRecord`]: the target made a child process.
    Fork = 2,
    /// A [`ProcessRecord`]: the target replaced its program image.
    Exec = 3,
    /// A [`StackRecord`]: page faults at a call site seen for the first time.
    PageFaultStack = 4,
}

/// Why a stack walk stopped.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StackEnd {
    /// At the outermost frame: the table says that there is no caller.
    Bottom = 1,
    /// In no known mapping.
    NoMapping = 2,
    /// In a mapping without an unwind table.
    NoTable = 3,
    /// At an address that the table has no row for.
    NoRow = 4,
    /// At a rule that the walker cannot follow.
    Unsupported = 5,
    /// User memory could not be read.
    Unreadable = 6,
    /// The rules led to no plausible frame address.
    BadFrame = 7,
    /// A fault of leakd: a map lookup failed that cannot.
    Internal = 8,
    /// At a return address of zero, as thread start routines leave it.
    ZeroReturn = 9,
    /// After [`MAX_FRAMES`] frames.
    Depth = 10,
    /// Found by user space: the walk used the table of a file that was no
    /// longer mapped there, so its frames may be wrong; or it had none for a place
    /// where several files were mapped in turn, so that calls in each count here.
    Stale = 11,
}

impl StackEnd {
    /// The reason with this number, as found in a record.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Bottom,
            2 => Self::NoMapping,
            3 => Self::NoTable,
            4 => Self::NoRow,
            5 => Self::Unsupported,
            6 => Self::Unreadable,
            7 => Self::BadFrame,
            8 => Self::Internal,
            9 => Self::ZeroReturn,
            10 => Self::Depth,
            11 => Self::Stale,
            _ => return None,
        })
    }

    /// Whether the walk saw the whole stack.
    pub const fn complete(self) -> bool {
        matches!(self, Self::Bottom | Self::ZeroReturn)
    }
}

/// A call site's stack, innermost frame first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackRecord {
    /// [`EventKind::Stack`] or `PageFaultStack`.
    pub kind: u32,
    /// The target's slot.
    pub slot: u32,
    /// The site's key.
    pub site: u64,
    /// Process and thread that allocated.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// The target's epoch.
    pub epoch: u32,
    /// [`StackEnd`].
    pub end: u32,
    /// Frames in use.
    pub depth: u32,
    /// How many of them were found by the frame pointer for want of a row.
    pub frame_pointer_steps: u32,
    /// CLOCK_MONOTONIC when the walk began, nanoseconds.
    pub time_ns: u64,
    /// Return addresses, or instructions that carry [`INSTRUCTION_FRAME`]; the
    /// first lies in the caller of the allocator.
    pub frames: [u64; MAX_FRAMES],
}

plain_data!(StackRecord = 1072);

/// A change in the life of a target.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRecord {
    /// [`EventKind::Fork`] or `Exec`.
    pub kind: u32,
    /// The target's slot.
    pub slot: u32,
    /// The target.
    pub tgid: u32,
    /// Fork: the child; else 0.
    pub child: u32,
    /// Exec: the new epoch; else the current one.
    pub epoch: u32,
    /// 0.
    pub reserved: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
}

plain_data!(ProcessRecord = 32);
