//! Two NV indices of the TPM, for even and odd t, each with docs/format.md's 64 bytes; written over, never read back by
//! any command of the TPM.
//!
//! Whoever reads one needs the TPM and the authorization value, which `kek/home` has: a copy of the state folder is
//! nothing without the machine, and the machine's TPM nothing without the folder. The value is random, so that the
//! TPM's protection against guessing is not needed (`no_da`): no mistake here can lock the TPM.

use runvault_crypto::random;
use runvault_crypto::secrets::Secret;
use runvault_format::ids::VaultId;
use runvault_format::kek;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Home, KekHome};
use crate::state_folder::Folder;
use crate::tpm2_tools::{self, AUTH, Refused};
use crate::{Error, Result};

const HOME: &str = "home";
const KIND: &str = "tpm2";
/// What the registry of the Trusted Computing Group leaves to the machine's owner.
const OWNERS: std::ops::Range<u32> = 0x0180_0000..0x01c0_0000;
/// Read and written by the value alone, by whoever has it.
const ATTRIBUTES: &str = "authread|authwrite|no_da";
/// Tries to find two free ones among two million.
const DRAWS: usize = 16;

pub(super) struct Tpm {
    vault: VaultId,
    said: Said,
    keks: Folder,
}

/// The file `kek/home`.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Said {
    kind: String,
    /// The first of the two.
    nv_index: u32,
    /// 32 bytes, in hex.
    auth: String,
}

impl std::fmt::Debug for Tpm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tpm({:#x})", self.said.nv_index)
    }
}

impl Tpm {
    /// What `kek/home` names.
    pub(super) fn found(keks: &Folder, vault: VaultId) -> Result<Option<Self>> {
        let Some(mut bytes) = keks.read_secret(HOME)? else { return Ok(None) };
        let damaged = |why: String| Error::Damaged { object: keks.shown(HOME), why };
        let said = serde_json::from_slice::<Said>(&bytes).map_err(|e| damaged(e.to_string()));
        bytes.zeroize();
        let said = said?;
        let hex = said.auth.len() == 64 && said.auth.bytes().all(|b| b.is_ascii_hexdigit());
        if said.kind != KIND || !hex || !is_usable(said.nv_index) {
            return Err(damaged("not a home that is known".to_owned()));
        }
        Ok(Some(Self { vault, said, keks: keks.again() }))
    }

    /// Two indices that are free; the folder then names them. `index`: these or none.
    pub(super) fn choose(keks: &Folder, vault: VaultId, index: Option<u32>) -> Result<Self> {
        let taken = defined()?;
        let free = |index: &u32| !taken.contains(index) && !taken.contains(&(index + 1));
        let nv_index = match index {
            Some(index) if !is_usable(index) => return Err(refused(index, Refused::NotAnIndex)),
            Some(index) => Some(index).filter(free).ok_or_else(|| refused(index, Refused::Taken))?,
            None => drawn(free)?,
        };
        let mut auth = [0; 32];
        random::fill(&mut auth)?;
        let said = Said {
            kind: KIND.to_owned(),
            nv_index,
            auth: auth.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        auth.zeroize();
        let mut text = serde_json::to_vec(&said)
            .map_err(|e| Error::Damaged { object: keks.shown(HOME), why: e.to_string() })?;
        keks.write(HOME, &text)?;
        text.zeroize();
        Ok(Self { vault, said, keks: keks.again() })
    }

    fn index_of(&self, t: u64) -> u32 {
        self.said.nv_index + u32::from(t % 2 == 1)
    }

    fn both(&self) -> [u32; 2] {
        [self.index_of(0), self.index_of(1)]
    }

    fn tool(
        &self,
        tool: &str,
        index: u32,
        options: &[&str],
        stdin: &[u8],
    ) -> Result<zeroize::Zeroizing<Vec<u8>>> {
        let number = format!("{index:#010x}");
        let args: Vec<&str> = std::iter::once(number.as_str()).chain(options.iter().copied()).collect();
        tpm2_tools::run(tool, &args, Some(&self.said.auth), stdin).map_err(|why| refused(index, why))
    }

    /// What an index holds; `None` where nothing was written yet.
    fn content(&self, index: u32) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
        let number = format!("{index:#010x}");
        match self.tool("tpm2_nvread", index, &["-C", &number, "-P", AUTH], &[]) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Tpm { why: Refused::NotWritten, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn fill(&self, index: u32, bytes: &[u8]) -> Result<()> {
        let number = format!("{index:#010x}");
        self.tool("tpm2_nvwrite", index, &["-C", &number, "-P", AUTH, "-i", "-"], bytes).map(drop)
    }

    fn key_in(&self, index: u32) -> Result<Option<(u64, Secret<32>)>> {
        let Some(bytes) = self.content(index)? else { return Ok(None) };
        // One that was cut short, or overwritten, is none.
        Ok(kek::decode(&bytes, &self.vault).ok().filter(|(t, _)| self.index_of(*t) == index))
    }
}

impl Home for Tpm {
    fn is(&self) -> KekHome {
        KekHome::Tpm { nv_index: self.said.nv_index }
    }

    fn lost(&self, _t: u64) -> Error {
        refused(self.said.nv_index, Refused::Gone)
    }

    /// An enrolment that was cut short goes on.
    fn prepare(&self) -> Result<()> {
        let there = defined()?;
        for index in self.both().into_iter().filter(|index| !there.contains(index)) {
            let size = kek::LEN.to_string();
            let options = ["-C", "o", "-s", &size, "-a", ATTRIBUTES, "-p", AUTH];
            self.tool("tpm2_nvdefine", index, &options, &[])?;
        }
        Ok(())
    }

    /// Indices that open with our value are ours; then the value goes.
    fn give_up(&self) -> Result<()> {
        let there = defined()?;
        for index in self.both().into_iter().filter(|index| there.contains(index)) {
            if self.content(index).is_ok() {
                self.tool("tpm2_nvundefine", index, &["-C", "o"], &[])?;
            }
        }
        self.keks.wipe(HOME)
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let there = defined()?;
        // None of them yet: nothing was kept there.
        if !self.both().iter().any(|index| there.contains(index)) {
            return Ok(Vec::new());
        }
        let mut numbers = Vec::new();
        for index in self.both().into_iter().filter(|index| there.contains(index)) {
            numbers.extend(self.key_in(index)?.map(|(t, _)| t));
        }
        Ok(numbers)
    }

    fn read(&self, t: u64) -> Result<Secret<32>> {
        let index = self.index_of(t);
        let found = self.key_in(index)?.filter(|(number, _)| *number == t);
        found.map(|(_, key)| key).ok_or_else(|| refused(index, Refused::NoKey))
    }

    fn write(&self, t: u64, key: &Secret<32>) -> Result<()> {
        self.fill(self.index_of(t), &kek::encode(t, key, &self.vault)[..])
    }

    fn erase_all_but(&self, t: u64) -> Result<()> {
        let other = self.index_of(t ^ 1);
        match self.content(other)? {
            Some(bytes) if bytes.iter().any(|byte| *byte != 0) => self.fill(other, &[0; kek::LEN]),
            _ => Ok(()),
        }
    }
}

/// Even, so that two state folders share none.
fn is_usable(index: u32) -> bool {
    OWNERS.contains(&index) && index.is_multiple_of(2)
}

fn drawn(free: impl Fn(&u32) -> bool) -> Result<u32> {
    for _ in 0..DRAWS {
        let mut bytes = [0; 4];
        random::fill(&mut bytes)?;
        let index = OWNERS.start + ((u32::from_le_bytes(bytes) % (OWNERS.end - OWNERS.start)) & !1);
        if free(&index) {
            return Ok(index);
        }
    }
    Err(refused(OWNERS.start, Refused::Taken))
}

/// The NV indices that the TPM has.
fn defined() -> Result<Vec<u32>> {
    let said = tpm2_tools::run("tpm2_getcap", &["handles-nv-index"], None, &[])
        .map_err(|why| Error::Tpm { nv_index: None, why })?;
    let said = String::from_utf8_lossy(&said);
    let numbers =
        said.lines().filter_map(|line| line.trim_start_matches(['-', ' ']).trim().strip_prefix("0x"));
    Ok(numbers.filter_map(|hex| u32::from_str_radix(hex, 16).ok()).collect())
}

fn refused(index: u32, why: Refused) -> Error {
    Error::Tpm { nv_index: Some(index), why }
}
