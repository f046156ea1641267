//! The table of all decoders, each with what is right for it.

use crate::common::fixed::{self, RUN, aead, clear, pattern, run_key, run_keys, state};
use crate::common::{
    CREATED, EPOCH_1, EPOCH_2, EXPIRES, GATEWAY, OWNER, enrolled, enrolment, genesis, identity, kem, rotated,
    seed, sign, state_0,
};
use runvault_crypto::secrets::Secret;
use runvault_format::approval_file::ApprovalFile;
use runvault_format::audit_entry::Line;
use runvault_format::confirmation::Confirmation;
use runvault_format::custody_copy::CustodyCopy;
use runvault_format::custody_state::State;
use runvault_format::descriptor::{After, How, RunDescriptor, RunKind, Seals, StateRef};
use runvault_format::envelope_file::{self, EnvelopeName};
use runvault_format::genesis::Genesis;
use runvault_format::hardware::{TokenLock, TokenSealed, TpmLock, TpmWith};
use runvault_format::header::{self, Clear};
use runvault_format::ids::{Digest, FileId, IdentityId, RunId, SessionId, VaultId};
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::kept::{Approved, Kept, KeptShare};
use runvault_format::key_file::{KeyFile, Lock};
use runvault_format::lease::Lease;
use runvault_format::manifest::{self, Entry, Kind, Manifest};
use runvault_format::note::{self, Note};
use runvault_format::public_key::PublicKey;
use runvault_format::read_back;
use runvault_format::redo_record::{self, Record};
use runvault_format::removed::Removed;
use runvault_format::request::{Approval, Head, Request};
use runvault_format::retired::Retired;
use runvault_format::run_index::{self, IndexKey, Row, Rows, Shown};
use runvault_format::seal_note::SealNote;
use runvault_format::size::Geometry;
use runvault_format::state_slot::{Extent, SlotState};
use runvault_format::{chunk, kek, ledger, name, resume, share, time, vault_file};
use runvault_format::{digests, pins};

/// A decoder: the functions it is, encodings that are right, and the bytes that what it decodes encodes back to.
pub struct Decoder {
    pub of: &'static [&'static str],
    pub right: Vec<Vec<u8>>,
    pub back: fn(&[u8]) -> Option<Vec<u8>>,
    /// Of a thousand cases, for those that cost much.
    pub share: usize,
}

const VAULT: VaultId = VaultId([0x7a; 32]);
const SESSION: SessionId = SessionId([0x5e; 16]);
const KEY: [u8; 32] = [0x51; 32];

fn key() -> runvault_crypto::aead::AeadKey {
    aead(&Secret::copy_from(&KEY))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn zero() -> State {
    let (genesis, vault) = genesis();
    State::zero(&genesis, vault)
}

fn descriptor() -> RunDescriptor {
    RunDescriptor {
        vault: VAULT,
        run: RUN,
        geometry: Geometry::default(),
        kind: RunKind::Run,
        commitment: Digest([2; 32]),
        epoch: 1,
        state: StateRef { n: 1, hash: Digest([3; 32]) },
        signer: identity(GATEWAY).public().id(),
        seq: Some(2),
        prev: Some(Digest([4; 32])),
        seals: Seals { n: 0, hash: None },
        after: None,
        opened: CREATED.into(),
    }
}

fn public_key() -> Vec<u8> {
    let keys = identity(GATEWAY);
    PublicKey::of("gateway", &keys.public(), Some(VAULT)).to_note(&keys).unwrap()
}

fn seal_note() -> SealNote {
    SealNote {
        run: RUN,
        run_note: Digest([1; 32]),
        gateway: identity(GATEWAY).public().id(),
        n: 2,
        prev: Some(Digest([2; 32])),
        state: StateRef { n: 1, hash: Digest([3; 32]) },
        files: 1,
        bytes: 5,
        manifest_sha256: Digest([4; 32]),
        manifest_id: FileId([5; 32]),
        pins_id: FileId([6; 32]),
        digests_sha256: Digest([7; 32]),
        sealed: CREATED.into(),
    }
}

fn manifest_record(kind: Kind) -> manifest::Record {
    manifest::Record { uid: 1, gid: 2, mtime: 3, mtime_ns: 4, ..crate::common::manifest_record(kind) }
}

/// A top with one file.
fn sealed_tree() -> Manifest {
    let entry = |kind, name: &[u8]| Entry {
        record: manifest_record(kind),
        name: name.to_vec(),
        target: Vec::new(),
        xattrs: vec![(b"user.a".to_vec(), b"v".to_vec())],
    };
    let (mut top, mut file) = (entry(Kind::Dir, b""), entry(Kind::File, NAME));
    (top.record.first, top.record.children) = (1, 1);
    (file.record.object, file.record.size, file.record.sha256) = (1, 5, [8; 32]);
    // The lengths and places that encoding sets.
    let made =
        Manifest { salt: [9; 32], name: b"run".to_vec(), about: "{}".into(), entries: vec![top, file] };
    Manifest::parse(&made.encode().unwrap()).unwrap()
}

fn pinned() -> [u8; pins::LEN] {
    pins::Pinned { id: FileId([9; 32]), epoch: 1, first: 2, chunks: 3 }.encode()
}

fn signed() -> Vec<u8> {
    let keys = identity(GATEWAY);
    note::sign(&descriptor().to_text().unwrap(), &keys.public().id(), &keys.sign)
}

fn slots() -> Vec<SlotState> {
    let holes = |n| (0..n).map(|i| Extent { first: 3 * i, count: 2 }).collect();
    vec![
        state(1, 0),
        SlotState { flags: 1, holes: holes(3), ..state(9, 70_000) },
        SlotState { jskip: 5, holes: holes(21), ..state(u64::MAX, 1 << 40) },
    ]
}

fn record(blob: usize) -> Record {
    let path = vec![b'a'; 57];
    Record {
        number: 7,
        session: SESSION,
        file_id: FileId([9; 32]),
        epoch: 2,
        chunk: 3,
        size_after: None,
        path,
        blob: pattern(blob),
    }
}

fn run_info() -> Vec<u8> {
    info(Purpose::RunKey, &VAULT, &Scope::Run(RUN), &Recipient::Epoch(1))
}

fn run_envelope() -> Vec<u8> {
    fixed::envelope(kem(EPOCH_1).public(), &run_info(), run_key().0.expose())
}

fn key_file() -> Vec<u8> {
    let lock = Lock::None.key(b"").unwrap();
    static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    FILE.get_or_init(|| {
        KeyFile::seal(&seed(1), "owner", Some(VAULT), Lock::None, &lock).unwrap().to_bytes().unwrap()
    })
    .clone()
}

fn ledger_frame() -> Vec<u8> {
    let mut notes = Vec::new();
    let what = ledger::Named::Object(1, [4; 16]);
    let name = ledger::Note::Name { dir: FileId([3; 32]), stored: b"abcd".to_vec(), what };
    [ledger::Note::Begin, name, ledger::Note::Durable(7), ledger::Note::End]
        .iter()
        .for_each(|n| n.encode(&mut notes));
    ledger::frame(&run_keys().ledger_key(), 8, &notes)
}

fn resume_entry() -> Vec<u8> {
    static ENTRY: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let entry =
        || resume::Entry { key: run_key(), session: SESSION }.seal(&Secret::copy_from(&KEY), 3, &VAULT, &RUN);
    ENTRY.get_or_init(|| entry().unwrap()).clone()
}

/// A run that does not open, one that does, and one that adds to it.
fn index() -> Rows {
    let shown = |after| Shown {
        geometry: Geometry::default(),
        opened: CREATED.into(),
        name: b"run".to_vec(),
        top: manifest_record(Kind::Dir),
        xattrs: b"x".to_vec(),
        after,
    };
    let after = After { run: RUN, how: How::Continues, seal: Digest([7; 32]) };
    let shown = [None, Some(shown(None)), Some(shown(Some(after)))];
    let row = |shown| Row {
        maker: IdentityId([1; 16]),
        seq: 2,
        run_note: Digest([3; 32]),
        sealer: IdentityId([4; 16]),
        n: 5,
        seal: Digest([6; 32]),
        shown,
    };
    (0..).zip(shown).map(|(n, shown)| (RunId([n; 16]), row(shown))).collect()
}

fn index_key() -> IndexKey {
    IndexKey::derive(&Secret::copy_from(&KEY), IdentityId([8; 16]), &VAULT)
}

fn sealed_index() -> Vec<u8> {
    static INDEX: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    INDEX.get_or_init(|| index_key().seal(&index()).unwrap()).clone()
}

const NAME: &[u8] = b"s_1_1101.bcl.bgzf";

fn long() -> (Vec<u8>, Vec<u8>) {
    let stored = name::encrypt_name(run_keys().name_key(), &FileId::ROOT, &[b'n'; 200]).unwrap();
    (stored.text, stored.side.unwrap())
}

fn long_link() -> (Vec<u8>, Vec<u8>) {
    let stored = name::encrypt_link(run_keys().name_key(), &[b't'; 900]).unwrap();
    (stored.text, stored.side.unwrap())
}

/// All of them. `every_decoder_is_in_the_table` fails where one is missing.
pub fn decoders() -> Vec<Decoder> {
    let one = enrolled(&state_0(), GATEWAY);
    let line = sign(enrolment(Head::start(&one.vault), &state_0(), &one));
    let states = [state_0(), one.clone(), rotated(&one)].map(|s| s.to_text().unwrap().into_bytes());
    let copies = |j: u8| slots().into_iter().map(move |s| fixed::copy(j, &clear(13), &key(), &s));
    let lease = Lease {
        holder: "a".repeat(32),
        host: Digest([1; 32]),
        boot: "7d2c3c8e".into(),
        pid: 4242,
        start: 1,
        seq: 3,
    };
    let retired = Retired {
        vault: VAULT,
        run: RUN,
        gateway: identity(GATEWAY).public().id(),
        seq: 2,
        run_note: Digest([2; 32]),
        prev: None,
        time: CREATED.into(),
    };
    let removed = Removed {
        vault: VAULT,
        run: RUN,
        gateway: retired.gateway,
        seq: 2,
        run_note: retired.run_note,
        prev: None,
        seal: None,
        custodian: retired.gateway,
        reason: "moved".into(),
        time: CREATED.into(),
    };
    let head = Head { n: 3, hash: Digest([4; 32]) };
    let custodian = identity(OWNER).public().id();
    let confirmation =
        Confirmation { vault: VAULT, custodian, epoch: 2, made: 3, head, time: CREATED.into() };
    let kept = Kept {
        vault: VAULT,
        head,
        share: Some(KeptShare { epoch: 1, made: 0, share: state_0().epochs[0].shares[0].clone() }),
        approved: Some(Approved { request: Digest([5; 32]), head, expires: EXPIRES.into() }),
    };
    let keeping = KeyFile::parse(&key_file()).unwrap().keeping(kept.clone(), &identity(OWNER)).unwrap();
    let keeping = keeping.to_bytes().unwrap();
    let copied = [
        genesis().0.to_text().unwrap(),
        state_0().to_text().unwrap(),
        format!("{}\n", line.to_line().unwrap()),
        one.to_text().unwrap(),
    ]
    .concat()
    .into_bytes();
    let with_copy = [&key_file()[..], &copied].concat();
    let approval = ApprovalFile {
        request: Digest([5; 32]),
        approval: Approval::sign(custodian, &identity(OWNER).sign, &Digest([5; 32]), Some(b"share")),
        env: Some(b"share".to_vec()),
    };
    let lock =
        Lock::argon2id(runvault_format::ids::Salt([1; 16]), runvault_crypto::passphrase::Params::FLOOR);
    let [locked, in_token, in_tpm] = [lock, token_lock(), tpm_lock()].map(|lock| {
        KeyFile::seal(&seed(1), "owner", None, lock, &Secret::copy_from(&KEY)).unwrap().to_bytes().unwrap()
    });
    vec![
        of(&["vault_file::parse"], vec![vault_file::to_bytes(&VAULT).unwrap()], |b| {
            vault_file::to_bytes(&vault_file::parse(b).ok()?).ok()
        }),
        of(&["genesis::parse"], vec![genesis().0.to_text().unwrap().into_bytes()], |b| {
            Some(Genesis::parse(b).ok()?.0.to_text().unwrap().into_bytes())
        }),
        of(&["custody_state::parse"], states.to_vec(), |b| {
            Some(State::parse(b).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["custody_state::take_envelopes"], states[..1].to_vec(), |b| {
            Some(zero().take_envelopes(b).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["audit_entry::parse"], vec![line.to_line().unwrap().into_bytes()], |b| {
            Some(Line::parse(b).ok()?.to_line().unwrap().into_bytes())
        }),
        of(&["request::parse"], vec![line.executed.request.to_text().unwrap().into_bytes()], |b| {
            Some(Request::parse(b).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["custody_copy::parse"], vec![copied.clone()], |b| {
            Some(CustodyCopy::parse(b).ok()?.to_bytes().unwrap())
        }),
        of(&["key_file::parse"], vec![key_file(), locked, in_token, in_tpm, keeping, with_copy], |b| {
            Some(KeyFile::parse(b).ok()?.to_bytes().unwrap())
        }),
        of(&["key_file::open"], vec![key_file()], |b| {
            KeyFile::parse(b).ok()?.open(&Lock::None.key(b"").unwrap()).ok().map(|_| key_file())
        }),
        of(&["public_key::parse"], vec![public_key()], |b| {
            PublicKey::parse(b).ok()?.to_note(&identity(GATEWAY)).ok()
        }),
        of(&["note::parse"], vec![signed()], |b| Some(Note::parse(b).ok()?.encode())),
        of(&["note::verify"], vec![descriptor().to_text().unwrap().into_bytes()], |b| {
            // The signature lines stay; whatever else the text says, they are not for it.
            let whole = signed();
            let lines = &whole[descriptor().to_text().unwrap().len()..];
            let (bytes, keys) = ([b, lines].concat(), identity(GATEWAY).public());
            let note = Note::parse(&bytes).ok()?;
            note.verify(&keys.id(), &keys.sign).ok().map(|t| t.as_bytes().to_vec())
        }),
        of(&["descriptor::parse_text"], vec![descriptor().to_text().unwrap().into_bytes()], |b| {
            Some(RunDescriptor::parse_text(text(b)?).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["approval_file::parse"], vec![approval.to_text().unwrap().into_bytes()], |b| {
            Some(ApprovalFile::parse(b).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["kept::parse_text"], vec![kept.to_text().unwrap().into_bytes()], |b| {
            Some(Kept::parse_text(text(b)?).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["confirmation::parse_text"], vec![confirmation.to_text().unwrap().into_bytes()], |b| {
            Some(Confirmation::parse_text(text(b)?).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["retired::parse_text"], vec![retired.to_text().unwrap().into_bytes()], |b| {
            Some(Retired::parse_text(text(b)?).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["removed::parse_text"], vec![removed.to_text().unwrap().into_bytes()], |b| {
            Some(Removed::parse_text(text(b)?).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["seal_note::parse_text"], vec![seal_note().to_text().unwrap().into_bytes()], |b| {
            Some(SealNote::parse_text(text(b)?).ok()?.to_text().unwrap().into_bytes())
        }),
        of(&["manifest::parse"], vec![sealed_tree().encode().unwrap()], |b| {
            Some(Manifest::parse(b).ok()?.encode().unwrap())
        }),
        of(&["manifest::decode"], vec![sealed_tree().encode().unwrap()[..manifest::LEN].to_vec()], |b| {
            Some(manifest::Header::decode(b.try_into().ok()?).ok()?.encode().to_vec())
        }),
        of(&["manifest_record::decode"], vec![manifest_record(Kind::BlockDevice).encode().to_vec()], |b| {
            Some(manifest::Record::decode(b.try_into().ok()?).ok()?.encode().to_vec())
        }),
        of(&["manifest::decode_xattrs"], vec![b"\x06\0\x01\0\0\0user.av".to_vec()], |b| {
            let xattrs = manifest::decode_xattrs(b).ok()?;
            let of = |(name, value): &(Vec<u8>, Vec<u8>)| {
                let (n, v) = ((name.len() as u16).to_le_bytes(), (value.len() as u32).to_le_bytes());
                [&n[..], &v, name, value].concat()
            };
            Some(xattrs.iter().flat_map(of).collect())
        }),
        of(&["pins::decode"], vec![pins::Header { entries: 2, nonces: 9 }.encode().to_vec(), pinned().to_vec()], |b| {
            if let Ok(header) = b.try_into() {
                return Some(pins::Header::decode(header).ok()?.encode().to_vec());
            }
            Some(pins::Pinned::decode(b.try_into().ok()?).ok()?.encode().to_vec())
        }),
        of(&["digests::parse"], vec![b"# dir tree/a\n# link 0101010101010101010101010101010101010101010101010101010101010101 tree/b\n0202020202020202020202020202020202020202020202020202020202020202  tree/c\n".to_vec()], |b| {
            Some(digests::encode(digests::parse(b).ok()?))
        }),
        of(&["lease::parse"], vec![lease.to_bytes().unwrap()], |b| Lease::parse(b).ok()?.to_bytes().ok()),
        of(&["envelope_file::parse"], vec![run_envelope()], |b| {
            Some(envelope_file::encode(&envelope_file::parse(b).ok()?))
        }),
        of(&["envelope_file::parse_run_key"], vec![run_envelope()], |b| {
            Some(envelope_file::encode(&envelope_file::parse_run_key(b).ok()?))
        }),
        Decoder {
            share: 50,
            ..of(&["envelope_file::open", "envelope_file::open_run_key"], vec![run_envelope()], |b| {
                let opened = envelope_file::open(&kem(EPOCH_1), &run_info(), b).ok();
                let key =
                    envelope_file::open_run_key(&kem(EPOCH_1), &VAULT, &RUN, &EnvelopeName::Vault(1), b).ok();
                assert_eq!(opened.is_some(), key.is_some());
                key.map(|_| run_envelope())
            })
        },
        Decoder {
            share: 50,
            ..of(&["share::open_share"], vec![rotated(&one).epochs[1].shares[0].env.clone().unwrap()], |b| {
                let state = rotated(&enrolled(&state_0(), GATEWAY));
                let mut share = state.epochs[1].shares[0].clone();
                share.env = Some(b.to_vec());
                let opened = share::open_share(&identity(OWNER).kem, &state.vault, &state.epochs[1], &share);
                opened.ok().and_then(|_| state.epochs[1].shares[0].env.clone())
            })
        },
        Decoder {
            share: 50,
            ..of(&["share::open_previous"], vec![rotated(&one).epochs[1].previous.clone().unwrap()], |b| {
                let state = rotated(&enrolled(&state_0(), GATEWAY));
                let mut epoch = state.epochs[1].clone();
                epoch.previous = Some(b.to_vec());
                let opened = share::open_previous(&kem(EPOCH_2), &state.vault, &epoch, &state.epochs[0]);
                opened.ok().and_then(|_| state.epochs[1].previous.clone())
            })
        },
        of(&["envelope_file::secret_of"], vec![KEY.to_vec()], |b| {
            Some(envelope_file::secret_of(b).ok()?.expose().to_vec())
        }),
        of(
            &["envelope_file::from_str"],
            vec![b"vault-12".to_vec(), format!("reader-{RUN}").into_bytes()],
            |b| Some(text(b)?.parse::<EnvelopeName>().ok()?.to_string().into_bytes()),
        ),
        of(&["ids::from_str"], vec![RUN.to_string().into_bytes()], |b| {
            Some(text(b)?.parse::<runvault_format::ids::RunId>().ok()?.to_string().into_bytes())
        }),
        of(&["time::seconds"], vec![CREATED.into(), b"1970-01-01T00:00:00Z".to_vec()], |b| {
            let seconds = time::seconds(text(b)?)?;
            Some(time::text(seconds).into_bytes())
        }),
        of(
            &["header::decode", "header::clear_of"],
            [9, 13, 20].map(|l| clear(l).encode().to_vec()).into(),
            |b| {
                let clear = Clear::decode(b.try_into().ok()?).ok();
                let copy: [u8; 512] = [b, &[7; 448]].concat().try_into().unwrap();
                assert_eq!(header::clear_of(&copy).ok().flatten(), clear);
                clear.map(|c| c.encode().to_vec())
            },
        ),
        of(&["header::open_copy"], copies(1).collect(), |b| {
            let state = header::open_copy(1, b.try_into().ok()?, &key()).ok()?;
            Some(fixed::copy_of(1, b.get(..64)?, &key(), &state.encode().unwrap()))
        }),
        of(&["state_slot::decode"], slots().iter().map(|s| s.encode().unwrap().to_vec()).collect(), |b| {
            Some(SlotState::decode(b.try_into().ok()?).ok()?.encode().unwrap().to_vec())
        }),
        of(&["chunk::open"], [1, 511, 512].map(|n| fixed::chunk(5, &key(), &pattern(n))).into(), |b| {
            let mut plain = vec![0; b.len().saturating_sub(chunk::OVERHEAD)];
            chunk::open(&key(), 5, b, &mut plain).ok()?;
            Some(fixed::chunk(5, &key(), &plain))
        }),
        of(&["redo_record::decode", "redo_record::session_claimed"], records(), |b| {
            let claimed = redo_record::session_claimed(b);
            let (record, used) = Record::decode(b, &run_keys().journal_key(&SESSION)).ok()?;
            assert_eq!(claimed, Some(record.session));
            Some([&record.encode(&run_keys().journal_key(&SESSION)).unwrap()[..], b.get(used..)?].concat())
        }),
        of(&["ledger::open"], vec![ledger_frame()], |b| {
            let (head, notes) = b.split_first_chunk()?;
            let n = ledger::notes_len(head).ok()?;
            ledger::open(&run_keys().ledger_key(), 8, head, notes).ok().filter(|_| n == notes.len()).map(|_| ledger_frame())
        }),
        of(&["resume::open"], vec![resume_entry()], |b| {
            resume::Entry::open(b, &Secret::copy_from(&KEY), 3, &VAULT, &RUN).ok().map(|_| resume_entry())
        }),
        of(&["read_back::decode"], vec![read_back().encode(3)[5..].to_vec()], |b| {
            Some(read_back::File::decode(b.try_into().ok()?).ok()?.encode(3)[5..].to_vec())
        }),
        of(&["run_index::open"], vec![sealed_index()], |b| index_key().open(b).ok().map(|_| sealed_index())),
        of(&["run_index::decode"], vec![run_index::encode(&index()).unwrap().to_vec()], |b| {
            Some(run_index::encode(&run_index::decode(b).ok()?).unwrap().to_vec())
        }),
        of(&["kek::decode"], vec![kek::encode(3, &Secret::copy_from(&KEY), &VAULT).to_vec()], |b| {
            let (t, kek) = kek::decode(b, &VAULT).ok()?;
            Some(kek::encode(t, &kek, &VAULT).to_vec())
        }),
        of(&["name::decrypt_name"], short_names(), |b| {
            let (text, side) = b.split_first_chunk::<33>().map_or((b, None), |(t, s)| (&t[..], Some(s)));
            let side = side.filter(|_| text[0] == b'0');
            let stored = if side.is_some() { text } else { b };
            let plain = name::decrypt_name(run_keys().name_key(), &FileId::ROOT, stored, side).ok()?;
            let again = name::encrypt_name(run_keys().name_key(), &FileId::ROOT, &plain).unwrap();
            Some([again.text, again.side.unwrap_or_default()].concat())
        }),
        of(&["name::decrypt_link"], vec![long_link().1], |b| {
            let target = name::decrypt_link(run_keys().name_key(), &long_link().0, Some(b)).ok()?;
            name::encrypt_link(run_keys().name_key(), &target).unwrap().side
        }),
        of(
            &["name::decrypt_link"],
            vec![name::encrypt_link(run_keys().name_key(), NAME).unwrap().text],
            |b| {
                let target = name::decrypt_link(run_keys().name_key(), b, None).ok()?;
                Some(name::encrypt_link(run_keys().name_key(), &target).unwrap().text)
            },
        ),
        of(&["name::decrypt_xattr_name"], vec![xattr_name()], |b| {
            let plain = name::decrypt_xattr_name(run_keys().name_key(), &FileId::ROOT, b).ok()?;
            Some(name::encrypt_xattr_name(run_keys().name_key(), &FileId::ROOT, &plain).unwrap())
        }),
        of(&["name::decrypt_xattr_value"], vec![xattr_value(b""), xattr_value(NAME)], |b| {
            let plain = name::decrypt_xattr_value(run_keys().name_key(), &FileId::ROOT, NAME, b).ok()?;
            Some(xattr_value(&plain))
        }),
        of(&["name::decrypt_run_name"], vec![run_name(NAME), run_name(b"a/b")], |b| {
            Some(run_name(&name::decrypt_run_name(run_keys().name_key(), &RUN, b).ok()?))
        }),
    ]
}

fn of(of: &'static [&'static str], right: Vec<Vec<u8>>, back: fn(&[u8]) -> Option<Vec<u8>>) -> Decoder {
    Decoder { of, right, back, share: 1000 }
}

fn records() -> Vec<Vec<u8>> {
    let key = run_keys().journal_key(&SESSION);
    [1, 300, 345, 900].map(|blob| record(blob).encode(&key).unwrap()).into()
}

fn short_names() -> Vec<Vec<u8>> {
    let short = name::encrypt_name(run_keys().name_key(), &FileId::ROOT, NAME).unwrap().text;
    let (text, side) = long();
    vec![short, [text, side].concat()]
}

fn xattr_name() -> Vec<u8> {
    name::encrypt_xattr_name(run_keys().name_key(), &FileId::ROOT, b"user.comment").unwrap()
}

fn xattr_value(value: &[u8]) -> Vec<u8> {
    name::encrypt_xattr_value(run_keys().name_key(), &FileId::ROOT, NAME, value).unwrap()
}

fn run_name(plain: &[u8]) -> Vec<u8> {
    name::encrypt_run_name(run_keys().name_key(), &RUN, plain).unwrap()
}

fn token_lock() -> Lock {
    let point = [&[4][..], &[7; 64]].concat();
    Lock::Pkcs11(TokenLock {
        token: "site".into(),
        serial: "0123456789abcdef".into(),
        key: "runvault".into(),
        id: vec![1],
        sealed: TokenSealed::Ecdh { public: point.clone(), ephemeral: point },
    })
}

fn tpm_lock() -> Lock {
    let with =
        TpmWith::argon2id(runvault_format::ids::Salt([1; 16]), runvault_crypto::passphrase::Params::FLOOR);
    Lock::Tpm2(TpmLock { public: vec![3; 80], private: vec![5; 160], pcrs: vec![0, 7], with })
}

fn read_back() -> read_back::File {
    let stamp = read_back::Stamp { ino: 7, stored: 9000, mtime: (1, 2), ctime: (3, 4) };
    read_back::File {
        object: [8; 16],
        read: 1_800_000_000,
        stamp,
        size: 8000,
        id: FileId([9; 32]),
        epoch: 1,
        sha256: Digest([10; 32]),
        digest: Digest([11; 32]),
    }
}
