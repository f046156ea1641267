//! A run gets another key, as processes see it: killed, many at once, on a cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use runvault_tests::Site;
use runvault_tests::making::full_tree;
use runvault_tests::random::Random;
use runvault_tests::snapshot::{Object, assert_same, snapshot};
use runvault_tests::tools::{leave_out, output, printed, root_for, run, runvault};

/// A sealed run in memory that a re-keying was agreed on, and what is in it.
struct Sealed {
    site: Site,
    tree: BTreeMap<Vec<u8>, Object>,
    id: String,
}

impl Sealed {
    fn new(seed: u64) -> Self {
        let site = Site::in_memory();
        site.enroll();
        let mount = site.ingest().mount();
        fs::create_dir(mount.path("run")).expect("a run");
        full_tree(&mount.path("run/tree"), &mut Random::of(seed));
        // One that is read back while others are copied.
        for (number, len) in [(0, 4_500_000), (1, 100_000), (2, 100_000)] {
            fs::write(mount.path("run").join(format!("{number}.cbcl")), vec![number; len]).expect("written");
        }
        let tree = snapshot(&mount.path("run"), true);
        mount.unmount();
        let mut seal = Command::new(runvault());
        let said = run(seal.args(["seal", "--json", "--state"]).arg(&site.state).arg(&site.store).arg("run"));
        let said: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
        run(site.command(&["custody", "rekey"]).arg(&site.store).arg("run"));
        Self { site, tree, id: said["run"].as_str().expect("an id").to_owned() }
    }

    /// `runvault rekey` on a copy of the store at `store`, to be completed.
    fn work(&self, store: &Path) -> Command {
        let mut command = self.command(store, &["rekey", "--json", "--grace", "0s"]);
        command.arg(store).arg(&self.id).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `runvault ARGS` of a machine that has seen no other store than that one.
    fn command(&self, store: &Path, args: &[&str]) -> Command {
        let state =
            if store == self.site.store { self.site.state.clone() } else { store.with_extension("state") };
        let mut command = Command::new(runvault());
        command.args(args).arg("--identity").arg(&self.site.identity).arg("--state").arg(state);
        command
    }

    /// A copy of the store as it was before the work, and of what this machine has seen of it.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.site.dir().join(name);
        for (from, to) in [(&self.site.store, to.clone()), (&self.site.state, to.with_extension("state"))] {
            run(Command::new("cp").arg("-a").arg(from).arg(to));
        }
        to
    }

    /// One run, of the same content, as it was sealed.
    fn assert_done(&self, store: &Path) {
        let runs: Vec<_> = fs::read_dir(store.join("runs")).expect("runs").flatten().collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        assert_ne!(runs[0].file_name(), *self.id);
        run(self.command(store, &["verify", "--fresh"]).arg(store).arg("run"));
        let at = self.site.dir().join("read");
        let mut mount = self.command(store, &["mount", "--read-only", "--log", "stderr"]);
        fs::create_dir_all(&at).expect("a mount point");
        run(mount.arg(store).arg(&at));
        let found = snapshot(&at.join("run"), true);
        run(Command::new(runvault()).arg("unmount").arg(&at));
        assert_same(&self.tree, &found, "under the new key");
    }
}

fn said(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", printed(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn kill(mut child: Child) {
    child.kill().expect("killed");
    child.wait().expect("gone");
}

#[test]
fn a_rekeying_that_is_killed_fifty_times_goes_on() {
    let sealed = Sealed::new(70);
    let whole = sealed.copy("whole");
    let began = Instant::now();
    said(&output(&mut sealed.work(&whole)));
    let took = began.elapsed();
    sealed.assert_done(&whole);
    let (mut random, mut kills) = (Random::of(71), 0);
    for round in 0.. {
        let store = sealed.copy("killed");
        loop {
            let child = sealed.work(&store).spawn().expect("started");
            let wait = Duration::from_micros(random.below(took.as_micros() as u64));
            std::thread::sleep(wait);
            if kills < 50 {
                kill(child);
                kills += 1;
            } else {
                said(&child.wait_with_output().expect("its end"));
            }
            if fs::read_dir(store.join("runs")).expect("runs").flatten().count() == 1
                && !store.join("runs").join(&sealed.id).exists()
            {
                break;
            }
        }
        // Whoever was killed behind the last step has nothing left to do.
        said(&output(&mut sealed.work(&store)));
        sealed.assert_done(&store);
        for copied in [&store, &store.with_extension("state")] {
            fs::remove_dir_all(copied).expect("removed");
        }
        if kills >= 50 {
            assert!(round < 50);
            break;
        }
    }
}

#[test]
fn three_processes_at_once_copy_a_third_each() {
    let sealed = Sealed::new(72);
    let store = &sealed.site.store;
    let start = |i: u32| sealed.work(store).arg("--shard").arg(format!("{i}/3")).spawn().expect("started");
    let parts: Vec<Child> = (1..=3).map(start).collect();
    let ends: Vec<_> =
        parts.into_iter().map(|part| said(&part.wait_with_output().expect("its end"))).collect();
    let done = ends.iter().filter(|end| end["replaced"] == true).count();
    assert!(done >= 1, "{ends:?}");
    let copied: u64 = ends.iter().map(|end| end["copied_bytes"].as_u64().expect("bytes")).sum();
    let bytes = ends.iter().find_map(|end| end["bytes"].as_u64()).expect("bytes");
    assert_eq!(copied, bytes, "each file once: {ends:?}");
    sealed.assert_done(store);
    // One part alone says what is missing, and leaves all as it is.
    let sealed = Sealed::new(73);
    let one = said(&output(sealed.work(&sealed.site.store).args(["--shard", "2/3"])));
    assert!(one["replaced"] == false && one["missing"].as_u64() > Some(0), "{one}");
    assert!(sealed.site.store.join("runs").join(&sealed.id).exists());
    let bad = output(sealed.work(&sealed.site.store).args(["--shard", "4/3"]));
    assert_eq!(bad.status.code(), Some(2), "{}", printed(&bad));
}

/// Slurm on this machine alone: its three daemons in one folder, ended when this is dropped.
struct Cluster {
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Cluster {
    /// `None` where its programs are missing.
    fn start() -> Option<Self> {
        let there =
            |name: &&str| ["/usr/sbin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(name).exists());
        if let Some(missing) = ["slurmctld", "slurmd", "sbatch", "munged"].iter().find(|name| !there(name)) {
            leave_out(&format!("Slurm: {missing} is missing (scripts/setup test)"));
            return None;
        }
        let dir = tempfile::Builder::new().prefix("runvault-test-slurm-").tempdir().expect("a folder");
        let at = dir.path().display();
        fs::write(dir.path().join("munge.key"), vec![7; 128]).expect("a key");
        run(Command::new("chmod").args(["0400"]).arg(dir.path().join("munge.key")));
        for folder in ["ctld", "spool"] {
            fs::create_dir(dir.path().join(folder)).expect("a folder");
        }
        let host = String::from_utf8(run(Command::new("hostname").arg("-s")).stdout).expect("a name");
        let host = host.trim();
        // Two that are free now.
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let ports = [listen(), listen()].map(|one| one.local_addr().expect("an address").port());
        let conf = format!(
            "ClusterName=test\nSlurmctldHost={host}\nSlurmctldAddr=127.0.0.1\nSlurmUser=root\n\
             AuthType=auth/munge\nCredType=cred/munge\nAuthInfo=socket={at}/munge.socket\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nReturnToService=2\n\
             StateSaveLocation={at}/ctld\nSlurmdSpoolDir={at}/spool\nSlurmctldPort={}\nSlurmdPort={}\n\
             SlurmctldPidFile={at}/ctld.pid\nSlurmdPidFile={at}/slurmd.pid\nSlurmctldLogFile={at}/ctld.log\n\
             SlurmdLogFile={at}/slurmd.log\nSlurmdParameters=config_overrides\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=3 State=UNKNOWN\n\
             PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP\n",
            ports[0], ports[1]
        );
        fs::write(dir.path().join("slurm.conf"), conf).expect("written");
        let mut cluster = Self { dir, daemons: Vec::new() };
        let path = |name: &str| cluster.dir.path().join(name);
        let option = |name: &str, file: &str| format!("--{name}={}", path(file).display());
        let munged = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            option("key-file", "munge.key"),
            option("socket", "munge.socket"),
            option("pid-file", "munge.pid"),
            option("log-file", "munge.log"),
            option("seed-file", "munge.seed"),
        ];
        cluster.daemon("/usr/sbin/munged", &munged);
        let socket = cluster.dir.path().join("munge.socket");
        within(Duration::from_secs(20), "munged", || socket.exists());
        let conf = cluster.dir.path().join("slurm.conf").display().to_string();
        for daemon in ["/usr/sbin/slurmctld", "/usr/sbin/slurmd"] {
            cluster.daemon(daemon, &["-D".to_owned(), "-f".to_owned(), conf.clone()]);
        }
        within(Duration::from_secs(60), "Slurm's node", || {
            let said = output(cluster.client("sinfo").args(["-h", "-o", "%T"]));
            String::from_utf8_lossy(&said.stdout).contains("idle")
        });
        Some(cluster)
    }

    fn daemon(&mut self, program: &str, args: &[String]) {
        let log =
            fs::File::create(self.dir.path().join(format!("{}.out", self.daemons.len()))).expect("a log");
        let both = log.try_clone().expect("a handle");
        let child = Command::new(program).args(args).stdout(log).stderr(both).stdin(Stdio::null()).spawn();
        self.daemons.push(child.expect("started"));
    }

    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("SLURM_CONF", self.dir.path().join("slurm.conf"));
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // slurmd first: it asks the others for nothing then.
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn within(most: Duration, what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + most;
    while !holds() {
        assert!(Instant::now() < until, "{what} is not there after {most:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_slurm_array_does_the_work() {
    if !root_for("Slurm") {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let sealed = Sealed::new(74);
    let site = &sealed.site;
    let work = format!(
        "{} rekey {} {} --identity {} --state {} --grace 0s --json --shard $SLURM_ARRAY_TASK_ID/3",
        runvault().display(),
        site.store.display(),
        sealed.id,
        site.identity.display(),
        site.state.display()
    );
    let said = site.dir().join("said.%a");
    let mut batch = cluster.client("sbatch");
    run(batch.args(["--array=1-3", "--wrap", &work, "-o"]).arg(&said).current_dir(site.dir()));
    within(Duration::from_secs(120), "the array's end", || {
        let queue = output(cluster.client("squeue").arg("-h"));
        queue.status.success() && queue.stdout.is_empty() && site.dir().join("said.3").exists()
    });
    let told =
        (1..=3).map(|i| fs::read_to_string(site.dir().join(format!("said.{i}"))).expect("what it said"));
    let told = told.collect::<String>();
    assert!(told.contains("\"replaced\":true"), "{told}");
    sealed.assert_done(&site.store);
}
