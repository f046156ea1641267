//! `cat`: a vault's files to standard output.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use runvault_store::backend::Kind;
use runvault_vault::Options;

use crate::args::Cat;
use crate::exit::{Exit, refuse};
use crate::left_out::told_before;
use crate::output;
use crate::store::Store;
use crate::trees::{InVault, Meta, Tree, vault_path};

const PIECE: usize = 1 << 20;

pub fn run(args: &Cat) -> Result<()> {
    let store = Store::open(&args.store, &args.who)?;
    let open = store.read(&args.who, Options::default())?;
    let tree = InVault::new(&open.vault, &args.store);
    let mut piece = vec![0; PIECE];
    for path in &args.paths {
        let path = vault_path(Path::new(path))?;
        stream(&tree, &path, &mut piece).map_err(|error| told_before(tree.left_out(&path), error))?;
    }
    drop(tree);
    open.close()
}

fn stream(tree: &InVault, path: &Path, piece: &mut [u8]) -> Result<()> {
    refuse_a_link(tree, path)?;
    let mut source = tree.open(path)?;
    let mut offset = 0u64;
    loop {
        let n = source.read(offset, piece).map_err(|e| e.context(tree.shown(path)))?;
        if n == 0 {
            return Ok(());
        }
        output::bytes(piece.get(..n).unwrap_or_default())?;
        offset = offset.saturating_add(n as u64);
    }
}

/// It may lead out of the vault, so that it is not followed.
fn refuse_a_link(tree: &InVault, path: &Path) -> Result<()> {
    let Ok(Some(Meta { kind: Kind::Symlink, .. })) = tree.stat(path) else { return Ok(()) };
    let target = output::visible(tree.read_link(path)?.as_bytes());
    Err(refuse(Exit::Failed, format!("{}: a symlink to {target}; name the file itself", tree.shown(path))))
}
