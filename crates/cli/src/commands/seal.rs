//! `seal`: by this machine's gateway, through its live mount where there is one.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use runvault_custody::Error as Custody;
use runvault_vault::{Options, pace};
use serde_json::{Value, json};

use crate::alarms::Notes;
use crate::args::Seal;
use crate::control::{Client, seal_request};
use crate::exit::{Exit, refuse, refuse_with};
use crate::output::{self, count, quoted, size, visible};
use crate::progress;
use crate::sealing::{self, Sealing, Wish};
use crate::signals;
use crate::store::{Store, require_gateway};

/// After Ctrl-C; a mount's process gives the seal up as soon as it has nobody to tell.
const GO_ON: &str = "nothing was signed, unless runvault runs shows the run as sealed. The same command goes on: what was read back\n\
                     within the last day is not read again";

pub fn run(args: &Seal) -> Result<()> {
    require_gateway(&args.store, &args.who)?;
    pace::limit_mib(args.pace.limit);
    signals::end_with(|| GO_ON.to_owned())?;
    let store = Store::open(&args.store, &args.who)?;
    match store.ingest(Options::default(), true) {
        Ok(open) => {
            let bar = progress::bytes(0, "seal");
            let sealed =
                sealing::seal(&open.vault, args.run.as_bytes(), &Wish::by_hand(), &mut |done, total| {
                    bar.set_length(total);
                    bar.set_position(done);
                });
            bar.finish_and_clear();
            let closed = open.close();
            let sealed = sealed?;
            if let Sealing::Sealed(said) = &sealed {
                Notes::of(Some(&store.state_of_vault())).sealed(said);
            }
            closed?;
            tell(args, &sealed)
        }
        Err(error) if matches!(error.downcast_ref(), Some(Custody::Busy { .. })) => {
            tell(args, &by_its_mount(args, &store)?)
        }
        Err(error) => Err(error),
    }
}

/// The process that has the state folder seals.
fn by_its_mount(args: &Seal, store: &Store) -> Result<Sealing> {
    let mut client = Client::of_state(&store.state_of_vault())?.patient();
    let bar = progress::bytes(0, "seal");
    let mut answer = client.ask(&seal_request(&args.run, args.pace.limit))?;
    while let Some(done) = answer.get("done").and_then(Value::as_u64) {
        bar.set_length(answer["total"].as_u64().unwrap_or(done));
        bar.set_position(done);
        let next = client.next()?;
        answer =
            next.ok_or_else(|| refuse(Exit::Failed, "the mount's process ended before the run was sealed"))?;
    }
    bar.finish_and_clear();
    sealing::of_answer(&answer)
}

fn tell(args: &Seal, sealed: &Sealing) -> Result<()> {
    let name = visible(args.run.as_bytes());
    match sealed {
        Sealing::Refused(faults) => {
            for fault in faults {
                if args.json {
                    output::json(fault)?;
                } else {
                    let path = fault["path"].as_str().or(fault["object"].as_str()).unwrap_or_default();
                    let what = fault["what"].as_str().unwrap_or_default();
                    output::error_line(&format!("{}: {what}", visible(path.as_bytes())))?;
                }
            }
            let store = quoted(&args.store);
            let mut out = format!(
                "someone or something changed it in the store since it was written: restore what is named from a\n\
                 backup, or write or remove it through the mount, and seal again. runvault check {store} says more"
            );
            if faults.iter().any(is_as_another_wrote) {
                _ = write!(
                    out,
                    ".\nWhere another machine of yours has written the run since, unmount, runvault takeover {store} {},\n\
                     mount, and seal again",
                    quoted(&args.run)
                );
            }
            let what = count(faults.len() as u64, "object");
            Err(refuse_with(
                Exit::Damaged,
                format!("run {name} was not sealed: {what} of it cannot be signed"),
                out,
            ))
        }
        Sealing::Withheld => Err(refuse(Exit::Failed, format!("run {name} is not complete"))),
        Sealing::Finished if args.json => output::json(&json!({ "run": name, "finished": true })),
        Sealing::Finished => output::line(&format!(
            "run {name} was sealed already; its key, which was still here, is erased now"
        )),
        Sealing::Sealed(said) if args.json => output::json(said),
        Sealing::Sealed(said) => {
            let number = |key: &str| said[key].as_u64().unwrap_or_default();
            let (files, bytes) = (count(number("files"), "file"), size(number("bytes")));
            output::line(&format!(
                "run {name} is sealed: {files}, {bytes}; seal {} of this gateway.\n\
                 Its key is erased here: only who has the vault's key, and readers that it is sealed to, open it from now on.",
                number("n")
            ))?;
            if number("read_bytes") < number("bytes") {
                output::line(&format!(
                    "Read back for it: {}. The others had been, within the last day, by a try that was cut short.",
                    size(number("read_bytes"))
                ))?;
            }
            for foreign in said["foreign"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                output::warn(&format!("{}: not ours, and not sealed", visible(foreign.as_bytes())));
            }
            tell_compared(said["ledger"].as_u64(), number("files"));
            tell_completeness(said)
        }
    }
}

/// What another machine wrote before this one took the run over is in no ledger here.
fn tell_compared(names: Option<u64>, files: u64) {
    let compared = match names {
        None => "no ledger of what was written was there to compare with".to_owned(),
        Some(names) if names < files => {
            format!(
                "only {} of the run could be compared with what this machine had written",
                count(names, "name")
            )
        }
        Some(_) => return,
    };
    output::warn(&format!(
        "{compared}: someone who may write to the store could have put something back that was there earlier"
    ));
}

/// Whether the run is complete is no matter of the seal, which says what is there.
fn tell_completeness(said: &Value) -> Result<()> {
    let missing = said["missing"].as_u64();
    match (missing, said["complete"].as_bool()) {
        (_, Some(true)) => {
            output::line("complete: every file of base calls and filters that RunInfo.xml promises is there")
        }
        (Some(missing), Some(false)) => {
            let named = said["named"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let named: Vec<&str> = named.take(10).collect();
            output::warn(&format!("incomplete: {} ({missing} in all)", named.join(", ")));
            Ok(())
        }
        _ => output::line("whether it is complete is not known: it has no RunInfo.xml of a known instrument"),
    }
}

/// What authenticates, and is not what this machine noted: another may have written it.
fn is_as_another_wrote(fault: &Value) -> bool {
    fault["what"].as_str().is_some_and(|what| what == "missing" || what.starts_with("not what was written"))
}
