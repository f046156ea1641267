//! What someone who may write to the store does to a sealed run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::Rng;
use proptest::test_runner::TestRng;
use runvault_format::ids::RunId;
use runvault_store::backend::{Kind as Stored, Rename};
use runvault_vault::api::ROOT;

use super::{id, sealed, shown};
use crate::common::{CALLER, Fixture, Mount, WRITE};

/// Where the parts of a stored file begin: magic, versions, clear part, nonce, state and tag of a header copy, the other copy,
/// nonce and content of a chunk. In other files they are places like any other.
const REGIONS: [usize; 9] = [0, 8, 16, 64, 76, 496, 512, 1024, 1036];
/// Names that are nobody's, and such as could be: of a name that is stored, a record's, a side file's, an envelope's.
const NAMES: [&str; 6] =
    ["aaaaaaaaaaaaaaaaaaaaaaaaaa", "note.txt", "_dir", "seal.new", "vault-1.old", "read-back"];

pub fn data(n: usize, seed: u8) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8 ^ seed).collect()
}

/// A run with something of everything.
pub fn everything(mount: &Mount) {
    mount.make_dir("run").unwrap();
    for dir in ["run/Data", "run/Data/L001", "run/Data/L002", "run/Logs", "run/empty folder"] {
        mount.make_dir(dir).unwrap();
    }
    for (n, lane) in ["L001", "L002"].iter().enumerate() {
        for cycle in 0..4usize {
            let bytes = data(3_000 + 9_000 * cycle, (16 * n + cycle) as u8);
            mount.put(&format!("run/Data/{lane}/C{cycle}.cbcl"), &bytes).unwrap();
        }
    }
    mount.put("run/RunInfo.xml", b"<RunInfo/>").unwrap();
    mount.put("run/empty", b"").unwrap();
    let long = "x".repeat(250);
    mount.put(&format!("run/Logs/{long}"), b"a long name").unwrap();
    let run = mount.ino("run").unwrap();
    mount.symlink(&CALLER, run, b"link", b"Data/L001").unwrap();
    mount.symlink(&CALLER, run, b"long link", "y/".repeat(1_900).as_bytes()).unwrap();
    mount.mknod(&CALLER, run, b"fifo", Stored::Fifo, 0o600, 0).unwrap();
    let file = mount.ino("run/RunInfo.xml").unwrap();
    mount.link(file, run, b"again.xml").unwrap();
    mount.setxattr(file, b"user.sample", b"NA12878", 0).unwrap();
    // A hole in the middle.
    let (_, opened) = mount.create(&CALLER, run, b"sparse", 0o644, WRITE).unwrap();
    mount.write(opened.handle, 100_000, b"end", false).unwrap();
    mount.release(opened.handle).unwrap();
}

/// Everything below a directory, sorted.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut stack = vec![dir.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            found.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                stack.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    below(dir).into_iter().filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file())).collect()
}

pub fn dirs_below(dir: &Path) -> Vec<PathBuf> {
    below(dir).into_iter().filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir())).collect()
}

pub fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// A run that was written, written over and sealed.
pub struct Rewritten {
    pub fixture: Fixture,
    pub run: RunId,
    /// Its directory in the store.
    pub dir: PathBuf,
    /// That before it was renamed and written over.
    pub older: PathBuf,
    /// That of another sealed run.
    other: PathBuf,
    /// A copy of the directory.
    good: PathBuf,
    /// What a mount shows of the sealed run.
    pub truth: BTreeMap<String, String>,
    /// What its files read as.
    pub contents: BTreeMap<String, Vec<u8>>,
    _kept: tempfile::TempDir,
}

impl Rewritten {
    pub fn new() -> Self {
        let fixture = Fixture::on_disk();
        let mount = fixture.writer();
        everything(&mount);
        let run = id(&mount);
        mount.rename(ROOT, b"run", ROOT, b"earlier", Rename::NoReplace).unwrap();
        mount.close().unwrap();
        let dir = fixture.path().join("runs").join(run.to_string());
        let kept = tempfile::tempdir().unwrap();
        let (older, good) = (kept.path().join("older"), kept.path().join("good"));
        copy(&dir, &older);
        let mount = fixture.writer();
        mount.rename(ROOT, b"earlier", ROOT, b"run", Rename::NoReplace).unwrap();
        for cycle in 0..4usize {
            mount.put(&format!("run/Data/L001/C{cycle}.cbcl"), &data(3_000 + 9_000 * cycle, 99)).unwrap();
        }
        sealed(&mount);
        let truth = shown(&mount);
        let files = truth.iter().filter(|(_, text)| text.starts_with("File"));
        let contents = files.map(|(path, _)| (path.clone(), mount.get(path).unwrap())).collect();
        let other = another(&fixture, &mount);
        mount.close().unwrap();
        copy(&dir, &good);
        Self { fixture, run, dir, older, other, good, truth, contents, _kept: kept }
    }

    /// Puts back what is another now: a copy of all of it would take most of the time.
    pub fn restore(&self) {
        let (now, good) = (seen(&self.dir), seen(&self.good));
        let all: BTreeSet<&PathBuf> = now.keys().chain(good.keys()).collect();
        // The outermost of them: the rest goes and comes with it.
        let mut wrong: Vec<&PathBuf> = Vec::new();
        for place in all.into_iter().filter(|place| now.get(*place) != good.get(*place)) {
            if !wrong.last().is_some_and(|outer| place.starts_with(outer)) {
                wrong.push(place);
            }
        }
        let is_linked = |place: &&PathBuf| good.get(*place).is_some_and(|seen| seen.names > 1);
        if wrong.len() > 9 || wrong.iter().any(is_linked) {
            fs::remove_dir_all(&self.dir).unwrap();
            return copy(&self.good, &self.dir);
        }
        for place in wrong {
            let (at, from) = (self.dir.join(place), self.good.join(place));
            match at.symlink_metadata() {
                Ok(meta) if meta.is_dir() => fs::remove_dir_all(&at).unwrap(),
                Ok(_) => fs::remove_file(&at).unwrap(),
                Err(_) => {}
            }
            if good.contains_key(place) {
                copy(&from, &at);
            }
        }
        assert!(seen(&self.dir) == good, "put back");
    }

    /// One random act; `None` where it would change nothing.
    pub fn tamper(&self, random: &mut TestRng) -> Option<Act> {
        let mut pick = |n: usize| random.next_u64() as usize % n.max(1);
        match pick(16) {
            0..3 => self.flip(&mut pick),
            3 => self.cut(&mut pick),
            4 => self.extend(&mut pick),
            5 => self.swap_files(&mut pick),
            6 => self.swap_directories(&mut pick),
            7 => self.remove(&mut pick),
            8..10 => self.add(&mut pick),
            10 => self.rename(&mut pick),
            11 => self.replace(&mut pick),
            12 => self.retarget(&mut pick),
            13 => self.of_another_run(&mut pick),
            _ => self.older(&mut pick),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        files_below(&self.dir)
    }

    fn act(&self, what: &str, touched: &[&Path]) -> Option<Act> {
        let place = |path: &&Path| path.strip_prefix(&self.dir).unwrap().display().to_string();
        let touched: Vec<String> = touched.iter().map(place).collect();
        Some(Act { said: format!("{what}: {touched:?}"), touched })
    }

    fn flip(&self, pick: Pick<'_>) -> Option<Act> {
        let file = one_of(self.files(), pick);
        let mut bytes = fs::read(&file).unwrap();
        let mut regions: Vec<usize> = REGIONS.into_iter().filter(|at| *at < bytes.len()).collect();
        regions.extend([bytes.len().checked_sub(16)?, bytes.len()]);
        regions.sort_unstable();
        regions.dedup();
        let region = pick(regions.len() - 1);
        let at = regions[region] + pick(regions[region + 1] - regions[region]);
        bytes[at] ^= 1 << pick(8);
        fs::write(&file, bytes).unwrap();
        self.act(&format!("a bit flipped at {at}"), &[&file])
    }

    fn cut(&self, pick: Pick<'_>) -> Option<Act> {
        let file = one_of(self.files(), pick);
        let len = fs::metadata(&file).unwrap().len();
        let to = pick(usize::try_from(len).unwrap()) as u64;
        fs::File::options().write(true).open(&file).unwrap().set_len(to).unwrap();
        (to < len).then(|| self.act(&format!("cut to {to}"), &[&file]))?
    }

    fn extend(&self, pick: Pick<'_>) -> Option<Act> {
        let file = one_of(self.files(), pick);
        let more = [fs::read(&file).unwrap(), data(1 + pick(9_000), 7)].concat();
        fs::write(&file, more).unwrap();
        self.act("extended", &[&file])
    }

    fn swap_files(&self, pick: Pick<'_>) -> Option<Act> {
        let (file, other) = (one_of(self.files(), pick), one_of(self.files(), pick));
        let (ours, theirs) = (fs::read(&file).unwrap(), fs::read(&other).unwrap());
        if ours == theirs {
            return None;
        }
        fs::write(&file, theirs).unwrap();
        fs::write(&other, ours).unwrap();
        self.act("swapped", &[&file, &other])
    }

    fn swap_directories(&self, pick: Pick<'_>) -> Option<Act> {
        let dirs = dirs_below(&self.dir);
        let (dir, other) = (one_of(dirs.clone(), pick), one_of(dirs, pick));
        if dir.starts_with(&other) || other.starts_with(&dir) {
            return None;
        }
        let aside = self.dir.join("aside");
        fs::rename(&dir, &aside).unwrap();
        fs::rename(&other, &dir).unwrap();
        fs::rename(&aside, &other).unwrap();
        self.act("directories swapped", &[&dir, &other])
    }

    fn remove(&self, pick: Pick<'_>) -> Option<Act> {
        let gone = match pick(3) {
            0 => one_of(dirs_below(&self.dir), pick),
            1 => one_of(others_below(&self.dir.join("tree")), pick),
            _ => one_of(self.files(), pick),
        };
        match gone.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir_all(&gone).unwrap(),
            false => fs::remove_file(&gone).unwrap(),
        }
        self.act("removed", &[&gone])
    }

    fn add(&self, pick: Pick<'_>) -> Option<Act> {
        let mut dirs = dirs_below(&self.dir);
        // As often as all of the tree.
        dirs.extend(["", "keys", "seal"].map(|part| self.dir.join(part)).into_iter().cycle().take(12));
        let reader = format!("reader-{}", "7".repeat(32));
        let mut names = NAMES.map(str::to_owned).to_vec();
        names.extend(["journal".to_owned(), "origin.note".to_owned(), reader]);
        let new = one_of(dirs, pick).join(one_of(names, pick));
        if new.symlink_metadata().is_ok() {
            return None;
        }
        self.make(&new, &one_of(self.files(), pick), pick);
        self.act("added", &[&new])
    }

    /// A file of those bytes, a link to it, a pipe, a directory.
    fn make(&self, new: &Path, of: &Path, pick: Pick<'_>) {
        match pick(5) {
            0 | 1 => drop(fs::copy(of, new).unwrap()),
            2 => symlink(of, new).unwrap(),
            3 => assert!(Command::new("mkfifo").arg(new).status().unwrap().success()),
            _ => fs::create_dir(new).unwrap(),
        }
    }

    fn rename(&self, pick: Pick<'_>) -> Option<Act> {
        let from = match pick(2) {
            0 => one_of(self.files(), pick),
            _ => one_of(dirs_below(&self.dir), pick),
        };
        let to = from.with_file_name("c".repeat(26));
        fs::rename(&from, &to).unwrap();
        self.act("renamed", &[&from, &to])
    }

    /// Something else in the place of a file, as often as not with its bytes behind it.
    fn replace(&self, pick: Pick<'_>) -> Option<Act> {
        let file = one_of(self.files(), pick);
        let behind = self.good.join(file.strip_prefix(&self.dir).unwrap());
        fs::remove_file(&file).unwrap();
        match pick(3) {
            0 => symlink(behind, &file).unwrap(),
            1 => assert!(Command::new("mkfifo").arg(&file).status().unwrap().success()),
            _ => fs::create_dir(&file).unwrap(),
        }
        self.act("replaced by another kind", &[&file])
    }

    fn retarget(&self, pick: Pick<'_>) -> Option<Act> {
        let links =
            others_below(&self.dir.join("tree")).into_iter().filter(|path| path.is_symlink()).collect();
        let link = one_of(links, pick);
        fs::remove_file(&link).unwrap();
        symlink("elsewhere", &link).unwrap();
        self.act("a link led elsewhere", &[&link])
    }

    /// All of it, a part, a file of the same place.
    fn of_another_run(&self, pick: Pick<'_>) -> Option<Act> {
        let part = [
            "",
            "tree",
            "seal",
            "keys",
            "run.json",
            "name",
            "seal/seal.note",
            "seal/manifest",
            "keys/vault-1",
        ];
        let part = one_of(part.to_vec(), pick);
        let place = self.dir.join(part);
        match place.is_dir() {
            true => fs::remove_dir_all(&place).unwrap(),
            false => fs::remove_file(&place).unwrap(),
        }
        // Without the slash that an empty part leaves.
        let place = if part.is_empty() { self.dir.clone() } else { place };
        copy(&self.other.join(part), &place);
        let touched = if part.is_empty() { self.dir.join("run.json") } else { place };
        self.act("that of another run", &[&touched])
    }

    fn older(&self, pick: Pick<'_>) -> Option<Act> {
        let now = |old: &Path| self.dir.join(old.strip_prefix(&self.older).unwrap());
        let differs = |old: &PathBuf| fs::read(now(old)).ok() != fs::read(old).ok();
        let old = one_of(files_below(&self.older).into_iter().filter(differs).collect(), pick);
        fs::copy(&old, now(&old)).unwrap();
        self.act("an older one put back", &[&now(&old)])
    }
}

/// What shows that something is another: nobody here sets a time back.
#[derive(PartialEq)]
struct SeenAt {
    kind: fs::FileType,
    size: u64,
    changed: (i64, i64),
    names: u64,
}

/// Everything below a directory, by its place there; of directories only that they are.
fn seen(dir: &Path) -> BTreeMap<PathBuf, SeenAt> {
    let one = |path: PathBuf| {
        let meta = path.symlink_metadata().unwrap();
        let (size, changed, names) = match meta.is_dir() {
            true => (0, (0, 0), 1),
            false => (meta.len(), (meta.mtime(), meta.mtime_nsec()), meta.nlink()),
        };
        let place = path.strip_prefix(dir).unwrap().to_owned();
        (place, SeenAt { kind: meta.file_type(), size, changed, names })
    };
    below(dir).into_iter().map(one).collect()
}

/// A number below that one.
type Pick<'a> = &'a mut dyn FnMut(usize) -> usize;

fn one_of<T>(mut all: Vec<T>, pick: Pick<'_>) -> T {
    all.swap_remove(pick(all.len()))
}

/// What was done.
pub struct Act {
    /// In words.
    pub said: String,
    /// The places that are another, none or too many now.
    touched: Vec<String>,
}

impl Act {
    /// Whether each of the places is told, or what it is in, or something in it.
    pub fn is_named(&self, objects: &[&str]) -> bool {
        let named = |place: &String| objects.iter().any(|o| is_within(o, place) || is_within(place, o));
        self.touched.iter().all(named)
    }

    /// Whether that error names one of them.
    pub fn is_met(&self, run: &RunId, object: &str) -> bool {
        let object = object.strip_prefix(&format!("runs/{run}")).unwrap_or(object).trim_start_matches('/');
        // A key that opens nothing is that of an envelope.
        let place = if object.is_empty() { "keys" } else { object };
        self.touched
            .iter()
            .any(|one| Act { said: String::new(), touched: vec![one.clone()] }.is_named(&[place]))
    }
}

/// Whether a place is that one, or in it.
pub fn is_within(place: &str, other: &str) -> bool {
    place == other || place.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
}

/// Another run that is sealed; its directory.
fn another(fixture: &Fixture, mount: &Mount) -> PathBuf {
    mount.make_dir("other").unwrap();
    mount.put("other/RunInfo.xml", b"<RunInfo/>").unwrap();
    let status = mount.status();
    let run = status.runs.iter().find(|run| run.name.as_deref() == Some(b"other")).expect("the run").run;
    mount.seal(&run, &mut |_| Ok(Some("{}".into())), &mut |_, _| ()).unwrap();
    fixture.path().join("runs").join(run.to_string())
}

/// Links, pipes and the like.
fn others_below(dir: &Path) -> Vec<PathBuf> {
    below(dir)
        .into_iter()
        .filter(|path| path.symlink_metadata().is_ok_and(|m| !m.is_dir() && !m.is_file()))
        .collect()
}
