//! `unmount`: asks the process that serves the mount, and waits until it has gone.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::args::Unmount;
use crate::control::{Client, Silent, deadline, unmount_request};
use crate::exit::{Exit, refuse, refuse_with};
use crate::mount_point::{self, Unmounted, absolute};
use crate::mount_table::{self, Elsewhere, Entry};
use crate::output::{self, quoted, shown};

/// A mount that is in the table may not listen yet.
const COMING: Duration = Duration::from_secs(2);
/// What begins just now in a mount namespace of its own takes no mount along for longer.
const COPIED: Duration = Duration::from_secs(10);
/// Who uses a mount may just be leaving it.
const LEAVING: Duration = Duration::from_secs(1);

pub fn run(args: &Unmount) -> Result<()> {
    let entry = find(args)?;
    let until = deadline(Duration::from_secs(args.timeout));
    match ask(&entry, until) {
        Ok(Some((client, first))) => by_its_process(&entry, client, &first, args.timeout),
        Ok(None) => alone(&entry),
        Err(silent) => Err(stuck(&entry, &silent, args.timeout)),
    }?;
    tell(args, &entry.at)
}

/// What stays of it: a gateway's mount point is closed for whoever would write there without a vault.
fn tell(args: &Unmount, at: &Path) -> Result<()> {
    let opened = mount_point::opened_by(at);
    if args.json {
        return output::json(&json!({
            "mount_point": at.to_string_lossy(), "stays_closed": opened.is_some(), "opened_by": opened,
        }));
    }
    if let Some(command) = opened {
        output::note(&format!(
            "{} stays closed to writers while no vault is mounted there; the next mount works as before. What opens it:",
            shown(at)
        ));
        output::advice(&command);
    }
    Ok(())
}

fn find(args: &Unmount) -> Result<Entry> {
    let name = shown(&args.mount_point);
    let direct = mount_table::at(&absolute(&args.mount_point)?)?;
    let entry = match direct {
        Some(entry) => Some(entry),
        None => mount_table::at(&args.mount_point.canonicalize().unwrap_or_default())?,
    };
    entry.filter(Entry::is_vault).ok_or_else(|| {
        refuse_with(
            Exit::Usage,
            format!("{name}: no vault is mounted there"),
            "runvault status lists the mounts",
        )
    })
}

/// The process that serves the mount, and what it answered; `None` where nobody does.
fn ask(entry: &Entry, until: Option<Instant>) -> Result<Option<(Client, Value)>, Silent> {
    let request = unmount_request(&entry.at);
    let (listens_by, left_by) = (Instant::now() + COMING, Instant::now() + LEAVING);
    loop {
        match Client::ask_mount(entry, &request, until).map_err(anyhow::Error::downcast) {
            Ok((_, answer)) if is_busy(&answer) && Instant::now() < left_by => {
                sleep(Duration::from_millis(50))
            }
            Ok(asked) => return Ok(Some(asked)),
            Err(Ok(silent)) => return Err(silent),
            Err(Err(_)) if is_dead(entry) || Instant::now() > listens_by => return Ok(None),
            Err(Err(_)) => sleep(Duration::from_millis(20)),
        }
    }
}

/// The kernel's own word for a FUSE mount whose process has gone.
fn is_dead(entry: &Entry) -> bool {
    std::fs::metadata(&entry.at).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN))
}

fn by_its_process(entry: &Entry, mut client: Client, first: &Value, limit: u64) -> Result<()> {
    if is_busy(first) {
        return Err(busy(entry));
    }
    refuse_error(first)?;
    if !client.answers_within(COPIED)
        && let Some(copy) = mount_table::elsewhere(entry).first()
    {
        return Err(copied(entry, copy, &client));
    }
    until_closed(&mut client).map_err(|error| match error.downcast() {
        Ok(silent) => still_closing(entry, &silent, limit),
        Err(error) => error,
    })?;
    if let Some((pid, fd)) = client.process.take() {
        wait_gone(pid, &fd)?;
    }
    Ok(())
}

fn until_closed(client: &mut Client) -> Result<()> {
    let last =
        client.next()?.context("the mount's process ended before it said that everything is durable")?;
    refuse_error(&last)?;
    // Its end closes the connection; then the process itself is gone within moments.
    while client.next()?.is_some() {}
    Ok(())
}

fn stuck(entry: &Entry, silent: &Silent, limit: u64) -> anyhow::Error {
    let (at, pid) = (shown(&entry.at), silent.pid);
    refuse_with(
        Exit::Busy,
        format!(
            "{at}: process {pid}, which serves this mount, has not answered for {limit} s; it is still mounted"
        ),
        format!(
            "is it stopped (state T)? ps -o pid,stat,cmd -p {pid}; it goes on, and unmounts, after: kill -CONT {pid}\n\
             A store that does not answer can hold it too. As a last resort, which loses what is not yet durable:\n\
             kill -9 {pid}, then runvault unmount {}",
            quoted(&entry.at)
        ),
    )
}

fn still_closing(entry: &Entry, silent: &Silent, limit: u64) -> anyhow::Error {
    let (at, pid) = (shown(&entry.at), silent.pid);
    refuse_with(
        Exit::Busy,
        format!("{at} is unmounted, but process {pid} has not made everything durable within {limit} s"),
        format!("it goes on; the store is complete when it has ended: tail --pid={pid} -f /dev/null"),
    )
}

/// A file system ends when it is mounted nowhere.
fn copied(entry: &Entry, copy: &Elsewhere, client: &Client) -> anyhow::Error {
    let Elsewhere { pid, at } = copy;
    let what = format!(
        "{} is unmounted, but process {pid} has it mounted at {} still, in a mount namespace of its own, as a container \
         has: it is served until that is gone too",
        shown(&entry.at),
        shown(at)
    );
    let mut advice = format!("take it away there: nsenter -m -t {pid} umount {}", quoted(at));
    if let Some((server, _)) = &client.process {
        let server = server.as_raw_nonzero();
        advice += &format!("\nor end it for whoever uses it there, once all is durable: kill {server}");
    }
    refuse_with(Exit::Busy, what, advice)
}

fn wait_gone(pid: Pid, fd: &rustix::fd::OwnedFd) -> Result<()> {
    let mut watched = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
    match rustix::event::poll(&mut watched, Some(&limit))? {
        0 => Err(refuse(
            Exit::Failed,
            format!("unmounted and durable, but process {} does not end", pid.as_raw_nonzero()),
        )),
        _ => Ok(()),
    }
}

fn refuse_error(answer: &Value) -> Result<()> {
    match answer.get("error").and_then(Value::as_str) {
        Some(why) => Err(refuse(Exit::Failed, why)),
        None => Ok(()),
    }
}

fn is_busy(answer: &Value) -> bool {
    answer.get("busy").is_some()
}

fn busy(entry: &Entry) -> anyhow::Error {
    let at = shown(&entry.at);
    refuse_with(
        Exit::Busy,
        format!("{at} is in use"),
        format!("who uses it: fuser -vm {}", quoted(&entry.at)),
    )
}

/// Nobody listens: the process is gone, hung, or runs in another namespace. Of one that lives it is not known
/// when everything is durable.
fn alone(entry: &Entry) -> Result<()> {
    let dead = is_dead(entry);
    match mount_point::unmount(&entry.at)? {
        Unmounted::Done if dead => Ok(()),
        Unmounted::Done => Err(refuse_with(
            Exit::Failed,
            format!("{} is unmounted, but the process that served it could not be asked", shown(&entry.at)),
            "what was written is durable when that process has ended: pgrep -a runvault",
        )),
        Unmounted::InUse => Err(busy(entry)),
    }
}
