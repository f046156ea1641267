//! `cp`: which side of each argument is a vault, and where things go.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use runvault_vault::Options;
use serde_json::Value;

use crate::args::Cp;
use crate::copy::{Copy, Job, bytes_below};
use crate::exit::{Exit, refuse, refuse_with};
use crate::left_out::{self, LeftOut};
use crate::output::{self, shown};
use crate::store::{Open, Store};
use crate::trees::{InVault, Local, Tree, vault_path};
use crate::{progress, signals};

pub fn run(args: &Cp) -> Result<()> {
    let sides = args.paths.iter().map(|arg| Side::parse(arg)).collect::<Result<Vec<_>>>()?;
    let Some((target, sources)) = sides.split_last() else { return Ok(()) };
    if sides.iter().all(|side| side.store.is_none()) {
        return Err(refuse_with(
            Exit::Usage,
            format!(
                "neither side is a vault: {}",
                args.paths.iter().map(|arg| why_none(arg)).collect::<Vec<_>>().join(", ")
            ),
            "a vault's side is STORE:/PATH; cp(1) copies everything else",
        ));
    }
    let vaults = Vaults::open(args, target, sources)?;
    let copied = copy(args, &vaults, target, sources);
    // Also after a failure: what was copied must become durable.
    let (figures, outcome) = vaults.close().and(copied)?;
    if args.json {
        output::json(&figures)?;
    }
    outcome
}

/// One argument: a path here, or one in a vault.
struct Side {
    /// The store, canonical.
    store: Option<PathBuf>,
    path: PathBuf,
    /// As typed, with a slash at its end.
    slash: bool,
}

impl Side {
    /// `STORE:/PATH` where STORE is a vault; a path here otherwise.
    fn parse(arg: &OsStr) -> Result<Side> {
        let bytes = arg.as_bytes();
        let slash = bytes.ends_with(b"/");
        for (at, _) in bytes.windows(2).enumerate().filter(|(_, pair)| *pair == b":/") {
            let (store, path) = bytes.split_at(at);
            let store = Path::new(OsStr::from_bytes(store));
            if store.join("vault.json").symlink_metadata().is_ok() {
                let path = path.get(1..).unwrap_or_default();
                let path = vault_path(Path::new(OsStr::from_bytes(path)))?;
                return Ok(Side { store: Some(store.canonicalize()?), path, slash });
            }
        }
        refuse_without_slash(arg)?;
        refuse_unknown_vault(arg)?;
        Ok(Side { store: None, path: PathBuf::from(arg), slash })
    }

    /// What it is called where it arrives; `None` for the top of a vault.
    fn name(&self) -> Result<Option<std::ffi::OsString>> {
        if self.store.is_some() {
            return Ok(self.path.file_name().map(OsStr::to_owned));
        }
        match self.path.file_name() {
            Some(name) => Ok(Some(name.to_owned())),
            // `.`, `..` and `/`
            None => Ok(self
                .path
                .canonicalize()
                .with_context(|| shown(&self.path))?
                .file_name()
                .map(OsStr::to_owned)),
        }
    }
}

/// Why an argument is not taken for a path in a vault.
fn why_none(arg: &OsStr) -> String {
    let path = Path::new(arg);
    let why = if path.join("vault.json").symlink_metadata().is_ok() {
        "is a vault's own directory, without :/ behind it"
    } else if arg.as_bytes().windows(2).any(|pair| pair == b":/") {
        "has no vault before its :/"
    } else {
        "has no :/"
    };
    format!("{} {why}", shown(path))
}

/// `STORE:` and `STORE:PATH` would become odd files here.
fn refuse_without_slash(arg: &OsStr) -> Result<()> {
    let path = Path::new(arg);
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let bytes = arg.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b':') {
        let (store, below) = bytes.split_at(at);
        if Path::new(OsStr::from_bytes(store)).join("vault.json").symlink_metadata().is_ok() {
            let below = below.get(1..).unwrap_or_default();
            return Err(refuse_with(
                Exit::Usage,
                format!("{}: a path in a vault begins with a slash", shown(path)),
                format!("{}:/{}", shown(OsStr::from_bytes(store)), shown(OsStr::from_bytes(below))),
            ));
        }
    }
    Ok(())
}

/// `STORE:/PATH` whose STORE is no vault would otherwise become an odd file here.
fn refuse_unknown_vault(arg: &OsStr) -> Result<()> {
    let bytes = arg.as_bytes();
    let Some(at) = bytes.windows(2).position(|pair| pair == b":/") else { return Ok(()) };
    let path = Path::new(arg);
    let exists = path.symlink_metadata().is_ok()
        || path.parent().is_some_and(|p| !p.as_os_str().is_empty() && p.is_dir());
    if exists {
        return Ok(());
    }
    let store = Path::new(OsStr::from_bytes(bytes.get(..at).unwrap_or_default()));
    // Says what is there instead of a vault.
    let root = crate::store::open_root(store)?;
    crate::store::load_chain(&root, store)?;
    Ok(())
}

/// Every vault that an argument names, opened once; the target's for writing.
struct Vaults {
    open: Vec<(PathBuf, Open)>,
}

impl Vaults {
    fn open(args: &Cp, target: &Side, sources: &[Side]) -> Result<Vaults> {
        let mut vaults = Vaults { open: Vec::new() };
        let options = Options { run_depth: args.run_depth, ..Options::default() };
        if let Some(path) = &target.store {
            refuse_around_store(path, sources)?;
            let open = Store::open(path, &args.who)?.write(&args.who, options)?;
            left_out::warn_all(&open.vault);
            vaults.open.push((path.clone(), open));
        }
        for path in sources.iter().filter_map(|source| source.store.as_ref()) {
            if !vaults.open.iter().any(|(known, _)| known == path) {
                let from = args.from();
                vaults.open.push((path.clone(), Store::open(path, &from)?.read(&from, options)?));
            }
        }
        Ok(vaults)
    }

    fn tree(&self, side: &Side) -> Box<dyn Tree> {
        match self.in_vault(side) {
            Some(tree) => Box::new(tree),
            None => Box::new(Local),
        }
    }

    fn in_vault(&self, side: &Side) -> Option<InVault> {
        let store = side.store.as_ref()?;
        let (path, open) = self.open.iter().find(|(path, _)| path == store)?;
        Some(InVault::new(&open.vault, path))
    }

    /// The runs in trouble that a source may lack.
    fn left_out(&self, side: &Side) -> Vec<LeftOut> {
        self.in_vault(side).map(|tree| tree.left_out(&side.path)).unwrap_or_default()
    }

    /// All of them, also when one fails.
    fn close(self) -> Result<()> {
        self.open.into_iter().map(|(_, open)| open.close()).fold(Ok(()), Result::and)
    }
}

/// A copy that finds what it writes has no end.
fn refuse_around_store(store: &Path, sources: &[Side]) -> Result<()> {
    for source in sources.iter().filter(|source| source.store.is_none()) {
        if source.path.canonicalize().is_ok_and(|path| store.starts_with(path)) {
            return Err(refuse(Exit::Usage, format!("{}: the target is inside it", shown(&source.path))));
        }
    }
    Ok(())
}

/// The same within a vault; `path` with the name that the source gets there.
fn refuse_into_itself(source: &Side, target: &Side, path: &Path) -> Result<()> {
    if source.store.is_none() || source.store != target.store || !path.starts_with(&source.path) {
        return Ok(());
    }
    let what = if path == source.path { "the target is the same" } else { "the target is inside it" };
    Err(refuse(Exit::Usage, format!("/{}: {what}", shown(&source.path))))
}

/// What was done, and whether that is everything.
fn copy(args: &Cp, vaults: &Vaults, target: &Side, sources: &[Side]) -> Result<(Value, Result<()>)> {
    let to = vaults.tree(target);
    let into = to.is_dir(&target.path)? || target.path.as_os_str().is_empty();
    if !into && (sources.len() > 1 || target.slash && !args.recursive) {
        return Err(refuse(Exit::Usage, format!("{}: not a directory", to.shown(&target.path))));
    }
    let from: Vec<Box<dyn Tree>> = sources.iter().map(|source| vaults.tree(source)).collect();
    let total =
        from.iter().zip(sources).map(|(tree, side)| bytes_below(&**tree, &side.path, args.recursive)).sum();
    let bar = progress::bytes(total, "copy");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    signals::on_first(move |_| stopped.store(true, Ordering::Relaxed))?;
    let mut copy = Copy::new(args.recursive, args.force, stop, &bar);
    for (tree, source) in from.iter().zip(sources) {
        let path = match source.name()? {
            Some(name) if into => target.path.join(name),
            _ => target.path.clone(),
        };
        refuse_into_itself(source, target, &path)?;
        copy.run(&Job { from: &**tree, source: source.path.clone(), to: &*to, target: path })?;
    }
    for run in sources.iter().flat_map(|source| vaults.left_out(source)) {
        copy.note(Err(run.into()))?;
    }
    bar.finish_and_clear();
    Ok((copy.figures(), copy.outcome()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_side_with_a_vault_is_found_whatever_colons_it_has() {
        let tmp = tempfile::tempdir().unwrap();
        let store = tmp.path().join("a:/b").join("store");
        std::fs::create_dir_all(&store).unwrap();
        std::fs::write(store.join("vault.json"), b"{}").unwrap();
        let mut arg = store.clone().into_os_string();
        arg.push(":/run:/x/");
        let side = Side::parse(&arg).unwrap();
        assert_eq!(side.store, Some(store.canonicalize().unwrap()));
        assert_eq!(side.path, Path::new("run:/x"));
        assert!(side.slash);
        let mut bare = store.clone().into_os_string();
        bare.push(":");
        let refused = Side::parse(&bare).err().unwrap();
        assert_eq!(crate::exit::of(&refused), Exit::Usage);
        assert!(crate::hint::hint(&refused).unwrap().ends_with("store:/"), "{refused}");
        let here = Side::parse(tmp.path().join("a:/b").as_os_str()).unwrap();
        assert_eq!(here.store, None);
    }
}
