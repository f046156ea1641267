//! A store of every version of the format, opened by this build and by the second reader.
//!
//! `draft-3/` becomes another folder when the draft changes; from 1.0 on a folder stays for good.

mod making;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runvault_crypto::digest::sha256;
use runvault_tests::Site;
use runvault_tests::snapshot::{Object, is_one_file, snapshot};
use runvault_tests::tools::{output, printed, run, tool};
use serde_json::{Value, json};

/// The version that today's program writes.
const TODAY: &str = "draft-3";

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stores").join(name)
}

/// The folders of this directory: one for each version.
fn versions() -> Vec<String> {
    let entries = fs::read_dir(here("")).expect("tests/stores").flatten().filter(|e| e.path().is_dir());
    let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().expect("a name")).collect();
    names.sort();
    assert!(names.iter().any(|name| name == TODAY), "{names:?}");
    names
}

/// The store of a version with its key file, unpacked.
fn unpacked(version: &str) -> Site {
    let site = Site::uninitialised(&std::env::temp_dir());
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=user.*", "--no-same-owner", "-xpzf"])
        .arg(here(version).join("store.tar.gz"))
        .arg("-C")
        .arg(site.dir()));
    site
}

/// What hashes.json says of each object, by its path.
fn described(tree: &BTreeMap<Vec<u8>, Object>) -> BTreeMap<String, Value> {
    let entry = |(path, object): (&Vec<u8>, &Object)| {
        let hex: String = sha256(&[&object.content]).iter().map(|b| format!("{b:02x}")).collect();
        let value = json!({
            "kind": object.kind.to_string(), "size": object.size, "sha256": hex, "mode": format!("{:04o}", object.mode),
            "mtime": object.mtime.map(|(s, ns)| format!("{s}.{ns:09}")),
        });
        (String::from_utf8(path.clone()).expect("names of these stores are UTF-8"), value)
    };
    tree.iter().map(entry).collect()
}

/// What a version's hashes.json demands.
fn demanded(version: &str) -> BTreeMap<String, Value> {
    let text = fs::read_to_string(here(version).join("hashes.json")).expect("hashes.json");
    serde_json::from_str(&text).expect("JSON")
}

fn assert_as_demanded(version: &str, out: &Path) {
    let (want, got) = (demanded(version), described(&snapshot(out, true)));
    assert!(!want.is_empty(), "{version} has nothing");
    for (path, value) in &want {
        assert_eq!(got.get(path), Some(value), "{version}: {path}");
    }
    assert_eq!(got.len(), want.len(), "{version}: more than was written");
}

/// The runs and files at the top of a version's vault.
fn tops(version: &str) -> Vec<String> {
    demanded(version).into_keys().filter(|path| !path.contains('/')).collect()
}

#[test]
fn every_store_is_opened_by_this_build() {
    for version in versions() {
        let site = unpacked(&version);
        let checked = output(site.command(&["check"]).arg(&site.store));
        assert!(checked.status.success(), "{version}: {}", printed(&checked));
        let listed = run(site.command(&["ls", "-R", "--json"]).arg(&site.store));
        let lines = String::from_utf8(listed.stdout).expect("text");
        let paths =
            lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["path"].clone());
        let mut paths: Vec<_> = paths.map(|path| path.as_str().expect("a path").to_owned()).collect();
        paths.sort();
        assert_eq!(paths, demanded(&version).into_keys().collect::<Vec<_>>(), "{version}");
        let out = site.dir().join("copied");
        fs::create_dir(&out).expect("a directory");
        for top in tops(&version) {
            let source = format!("{}:/{top}", site.store.display());
            run(site.command(&["cp", "-r"]).arg(source).arg(&out));
        }
        assert_as_demanded(&version, &out);
    }
}

#[test]
fn every_store_is_opened_by_the_second_reader() {
    for version in versions() {
        let site = unpacked(&version);
        let out = site.dir().join("extracted");
        let mut reader = Command::new(tool("python/bin/python"));
        reader.arg("-B").arg(here("../reader/reader.py")).arg("--identity").arg(&site.identity);
        let done = run(reader.arg(&site.store).arg("extract").arg(&out));
        assert!(done.stderr.is_empty(), "{version}: {}", printed(&done));
        assert_as_demanded(&version, &out);
        for (a, b) in making::LINKS {
            assert!(is_one_file(&out.join(a), &out.join(b)), "{version}: {a} and {b}");
        }
        let mut value = [0; 64];
        let (path, name, wanted) = making::ATTRIBUTE;
        let n = rustix::fs::getxattr(out.join(path), name, &mut value).expect("an attribute");
        assert_eq!(&value[..n], wanted, "{version}: {path}");
    }
}

/// Writes today's folder anew.
#[test]
#[ignore = "writes into the source tree"]
fn make_store() {
    let site = Site::new();
    making::make(&site);
    let folder = here(TODAY);
    fs::create_dir_all(&folder).expect("a folder");
    run(Command::new("tar")
        .args(["--format=pax", "--xattrs", "--xattrs-include=user.*", "--sparse", "--sort=name"])
        .args(["--owner=0", "--group=0", "--numeric-owner", "-czf"])
        .arg(folder.join("store.tar.gz"))
        .arg("-C")
        .arg(site.dir())
        .args(["store", "owner.key"]));
    let mount = site.mount_read_only();
    let hashes = json!(described(&snapshot(&mount.at, true)));
    mount.unmount();
    let text = serde_json::to_string_pretty(&hashes).expect("JSON");
    fs::write(folder.join("hashes.json"), text + "\n").expect("written");
}
