//! Random operations on the memory double and on a real directory give the same outcomes.

use std::io::Result;
use std::sync::Arc;

use proptest::prelude::*;
use runvault_store::backend::{Access, Dir, File, Kind, Rename, SetTime, Time};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::posix;

/// One of a few directories, by a path of directory names from the root.
type Place = Vec<usize>;

#[derive(Clone, Debug)]
enum Step {
    CreateFile(Place, usize, u32),
    CreateDir(Place, usize, u32),
    CreateFifo(Place, usize),
    Symlink(Place, usize, Vec<u8>),
    Link(Place, usize, Place, usize),
    Rename(Place, usize, Place, usize, Rename),
    Unlink(Place, usize),
    RemoveDir(Place, usize),
    /// Keeps a handle, which the next steps may use after the name is gone.
    Open(Place, usize),
    Write(u64, usize),
    SetLen(u64),
    Punch(u64, u64),
    Allocate(u64, u64, bool),
    Mode(Place, usize, u32),
    Owner(Place, usize, u32),
    Times(Place, usize, i64),
    Xattr(Place, usize, Vec<u8>, i32),
}

const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d\xff"];

fn step() -> impl Strategy<Value = Step> {
    let place = || proptest::collection::vec(0..NAMES.len(), 0..3);
    let name = 0..NAMES.len();
    let how = prop_oneof![Just(Rename::Over), Just(Rename::NoReplace), Just(Rename::Exchange)];
    let offset = || 0..40_000u64;
    prop_oneof![
        3 => (place(), name.clone(), 0..0o1000u32).prop_map(|(p, n, m)| Step::CreateFile(p, n, m)),
        3 => (place(), name.clone(), 0..0o1000u32).prop_map(|(p, n, m)| Step::CreateDir(p, n, m)),
        1 => (place(), name.clone()).prop_map(|(p, n)| Step::CreateFifo(p, n)),
        1 => (place(), name.clone(), "[a-z/.]{1,40}").prop_map(|(p, n, t)| Step::Symlink(p, n, t.into())),
        2 => (place(), name.clone(), place(), name.clone()).prop_map(|(p, n, q, m)| Step::Link(p, n, q, m)),
        4 => (place(), name.clone(), place(), name.clone(), how)
            .prop_map(|(p, n, q, m, how)| Step::Rename(p, n, q, m, how)),
        2 => (place(), name.clone()).prop_map(|(p, n)| Step::Unlink(p, n)),
        1 => (place(), name.clone()).prop_map(|(p, n)| Step::RemoveDir(p, n)),
        3 => (place(), name.clone()).prop_map(|(p, n)| Step::Open(p, n)),
        5 => (offset(), 0..20_000usize).prop_map(|(o, n)| Step::Write(o, n)),
        2 => offset().prop_map(Step::SetLen),
        2 => (offset(), 0..30_000u64).prop_map(|(o, n)| Step::Punch(o, n)),
        1 => (offset(), 0..30_000u64, any::<bool>()).prop_map(|(o, n, k)| Step::Allocate(o, n, k)),
        1 => (place(), name.clone(), 0..0o10000u32).prop_map(|(p, n, m)| Step::Mode(p, n, m)),
        1 => (place(), name.clone(), 0..9u32).prop_map(|(p, n, u)| Step::Owner(p, n, u)),
        1 => (place(), name.clone(), -9..2_000_000_000i64).prop_map(|(p, n, t)| Step::Times(p, n, t)),
        2 => (place(), name, proptest::collection::vec(any::<u8>(), 0..100), 0..3i32)
            .prop_map(|(p, n, v, f)| Step::Xattr(p, n, v, f)),
    ]
}

struct Side {
    root: Arc<dyn Dir>,
    file: Option<Arc<dyn File>>,
}

impl Side {
    fn dir(&self, place: &Place) -> Result<Arc<dyn Dir>> {
        place.iter().try_fold(self.root.clone(), |dir, i| dir.open_dir(NAMES[*i]))
    }

    fn on_file(&self, act: impl FnOnce(&dyn File) -> Result<()>) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| act(&**file))
    }

    fn run(&mut self, step: &Step, content: u8) -> Result<()> {
        match step {
            Step::CreateFile(p, n, mode) => {
                self.file = Some(self.dir(p)?.create_file(NAMES[*n], *mode)?);
                Ok(())
            }
            Step::CreateDir(p, n, mode) => self.dir(p)?.create_dir(NAMES[*n], *mode),
            Step::CreateFifo(p, n) => self.dir(p)?.create_node(NAMES[*n], Kind::Fifo, 0o644, 0),
            Step::Symlink(p, n, target) => self.dir(p)?.create_symlink(NAMES[*n], target),
            Step::Link(p, n, q, m) => self.dir(p)?.link(NAMES[*n], &*self.dir(q)?, NAMES[*m]),
            Step::Rename(p, n, q, m, how) => self.dir(p)?.rename(NAMES[*n], &*self.dir(q)?, NAMES[*m], *how),
            Step::Unlink(p, n) => self.dir(p)?.unlink(NAMES[*n]),
            Step::RemoveDir(p, n) => self.dir(p)?.remove_dir(NAMES[*n]),
            Step::Open(p, n) => {
                self.file = Some(self.dir(p)?.open_file(NAMES[*n], Access::ReadWrite)?);
                Ok(())
            }
            Step::Write(offset, n) => self.on_file(|f| f.write_at(&vec![content; *n], *offset)),
            Step::SetLen(len) => self.on_file(|f| f.set_len(*len)),
            Step::Punch(offset, n) => self.on_file(|f| untimed(f, f.punch(*offset, *n))),
            Step::Allocate(offset, n, keep) => self.on_file(|f| untimed(f, f.allocate(*offset, *n, *keep))),
            Step::Mode(p, n, mode) => self.dir(p)?.set_mode(NAMES[*n], *mode),
            Step::Owner(p, n, id) => self.dir(p)?.set_owner(NAMES[*n], Some(*id), Some(*id + 1)),
            Step::Times(p, n, sec) => {
                let time = SetTime::At(Time { sec: *sec, nsec: 123_456_789 });
                self.dir(p)?.set_times(NAMES[*n], SetTime::Omit, time)
            }
            Step::Xattr(p, n, value, flags) => {
                let dir = self.dir(p)?;
                let attributes = dir.entry_xattrs(NAMES[*n])?;
                attributes.set_xattr(b"user.x", value, *flags)?;
                if value.len() < 10 { attributes.remove_xattr(b"user.x") } else { Ok(()) }
            }
        }
    }

    /// Everything that both sides must agree on, one line an entry.
    fn told(&self) -> Vec<String> {
        let mut lines = Vec::new();
        tell(&*self.root, "", &mut lines);
        if let Some(file) = &self.file {
            lines.push(format!("open: {:?} {}", data(&**file), file.stat().unwrap().nlink));
        }
        lines.sort();
        lines
    }
}

/// Whether fallocate changes mtime where nothing else changes is up to the file system.
fn untimed(file: &dyn File, result: Result<()>) -> Result<()> {
    file.set_times(SetTime::Omit, SetTime::Now)?;
    result
}

/// Length and a sum of the bytes; every byte that is not zero lies where seek finds data.
fn data(file: &dyn File) -> (usize, u64) {
    let mut bytes = vec![0; file.stat().unwrap().size as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    let mut at = 0;
    while at < bytes.len() as u64 {
        let start = file.seek(at, true).unwrap_or(bytes.len() as u64);
        assert!(bytes[at as usize..start as usize].iter().all(|b| *b == 0), "data in a hole");
        at = if start < bytes.len() as u64 { file.seek(start, false).unwrap() } else { start };
    }
    let sum = bytes.iter().fold(7u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
    (bytes.len(), sum)
}

fn tell(dir: &dyn Dir, path: &str, lines: &mut Vec<String>) {
    let mut names = Vec::new();
    dir.entries(0, &mut |e| {
        names.push(e.name);
        true
    })
    .unwrap();
    for name in names {
        let s = dir.stat(&name).unwrap();
        let path = format!("{path}/{}", name.escape_ascii());
        let content = match s.kind {
            Kind::File => {
                let file = dir.open_file(&name, Access::Read).unwrap();
                format!("{:?} {:?}", data(&*file), dir.entry_xattrs(&name).unwrap().xattr(b"user.x").ok())
            }
            Kind::Symlink => format!("{:?} {}", dir.read_link(&name).unwrap(), s.size),
            _ => String::new(),
        };
        let mtime = (s.mtime.nsec == 123_456_789).then_some(s.mtime.sec);
        let about = (s.mode, s.uid, s.gid, s.nlink, s.rdev, mtime);
        lines.push(format!("{path} {:?} {about:?} {content}", s.kind));
        if s.kind == Kind::Dir {
            tell(&*dir.open_dir(&name).unwrap(), &path, lines);
        }
    }
}

/// What a call gave: nothing, or an errno.
fn outcome(result: Result<()>) -> Option<i32> {
    result.err().map(|e| e.raw_os_error().expect("an errno"))
}

fn agree(steps: &[Step]) -> std::result::Result<(), TestCaseError> {
    let place = tempfile::tempdir().unwrap();
    let mut real = Side { root: posix::open_root(place.path()).unwrap(), file: None };
    let mut memory = Side { root: MemoryDir::root(), file: None };
    for (i, step) in steps.iter().enumerate() {
        let (a, b) = (real.run(step, i as u8 + 1), memory.run(step, i as u8 + 1));
        prop_assert_eq!(outcome(a), outcome(b), "step {}: {:?} (real, memory)", i, step);
        prop_assert_eq!(real.told(), memory.told(), "after step {}: {:?} (real, memory)", i, step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Owners are changed, so only root sees the same as the memory double.
    #[test]
    fn memory_and_the_real_directory_agree(steps in proptest::collection::vec(step(), 1..60)) {
        if rustix::process::geteuid().is_root() {
            // Both create with the modes they are given; the tests beside this one keep their umask.
            // SAFETY: what this thread stops sharing is its current directory, root and umask, not its descriptors.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
            let umask = rustix::process::umask(rustix::fs::Mode::empty());
            let agreed = agree(&steps);
            rustix::process::umask(umask);
            agreed?;
        }
    }
}
