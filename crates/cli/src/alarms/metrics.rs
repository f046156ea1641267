//! `--metrics`: Prometheus' text form, in a file for node_exporter's textfile collector, or at a socket. Runs go by their
//! ids.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};
use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::facts::{Facts, unix_seconds};
use super::metrics_socket::Socket;
use super::{Alarm, Kind, await_end};
use crate::args::MetricsTo;
use crate::sealing;

/// Labels and their values.
type Labels = Vec<(&'static str, String)>;

/// Where they are told; gone when this is dropped, so that a mount that has ended says nothing.
pub enum Metrics {
    File(Writer),
    Socket(Socket),
}

impl Metrics {
    /// # Errors
    /// The socket cannot be made; a thread could not be started.
    pub fn to(to: &MetricsTo) -> Result<Metrics> {
        Ok(match to {
            MetricsTo::File(file) => Metrics::File(Writer::of(file.clone())?),
            MetricsTo::Socket(path) => Metrics::Socket(Socket::at(path.clone())?),
        })
    }

    /// Whole or not at all, and without waiting for the file.
    pub fn write(&self, facts: &Facts, raised: &[Alarm], seals: u64) {
        match (text(facts, raised, seals), self) {
            (Ok(text), Metrics::File(file)) => file.put(text),
            (Ok(text), Metrics::Socket(socket)) => socket.put(&text),
            (Err(error), _) => log::warn!("metrics: {error:#}"),
        }
    }
}

/// Writes the file, in a thread of its own: alarms are not to wait for the file system on which it lies.
pub struct Writer {
    texts: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn of(file: PathBuf) -> Result<Writer> {
        let (texts, wanted) = sync_channel(1);
        let thread = Builder::new().name("metrics".into()).spawn(move || write_all(&file, &wanted))?;
        Ok(Writer { texts: Some(texts), thread: Some(thread) })
    }

    fn put(&self, text: String) {
        // Where the last one is not written yet, the next one will be.
        let _ = self.texts.as_ref().map(|texts| texts.try_send(text));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.texts.take();
        self.thread.take().into_iter().for_each(await_end);
    }
}

/// That it cannot be written is logged once.
fn write_all(file: &Path, texts: &Receiver<String>) {
    let mut said = String::new();
    for text in texts {
        let now = replace(file, &text).err().map(|error| format!("metrics: {error:#}")).unwrap_or_default();
        if now != said && !now.is_empty() {
            log::warn!("{now}");
        }
        said = now;
    }
    // Gone already is as good.
    let _ = std::fs::remove_file(file);
}

/// For all to read: there is no name in it. A collector takes what ends with `.prom` alone.
fn replace(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().context("a file lies in a folder")?;
    let mut made = tempfile::Builder::new()
        .prefix(".runvault-")
        .suffix(".tmp")
        .tempfile_in(folder)
        .with_context(|| folder.display().to_string())?;
    made.write_all(text.as_bytes())?;
    made.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
    made.persist(file).with_context(|| file.display().to_string())?;
    Ok(())
}

fn text(facts: &Facts, raised: &[Alarm], seals: u64) -> Result<String> {
    let mut registry = Registry::with_prefix("runvault");
    of_alarms(&mut registry, raised);
    of_runs(&mut registry, facts, seals);
    of_store(&mut registry, facts);
    of_clock(&mut registry, facts);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn of_alarms(registry: &mut Registry, raised: &[Alarm]) {
    let by_kind = Kind::ALL.map(|kind| {
        let count = raised.iter().filter(|alarm| alarm.kind == kind).count();
        (vec![("alarm", kind.word().to_owned())], whole(count as u64))
    });
    gauges(registry, "alarms", "Alarms that are raised", by_kind);
    let by_run = raised.iter().filter_map(|alarm| {
        let labels = vec![("alarm", alarm.kind.word().to_owned()), ("run", alarm.run?.to_string())];
        Some((labels, whole(unix_seconds(alarm.since).unsigned_abs())))
    });
    let help = "Since when an alarm about a run is raised, in seconds since 1970";
    gauges(registry, "run_alarm_timestamp_seconds", help, by_run);
}

fn of_runs(registry: &mut Registry, facts: &Facts, seals: u64) {
    let open = || facts.runs.iter().filter_map(|run| Some((run, run.state?)));
    let states = ["open", "draining", "complete", "silent"].map(|named| {
        let count = open().filter(|(_, state)| sealing::word(state) == named).count();
        (vec![("state", named.to_owned())], whole(count as u64))
    });
    gauges(registry, "open_runs", "Runs that this gateway holds and has not sealed", states);
    let of_each = |seconds: fn(&super::facts::Run) -> u64| {
        open().map(move |(run, _)| (vec![("run", run.run.to_string())], whole(seconds(run))))
    };
    let help = "Time since a run began";
    gauges(registry, "run_age_seconds", help, of_each(|run| run.age.as_secs()));
    let help = "Time since anything of a run was changed";
    gauges(registry, "run_quiet_seconds", help, of_each(|run| run.quiet.as_secs()));
    counter(registry, "seals", "Seals that this mount has made", seals);
}

fn of_store(registry: &mut Registry, facts: &Facts) {
    let store = &facts.store;
    counter(registry, "written_bytes", "Bytes that were written through the mount", store.written);
    counter(registry, "read_bytes", "Bytes that were read through the mount", store.read);
    counter(registry, "written_files", "Files that were written through the mount", store.files_written);
    gauge(registry, "open_files", "Files that are open in the mount", whole(store.open_files));
    gauge(registry, "store_size_bytes", "Size of the store's file system", whole(store.size));
    gauge(registry, "store_free_bytes", "Room in the store's file system", whole(store.available));
    let waited = store.health.waited.max(store.unanswered);
    let help = "The longest that a call into the store has lasted since the last time this was written";
    gauge(registry, "store_wait_seconds", help, waited.as_secs_f64());
    let help = "Whether requests are refused because the store does not answer";
    gauge(registry, "store_refusing", help, whole(u64::from(store.health.refusing)));
}

fn of_clock(registry: &mut Registry, facts: &Facts) {
    let clock = &facts.clock;
    let help = "Whether a time service keeps this machine's clock";
    gauge(registry, "clock_synchronised", help, whole(u64::from(clock.synchronised)));
    if let Some(ahead) = clock.store_ahead {
        let help = "By how much the store's clock is ahead of this machine's";
        gauge(registry, "store_clock_ahead_seconds", help, ahead as f64);
    }
    let help = "When this was written, in seconds since 1970";
    gauge(registry, "written_timestamp_seconds", help, whole(unix_seconds(clock.now).unsigned_abs()));
}

fn gauges(registry: &mut Registry, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
    let family = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(value);
    }
    registry.register(name, help, family);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    gauges(registry, name, help, [(Labels::new(), value)]);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}

/// Prometheus has no other numbers; exact up to 8 PiB.
fn whole(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use runvault_format::ids::RunId;
    use runvault_sequencer::completion::State;

    use super::super::facts::{Clock, Run, Store};
    use super::*;

    #[test]
    fn the_text_names_runs_by_their_ids() {
        let run = Run {
            run: RunId([7; 16]),
            addition: false,
            state: Some(State::Draining),
            age: Duration::from_secs(90_000),
            quiet: Duration::from_secs(60),
            lease_age: None,
            holder: None,
            trouble: None,
            missing: None,
            refused: None,
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let alarm = |kind, run: Option<RunId>| Alarm { kind, run, text: "Mueller".to_owned(), since: now };
        let facts = Facts {
            revoked: false,
            store: Store { written: 5, size: 1 << 40, ..Store::default() },
            clock: Clock { now, synchronised: true, jumped: None, store_ahead: Some(-2) },
            runs: vec![run],
        };
        let raised = [alarm(Kind::Stuck, Some(RunId([7; 16]))), alarm(Kind::Slow, None)];
        let text = text(&facts, &raised, 3).unwrap();
        let id = "07".repeat(16);
        for line in [
            "# TYPE runvault_alarms gauge".to_owned(),
            "runvault_alarms{alarm=\"stuck\"} 1.0".to_owned(),
            "runvault_alarms{alarm=\"clock\"} 0.0".to_owned(),
            format!("runvault_run_alarm_timestamp_seconds{{alarm=\"stuck\",run=\"{id}\"}} 1800000000.0"),
            "runvault_open_runs{state=\"draining\"} 1.0".to_owned(),
            format!("runvault_run_quiet_seconds{{run=\"{id}\"}} 60.0"),
            "runvault_written_bytes_total 5".to_owned(),
            "runvault_seals_total 3".to_owned(),
            "runvault_store_size_bytes 1099511627776.0".to_owned(),
            "runvault_store_clock_ahead_seconds -2.0".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("Mueller"), "{text}");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_goes_with_the_mount() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("runvault.prom");
        let metrics = Metrics::to(&MetricsTo::File(file.clone())).unwrap();
        for text in ["a 1\n", "b 2\n"] {
            replace(&file, text).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        }
        drop(metrics);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(replace(&folder.path().join("none/x.prom"), "").is_err());
    }
}
