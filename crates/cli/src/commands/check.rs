//! Comes with the engine's part of it.

use anyhow::Result;

use crate::args::Check;
use crate::exit::{Exit, refuse};

pub fn run(_: &Check) -> Result<()> {
    Err(refuse(Exit::Failed, "not there yet"))
}
