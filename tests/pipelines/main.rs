//! Sequencing runs from the instrument to the analysis.

mod mounted;
mod plain;
