//! The suites that other file systems are held to, on a real mount.

mod filesystems;
mod fsx;
mod pjdfstest;
