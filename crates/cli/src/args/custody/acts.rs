//! What each act of custody takes, done at once or proposed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::args::LastOf;
use crate::args::keys::named_file;
use crate::args::typed::time;

/// A custodian to be.
#[derive(Args, Debug)]
pub struct AddCustodian {
    /// The name that others see, and the public key file (keygen)
    #[arg(value_name = "NAME=FILE", value_parser = named_file)]
    pub key: (String, PathBuf),
}

/// Someone who is known.
#[derive(Args, Debug)]
pub struct Person {
    /// Name or id
    pub name: String,
}

/// How many have to agree.
#[derive(Args, Debug)]
pub struct Quorum {
    /// The number
    #[arg(value_name = "M", value_parser = clap::value_parser!(u8).range(1..))]
    pub quorum: u8,
}

/// A reader to be, or other terms for one.
#[derive(Args, Debug)]
pub struct AddReader {
    /// The name that others see, and the public key file (keygen)
    #[arg(value_name = "NAME=FILE", value_parser = named_file)]
    pub key: (String, PathBuf),
    /// Every run that is made from now on is sealed to it, too
    #[arg(long)]
    pub standing: bool,
    /// No run is sealed to it, and no mount of ours opens for it, from then on: a date (its beginning), or a time, in UTC,
    /// such as 2027-01-31 or 2027-01-31T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub expires: Option<String>,
}

/// Runs, then a reader.
#[derive(Args, Debug)]
pub struct RunsAndPerson {
    /// Runs by name or id. By name only for whoever can open them, and with what was added to them. That is runs of their
    /// own, each with its id: where ids are named, name them all
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<OsString>,
    /// The reader's name or id
    pub reader: String,
}

/// Runs that an act is about.
#[derive(Args, Debug)]
pub struct NamedRuns {
    /// Runs by name or id. By name only for whoever can open them. What was added to a run is runs of their own, each
    /// with its id: name them all (rekey by a name takes them along)
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<OsString>,
}

/// A gateway's request.
#[derive(Args, Debug)]
pub struct EnrollGateway {
    /// The request that `gateway enroll --out` wrote on that machine
    #[arg(value_name = "REQUEST", value_hint = ValueHint::FilePath)]
    pub request: PathBuf,
}

/// A gateway whose chains end.
#[derive(Args, Debug)]
pub struct RevokeGateway {
    /// Name or id
    pub name: String,
    #[command(flatten)]
    pub last: LastOf,
}

/// A gateway that may do more.
#[derive(Args, Debug)]
pub struct AdmitGateway {
    /// Name or id
    pub name: String,
    /// The run, by its id [default: it may add to every sealed run, and seal none]
    pub run: Option<OsString>,
}

/// A gateway that may do less.
#[derive(Args, Debug)]
pub struct DismissGateway {
    /// Name or id
    pub name: String,
    /// The run, by its id [default: all that it was admitted to]
    pub run: Option<OsString>,
    #[command(flatten)]
    pub last: LastOf,
}
