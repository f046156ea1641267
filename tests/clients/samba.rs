//! Samba in front of a gateway's mount, with the configuration that ships, and real SMB clients.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runvault_tests::tools::{leave_out, output, printed, root_for, run, runvault};
use runvault_tests::{Mount, Site};

const PASSWORD: &str = "instrument";

/// A server of its own: port, configuration, passwords; it ends with the test.
struct Samba {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Samba {
    /// Shares a mount; `None` where Samba is missing.
    fn over(mount: &Path) -> Option<Samba> {
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
            ("ACCOUNT", "root".to_owned()),
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
        let add = format!("printf '%s\\n%s\\n' {PASSWORD} {PASSWORD} | smbpasswd -c \"$1\" -a -s root");
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
        let samba = Samba { child, port, dir };
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
        client.arg(format!("root%{PASSWORD}")).args(["-s", "/dev/null"]).args(more).args(["-c", commands]);
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

fn served() -> Option<(Site, Mount, Samba)> {
    if !root_for("smbd") {
        return None;
    }
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("--seal").arg("hand").mount();
    let samba = Samba::over(&mount.at)?;
    Some((site, mount, samba))
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn an_instrument_writes_a_run_by_smb_and_the_owner_reads_it() {
    let Some((site, mount, samba)) = served() else { return };
    let local = site.dir().join("C1.1.cbcl");
    fs::write(&local, bytes(3_000_000)).expect("a file");
    let put = format!(
        "mkdir run; mkdir run\\Data; put {0} run\\Data\\tmp.cbcl; rename run\\Data\\tmp.cbcl run\\Data\\L001_1.cbcl; \
         put {0} run\\RunInfo.xml; ls run\\DATA\\l001_1.CBCL; get run\\runinfo.XML {1}",
        local.display(),
        site.dir().join("back").display()
    );
    let done = samba.client(&["--client-protection=encrypt"], &put);
    assert!(done.status.success(), "{}\n{}", printed(&done), samba.log());
    assert!(
        printed(&done).contains("L001_1.cbcl") || printed(&done).contains("3000000"),
        "{}",
        printed(&done)
    );
    assert_eq!(fs::read(site.dir().join("back")).expect("read by another case"), bytes(3_000_000));
    assert_eq!(fs::read(mount.path("run/Data/L001_1.cbcl")).expect("written"), bytes(3_000_000));
    drop(samba);
    mount.unmount();
    let read = run(site.command(&["cat"]).arg(&site.store).arg("run/Data/L001_1.cbcl"));
    assert_eq!(read.stdout, bytes(3_000_000));
    let sealed =
        run(Command::new(runvault()).args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg("run"));
    assert!(printed(&sealed).contains("is sealed: 2 files"), "{}", printed(&sealed));
}

/// The leg from the instrument must not carry genomes in the clear.
#[test]
fn a_client_that_cannot_encrypt_is_refused() {
    let Some((_site, mount, samba)) = served() else { return };
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

/// As an instrument's copy service writes: space first, then pieces out of order; a name of its own, then the right
/// one over what was there; times and attributes after the data; two files at once; a connection that breaks.
#[test]
fn the_manners_of_copy_services_arrive_whole() {
    let Some((site, mount, samba)) = served() else { return };
    let program: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/copy_service.py");
    let mut python = Command::new(runvault_tests::tools::tool("python/bin/python"));
    python.arg("-B").arg(program).args([&samba.port.to_string(), PASSWORD]);
    let done = output(&mut python);
    assert!(done.status.success(), "{}\n{}", printed(&done), samba.log());
    let expected: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    for (path, hash) in expected.as_object().expect("files") {
        let found = run(Command::new("sha256sum").arg(mount.path("run").join(path)));
        assert!(printed(&found).starts_with(hash.as_str().expect("a hash")), "{path}");
    }
    let time = fs::metadata(mount.path("run/timed.bin")).and_then(|meta| meta.modified()).expect("a time");
    let seconds = time.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    assert_eq!(seconds, 1_700_000_000);
    assert!(!mount.path("run/renamed.tmp").exists());
    drop(samba);
    mount.unmount();
    run(site.command(&["check"]).arg(&site.store));
}
