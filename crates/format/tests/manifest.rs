//! Trees that come back, and what is none.

use proptest::prelude::*;
use runvault_format::Error;
use runvault_format::manifest::{Entry, Header, Kind, LEN, Manifest, Record, decode_xattrs};

fn record(kind: Kind) -> Record {
    Record { mtime: -1, mtime_ns: 999_999_999, ..crate::common::manifest_record(kind) }
}

fn entry(kind: Kind, name: &[u8]) -> Entry {
    let mut record = record(kind);
    if kind == Kind::File {
        (record.size, record.sha256) = (5, [7; 32]);
    }
    let target = if kind == Kind::Symlink { b"../x".to_vec() } else { Vec::new() };
    record.size = if kind == Kind::Symlink { target.len() as u64 } else { record.size };
    Entry { record, name: name.to_vec(), target, xattrs: Vec::new() }
}

/// Numbers, parents and children of directories that are given as (entry, number of its children).
fn tree(flat: Vec<(Entry, u32)>) -> Manifest {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut next, mut parents) = (1, vec![0]);
    for (i, (mut entry, children)) in (0u32..).zip(flat) {
        entry.record.object = i;
        entry.record.parent = parents[i as usize];
        entry.record.children = children;
        entry.record.first = if children > 0 { next } else { 0 };
        next += children;
        parents.extend(std::iter::repeat_n(i, children as usize));
        entries.push(entry);
    }
    Manifest { salt: [3; 32], name: b"Box 1/run".to_vec(), about: "{}".into(), entries }
}

/// A top with a directory, two names of one file and a link; a device in the directory.
fn small() -> Manifest {
    let mut device = entry(Kind::BlockDevice, b"sda");
    device.record.rdev = 0x801;
    let mut file = entry(Kind::File, b"b");
    file.record.nlink = 2;
    file.xattrs = vec![(b"user.a".to_vec(), vec![0; 9]), (b"user.b".to_vec(), Vec::new())];
    let mut again = Entry { xattrs: Vec::new(), name: b"c".to_vec(), ..file.clone() };
    again.record.xattrs = 0;
    let mut small = tree(vec![
        (entry(Kind::Dir, b""), 4),
        (entry(Kind::Dir, b"a"), 1),
        (file, 0),
        (again, 0),
        (entry(Kind::Symlink, b"\xff"), 0),
        (device, 0),
    ]);
    small.entries[3].record.object = 2;
    Manifest::parse(&small.encode().unwrap()).unwrap()
}

#[test]
fn a_tree_comes_back_and_is_read_by_range() {
    let small = small();
    let bytes = small.encode().unwrap();
    assert_eq!(Manifest::parse(&bytes).unwrap(), small);
    let header = Header::decode(bytes[..LEN].try_into().unwrap()).unwrap();
    assert_eq!((header.entries, header.manifest_len()), (6, bytes.len() as u64));
    let at = Header::record_offset(2) as usize;
    let file = Record::decode(bytes[at..at + LEN].try_into().unwrap()).unwrap();
    let heap = (header.heap_offset() + file.heap) as usize;
    assert_eq!(&bytes[heap..heap + 1], b"b");
    let xattrs = &bytes[heap + 1..heap + file.heap_len() as usize];
    assert_eq!(decode_xattrs(xattrs).unwrap(), small.entries[2].xattrs);
}

#[test]
fn what_is_no_tree_is_refused() {
    let refused = |change: fn(&mut Manifest)| {
        let mut changed = small();
        change(&mut changed);
        match changed.encode().unwrap_err() {
            Error::Manifest(what) => what,
            other => panic!("{other}"),
        }
    };
    type Case = (&'static str, fn(&mut Manifest));
    let cases: [Case; 18] = [
        ("no top directory", |m| m.entries.clear()),
        ("top", |m| m.entries[0].record.kind = Kind::Fifo),
        ("top", |m| m.entries[0].name = b"x".to_vec()),
        ("parent", |m| m.entries[0].record.children = 5),
        ("children", |m| m.entries[0].record.children = u32::MAX),
        ("children", |m| m.entries[1].record.first = 1),
        ("children", |m| m.entries[4].record.children = 1),
        ("parent", |m| m.entries[5].record.parent = 0),
        ("names are not in order", |m| m.entries.swap(2, 3)),
        ("names are not in order", |m| m.entries[3].name = b"b".to_vec()),
        ("name", |m| m.entries[5].name = b"..".to_vec()),
        ("name", |m| m.entries[5].name = b"a/b".to_vec()),
        ("target", |m| m.entries[4].target.clear()),
        ("target", |m| m.entries[2].target = b"x".to_vec()),
        ("link", |m| m.entries[3].record.object = 4),
        ("link", |m| m.entries[3].record.size = 6),
        ("attributes are not in order", |m| m.entries[2].xattrs.reverse()),
        ("mode", |m| m.entries[2].record.mode = 0o10000),
    ];
    for (what, change) in cases {
        // A swap of entries leaves their numbers behind, so more than one rule may be broken.
        let found = refused(change);
        assert!(found == what || (what.starts_with("names") && found == "link"), "{what}: {found}");
    }
}

#[test]
fn every_length_and_bit_of_the_records_counts() {
    let small = small();
    let bytes = small.encode().unwrap();
    for len in 0..bytes.len() {
        assert!(Manifest::parse(&bytes[..len]).is_err(), "{len}");
    }
    assert_eq!(Manifest::parse(&[&bytes[..], b"x"].concat()), Err(Error::Trailing));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        if let Ok(other) = Manifest::parse(&changed) {
            assert_ne!(other, small, "byte {at}");
            assert_eq!(other.encode().unwrap(), changed, "byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn what_parses_encodes_back(
        names in prop::collection::btree_set(prop::collection::vec(1u8..=46, 1..40), 1..60), kinds in any::<u64>(),
        below in 0usize..60, meta in any::<(u16, u32, u32, i64)>(), value in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let of = |n: usize| match (kinds >> (n % 60)) & 3 {
            0 => Kind::Symlink,
            1 => Kind::Fifo,
            _ => Kind::File,
        };
        let names: Vec<_> = names.into_iter().filter(|n| n != b"." && n != b"..").collect();
        prop_assume!(!names.is_empty());
        let below = below.min(names.len() - 1);
        let mut flat = vec![(entry(Kind::Dir, b""), names.len() as u32)];
        for (n, name) in names.iter().enumerate() {
            let dir = n == 0;
            let mut made = entry(if dir { Kind::Dir } else { of(n) }, name);
            (made.record.mode, made.record.uid, made.record.gid, made.record.mtime) =
                (meta.0 & 0o7777, meta.1, meta.2, meta.3);
            made.xattrs = vec![(b"user.x".to_vec(), value.clone())];
            flat.push((made, if dir { below as u32 } else { 0 }));
        }
        flat.extend(names.iter().take(below).map(|name| (entry(Kind::File, name), 0)));
        let bytes = tree(flat).encode().unwrap();
        prop_assert_eq!(Manifest::parse(&bytes).unwrap().encode().unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_answered(start in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let bytes = if start { [&b"rvmani/1"[..], &bytes].concat() } else { bytes };
        if let Ok(parsed) = Manifest::parse(&bytes) {
            prop_assert_eq!(parsed.encode().unwrap(), bytes);
        }
    }
}
