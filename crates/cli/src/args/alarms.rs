//! Options of `mount` about alarms.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};

/// Where metrics go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsTo {
    File(PathBuf),
    Socket(PathBuf),
}

impl From<OsString> for MetricsTo {
    fn from(text: OsString) -> Self {
        match text.as_bytes().strip_prefix(b"unix:") {
            Some(path) => Self::Socket(PathBuf::from(OsStr::from_bytes(path))),
            None => Self::File(PathBuf::from(text)),
        }
    }
}

impl MetricsTo {
    pub fn path(&self) -> &PathBuf {
        let (Self::File(path) | Self::Socket(path)) = self;
        path
    }

    pub fn path_mut(&mut self) -> &mut PathBuf {
        let (Self::File(path) | Self::Socket(path)) = self;
        path
    }
}

/// When a gateway's mount calls for a person, and how.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Alarms, with --ingest")]
pub struct Alarms {
    /// A program that is run for each alarm that is raised or cleared: without arguments, one at a time, for 30 s at
    /// most. What it is told is in its environment: RUNVAULT_ALARM (its name), RUNVAULT_ALARM_STATE (raised, cleared),
    /// RUNVAULT_ALARM_TEXT, RUNVAULT_ALARM_SINCE and, of a run, RUNVAULT_ALARM_RUN (its id) and RUNVAULT_ALARM_NAME.
    /// Only the last one reveals a run's name, while the run is open here: logs, metrics and the other variables have its id
    #[arg(long, value_name = "PROGRAM", requires = "ingest", value_hint = ValueHint::ExecutablePath)]
    pub exec: Option<PathBuf>,
    /// How long it may run (for tests)
    #[arg(long, value_name = "TIME", requires = "exec", hide = true, value_parser = humantime::parse_duration)]
    pub exec_limit: Option<Duration>,
    /// Write metrics there every 10 s, as node_exporter's textfile collector reads them (a name that ends with .prom), or,
    /// with unix:PATH, tell them to whoever connects to that socket. Runs go by their ids
    #[arg(long, value_name = "FILE|unix:PATH", requires = "ingest", value_hint = ValueHint::FilePath,
        value_parser = OsStringValueParser::new().map(MetricsTo::from))]
    pub metrics: Option<MetricsTo>,
    /// unsealed: a run that began so long ago is not sealed [default: 96h]
    #[arg(long, value_name = "TIME", requires = "ingest", value_parser = humantime::parse_duration)]
    pub alarm_unsealed: Option<Duration>,
    /// stuck: nothing was written to a run for so long, and longer than --drained and --quiet wait [default: 4h]
    #[arg(long, value_name = "TIME", requires = "ingest", value_parser = humantime::parse_duration)]
    pub alarm_stuck: Option<Duration>,
    /// lease: a run's could not be renewed, or is another's, for so long [default: 5m]
    #[arg(long, value_name = "TIME", requires = "ingest", value_parser = humantime::parse_duration)]
    pub alarm_lease: Option<Duration>,
    /// slow: a call into the store has lasted so long; after 45 s programs get errors [default: 15s]
    #[arg(long, value_name = "TIME", requires = "ingest", value_parser = humantime::parse_duration)]
    pub alarm_slow: Option<Duration>,
    /// filling: the store has less room than so many percent of its size [default: 10]
    #[arg(long, value_name = "PERCENT", requires = "ingest", value_parser = clap::value_parser!(u32).range(0..=90))]
    pub alarm_free: Option<u32>,
    /// filling: the store is full in so long at the rate of the last hour [default: 12h]
    #[arg(long, value_name = "TIME", requires = "ingest", value_parser = humantime::parse_duration)]
    pub alarm_full: Option<Duration>,
    /// clock: it was set, or the store's differs from it, by more than that [default: 60s]
    #[arg(long, value_name = "TIME", requires = "ingest", value_parser = humantime::parse_duration)]
    pub alarm_clock: Option<Duration>,
}
