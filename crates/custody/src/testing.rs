//! What this crate's tests begin with: a store in memory, an owner without Argon2, its chain.

use std::sync::Arc;

use runvault_store::backend::Dir;
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::read_whole::read_whole;
use runvault_store::replace::replace;

use crate::chain::Chain;
use crate::gateway::StateFolder;
use crate::identity::Identity;
use crate::init::init;
use crate::state_folder::Folder;

/// A new vault in memory, its owner and its chain.
pub(crate) fn vault() -> (Arc<dyn Dir>, Identity, Chain) {
    let root = MemoryDir::root();
    let owner = Identity::generate("owner").unwrap();
    init(&root, &owner, None).unwrap();
    let chain = Chain::load(&root).unwrap();
    (root, owner, chain)
}

/// A gateway whose state folder lies in memory, enrolled and settled.
pub(crate) fn enrolled(root: &Arc<dyn Dir>, chain: &mut Chain, owner: &Identity) -> StateFolder {
    let gateway = StateFolder::on(Folder::on(MemoryDir::root()), chain.vault_id()).unwrap();
    gateway.enroll(root, chain, owner).unwrap();
    gateway.settle(root).unwrap();
    gateway
}

pub(crate) fn custody(root: &Arc<dyn Dir>) -> Arc<dyn Dir> {
    root.open_dir(b"custody").unwrap()
}

pub(crate) fn get(dir: &Arc<dyn Dir>, name: &str) -> Vec<u8> {
    read_whole(&**dir, name.as_bytes(), 1 << 30).unwrap()
}

pub(crate) fn put(dir: &Arc<dyn Dir>, name: &str, bytes: &[u8]) {
    replace(&**dir, name.as_bytes(), bytes, 0o644).unwrap();
}

/// The store as it is when the process is killed before its call number `n`: that call and all later
/// ones fail. Gives the error; `None` once `act` makes fewer calls.
pub(crate) fn killed_at<T>(
    root: &Arc<dyn Dir>,
    n: u64,
    act: impl FnOnce(&Arc<dyn Dir>) -> crate::Result<T>,
) -> Option<crate::Error> {
    let (faulty, faults) = Faults::over(root.clone()).unwrap();
    faults.add(Rule { op: None, name: None, after: n, times: u64::MAX, fault: Fault::Fail(libc::EIO) });
    act(&faulty).err()
}

/// A deep copy, so that each kill starts from the same store.
pub(crate) fn copy(from: &Arc<dyn Dir>) -> Arc<dyn Dir> {
    let root = MemoryDir::root();
    copy_into(from, &root);
    root
}

fn copy_into(from: &Arc<dyn Dir>, to: &Arc<dyn Dir>) {
    let mut names = Vec::new();
    from.entries(0, &mut |entry| {
        names.push(entry.name);
        true
    })
    .unwrap();
    for name in names {
        match from.open_dir(&name) {
            Ok(dir) => {
                to.create_dir(&name, 0o755).unwrap();
                copy_into(&dir, &to.open_dir(&name).unwrap());
            }
            Err(_) => {
                let bytes = read_whole(&**from, &name, 1 << 30).unwrap();
                to.create_file(&name, 0o644).unwrap().write_at(&bytes, 0).unwrap();
            }
        }
    }
}
