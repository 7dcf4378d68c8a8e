//! Unwind tables from .eh_frame.
