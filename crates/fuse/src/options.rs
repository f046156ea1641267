//! What is asked of the kernel: mount options, and the capabilities of INIT.

use fuser::{InitFlags, KernelConfig};
use rustix::mount::MountFlags;

use crate::{Error, MountOptions};

/// Names that mount(8) passes to any file system, with their bit; no bit where the name states the
/// kernel's default.
const KERNEL_OPTIONS: &[(&str, MountFlags)] = &[
    ("rw", MountFlags::empty()),
    ("ro", MountFlags::RDONLY),
    ("exec", MountFlags::empty()),
    ("noexec", MountFlags::NOEXEC),
    ("atime", MountFlags::empty()),
    ("noatime", MountFlags::NOATIME),
    ("async", MountFlags::empty()),
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
];

/// Largest WRITE and READ: what the kernel's default of 256 pages allows.
const MAX_WRITE: u32 = 1 << 20;

/// Read-ahead and asynchronous direct I/O that may be under way; the kernel's default of 12 starves
/// sixteen threads.
const MAX_BACKGROUND: u16 = 64;

/// Whether `name` may stand in [`MountOptions::options`].
pub fn is_kernel_option(name: &str) -> bool {
    flag(name).is_some()
}

fn flag(name: &str) -> Option<MountFlags> {
    KERNEL_OPTIONS.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag)
}

/// The bits for mount(2).
///
/// # Errors
/// [`Error::Option`].
pub(crate) fn mount_flags(options: &MountOptions) -> Result<MountFlags, Error> {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    for name in &options.options {
        flags |= flag(name).ok_or_else(|| Error::Option(name.clone()))?;
    }
    Ok(flags)
}

/// The same in words, for fusermount3.
///
/// # Errors
/// [`Error::Option`].
pub(crate) fn fusermount_options(options: &MountOptions) -> Result<String, Error> {
    mount_flags(options)?;
    let mut words = vec!["nosuid".to_owned(), "nodev".to_owned(), "default_permissions".to_owned()];
    words.extend(options.options.iter().filter(|name| *name != "nosuid" && *name != "nodev").cloned());
    if options.allow_other {
        words.push("allow_other".to_owned());
    }
    words.push("subtype=runvault".to_owned());
    words.push(format!("fsname={}", escape_commas(&options.source)));
    Ok(words.join(","))
}

/// fusermount3 ends an option at a comma, unless a backslash stands before it.
fn escape_commas(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,")
}

/// Settles INIT: everything that the kernel offers of what we want.
///
/// `writer`: nobody but this mount changes what it shows. Public for the yardstick in `benches`,
/// which must mount as a vault does.
pub fn negotiate(config: &mut KernelConfig, writer: bool) {
    for (name, capability) in wanted(writer).iter_names() {
        if config.add_capabilities(capability).is_err() {
            log::info!("this kernel has no {name}");
        }
    }
    let _ = config.set_max_write(MAX_WRITE);
    // INIT cannot raise read-ahead, only lower it: it takes what the kernel offers, and `session`
    // sets 1 MiB by sysfs after the mount.
    let _ = config.set_max_background(MAX_BACKGROUND);
}

/// Beside what fuser asks for by itself: ASYNC_READ, BIG_WRITES, MAX_PAGES.
///
/// Not wanted: WRITEBACK_CACHE (the kernel, not we, would then have accepted the data),
/// EXPORT_SUPPORT (NFS), locks (the kernel's own are right for one machine), SETXATTR_EXT (fuser does
/// not know its longer request).
fn wanted(writer: bool) -> InitFlags {
    // Without ATOMIC_O_TRUNC: the kernel would let us cut a file first, and find out afterwards that the
    // open must fail (ETXTBSY).
    let always = InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_POSIX_ACL
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
        | InitFlags::FUSE_NO_EXPORT_SUPPORT;
    if writer {
        // AUTO_INVAL_DATA would drop a file's pages whenever our own write has moved its mtime.
        always
    } else {
        always | InitFlags::FUSE_AUTO_INVAL_DATA
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn given(options: &[&str]) -> MountOptions {
        MountOptions {
            source: "/srv/store".into(),
            allow_other: false,
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            threads: 2,
            local_store: true,
            stuck_after: Duration::from_secs(45),
            max_nodes: u64::MAX,
        }
    }

    #[test]
    fn nosuid_and_nodev_are_always_set() {
        let flags = mount_flags(&given(&["noatime", "exec"])).unwrap();
        assert_eq!(flags, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME);
    }

    #[test]
    fn suid_dev_and_unknown_names_are_refused() {
        for name in ["suid", "dev", "allow_other", "fd=3", "noatime,suid", ""] {
            assert!(!is_kernel_option(name), "{name}");
            assert!(matches!(mount_flags(&given(&[name])), Err(Error::Option(n)) if n == name));
            assert!(matches!(fusermount_options(&given(&[name])), Err(Error::Option(n)) if n == name));
        }
    }

    #[test]
    fn fusermount_is_told_everything_in_one_word() {
        let mut options = given(&["ro", "nodev"]);
        options.allow_other = true;
        options.source = r"/srv/a,b\c".into();
        assert_eq!(
            fusermount_options(&options).unwrap(),
            r"nosuid,nodev,default_permissions,ro,allow_other,subtype=runvault,fsname=/srv/a\,b\\c"
        );
    }

    #[test]
    fn the_kernel_never_accepts_data_for_us() {
        for writer in [false, true] {
            let flags = wanted(writer);
            assert!(!flags.contains(InitFlags::FUSE_WRITEBACK_CACHE));
            assert!(!flags.contains(InitFlags::FUSE_EXPORT_SUPPORT));
            assert!(!flags.contains(InitFlags::FUSE_SETXATTR_EXT));
            assert!(flags.contains(InitFlags::FUSE_HANDLE_KILLPRIV_V2 | InitFlags::FUSE_DONT_MASK));
            assert_eq!(flags.contains(InitFlags::FUSE_AUTO_INVAL_DATA), !writer);
        }
    }
}
