//! One file a family: what its folders hold, which markers it writes.

pub mod hiseq;
pub mod miseq;
pub mod nextseq;
pub mod novaseq;
pub mod novaseq_x;
