//! What several custodians agree on: proposed on one machine, approved by each of them where he is, executed on the
//! machine that proposed it.

pub mod alone;
pub mod already;
pub mod approve;
pub mod carry_out;
pub mod execute;
pub mod in_words;
pub mod propose;
pub mod request_file;
pub mod signed_runs;
#[cfg(test)]
pub(crate) mod tests;
