//! What the numbers of a call site say about its blocks: pure functions.
//!
//! | file | concern |
//! |---|---|
//! | [`exhaustion`] | when memory will be used up |
//! | [`survival`] | how long blocks live, freed and outstanding ones together |

pub mod exhaustion;
pub mod survival;
