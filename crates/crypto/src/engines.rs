//! One file an engine, the same four functions in each.

pub mod fast;
pub mod portable;
