//! `cat`: a vault's files to standard output.

use std::path::Path;

use anyhow::Result;
use runvault_vault::Options;

use crate::args::Cat;
use crate::left_out::told_before;
use crate::output;
use crate::store::Store;
use crate::trees::{InVault, Tree, vault_path};

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
