//! What an object has besides its contents: further names, owner, attributes. A place that takes one of
//! these no more than a vfat disk does gets the rest all the same, and it is said what was left out.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Result;
use runvault_store::backend::Kind;
use serde_json::{Value, json};

use super::{Copy, Job, data_of};
use crate::exit;
use crate::output::{count, warn};
use crate::trees::Meta;

const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Objects with several names that were copied already.
#[derive(Default)]
pub(super) struct Firsts(HashMap<(u64, u64), First>);

struct First {
    target: PathBuf,
    identity: Vec<u8>,
}

/// What was not kept, and of how many objects.
#[derive(Default)]
pub(super) struct Lost(BTreeMap<&'static str, u64>);

impl Lost {
    /// A line for each kind.
    pub(super) fn told(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(what, n)| format!("{what} of {} not kept", count(*n, "object")))
    }

    /// Numbers of objects, by what of them was not kept.
    pub(super) fn figures(&self) -> Value {
        json!(self.0)
    }
}

impl Copy<'_> {
    /// A further name of what was copied before becomes one of its copy, where there can be one.
    pub(super) fn linked(
        &mut self,
        job: &Job,
        source: &Path,
        place: &Path,
        target: &Path,
        meta: &Meta,
    ) -> Result<bool> {
        let Some(first) = self.firsts.0.get(&meta.object) else { return Ok(false) };
        // Two sources of one name, and the second one overwrites the first.
        if first.target == target || job.from.identity(source, meta)? != first.identity {
            return Ok(false);
        }
        let linked = job.to.link(&first.target, place);
        let done = linked.is_ok();
        self.lose("hard links", linked);
        if done && meta.kind == Kind::File {
            self.bar.inc(data_of(job.from, source, meta));
        }
        Ok(done)
    }

    pub(super) fn remember(&mut self, job: &Job, source: &Path, target: &Path, meta: &Meta) -> Result<()> {
        if meta.nlink > 1 {
            let identity = job.from.identity(source, meta)?;
            self.firsts.0.insert(meta.object, First { target: target.to_owned(), identity });
        }
        Ok(())
    }

    /// Owner and attributes before the mode, which may shut us out; times last.
    pub(super) fn finish(&mut self, job: &Job, source: &Path, place: &Path, meta: &Meta) -> Result<()> {
        if self.root {
            let owned = job.to.set_owner(place, meta);
            self.lose("owners", owned);
        }
        match job.from.attributes(source) {
            Ok(names) => names.iter().for_each(|name| self.attribute(job, source, place, name)),
            Err(error) => self.lose("attributes", Err(error)),
        }
        job.to.finish(place, meta)
    }

    /// Only what a vault keeps for programs: what a system reads its policy from stays where it is.
    fn attribute(&mut self, job: &Job, source: &Path, place: &Path, name: &[u8]) {
        let what = if ACLS.contains(&name) { "ACLs" } else { "attributes" };
        let kept = what == "ACLs" || name.starts_with(b"user.") || self.root && name.starts_with(b"trusted.");
        if kept {
            let value = job.from.attribute(source, name);
            let set = value.and_then(|value| job.to.set_attribute(place, name, &value));
            self.lose(what, set);
        } else if name == b"security.capability" {
            let shown = job.from.shown(source);
            self.lose("capabilities", Err(anyhow::anyhow!("{shown}: a vault has no place for them")));
        }
    }

    /// Goes on without it; the first loss of a kind is told at once.
    fn lose(&mut self, what: &'static str, result: Result<()>) {
        let Err(error) = result else { return };
        self.worsen(&error);
        let n = self.lost.0.entry(what).or_default();
        *n += 1;
        if *n == 1 {
            self.bar.suspend(|| warn(&format!("{what} not kept: {}", exit::chain(&error))));
        }
    }
}
