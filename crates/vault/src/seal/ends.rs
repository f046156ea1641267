//! Files of which more is stored than counts: a kill came into an append, and nobody has opened them since.

use std::sync::Arc;

use super::survey::Fault;
use crate::file::FileObject;
use crate::nodes::number;
use crate::recovery;
use crate::run::Run;
use crate::{Damage, Error, Result, Vault};

impl Vault {
    /// Cuts off what is stored behind the ends of files that are said to be at fault, as whoever opens them for writing
    /// does; whether there was anything. It is no evidence: nothing of it authenticates as a part of its file.
    pub(super) fn cut_ends(&self, run: &Arc<Run>, faults: &[Fault]) -> Result<bool> {
        let short = faults.iter().filter(|fault| fault.damage == Some(Damage::Short));
        let paths: Vec<&str> = short.filter_map(|fault| fault.object.strip_prefix("tree/")).collect();
        if paths.is_empty() {
            return Ok(false);
        }
        run.reopen();
        let body = self.body(run)?;
        body.check_held()?;
        let mut any = false;
        for path in paths {
            let failed = |what| move |e| Error::store(what, format!("runs/{}/tree/{path}", run.id), e);
            let file = recovery::open(&body.tree, path.as_bytes()).map_err(failed("open"))?;
            let Some(file) = file else { continue };
            let stored = file.stat().map_err(failed("stat"))?;
            match FileObject::open(&body.context, number(stored.ino), file.clone(), &stored, None) {
                Ok(_) => any |= file.stat().map_err(failed("stat"))?.size < stored.size,
                Err(Error::Damaged { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(any)
    }
}
