//! The suites that other file systems are held to, on a real mount.

mod fsx;
mod pjdfstest;
