//! What POSIX programs do, on a real mount.

mod alarms;
mod attributes;
mod bad_input;
mod calls;
mod contained;
mod continuations;
mod custody;
mod deep;
mod gateways;
mod ingest;
mod logs;
mod machine;
mod many_names;
mod model;
mod names;
mod owner;
mod plaintext;
mod posix;
mod process;
mod sealing;
mod service;
mod set_id;
mod signals;
mod stores;
mod units;
mod unmounting;
