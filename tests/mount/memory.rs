//! Whoever takes a gateway over after a seal: what its memory, its state folder and the store give away of the run.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use runvault_crypto::secrets::Secret;
use runvault_format::ids::{RunId, VaultId};
use runvault_format::resume::Entry;
use runvault_tests::tools::{output, printed, root_for, run, runvault};
use runvault_tests::traced::Image;
use runvault_tests::{Mount, Site};

/// Which of `wanted` lie in the bytes that `next` gives.
fn found_in(wanted: &[&[u8]], mut next: impl FnMut() -> Option<Vec<u8>>) -> Vec<bool> {
    let finders: Vec<_> = wanted.iter().map(Finder::new).collect();
    let mut found = vec![false; wanted.len()];
    while let Some(bytes) = next() {
        for (found, finder) in found.iter_mut().zip(&finders) {
            *found = *found || finder.find(&bytes).is_some();
        }
    }
    found
}

/// In all that a process may write to, by /proc.
fn in_memory(pid: u32, wanted: &[&[u8]]) -> Vec<bool> {
    let image = Image::of(pid);
    wanted.iter().map(|what| image.holds(what)).collect()
}

/// Each place of it, for who reads why a test failed.
fn places(pid: u32, wanted: &[&[u8]]) -> String {
    let image = Image::of(pid);
    wanted.iter().flat_map(|what| image.places(what)).collect::<Vec<_>>().join("\n")
}

/// A request is wiped behind its answer: the thread may not have come to it yet.
fn nothing_is_left(mount: &Mount, wanted: &[&[u8]]) {
    let until = Instant::now() + Duration::from_secs(5);
    while in_memory(mount.pid(), wanted).contains(&true) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let left = places(mount.pid(), wanted);
    assert!(left.is_empty(), "after the seal:\n{left}");
}

/// In an image that gdb makes, also of what is left out of core dumps.
fn in_image(site: &Site, pid: u32, wanted: &[&[u8]]) -> Vec<bool> {
    const PIECE: u64 = 32 << 20;
    let image = site.dir().join("image");
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-p", &pid.to_string(), "-ex", "set dump-excluded-mappings on", "-ex"]);
    run(gdb.arg(format!("gcore {}", image.display())));
    let file = File::open(&image).expect("gdb's image");
    let (len, overlap) = (file.metadata().expect("stat").len(), 4096);
    let mut at = 0;
    let found = found_in(wanted, || {
        let mut bytes = vec![0; len.saturating_sub(at).min(PIECE + overlap) as usize];
        file.read_exact_at(&mut bytes, at).expect("read");
        at += PIECE;
        (!bytes.is_empty()).then_some(bytes)
    });
    fs::remove_file(&image).expect("removed");
    found
}

/// The run's key, as the owner's envelope gives it, and two keys that follow from it: by the second reader.
fn keys_of(site: &Site, id: &str) -> Vec<Vec<u8>> {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("reader");
    let program = "import sys; sys.path.insert(0, sys.argv[1])\n\
                   from types import SimpleNamespace\n\
                   from sections.vault import Vault\n\
                   vault = Vault(sys.argv[2], SimpleNamespace(identity=[sys.argv[3]], passphrase_file=None, custody=None, fingerprint=None))\n\
                   with vault.run(sys.argv[4]) as run:\n    \
                       key = run.open_key(vault.id, vault.identity, vault.epochs)\n    \
                       print(key.hex(), run.keys.prk.hex(), run.keys.name.hex())\n";
    let mut python = Command::new(runvault_tests::tools::tool("python/bin/python"));
    python.args(["-B", "-c", program]).arg(reader).arg(&site.store).arg(&site.identity).arg(id);
    let said = printed(&run(&mut python));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    let keys = said.split_ascii_whitespace().map(|hex| hex.as_bytes().chunks(2).map(byte).collect());
    keys.collect()
}

/// Bytes and names that nothing else has, written in the ways that leave them somewhere.
struct Traces {
    name: &'static str,
    content: Vec<u8>,
}

impl Traces {
    const DIR: &'static str = "a-directory-named-after-a-patient-Aurelia-Quennessen";
    const FILE: &'static str = "a-file-named-after-a-patient-Barnaby-Oxtoby-Thwaite.txt";
    const RENAMED: &'static str = "a-file-renamed-to-a-patient-Clementine-Vasserot-Ivory.bin";

    fn written(mount: &Mount) -> Self {
        let name = "240101_NB501_0001_AHPATIENTDELPHINEYOUNGHUSBAND";
        let content = b"the bases of Aurelia Quennessen, chromosome 7: GATTACAGATTACA;".to_vec();
        let dir = mount.path(name).join(Self::DIR);
        fs::create_dir_all(&dir).expect("directories");
        let bytes = content.repeat((3 << 20) / content.len());
        // Large requests, small appends, and an overwrite of what is durable.
        fs::write(dir.join("large"), &bytes).expect("written");
        fs::rename(dir.join("large"), dir.join(Self::RENAMED)).expect("renamed");
        fs::write(dir.join(Self::FILE), &content).expect("written");
        let mut odd = File::create(dir.join("odd")).expect("a file");
        bytes.chunks(3001).take(200).for_each(|piece| odd.write_all(piece).expect("appended"));
        odd.sync_all().expect("synced");
        odd.write_all_at(&content, 5000).expect("overwritten");
        odd.sync_all().expect("synced");
        std::os::unix::fs::symlink("a-link-to-a-patient-Esmeralda-Featherstone", dir.join("link"))
            .expect("a link");
        Self { name, content }
    }

    /// Past the kernel's pages, so that it comes through the process.
    fn read(&self, mount: &Mount) {
        for name in [Self::RENAMED, "odd", Self::FILE] {
            let path = mount.path(self.name).join(Self::DIR).join(name);
            let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).expect("open");
            let mut bytes = vec![0; (1 << 20) + 4096];
            let aligned = bytes.as_ptr().align_offset(4096);
            let n = direct.read_at(&mut bytes[aligned..][..1 << 20], 0).expect("read");
            assert!(bytes[aligned..][..n].starts_with(&self.content[..40]));
        }
    }

    fn all(&self) -> Vec<&[u8]> {
        let names = [self.name, Self::DIR, Self::FILE, Self::RENAMED].map(str::as_bytes);
        names.into_iter().chain([&self.content[..40]]).collect()
    }
}

/// The folder of the one vault of a state folder.
fn vault_in(state: &Path) -> PathBuf {
    fs::read_dir(state).expect("state").flatten().next().expect("a vault").path()
}

fn the_only(dir: PathBuf) -> PathBuf {
    let mut entries = fs::read_dir(&dir).expect("a directory").flatten();
    let one = entries.next().expect("an entry").path();
    assert!(entries.next().is_none(), "several in {}", dir.display());
    one
}

/// `runvault seal`, as a person does it.
fn seal(site: &Site, name: &str) {
    run(Command::new(runvault()).args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg(name));
}

/// The kernel can be asked to let go of names from Linux 6.18 on.
fn kernel_lets_go() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(18))
}

#[test]
fn an_image_of_the_process_finds_nothing_of_a_sealed_run() {
    if !root_for("reading another process's memory") {
        return;
    }
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("--seal").arg("hand").mount();
    let traces = Traces::written(&mount);
    let id = the_only(site.store.join("runs")).file_name().expect("a name").to_string_lossy().into_owned();
    let keys = keys_of(&site, &id);
    assert_eq!(keys.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 64]);
    let mut wanted: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    wanted.extend(traces.all());
    traces.read(&mount);
    let control = vec![true; wanted.len()];
    assert_eq!(in_memory(mount.pid(), &wanted), control, "the control: a run that is open");
    assert_eq!(in_image(&site, mount.pid(), &wanted), control, "the control: gdb's image of it");
    traces.read(&mount);
    let known = site.status(&mount.at)["known_nodes"].as_u64().expect("a number");
    seal(&site, traces.name);
    // The kernel still knows names of the run, and asks for some.
    let _ = fs::read_dir(mount.path(traces.name));
    nothing_is_left(&mount, &wanted);
    let nothing = vec![false; wanted.len()];
    assert_eq!(in_image(&site, mount.pid(), &wanted), nothing, "gdb's image after the seal");
    let until = Instant::now() + Duration::from_secs(20);
    while kernel_lets_go() && site.status(&mount.at)["known_nodes"].as_u64().expect("a number") + 4 > known {
        assert!(Instant::now() < until, "the kernel keeps names of the run");
        std::thread::sleep(Duration::from_millis(200));
    }
    mount.unmount();
}

/// Alarms look at open runs every ten seconds, and keep what they found until the next look.
#[test]
fn what_was_found_out_about_a_run_while_it_was_open_does_not_keep_its_name() {
    if !root_for("reading another process's memory") {
        return;
    }
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("--seal").arg("hand").mount();
    let name = "240101_NB501_0001_AHPATIENTDELPHINEYOUNGHUSBAND";
    fs::create_dir(mount.path(name)).expect("a run");
    fs::write(mount.path(name).join("file"), b"content").expect("written");
    mount.unmount();
    // The first look comes with the mount, and finds it.
    let mount = site.ingest().arg("--seal").arg("hand").mount();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(in_memory(mount.pid(), &[name.as_bytes()]), [true], "the control: a run that is open");
    seal(&site, name);
    nothing_is_left(&mount, &[name.as_bytes()]);
    mount.unmount();
}

/// Every file of the state folder, as it is.
fn state_files(site: &Site) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut stack) = (Vec::new(), vec![site.state.clone()]);
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                stack.push(entry.path());
            } else if kind.is_file() {
                found.push((entry.path(), fs::read(entry.path()).expect("state")));
            }
        }
    }
    found
}

/// Whether any 32 bytes of the state folder are the key under which the entry was sealed.
fn some_kek_opens(site: &Site, entry: &[u8], vault: &VaultId, run: &RunId) -> bool {
    state_files(site).iter().any(|(_, bytes)| {
        bytes.windows(32).any(|key| {
            let kek = Secret::copy_from(key.try_into().expect("32 bytes"));
            (1..4).any(|t| Entry::open(entry, &kek, t, vault, run).is_ok())
        })
    })
}

#[test]
fn the_state_folder_and_the_store_open_nothing_of_a_sealed_run() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("--seal").arg("hand").mount();
    let traces = Traces::written(&mount);
    let id = the_only(site.store.join("runs")).file_name().expect("a name").to_string_lossy().into_owned();
    fs::create_dir(mount.path("another")).expect("a run that stays open");
    let folder = vault_in(&site.state);
    let (vault, number) =
        (folder.file_name().expect("a name").to_string_lossy().parse().expect("an id"), &id);
    let (vault, number): (VaultId, RunId) = (vault, number.parse().expect("an id"));
    let kek = fs::read(the_only(folder.join("kek"))).expect("a key");
    // Whoever copied the entry before has it for ever; what it is sealed under must be gone.
    let entry = fs::read(folder.join("resume/1").join(&id)).expect("an entry");
    assert!(some_kek_opens(&site, &entry, &vault, &number), "the control: a run that is open");
    let keys = keys_of(&site, &id);
    seal(&site, traces.name);
    assert!(!some_kek_opens(&site, &entry, &vault, &number));
    for (file, bytes) in state_files(&site) {
        let holds = |what: &[u8]| Finder::new(what).find(&bytes).is_some();
        let leaks = keys.iter().any(|key| holds(key)) || traces.all().iter().any(|trace| holds(trace));
        assert!(!leaks && !holds(&kek) && !holds(&entry[20..68]), "{}", file.display());
    }
    mount.unmount();
    // The one key that it has for good opens no envelope.
    let identity = folder.join("identity");
    for command in [["ls", "-R"], ["check", "--json"]] {
        let mut opening = Command::new(runvault());
        opening.args(command).arg("--identity").arg(&identity).arg("--state").arg(&site.state);
        let refused = output(opening.arg(&site.store));
        assert_eq!(refused.status.code(), Some(3), "{command:?}: {}", printed(&refused));
    }
}
