//! Contents under power cuts: whatever is left of what nobody has synced, the seal's ledger calls nothing changed that
//! nobody changed.

use std::sync::Arc;

use crate::common::{CALLER, Fixture, Mount, State, WRITE, would_seal};
use runvault_store::backend::Rename;
use runvault_store::doubles::crash::{Disk, Draw};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::recording::Recording;
use runvault_vault::api::{Allocate, SetAttr};
use runvault_vault::authority::Gateway;
use runvault_vault::{Damage, Error, Result, Vault};

/// Lengths and offsets on both sides of a chunk's borders.
const AROUND: [u64; 8] = [0, 1, 100, 5_000, 8_192, 8_200, 16_384, 20_000];

fn act(mount: &Mount, draw: &mut Draw) -> Result<String> {
    let around = |draw: &mut Draw| AROUND[draw.below(8) as usize];
    let path = ["run/a", "run/b", "run/c"][draw.below(3) as usize];
    let (n, mark) = (around(draw), draw.below(250) as u8 + 1);
    match draw.below(10) {
        0 => mount.put(path, &vec![mark; n as usize]).map(|_| format!("put {path} {n}")),
        1..=5 => {
            let ino = mount.ino(path)?;
            let size = mount.attr(path)?.size;
            let at = [size, size, 0, draw.below(size + 1), size.saturating_sub(3), around(draw)]
                [draw.below(6) as usize];
            let opened = mount.open_file(ino, WRITE)?.handle;
            let written = mount.write(opened, at, &vec![mark; n.min(9_000) as usize + 1], false);
            let synced = draw.below(3) == 0;
            if synced {
                mount.fsync(opened, false)?;
            }
            mount.release(opened)?;
            written.map(|()| format!("write {path} at {at} of {size}, {n}, synced {synced}"))
        }
        6 => {
            let change = SetAttr { size: Some(n), ..SetAttr::NOTHING };
            let cut = mount.setattr(&CALLER, mount.ino(path)?, None, &change);
            cut.map(|_| format!("cut {path} to {n}"))
        }
        7 => {
            let opened = mount.open_file(mount.ino(path)?, WRITE)?.handle;
            let punched = mount.fallocate(opened, n, around(draw) + 1, Allocate::PunchHole, false);
            mount.release(opened)?;
            punched.map(|()| format!("punch {path} at {n}"))
        }
        8 => mount.mv(path, "run/b", Rename::Over).map(|()| format!("rename {path} to run/b")),
        _ => mount.remove(path).map(|()| format!("remove {path}")),
    }
}

/// What the ledger holds against what is left.
fn alarm(disk: &Disk, draw: &mut Draw, fixture: &Fixture, state: &State) -> Option<String> {
    let store = disk.cut(&mut Draw::new(draw.below(1 << 60))).unwrap();
    let mut state = state.apart();
    state.ledgers = store.open_dir(b"ledgers").unwrap();
    let gateway: Arc<dyn Gateway> = Arc::new(state);
    let again = Mount(Vault::open(store, fixture.authority.clone(), Some(gateway), fixture.options).unwrap());
    let faults = would_seal(&again, b"run");
    // What no sync acknowledged may be torn.
    let of_it = |damage: &Option<Damage>| matches!(damage, None | Some(Damage::NotAsWritten(_)));
    faults.into_iter().find(|fault| of_it(&fault.damage)).map(|fault| format!("{fault:?}"))
}

#[test]
fn no_power_cut_leaves_what_the_ledger_calls_changed() {
    for seed in 0..25 {
        let memory = MemoryDir::root();
        let mut fixture = Fixture::with_ledgers(memory.clone());
        let first = fixture.writer();
        first.make_dir("run").unwrap();
        first.put("run/a", &[7; 5_000]).unwrap();
        first.close().unwrap();
        let mut disk = Disk::of(&*memory).unwrap();
        let (root, recording) = Recording::over(memory).unwrap();
        fixture.state.ledgers = root.open_dir(b"ledgers").unwrap();
        fixture.root = root;
        let mount = fixture.writer();
        mount.list("run").unwrap();
        let (state, mut draw, mut history) = (fixture.state.apart(), Draw::new(seed), Vec::new());
        for _ in 0..20 {
            match act(&mount, &mut draw) {
                Ok(said) => history.push(said),
                Err(Error::Posix(_)) => continue,
                Err(other) => panic!("{other}"),
            }
            if draw.below(2) == 0 {
                mount.tick().unwrap();
                history.push("tick".to_owned());
            }
            for change in recording.take() {
                disk.advance(&change).unwrap();
                assert_eq!(alarm(&disk, &mut draw, &fixture, &state), None, "seed {seed}: {history:?}");
            }
            assert_eq!(alarm(&disk, &mut draw, &fixture, &state), None, "seed {seed}: {history:?}");
        }
        std::mem::forget(mount);
    }
}
