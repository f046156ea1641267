//! A vault, by the commands that a person would type.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::mounted::{Home, Mount, run};

/// A store with an owner without a lock, and a mount point.
pub(crate) struct Vault {
    program: PathBuf,
    home: PathBuf,
    pub(crate) store: PathBuf,
    at: PathBuf,
    /// Of the owner's mounts, and of a gateway: each writes as one of its own.
    states: [PathBuf; 2],
    identity: PathBuf,
}

impl Vault {
    /// `init`.
    ///
    /// # Errors
    /// The program's.
    pub(crate) fn new(program: &Path, home: &Home) -> Result<Self> {
        let [store, at, owner, gateway] = home.directories(["store", "mnt", "state", "gateway"])?;
        let identity = home.0.join("identity");
        run(Command::new(program).arg("init").arg(&store).arg("--identity").arg(&identity).arg("--no-lock"))?;
        let (program, home) = (program.to_owned(), home.0.clone());
        Ok(Self { program, home, store, at, states: [owner, gateway], identity })
    }

    /// The owner's mount, for reading and writing.
    ///
    /// # Errors
    /// As of [`Mount::start`].
    pub(crate) fn owners_mount(&self) -> Result<Mount> {
        let [state, _] = &self.states;
        self.mount(Command::new(&self.program).arg("mount").arg("--identity").arg(&self.identity), state)
    }

    /// A gateway's mount; the gateway is enrolled before. It seals when it is told to.
    ///
    /// # Errors
    /// As of [`Mount::start`]; the program's.
    pub(crate) fn gateways_mount(&self) -> Result<Mount> {
        let [_, state] = &self.states;
        let fingerprint = run(Command::new(&self.program).arg("fingerprint").arg(&self.store))?;
        let fingerprint = fingerprint.lines().last().context("no fingerprint")?;
        let mut enroll = Command::new(&self.program);
        enroll
            .args(["gateway", "enroll", "--name", "gateway", "--fingerprint", fingerprint])
            .arg(&self.store);
        run(enroll.arg("--identity").arg(&self.identity).arg("--state").arg(state))?;
        self.mount(Command::new(&self.program).args(["mount", "--ingest", "--seal", "hand"]), state)
    }

    fn mount(&self, command: &mut Command, state: &Path) -> Result<Mount> {
        command.arg("-f").arg(&self.store).arg(&self.at).arg("--state").arg(state);
        Mount::start(command, &self.at, &self.home.join("log"))
    }

    /// `seal`, on the gateway.
    ///
    /// # Errors
    /// The program's.
    pub(crate) fn seal(&self, name: &str) -> Result<()> {
        let [_, state] = &self.states;
        let mut seal = Command::new(&self.program);
        run(seal.arg("seal").arg(&self.store).arg(name).arg("--state").arg(state)).map(drop)
    }

    /// `verify`, with the owner's key.
    ///
    /// # Errors
    /// The program's, also for what does not verify.
    pub(crate) fn verify(&self, name: &str) -> Result<()> {
        let [state, _] = &self.states;
        let mut verify = Command::new(&self.program);
        verify.arg("verify").arg(&self.store).arg(name).arg("--identity").arg(&self.identity);
        run(verify.arg("--state").arg(state)).map(drop)
    }

    /// `scrub`, without a key.
    ///
    /// # Errors
    /// The program's, also for what is damaged.
    pub(crate) fn scrub(&self) -> Result<()> {
        let [_, state] = &self.states;
        run(Command::new(&self.program).arg("scrub").arg(&self.store).arg("--state").arg(state)).map(drop)
    }
}
