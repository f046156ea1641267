//! Programs that use a run folder, on a real mount.

mod copy_service;
mod copying;
mod pipelines;
mod samba;
mod sharing;
mod stress;
