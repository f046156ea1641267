//! What opens, what does not, and what a grown or changed log is believed.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use runvault_crypto::secrets::Secret;
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::observe::{Call, Observer, Op, observe};
use runvault_vault::authority::Gateway;

use super::*;
use crate::identity::Identity;
use crate::rotate::rotate;
use crate::testing::{custody, enrolled, envelopes, make_run, put, vault};

fn opens(
    authority: &dyn Authority,
    run: &RunId,
    files: &[EnvelopeFile],
) -> std::result::Result<Option<RunKey>, String> {
    authority.open_run(run, files).map_err(|e| e.to_string())
}

#[test]
fn the_owner_opens_what_a_gateway_sealed() {
    let (root, owner, mut chain) = vault();
    let gateway = enrolled(&root, &mut chain, &owner);
    let (run, key) = make_run(&root, &chain, &gateway);
    let files = envelopes(&root, &run);
    assert_eq!(files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["vault-1"]);
    let acting = Acting::open(&root, chain.clone(), &owner).unwrap();
    let opened = opens(&*acting, &run, &files).unwrap().unwrap();
    assert_eq!(opened.0.expose(), key.0.expose());
    let blind = Acting::gateway_only(chain.clone());
    assert!(opens(&*blind, &run, &files).unwrap().is_none());
    let sealed = blind.seal_run(&run, &key).unwrap();
    assert_eq!((sealed.state, sealed.epoch), (chain.state_ref(), 1));
}

#[test]
fn new_runs_follow_a_rotation_and_no_rollback() {
    let (root, owner, chain) = vault();
    let acting = Acting::open(&root, chain.clone(), &owner).unwrap();
    let sealed = || {
        let sealed = acting.seal_run(&RunId([1; 16]), &RunKey(Secret::copy_from(&[2; 32]))).unwrap();
        let [envelope] = &sealed.envelopes[..] else { panic!("{:?}", sealed.envelopes) };
        assert_eq!(envelope.name, format!("vault-{}", sealed.epoch));
        (sealed.epoch, sealed.state.n)
    };
    assert!(acting.opens_every_run() && acting.standing().epoch == 1);
    rotate(&root, &chain, &owner, &mut |_, _| {}).unwrap();
    assert_eq!(sealed(), (1, 0), "until it looks");
    assert!(acting.opens_every_run(), "it has the newest key too");
    assert_eq!((sealed(), acting.standing().epoch), ((2, 1), 2));
    put(&custody(&root), "audit.log", b"");
    acting.refresh();
    assert_eq!(sealed(), (2, 1), "an older chain is not taken");
}

#[test]
fn a_chain_that_cannot_be_read_says_nothing_about_newer_keys() {
    let (root, owner, chain) = vault();
    let (root, faults) = Faults::over(root).unwrap();
    let acting = Acting::open(&root, chain, &owner).unwrap();
    assert!(acting.opens_every_run());
    faults.add(Rule::next(Op::OpenDir, Fault::Fail(libc::EIO)));
    assert!(!acting.opens_every_run());
    assert!(acting.opens_every_run());
}

#[test]
fn envelopes_do_not_open_in_another_place() {
    let (root, owner, mut chain) = vault();
    let gateway = enrolled(&root, &mut chain, &owner);
    let (one, _) = make_run(&root, &chain, &gateway);
    let (two, _) = make_run(&root, &chain, &gateway);
    let acting = Acting::open(&root, chain.clone(), &owner).unwrap();
    let refused = opens(&*acting, &two, &envelopes(&root, &one)).unwrap_err();
    assert!(refused.contains("keys/vault-1") && refused.contains("does not open"), "{refused}");
    let mut renamed = envelopes(&root, &one);
    renamed[0].name = "vault-2".to_owned();
    assert!(opens(&*acting, &one, &renamed).unwrap().is_none(), "an epoch that is not known");
    let mut torn = envelopes(&root, &one);
    torn[0].bytes.truncate(100);
    assert!(opens(&*acting, &one, &torn).is_err());
    // Another vault's key, under the same run id.
    let (elsewhere, stranger, other) = vault();
    let acting = Acting::open(&elsewhere, other, &stranger).unwrap();
    assert!(opens(&*acting, &one, &envelopes(&root, &one)).is_err());
    assert!(opens(&*acting, &one, &[]).unwrap().is_none());
}

#[test]
fn a_gateway_that_is_enrolled_later_is_known_and_a_log_that_was_changed_is_not_believed() {
    let (root, owner, chain) = vault();
    let acting = Acting::open(&root, chain.clone(), &owner).unwrap();
    let mut later = chain;
    let first = enrolled(&root, &mut later, &owner).id();
    assert!(acting.gateway_key(&first).is_some());
    let second = enrolled(&root, &mut later, &owner).id();
    assert!(acting.gateway_key(&second).is_some() && acting.gateway_key(&first).is_some());
    assert!(acting.gateway_key(&owner.id()).is_none());
    let custody = root.open_dir(b"custody").unwrap();
    let log = later.log();
    runvault_store::replace::replace(&*custody, b"audit.log", log.get(1..).unwrap(), 0o644).unwrap();
    assert!(acting.gateway_key(&owner.id()).is_none() && acting.gateway_key(&second).is_some());
}

/// How often the log was read, and how many calls there were.
#[derive(Default)]
struct Calls {
    reads: AtomicUsize,
    all: AtomicUsize,
}

impl Observer for Calls {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> io::Result<u64>) -> io::Result<()> {
        self.reads.fetch_add(usize::from(call.op == Op::Read), Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        run().map(drop)
    }
}

#[test]
fn a_log_that_stays_the_same_is_read_once_however_many_signers_are_unknown() {
    let (root, owner, mut chain) = vault();
    let calls = Arc::new(Calls::default());
    let watched = observe(root.clone(), calls.clone()).unwrap();
    let acting = Acting::open(&watched, chain.clone(), &owner).unwrap();
    let read_by = |id: IdentityId| {
        let before = calls.reads.load(Ordering::Relaxed);
        (acting.gateway_key(&id).is_some(), calls.reads.load(Ordering::Relaxed) > before)
    };
    assert_eq!(read_by(IdentityId([1; 16])), (false, true));
    assert_eq!(read_by(IdentityId([2; 16])), (false, false));
    assert!(acting.opens_every_run());
    let before = calls.all.load(Ordering::Relaxed);
    acting.refresh();
    assert!(calls.all.load(Ordering::Relaxed) - before <= 4, "what an idle mount asks each 2 s");
    let later = enrolled(&root, &mut chain, &owner).id();
    assert_eq!(read_by(later), (true, true));
    assert_eq!(read_by(later), (true, false));
    // What is not believed costs no more.
    put(&custody(&root), "audit.log", &[b'x'; 1000]);
    read_by(IdentityId([1; 16]));
    assert_eq!(read_by(IdentityId([2; 16])), (false, false));
    assert!(!acting.opens_every_run());
}

/// Whoever may write to a run's `keys/` puts as many names there as he likes.
#[test]
fn however_many_envelopes_are_for_nobody_custody_is_looked_at_once() {
    let (root, owner, mut chain) = vault();
    let gateway = enrolled(&root, &mut chain, &owner);
    let (run, _) = make_run(&root, &chain, &gateway);
    let calls = Arc::new(Calls::default());
    let watched = observe(root.clone(), calls.clone()).unwrap();
    let acting = Acting::open(&watched, chain.clone(), &owner).unwrap();
    let planted: Vec<EnvelopeName> = (0..3_000u16)
        .map(|n| EnvelopeName::Reader(IdentityId([n.to_le_bytes(); 8].concat().try_into().unwrap())))
        .collect();
    let all = [&planted[..], &[EnvelopeName::Vault(1)]].concat();
    let before = calls.all.load(Ordering::Relaxed);
    assert_eq!(acting.unknown_recipients(&run, &chain.state_ref(), &all), planted);
    let calls = calls.all.load(Ordering::Relaxed) - before;
    assert!((1..20).contains(&calls), "{calls}");
}

#[test]
fn wrong_keys_are_told_which_one_is_needed() {
    let (_, owner, chain) = vault();
    let stranger = Identity::generate("stranger").unwrap();
    let refused = Acting::opened(chain.clone(), &stranger).unwrap_err();
    let Error::WrongKey { needed, given } = refused else { panic!("{refused}") };
    assert!(needed.contains(&owner.id().to_string()) && given.contains("stranger"));
    let mut bound = owner.again().unwrap();
    bound.vault = Some(VaultId([9; 32]));
    let refused = Acting::opened(chain, &bound).unwrap_err();
    let Error::OtherVault { needed, given, .. } = refused else { panic!("{refused}") };
    assert!(needed.contains(&owner.id().to_string()) && given.contains("owner"));
}
