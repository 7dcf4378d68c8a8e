//! What the numbers of a call site say about its blocks: pure functions.
//!
//! | file | concern |
//! |---|---|
//! | [`survival`] | how long blocks live, freed and outstanding ones together |

pub mod survival;
