//! `mount`: the store and its key opened, the engine under FUSE, until someone ends it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::thread::Builder;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use runvault_fuse::{MountOptions, Session};
use runvault_sequencer::completion::Patience;
use runvault_vault::pace;
use runvault_vault::{Options as VaultOptions, Vault};

use crate::alarms::{Alarms, Limits, Metrics, Post, Program, Wish};
use crate::args::{MetricsTo, Mount, SealWhen};
use crate::daemon::{self, Readiness, Side};
use crate::exit::{self, Exit, refuse};
use crate::log::{Target, start as start_log};
use crate::mount_options::{Options, resolve};
use crate::mounted::{Ending, Failure, Mounted};
use crate::output::{shown, warn};
use crate::sealer::Sealer;
use crate::store::{Open, Store, count_newer, require_gateway};
use crate::{fuse_ready, left_out, memory, mount_point, mount_table, panics, service, signals, store_ended};

/// Threads of the FUSE session: several, since one may hang on a store that does not answer.
const THREADS: usize = 16;
/// A call that the store has not answered for so long ends with EIO.
const STUCK: Duration = Duration::from_secs(45);
/// How long whoever mounts waits to be told which runs are left out.
const AT_ONCE: Duration = Duration::from_millis(300);
/// How long its threads may take to end, once it has.
const LETTING_GO: Duration = Duration::from_secs(2);
/// A turn of who waits for as long as it takes.
const WAIT: Duration = Duration::from_secs(60);
/// Names that the kernel may have us keep.
const MAX_NODES: u64 = 1_000_000;

/// Mounts; in the background unless told otherwise. `fake` ends after the checks that need no key.
pub fn run(args: &Mount, fake: bool) -> Result<ExitCode> {
    let mut options = resolve(args)?;
    let (at, store) = mount_point::check(&args.mount_point, &args.store)?;
    fuse_ready::check(options.allow_other)?;
    make_absolute(&mut options, &at, &store)?;
    if fake {
        return Ok(Exit::Done.into());
    }
    if args.foreground {
        return serve(options, &at, &store, None).map(|()| Exit::Done.into());
    }
    match daemon::split()? {
        Side::Parent(code) => Ok(code),
        Side::Child(ready) => serve(options, &at, &store, Some(ready)).map(|()| Exit::Done.into()),
    }
}

/// The process leaves its directory, so no path may depend on it; the state folder lies neither below the
/// mount nor where the ciphertext goes.
fn make_absolute(options: &mut Options, at: &Path, store: &Path) -> Result<()> {
    let who = &mut options.mount.who;
    let state = crate::store::state_folder(who.state.as_deref())?;
    for (place, what) in [(at, "mount point"), (store, "store")] {
        if state.starts_with(place) {
            let text = format!("the state folder {} is inside the {what}: it holds keys", shown(&state));
            return Err(refuse(Exit::Usage, text));
        }
    }
    who.state = Some(state);
    let alarms = &mut options.mount.alarms;
    let metrics = alarms.metrics.as_mut().map(MetricsTo::path_mut);
    let paths =
        [&mut who.identity, &mut who.unlock.passphrase_file, &mut who.apart.custody, &mut alarms.exec];
    for path in paths.into_iter().flatten().chain(metrics) {
        *path = mount_point::absolute(path)?;
    }
    if let Some(program) = &alarms.exec {
        Program::at(program)?;
    }
    // In the mount it would wait for the mount; in the store metrics lie open among ciphertext, and a program is that of
    // whoever may write there.
    let metrics = alarms.metrics.as_ref().map(MetricsTo::path);
    for (option, file) in [("--metrics", metrics), ("--exec", alarms.exec.as_ref())] {
        let Some(file) = file else { continue };
        let folder = file.parent().and_then(|folder| folder.canonicalize().ok());
        let real = |place: &Path| place.canonicalize().unwrap_or_else(|_| place.to_owned());
        let within = |place: &Path| {
            file.starts_with(place) || folder.as_ref().is_some_and(|folder| folder.starts_with(real(place)))
        };
        if within(at) || within(store) {
            let text = format!("{option} {}: it lies in the store or the mount point", shown(file));
            return Err(refuse(Exit::Usage, text));
        }
    }
    Ok(())
}

fn serve(mut options: Options, at: &Path, path: &Path, ready: Option<Readiness>) -> Result<()> {
    let log = Target::of(options.mount.log.as_deref());
    if ready.is_some() && log == Target::Stderr {
        warn(
            "--log stderr without -f: what this mount tells from the background is lost; --log FILE keeps it",
        );
    }
    memory::few_heaps();
    start_log(&log)?;
    if options.mount.ingest {
        require_gateway(path, &options.mount.who)?;
    }
    pace::limit_mib(options.mount.seal_limit);
    raise_file_limit();
    let mut store = Store::open(path, &options.mount.who)?;
    options.acts_for(store.is_readers(&options.mount.who)?)?;
    let options = &options;
    let open = open(&mut store, options)?;
    look_through(&open)?;
    memory::warn_of_unlocked();
    std::env::set_current_dir("/").context("leave the directory")?;
    let ending = Arc::new(Ending::default());
    let asked = Arc::clone(&ending);
    signals::on_first(move |signal| {
        log::info!("{signal}: flushing and unmounting");
        asked.ask();
    })?;
    let failing = Arc::clone(&ending);
    panics::on_lost_thread(move || failing.fail(Failure::Bug));
    let state = open.folder.as_ref().map(|_| store.state_of_vault());
    let alarms = Arc::new(Alarms::of(state.as_deref()));
    let sealer = sealer(&options.mount, path, &open, &alarms)?;
    let post = post(&options.mount, path, &open, &alarms, &ending)?;
    let served = Mounted::new(at, path, &store, &open, patience(&options.mount), &alarms);
    let mounted = mount(options, at, path, &store, &open)
        .and_then(|session| ending.watch(session))
        .and_then(|()| erase_kept_keys(&open))
        .and_then(|()| {
            store_ended::watch(path, &options.mount.who.apart, store.chain.vault_id(), &open.vault, &ending)
        })
        .and_then(|()| announce(&served, at, &open, &store, ready));
    match mounted {
        Ok(()) => ending.wait(),
        Err(_) => ending.ask(),
    }
    drop(post);
    drop(sealer);
    let ended = ending.outcome();
    let how = if ended.is_ok() { "unmounted" } else { "gave up" };
    let vault = Arc::downgrade(&open.vault);
    let closed = finish(&served, at, open, how);
    drop(served);
    if ended.is_ok() {
        await_its_end(&vault);
    }
    // Why it gave up is also why it could not be closed.
    ended.and(closed).and(mounted)
}

/// Threads that looked after the mount let go of the vault one after the other: its keys are wiped when the last one
/// does.
fn await_its_end(vault: &Weak<Vault>) {
    let since = Instant::now();
    while vault.strong_count() > 0 && since.elapsed() < LETTING_GO {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Who seals runs by themselves: a gateway's mount, unless it was told not to.
fn sealer(mount: &Mount, store: &Path, open: &Open, alarms: &Arc<Alarms>) -> Result<Option<Sealer>> {
    if !mount.ingest || mount.seal == Some(SealWhen::Hand) {
        return Ok(None);
    }
    Sealer::start(&open.vault, store, patience(mount), alarms).map(Some)
}

/// Who calls for a person: a gateway's mount, which nobody watches.
fn post(
    mount: &Mount,
    store: &Path,
    open: &Open,
    alarms: &Arc<Alarms>,
    ending: &Arc<Ending>,
) -> Result<Option<Post>> {
    if !mount.ingest {
        return Ok(None);
    }
    let asked = &mount.alarms;
    let wish = Wish {
        limits: limits(mount),
        program: asked.exec.as_deref().map(Program::at).transpose()?.map(|p| p.within(asked.exec_limit)),
        metrics: asked.metrics.as_ref().map(Metrics::to).transpose()?,
    };
    let ending = Arc::clone(ending);
    Post::start(&open.vault, store, wish, alarms, move || ending.health()).map(Some)
}

fn limits(mount: &Mount) -> Limits {
    let (asked, usual) = (&mount.alarms, Limits::usual(patience(mount)));
    Limits {
        unsealed: asked.alarm_unsealed.unwrap_or(usual.unsealed),
        stuck: asked.alarm_stuck.unwrap_or(usual.stuck),
        lease: asked.alarm_lease.unwrap_or(usual.lease),
        slow: asked.alarm_slow.unwrap_or(usual.slow),
        free: asked.alarm_free.unwrap_or(usual.free),
        full: asked.alarm_full.unwrap_or(usual.full),
        clock: asked.alarm_clock.unwrap_or(usual.clock),
        patience: usual.patience,
    }
}

fn patience(mount: &Mount) -> Patience {
    let usual = Patience::default();
    Patience {
        quiet: mount.quiet.unwrap_or(usual.quiet),
        drained: mount.drained.unwrap_or(usual.drained),
        abandoned: mount.abandoned.unwrap_or(usual.abandoned),
    }
}

fn open(store: &mut Store, options: &Options) -> Result<Open> {
    let engine = VaultOptions {
        run_depth: options.mount.run_depth.unwrap_or(1),
        owner: options.owner,
        sealed_only: options.read_only && !options.mount.open,
        in_background: true,
        ..VaultOptions::default()
    };
    if options.read_only {
        store.read(&options.mount.who, engine)
    } else if options.mount.ingest {
        store.ingest(engine, !options.mount.no_resume_key)
    } else {
        store.write(&options.mount.who, engine)
    }
}

fn mount(options: &Options, at: &Path, path: &Path, store: &Store, open: &Open) -> Result<Session> {
    let ingest = options.mount.ingest;
    let mut kernel = options.kernel.clone();
    if options.read_only {
        kernel.push("ro".to_owned());
    }
    let options = MountOptions {
        source: path.to_string_lossy().into_owned(),
        allow_other: options.allow_other,
        options: kernel,
        threads: THREADS,
        local_store: open.vault.store_is_local(),
        stuck_after: STUCK,
        max_nodes: options.mount.max_nodes.unwrap_or(MAX_NODES),
    };
    let _turn = mount_point::turn(at)?;
    if ingest {
        mount_point::close_bare(at);
    }
    let session = Session::mount(Arc::clone(&open.vault), at, &options)
        .with_context(|| format!("mount vault {} at {}", store.chain.vault_id(), shown(at)))?;
    Ok(session)
}

/// With `--no-resume-key`, once it is mounted: a mount that fails closes no run.
fn erase_kept_keys(open: &Open) -> Result<()> {
    open.folder.as_ref().map_or(Ok(()), |folder| Ok(folder.erase_kept_keys()?))
}

/// Tells everyone who waits for the mount.
fn announce(
    served: &Arc<Mounted>,
    at: &Path,
    open: &Open,
    store: &Store,
    ready: Option<Readiness>,
) -> Result<()> {
    if let Some(folder) = &open.folder {
        folder.note_mountpoint(at)?;
    }
    let state = open.folder.as_ref().map(|_| store.state_of_vault());
    served.listen(state.as_deref(), mount_table::at(at)?.map(|entry| entry.device).as_deref());
    log::info!("vault {} mounted at {}", store.chain.vault_id(), at.display());
    service::ready(&format!("mounted at {}", at.display()));
    ready.map_or(Ok(()), Readiness::tell)?;
    Ok(())
}

/// What takes the longer the more runs there are, beside the mount; who mounts is told of it where it is soon done.
fn look_through(open: &Open) -> Result<()> {
    let (vault, folder) = (Arc::clone(&open.vault), open.folder.clone());
    let (told, tell) = channel();
    Builder::new().name("look-through".into()).spawn(move || {
        if let Some(folder) = &folder {
            count_newer(folder);
        }
        // Nobody may be waiting any more.
        let _ = told.send(());
        while !vault.await_runs(WAIT) {
            if vault.is_closed() {
                return;
            }
        }
        tell_lost(&vault);
        let open = left_out::open_runs(&vault);
        for text in open.as_deref().into_iter().chain(left_out::outside_runs(&vault)) {
            log::info!("{text}");
        }
    })?;
    let since = Instant::now();
    let _ = tell.recv_timeout(AT_ONCE);
    if open.vault.await_runs(AT_ONCE.saturating_sub(since.elapsed())) {
        left_out::warn_all(&open.vault);
    }
    Ok(())
}

/// What this machine wrote and can no longer.
fn tell_lost(vault: &Vault) {
    for run in vault.lost_runs() {
        log::warn!(
            "run {run} is closed: no key of it was kept here. Its owner reads it as it was left; what is written under \
             its name from now on is another run. To go on with it, or bring in order what was cut short: runvault takeover"
        );
    }
}

/// It has ended: everything durable, then whoever waits is told.
fn finish(served: &Mounted, at: &Path, open: Open, how: &str) -> Result<()> {
    served.gone();
    service::stopping();
    let closed = open.close();
    match &closed {
        Ok(()) => log::info!("{how} {}: everything is durable", at.display()),
        Err(error) => log::error!("{how} {}, but: {}", at.display(), exit::chain(error)),
    }
    served.closed(&closed);
    closed
}

/// Directories of the store stay open while they are in use; the soft limit is made for programs that
/// call select(2).
fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    // A lower limit works too: less is kept open then.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
}
