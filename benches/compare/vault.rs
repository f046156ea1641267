//! A vault, by the commands that a person would type.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::home::{Home, MOUNT};
use crate::mounted::{Mounted, run};
use crate::subjects::Programs;

/// A store with an owner without a lock, and a mount point.
pub(crate) struct Vault<'a> {
    programs: &'a Programs,
    home: PathBuf,
    store: PathBuf,
    at: PathBuf,
    /// Of the owner's mounts, and of a gateway: each writes as one of its own.
    owner: PathBuf,
    gateway: PathBuf,
    identity: PathBuf,
}

impl<'a> Vault<'a> {
    /// `init`.
    ///
    /// # Errors
    /// The program's.
    pub(crate) fn new(programs: &'a Programs, home: &Home) -> Result<Self> {
        let [store, at, owner, gateway] = home.directories(["store", MOUNT, "owner", "gateway"])?;
        let identity = home.0.join("identity");
        run(programs.runvault().arg("init").arg(&store).arg("--no-lock").arg("--identity").arg(&identity))?;
        Ok(Self { programs, home: home.0.clone(), store, at, owner, gateway, identity })
    }

    /// The owner's mount, for reading and writing.
    ///
    /// # Errors
    /// As of [`Mounted::new`].
    pub(crate) fn owners_mount(&self) -> Result<Mounted> {
        self.mount(self.command("mount").arg("--identity").arg(&self.identity), &self.owner)
    }

    /// A gateway's mount, which seals when it is told to; it is enrolled before.
    ///
    /// # Errors
    /// As of [`Mounted::new`]; the program's.
    pub(crate) fn gateways_mount(&self) -> Result<Mounted> {
        let printed = self.command("fingerprint").output()?.stdout;
        let printed = String::from_utf8(printed)?;
        let fingerprint = printed.lines().last().context("no fingerprint")?;
        let mut enroll = self.programs.runvault();
        enroll
            .args(["gateway", "enroll", "--name", "gateway", "--fingerprint", fingerprint])
            .arg(&self.store);
        run(enroll.arg("--identity").arg(&self.identity).arg("--state").arg(&self.gateway))?;
        self.mount(self.command("mount").args(["--ingest", "--seal", "hand"]), &self.gateway)
    }

    /// `seal`, on the gateway.
    ///
    /// # Errors
    /// The program's.
    pub(crate) fn seal(&self, run_name: &str) -> Result<()> {
        run(self.command("seal").arg(run_name).arg("--state").arg(&self.gateway))
    }

    /// `verify`, with the owner's key.
    ///
    /// # Errors
    /// The program's, also for what does not verify.
    pub(crate) fn verify(&self, run_name: &str) -> Result<()> {
        let mut verify = self.command("verify");
        run(verify.arg(run_name).arg("--identity").arg(&self.identity).arg("--state").arg(&self.owner))
    }

    /// `custody rekey`, with the owner's key.
    ///
    /// # Errors
    /// The program's.
    pub(crate) fn agree_to_rekey(&self, run_name: &str) -> Result<()> {
        let mut custody = self.programs.runvault();
        custody.args(["custody", "rekey"]).arg(&self.store).arg(run_name);
        run(custody.arg("--identity").arg(&self.identity).arg("--state").arg(&self.owner))
    }

    /// `rekey`, which does the work.
    ///
    /// # Errors
    /// The program's.
    pub(crate) fn rekey(&self, run_name: &str) -> Result<()> {
        let mut rekey = self.command("rekey");
        rekey.arg(run_name).args(["--grace", "0s"]).arg("--identity").arg(&self.identity);
        run(rekey.arg("--state").arg(&self.owner))
    }

    /// `scrub`, without a key.
    ///
    /// # Errors
    /// The program's, also for what is damaged.
    pub(crate) fn scrub(&self) -> Result<()> {
        run(self.command("scrub").arg("--state").arg(&self.gateway))
    }

    /// The store.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The gateway's state folder.
    pub(crate) fn gateway_state(&self) -> &Path {
        &self.gateway
    }

    /// `mount` of the owner's, or of the gateway's, which goes into the background; and where.
    pub(crate) fn mount_command(&self, ingest: bool) -> (Command, PathBuf) {
        let mut command = self.command("mount");
        command.arg(&self.at).arg("--state");
        if ingest {
            command.arg(&self.gateway).args(["--ingest", "--seal", "hand"]);
        } else {
            command.arg(&self.owner).arg("--identity").arg(&self.identity);
        }
        (command, self.at.clone())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = self.programs.runvault();
        command.arg(name).arg(&self.store);
        command
    }

    fn mount(&self, command: &mut Command, state: &Path) -> Result<Mounted> {
        Mounted::new(command.arg(&self.at).arg("-f").arg("--state").arg(state), &self.home, self.at.clone())
    }
}
