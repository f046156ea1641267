//! `doctor`: what would spoil a run, looked at before it begins.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use runvault_crypto::random;
use runvault_crypto::secrets::{Secret, memory_locked};
use runvault_custody::Error as Custody;
use runvault_custody::gateway::StateFolder;
use serde_json::json;

use crate::args::Doctor;
use crate::clock::{self, BUILT};
use crate::exit::{self, Exit, refuse};
use crate::given::with_store;
use crate::hint::hint;
use crate::output::{self, count, size, utc};
use crate::store::Store;
use crate::{fuse_ready, progress};

/// What is written to measure the store, in pieces of 1 MiB.
const PIECES: u64 = 128;
const PIECE: usize = 1 << 20;
/// How often a small write is waited for.
const SYNCS: usize = 16;
/// Two flow cells of a NovaSeq X send 77 MB/s in the mean (Illumina's own figures); what is slower than twice that
/// shows at the instrument.
const SLOW: u64 = 150_000_000;
/// A write that takes longer to be durable slows instruments that wait for each file.
const LATE: Duration = Duration::from_millis(100);
/// Clocks that differ by more make times of files useless.
const CLOCKS: u64 = 5;
/// Files of a large run of many small ones.
const FILES: u64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    Warning,
    Bad,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
struct Finding {
    about: &'static str,
    verdict: Verdict,
    what: String,
    way_out: Option<String>,
}

fn good(about: &'static str, what: impl Into<String>) -> Finding {
    Finding { about, verdict: Verdict::Good, what: what.into(), way_out: None }
}

fn warning(about: &'static str, what: impl Into<String>, way_out: impl Into<String>) -> Finding {
    Finding { about, verdict: Verdict::Warning, what: what.into(), way_out: Some(way_out.into()) }
}

fn bad(about: &'static str, what: impl Into<String>, way_out: impl Into<String>) -> Finding {
    Finding { about, verdict: Verdict::Bad, what: what.into(), way_out: Some(way_out.into()) }
}

pub fn run(args: &Doctor) -> Result<()> {
    // What is no vault, or older than it was, is told as everywhere.
    let store = Store::open(&args.store, &args.who)?;
    let mut findings = vec![
        good("fingerprint", format!("vault {}, {}", store.chain.vault_id(), store.chain.words())),
        gateway(&store),
        gateway_key(&store),
        space(&store, args.need)?,
    ];
    findings.extend(writing(&args.store));
    findings.extend([clock(), swap(), memory(), store_mode(&args.store), state_mode(&store), mounting()]);
    for finding in &findings {
        tell(args.json, finding)?;
    }
    let of = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count() as u64;
    match of(Verdict::Bad) {
        0 => Ok(()),
        n => Err(refuse(Exit::Failed, format!("{} in the way of a run", count(n, "thing")))),
    }
}

fn tell(json: bool, finding: &Finding) -> Result<()> {
    let Finding { about, verdict, what, way_out } = finding;
    if json {
        let verdict = verdict.word();
        return output::json(
            &json!({ "about": about, "verdict": verdict, "what": what, "way_out": way_out }),
        );
    }
    output::line(&format!("{:<8} {about}: {}", verdict.word(), output::visible(what.as_bytes())))?;
    let mut lines = way_out.iter().flat_map(|way_out| way_out.lines());
    lines.try_for_each(|line| output::line(&format!("         {}", output::visible(line.as_bytes()))))
}

fn gateway(store: &Store) -> Finding {
    let (vault, about) = (store.chain.vault_id(), "gateway");
    // Never the fingerprint that this store gives of itself.
    let (path, acts) = (store.typed(), store.acts());
    let (out, then) = match acts.alone() {
        true => ("", String::new()),
        false => (" --out FILE", format!(", then {}", acts.command("enroll-gateway", "FILE"))),
    };
    let enroll = format!(
        "runvault gateway enroll {path} --fingerprint F{out} (as it was written down when the vault was made){then}"
    );
    if !StateFolder::is_made(&store.state, vault) {
        let others = StateFolder::vaults(&store.state);
        if others.is_empty() {
            return warning(
                about,
                "this machine is not enrolled: it mounts with the owner's key alone",
                enroll,
            );
        }
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        let what = format!("this machine writes for vault {}, not for this one", others.join(", "));
        return bad(about, what, "mount the store that is meant, or enrol this machine here");
    }
    let enrolled = match StateFolder::open(&store.state, vault) {
        Ok(folder) => folder.require_enrolled(&store.chain).map(|()| "this machine is enrolled".to_owned()),
        Err(Custody::Busy { pid, mountpoint }) => {
            let at = mountpoint.map(|at| format!(" at {}", output::shown(&at))).unwrap_or_default();
            let says = format!("enrolled, and in use by process {pid}{at}");
            StateFolder::require_enrolled_in_use(&store.state, &store.chain).map(|()| says)
        }
        Err(error) => Err(error),
    };
    match enrolled {
        Ok(says) => good(about, says),
        Err(error) => {
            let error = anyhow::Error::from(error);
            bad(about, exit::chain(&error), with_store(&hint(&error).unwrap_or_default()))
        }
    }
}

/// That a TPM answers, [`gateway`] has seen.
fn gateway_key(store: &Store) -> Finding {
    let about = "gateway key";
    match StateFolder::kek_home_of(&store.state, store.chain.vault_id()) {
        Ok(Some(home)) => good(about, format!("in {home}")),
        Ok(None) => good(about, "in a file of the state folder, once it is made"),
        Err(error) => {
            let error = anyhow::Error::from(error);
            bad(about, exit::chain(&error), with_store(&hint(&error).unwrap_or_default()))
        }
    }
}

fn space(store: &Store, need: Option<u64>) -> Result<Finding> {
    let (about, space) = ("space", store.root.space()?);
    let available = space.available.saturating_mul(space.block);
    let all = space.blocks.saturating_mul(space.block);
    let what = format!("{} of {} free", size(available), size(all));
    let way_out = "move sealed runs to other storage, or take a larger store";
    if let Some(need) = need.map(|gib| gib.saturating_mul(1 << 30))
        && available < need
    {
        return Ok(bad(about, format!("{what}, {} asked for", size(need)), way_out));
    }
    // Some file systems do not count files.
    if space.files > 0 && space.files_free < FILES {
        return Ok(warning(about, format!("{what}, and no more than {} files", space.files_free), way_out));
    }
    let short = need.is_none() && available < all / 20;
    Ok(if short { warning(about, what, way_out) } else { good(about, what) })
}

/// Speed, and the store's clock: by a file that has no name, so that nothing is left.
fn writing(store: &Path) -> Vec<Finding> {
    let about = "write speed";
    let measured = unnamed(store).and_then(|mut file| {
        let bar = progress::bytes(PIECES * PIECE as u64, "measure");
        let measured = measure(&mut file, &bar);
        bar.finish_and_clear();
        measured
    });
    let (rate, sync, modified) = match measured {
        Ok(measured) => measured,
        Err(error) => {
            let what = format!("the store cannot be written: {error}");
            return vec![bad(about, what, "its permissions, its mount options, its space")];
        }
    };
    let what =
        format!("{}/s, and {:.1} ms until a small write is durable", size(rate), sync.as_secs_f64() * 1e3);
    let speed = if rate < SLOW || sync > LATE {
        warning(
            about,
            what,
            "a NovaSeq X with two flow cells wants 150 MB/s: a faster disk, or line to the share",
        )
    } else {
        good(about, what)
    };
    vec![speed, store_clock(modified)]
}

fn unnamed(store: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true);
    match options.clone().custom_flags(libc::O_TMPFILE).open(store) {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) =>
        {
            let path = store.join(format!(".tmp-doctor-{}", std::process::id()));
            let file = options.create_new(true).mode(0o600).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        other => other,
    }
}

/// Bytes a second, the median of small writes, and the time that the store gives the file.
fn measure(file: &mut File, bar: &indicatif::ProgressBar) -> std::io::Result<(u64, Duration, SystemTime)> {
    let mut piece = vec![0; PIECE];
    // Nothing that compresses.
    random::fill(&mut piece).map_err(std::io::Error::other)?;
    let begun = Instant::now();
    for _ in 0..PIECES {
        file.write_all(&piece)?;
        bar.inc(PIECE as u64);
    }
    file.sync_data()?;
    let rate = (PIECES * PIECE as u64) as f64 / begun.elapsed().as_secs_f64().max(1e-6);
    let mut syncs = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&piece[..4096])?;
        file.sync_data()?;
        syncs.push(begun.elapsed());
    }
    syncs.sort_unstable();
    Ok((rate as u64, syncs[SYNCS / 2], file.metadata()?.modified()?))
}

fn store_clock(modified: SystemTime) -> Finding {
    let about = "store's clock";
    let now = SystemTime::now();
    let apart = now.duration_since(modified).unwrap_or_else(|earlier| earlier.duration()).as_secs();
    if apart <= CLOCKS {
        return good(about, "agrees with this machine's");
    }
    warning(
        about,
        format!("{apart} s apart from this machine's"),
        "set the clock of whatever serves the store",
    )
}

fn clock() -> Finding {
    let about = "clock";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let shown = utc(i64::try_from(now).unwrap_or(0));
    if now < BUILT {
        let way_out = "set it: runs, leases and seals bear its time";
        return bad(about, format!("{shown}: older than this program"), way_out);
    }
    if clock::is_synchronised() {
        good(about, format!("{shown}, synchronised"))
    } else {
        warning(
            about,
            format!("{shown}, not synchronised"),
            "run a time service: chrony or systemd-timesyncd",
        )
    }
}

fn swap() -> Finding {
    let about = "swap";
    let text = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let plain: Vec<&str> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|device| !is_safe_swap(device))
        .collect();
    if plain.is_empty() {
        return good(about, "none that is not encrypted");
    }
    let what = format!("{} is not encrypted: plaintext of a run may be written there", plain.join(", "));
    warning(about, what, "swapoff, or encrypt it with a random key: crypttab(5), option swap")
}

/// zram is memory; dm-crypt is encrypted.
fn is_safe_swap(device: &str) -> bool {
    let real = std::fs::canonicalize(device).unwrap_or_else(|_| device.into());
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let uuid = std::fs::read_to_string(format!("/sys/class/block/{name}/dm/uuid")).unwrap_or_default();
    name.starts_with("zram") || uuid.starts_with("CRYPT-")
}

fn memory() -> Finding {
    let about = "memory";
    // The first secret tells whether its pages can be locked.
    let probed = Secret::<32>::random().is_ok();
    if probed && memory_locked() {
        return good(about, "keys are kept from swap and core dumps");
    }
    warning(
        about,
        "keys cannot be locked in memory",
        "raise the limit: ulimit -l, or LimitMEMLOCK= in the unit",
    )
}

fn store_mode(store: &Path) -> Finding {
    let about = "store's mode";
    match std::fs::metadata(store) {
        Ok(meta) if meta.mode() & 0o022 == 0 => {
            good(about, format!("{:04o}, of user {}", meta.mode() & 0o7777, meta.uid()))
        }
        Ok(meta) => {
            let what = format!("{:04o}: others can remove what is there", meta.mode() & 0o7777);
            warning(about, what, format!("chmod go-w {}", output::quoted(store)))
        }
        Err(error) => bad(about, error.to_string(), "look what lies there"),
    }
}

fn state_mode(store: &Store) -> Finding {
    let (about, path) = ("state folder", store.state_of_vault());
    let shown = output::shown(&path);
    match std::fs::metadata(&path) {
        Ok(meta) if meta.uid() != rustix::process::geteuid().as_raw() => {
            bad(about, format!("{shown} is of user {}", meta.uid()), "run as that user, or give it --state")
        }
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            let what = format!("{shown} has mode {:04o}: it holds this machine's keys", meta.mode() & 0o7777);
            bad(about, what, format!("chmod 0700 {}", output::quoted(&path)))
        }
        Ok(_) => good(about, format!("{shown}, for this user alone")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bad(about, format!("{shown} cannot be made"), "name another folder with --state, or make room")
        }
        Err(error) => bad(about, format!("{shown}: {error}"), "another user's, or a broken disk?"),
    }
}

fn mounting() -> Finding {
    match fuse_ready::check(false) {
        Ok(()) => good("mounting", "FUSE is there"),
        Err(error) => {
            let error = anyhow::Error::from(error);
            bad(
                "mounting",
                exit::chain(&error),
                "apt-get install fuse3; modprobe fuse; in a container: --device /dev/fuse",
            )
        }
    }
}
