//! The engine on stores that record, fail, delay, lie and lose power.

mod common;
mod continuations;
mod crash_file;
mod crash_ledger;
mod crash_names;
mod fault_names;
mod gateways;
mod hostile;
mod ledger;
mod many_names;
mod model;
mod namespace;
mod opening;
mod paused;
mod programs;
mod sealed;
mod threads;
mod vectors;
