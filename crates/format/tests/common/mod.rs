//! A vault of one custodian, made from fixed seeds: its genesis, an enrolment, a rotation.

pub mod fixed;

use runvault_crypto::envelope::KemPrivate;
use runvault_crypto::secrets::Secret;
use runvault_format::audit_entry::{Executed, Line, Outcome};
use runvault_format::custody_state::{Custodian, Epoch, GatewayEntry, Machine, Share, State, Status, Until};
use runvault_format::genesis::{FirstShare, Genesis};
use runvault_format::ids::{Digest, IdentityId, RunId, Salt, VaultId};
use runvault_format::keys::IdentityKeys;
use runvault_format::manifest::{Kind, Record};
use runvault_format::operation::Operation;
use runvault_format::request::{Approval, Executor, Head, Request};
use runvault_format::share;

pub const CREATED: &str = "2026-11-24T06:00:00Z";
pub const EXECUTED: &str = "2026-11-24T06:01:00Z";
pub const EXPIRES: &str = "2026-11-24T07:00:00Z";

pub fn seed(n: u8) -> Secret<32> {
    Secret::copy_from(&[n; 32])
}

pub fn identity(n: u8) -> IdentityKeys {
    IdentityKeys::from_seed(&seed(n)).unwrap()
}

pub const OWNER: u8 = 1;
pub const EPOCH_1: u8 = 2;
pub const EXECUTOR: u8 = 3;
pub const GATEWAY: u8 = 4;
pub const EPOCH_2: u8 = 5;
pub const X: u8 = 1;

pub fn custodian(n: u8) -> Custodian {
    Custodian::new("owner", &identity(n).public())
}

pub fn kem(n: u8) -> KemPrivate {
    KemPrivate::from_seed(&seed(n)).unwrap()
}

pub fn genesis() -> (Genesis, VaultId) {
    let owner = custodian(OWNER);
    let first = FirstShare { to: owner.id, x: X, sha256: share::hash(1, X, &seed(EPOCH_1)) };
    let genesis = Genesis::new(
        1,
        vec![owner],
        kem(EPOCH_1).public().clone(),
        vec![first],
        CREATED.into(),
        Salt([9; 16]),
    );
    let text = genesis.to_text().unwrap();
    Genesis::parse(text.as_bytes()).unwrap()
}

/// State 0 with its envelope, as `custody/state-0` has it.
pub fn state_0() -> State {
    let (genesis, vault) = genesis();
    let mut state = State::zero(&genesis, vault);
    let owner = identity(OWNER);
    let share = &mut state.epochs[0].shares[0];
    share.env = Some(fixed::share(&owner, &vault, 0, &seed(EPOCH_1)));
    state
}

/// An entry of a manifest that says as little as it can.
pub fn manifest_record(kind: Kind) -> Record {
    Record {
        kind,
        mode: 0o640,
        uid: 1000,
        gid: 100,
        nlink: 1,
        object: 0,
        parent: 0,
        first: 0,
        children: 0,
        rdev: 0,
        size: 0,
        mtime: 0,
        mtime_ns: 0,
        name: 0,
        target: 0,
        xattrs: 0,
        heap: 0,
        sha256: [0; 32],
    }
}

pub fn gateway_entry(n: u8) -> GatewayEntry {
    let keys = identity(n).public();
    GatewayEntry { id: keys.id(), label: "gateway".into(), sign: keys.sign, until: None }
}

/// The state that an enrolment makes.
pub fn enrolled(before: &State, gateway: u8) -> State {
    let mut state = before.clone();
    state.n += 1;
    state.gateways.push(gateway_entry(gateway));
    state
}

/// The first run counts, and no seal.
pub const ENDS: Until = Until { seq: 1, hash: Some(Digest([6; 32])), seals: 0, seals_hash: None };

/// The state that a revocation makes.
pub fn revoked(before: &State, gateway: u8) -> State {
    let (mut state, id) = (before.clone(), gateway_entry(gateway).id);
    state.n += 1;
    let gateway = state.gateways.iter_mut().find(|g| g.id == id).unwrap();
    gateway.until = Some(ENDS);
    state
}

/// The state that a rotation makes.
pub fn rotated(before: &State) -> State {
    let mut state = before.clone();
    let (owner, new) = (identity(OWNER), kem(EPOCH_2));
    state.n += 1;
    let to = owner.public().id();
    let old = state.epochs.last_mut().unwrap();
    old.status = Status::Kept;
    old.shares.clear();
    let e = old.e + 1;
    let env = fixed::share(&owner, &state.vault, state.n, &seed(EPOCH_2));
    let previous = fixed::previous(&new, &state.vault, state.n, e, &seed(EPOCH_1));
    state.epochs.push(Epoch {
        e,
        since: state.n,
        kem: new.public().clone(),
        status: Status::Current,
        made: state.n,
        shares: vec![Share { to, x: X, env: Some(env), sha256: share::hash(e, X, &seed(EPOCH_2)) }],
        previous: Some(previous),
    });
    state
}

pub fn request(head: Head, before: &State, op: Operation, after: &State) -> Request {
    let executor = identity(EXECUTOR).public();
    Request {
        vault: after.vault,
        head,
        before: before.hash().unwrap(),
        releases_share: op.releases_share(),
        op,
        reason: "a test".into(),
        executor: Executor { kem: executor.kem, sign: executor.sign },
        created: CREATED.into(),
        expires: EXPIRES.into(),
        nonce: Salt([8; 16]),
        state: Some(after.outline()),
    }
}

/// The line of a request, before it is signed.
pub fn executed(request: Request, after: &State, envelope: Option<&[u8]>) -> Executed {
    let owner = identity(OWNER);
    let hash = request.hash().unwrap();
    let approval = Approval::sign(owner.public().id(), &owner.sign, &hash, envelope);
    Executed {
        n: after.n,
        prev: request.head.hash,
        time: EXECUTED.into(),
        request,
        result: Outcome { state: Some(after.hash().unwrap()), runs: Vec::new() },
        heads: Vec::new(),
        approvals: vec![approval],
    }
}

pub fn machine(n: u8) -> Machine {
    Machine::new("gateway", &identity(n).public())
}

pub fn enrolment(head: Head, before: &State, after: &State) -> Executed {
    executed(request(head, before, Operation::EnrolGateway { gateway: machine(GATEWAY) }, after), after, None)
}

pub fn revocation(head: Head, before: &State, gateway: IdentityId, after: &State) -> Executed {
    let until = after.gateway(&gateway).and_then(|g| g.until.clone()).unwrap_or(ENDS);
    executed(request(head, before, Operation::RevokeGateway { gateway, until }, after), after, None)
}

pub fn admission(
    head: Head,
    before: &State,
    gateway: IdentityId,
    run: Option<RunId>,
    after: &State,
) -> Executed {
    executed(request(head, before, Operation::AdmitGateway { gateway, run }, after), after, None)
}

pub fn rotation(head: Head, before: &State, after: &State, envelope: &[u8]) -> Executed {
    let epoch = after.epochs.last().unwrap().e;
    executed(request(head, before, Operation::Rotate { epoch }, after), after, Some(envelope))
}

pub fn sign(executed: Executed) -> Line {
    executed.sign(&identity(EXECUTOR).sign).unwrap()
}
