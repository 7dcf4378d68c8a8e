//! Which functions of an object hand memory out, and where to probe them.
