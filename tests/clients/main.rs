//! Programs that use a run folder, on a real mount.

mod copying;
mod pipelines;
mod samba;
mod sharing;
mod stress;
