//! Bounded reading of ELF files that anybody may have written.
