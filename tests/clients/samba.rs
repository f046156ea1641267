//! Samba in front of a gateway's mount, with the configuration that ships, and real SMB clients.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use runvault_sequencer::family::FAMILIES;
use runvault_sequencer::replay::place::Place;
use runvault_sequencer::replay::{MODES, send};
use runvault_sequencer::{Family, Mode, Replay, RunSpec, Size};
use runvault_tests::analysis::assert_real_hiseq_fastq;
use runvault_tests::making::{attributes_of, of_few_cycles};
use runvault_tests::snapshot::contents;
use runvault_tests::tools::{leave_out, output, printed, real_runs, root_for, run, runvault};
use runvault_tests::{Mount, Site};
use rustix::process::Signal;

use super::copy_service::CopyService;

const PASSWORD: &str = "instrument";

/// A server of its own: port, configuration, passwords; it ends with the test.
struct Samba {
    child: Child,
    port: u16,
    account: &'static str,
    dir: tempfile::TempDir,
}

impl Samba {
    /// Shares a mount with an account of the system; `None` where Samba is missing.
    fn over(mount: &Path, account: &'static str) -> Option<Samba> {
        if Command::new("smbd").arg("--version").output().is_err() {
            leave_out("smbd is missing (packages samba and smbclient)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/samba/smb.conf");
        let mut text = fs::read_to_string(shipped).expect("the shipped configuration");
        for (from, to) in [
            ("MOUNT_POINT", mount.to_str().expect("UTF-8").to_owned()),
            ("ACCOUNT", account.to_owned()),
            ("smb ports = 445", format!("smb ports = {port}")),
            ("lo INTERFACE", "lo".to_owned()),
        ] {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, &to);
        }
        let mut own = String::new();
        for (option, name) in [
            ("private dir", "private"),
            ("lock directory", "lock"),
            ("state directory", "state"),
            ("cache directory", "cache"),
            ("pid directory", "pid"),
            ("ncalrpc dir", "ncalrpc"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("a folder");
            own += &format!("    {option} = {}\n", path.display());
        }
        own += &format!("    log file = {}\n", dir.path().join("log").display());
        let config = dir.path().join("smb.conf");
        fs::write(&config, text.replacen("[global]\n", &format!("[global]\n{own}"), 1)).expect("a file");
        run(Command::new("testparm").args(["-s", "--suppress-prompt"]).arg(&config));
        let add = format!("printf '%s\\n%s\\n' {PASSWORD} {PASSWORD} | smbpasswd -c \"$1\" -a -s {account}");
        run(Command::new("sh").args(["-c", &add, "sh"]).arg(&config));
        let child = Command::new("smbd")
            .args(["--foreground", "--no-process-group", "--debuglevel=1", "-s"])
            .arg(&config)
            // It ends its whole process group with itself.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.path().join("out")).expect("a file"))
            .stderr(fs::File::create(dir.path().join("err")).expect("a file"))
            .spawn()
            .expect("smbd");
        let samba = Samba { child, port, account, dir };
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", samba.port)).is_err() {
            assert!(Instant::now() < until, "smbd does not answer: {}", samba.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(samba)
    }

    fn log(&self) -> String {
        ["log", "out", "err"]
            .iter()
            .filter_map(|name| fs::read_to_string(self.dir.path().join(name)).ok())
            .collect()
    }

    /// `smbclient` with these commands.
    fn client(&self, more: &[&str], commands: &str) -> std::process::Output {
        let mut client = Command::new("smbclient");
        client.arg("//127.0.0.1/runs").args(["-p", &self.port.to_string(), "-U"]);
        client
            .arg(format!("{}%{PASSWORD}", self.account))
            .args(["-s", "/dev/null"])
            .args(more)
            .args(["-c", commands]);
        output(&mut client)
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // Its children of single connections end with their clients.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn served(options: &[&str]) -> Option<(Site, Mount, Samba)> {
    if !root_for("smbd") {
        return None;
    }
    let site = Site::new();
    site.enroll();
    let mount = options.iter().fold(site.ingest(), |ingest, option| ingest.arg(option)).mount();
    let samba = Samba::over(&mount.at, "root")?;
    Some((site, mount, samba))
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 % 251) as u8).collect()
}

/// An account of every Debian, and not root's.
const SEQUENCER: &str = "games";

/// The account's alone and two levels below the server, as docs/operations.md has it; and while the gateway is down nothing
/// lands anywhere, though Samba is up.
#[test]
fn an_instrument_writes_a_run_by_smb_and_the_owner_reads_it() {
    if !root_for("smbd") {
        return;
    }
    let site = Site::new();
    site.enroll();
    // As /mnt is, and as a temporary folder is not.
    fs::set_permissions(site.dir(), PermissionsExt::from_mode(0o711)).expect("a mode");
    let gateway = || site.ingest().args(["--seal", "hand", "--allow-other", "--run-depth", "2"]).mount();
    let mount = gateway();
    fs::create_dir(mount.path("novaseq")).expect("a folder");
    run(Command::new("chown").arg(format!("{SEQUENCER}:")).arg(mount.path("novaseq")));
    let Some(samba) = Samba::over(&mount.at, SEQUENCER) else { return };
    let (local, back) = (site.dir().join("C1.1.cbcl"), site.dir().join("back"));
    fs::write(&local, bytes(3_000_000)).expect("a file");
    let put = format!(
        "cd novaseq; mkdir run; mkdir run\\Data; put {0} run\\Data\\tmp.cbcl; \
         rename run\\Data\\tmp.cbcl run\\Data\\L001_1.cbcl; put {0} run\\RunInfo.xml; \
         ls run\\DATA\\l001_1.CBCL; get run\\runinfo.XML {1}",
        local.display(),
        back.display()
    );
    let done = samba.client(&["--client-protection=encrypt"], &put);
    assert!(done.status.success(), "{}\n{}", printed(&done), samba.log());
    assert!(printed(&done).contains("L001_1.cbcl"), "{}", printed(&done));
    assert_eq!(fs::read(&back).expect("read by another case"), bytes(3_000_000));
    let run_at = mount.path("novaseq/run");
    assert_eq!(fs::read(run_at.join("Data/L001_1.cbcl")).expect("written"), bytes(3_000_000));
    let outside = samba.client(&[], "mkdir elsewhere");
    assert!(printed(&outside).contains("ACCESS_DENIED"), "{}", printed(&outside));

    let send = format!("put {} novaseq\\run\\more", local.display());
    mount.signal(Signal::KILL);
    let refused = samba.client(&[], &send);
    assert!(!refused.status.success(), "a dead mount: {}", printed(&refused));
    mount.kill();
    let here = format!("mkdir novaseq; put {} here", local.display());
    for commands in [&send, &here] {
        let refused = samba.client(&[], commands);
        assert!(!refused.status.success(), "the bare mount point: {}", printed(&refused));
    }
    let bare = fs::metadata(&site.at).expect("a mount point");
    assert_eq!((bare.permissions().mode() & 0o7777, fs::read_dir(&site.at).expect("it").count()), (0, 0));
    // And goes on with the run.
    let mount = gateway();
    let done = samba.client(&[], &send);
    assert!(done.status.success(), "{}\n{}", printed(&done), samba.log());
    drop(samba);
    mount.unmount();
    for file in ["Data/L001_1.cbcl", "more"] {
        let read = run(site.command(&["cat"]).arg(&site.store).arg(format!("novaseq/run/{file}")));
        assert_eq!(read.stdout, bytes(3_000_000), "{file}");
    }
    let mut seal = Command::new(runvault());
    let sealed = run(seal.args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg("novaseq/run"));
    assert!(printed(&sealed).contains("is sealed: 3 files"), "{}", printed(&sealed));
}

/// The leg from the instrument must not carry genomes in the clear.
#[test]
fn a_client_that_cannot_encrypt_is_refused() {
    let Some((_site, mount, samba)) = served(&["--seal", "hand"]) else { return };
    // Protocols that cannot encrypt, or not each packet.
    for weak in ["NT1", "SMB2_02", "SMB2_10"] {
        let refused = samba.client(&["-m", weak], "ls");
        assert!(!refused.status.success(), "{weak}: {}", printed(&refused));
    }
    let done = samba.client(&[], "ls");
    assert!(done.status.success(), "{}\n{}", printed(&done), samba.log());
    drop(samba);
    mount.unmount();
}

/// A run of few cycles, each mode's under a name of its own; what is filled out of order has files of several pieces.
fn spec(family: Family, mode: Mode, n: usize) -> RunSpec {
    let preset = RunSpec::preset(family, Size::Tiny);
    let name = preset.name.replacen("_0", &format!("_{}0", n + 1), 1);
    let clusters_per_tile = if mode == Mode::Preallocate { 1_200_000 } else { 50_000 };
    RunSpec { name, clusters_per_tile, ..of_few_cycles(preset) }
}

/// As instruments' copy services write: space first, then pieces out of order, then time and attributes; another name,
/// then the right one over what was there; two clients at once; a connection that breaks in the middle of each file;
/// viewers that follow what grows.
#[test]
fn a_run_in_every_mode_arrives_whole_and_is_sealed_by_itself() {
    let Some((site, mount, samba)) = served(&["--quiet", "5s"]) else { return };
    let service = Arc::new(CopyService::new(samba.port, PASSWORD));
    let plain = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let mut names = Vec::new();
    for (n, ((mode, name), family)) in MODES.into_iter().zip(FAMILIES.into_iter().cycle()).enumerate() {
        let replay = Replay::new(spec(family, mode, n)).mode(mode);
        let expected = replay.run(plain.path(), &mut |_| {}).expect("a plain run");
        let begun = Instant::now();
        let over = replay.place(service.clone()).run(Path::new(""), &mut |_| {});
        let done = over.unwrap_or_else(|e| panic!("{name}: {e}\n{}\n{}", samba.log(), mount.log()));
        println!("{name}: {} files, {} bytes in {:?}", done.files, done.bytes, begun.elapsed());
        assert_eq!((done.files, done.bytes), (expected.files, expected.bytes), "{name}");
        if mode == Mode::Preallocate {
            let file = mount.at.join(&done.folder).join("RunInfo.xml");
            let attributes = attributes_of(&file);
            assert!(attributes.iter().any(|(name, _)| name == "user.DOSATTRIB"), "{attributes:?}");
            let since = file.metadata().and_then(|meta| meta.modified()).expect("a time").elapsed();
            assert!(since.expect("a time in the past") >= Duration::from_secs(89));
        }
        assert!(mode != Mode::Tailed || done.looks > 0);
        names.push(done.folder);
    }
    drop(service);
    mount.logged("is sealed: seal", names.len());
    drop(samba);
    mount.unmount();
    let reader = site.mount_read_only();
    for name in names {
        assert!(contents(&reader.path(&name)) == contents(&plain.path().join(&name)), "{}", name.display());
        assert_eq!(site.verified(&name)["complete"], true, "{}", name.display());
    }
    reader.unmount();
}

/// The HiSeq test run of picard's own suite, as a copy service brings it.
#[test]
fn picard_reads_a_real_run_that_came_by_smb() {
    let Some(runs) = real_runs() else { return };
    let Some((site, mount, samba)) = served(&["--quiet", "2s"]) else { return };
    let source = runs.join("hiseq-25T8B25T");
    let service = CopyService::new(samba.port, PASSWORD);
    let folder = PathBuf::from(RunSpec::preset(Family::HiSeq, Size::Tiny).name);
    let bring = |path: &Path, bytes: &[u8]| {
        send(&service, &folder.join(path), bytes, Mode::Preallocate)
            .unwrap_or_else(|e| panic!("{e}\n{}", samba.log()));
    };
    service.make_dirs(&folder).expect("a run");
    contents(&source.join("Data"))
        .iter()
        .for_each(|(path, bytes)| bring(&Path::new("Data").join(path), bytes));
    bring(Path::new("SequencingComplete.txt"), b"");
    mount.logged("is sealed: seal", 1);
    drop(samba);
    mount.unmount();
    let reader = site.mount_read_only();
    assert_real_hiseq_fastq(&reader.path(&folder), &source.join("expected"), site.dir());
    reader.unmount();
}
