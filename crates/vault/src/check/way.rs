//! The way down to a directory: it holds few directories open and few bytes a level, however deep the
//! store is.

use std::io;
use std::sync::Arc;

use runvault_format::ids::DirId;
use runvault_store::backend::Dir;

use super::tree::{Level, is_gone};

/// Directories on the way that are held open; what is further up is opened anew, from the top down.
const HELD: usize = 128;

/// A name: as it is stored, and as plaintext.
pub(super) type Both = (Vec<u8>, Vec<u8>);

struct Step {
    name: Both,
    id: DirId,
    dir: Option<Arc<dyn Dir>>,
    /// Subdirectories that are still to be entered.
    below: Vec<Both>,
}

/// From the top of a run down to the directory in hand.
pub(super) struct Way {
    top: Arc<dyn Dir>,
    steps: Vec<Step>,
}

impl Way {
    /// At the top.
    pub(super) fn new(top: &Level) -> Way {
        let mut way = Way { top: Arc::clone(&top.dir), steps: Vec::new() };
        way.enter((top.object.clone().into_bytes(), top.path.clone()), top);
        way
    }

    /// One level down, into a directory of the one in hand.
    pub(super) fn enter(&mut self, name: Both, level: &Level) {
        let dir = Some(Arc::clone(&level.dir));
        self.steps.push(Step { name, id: level.id, dir, below: Vec::new() });
        let far = self.steps.len().checked_sub(HELD + 1);
        if let Some(step) = far.and_then(|n| self.steps.get_mut(n)) {
            step.dir = None;
        }
    }

    /// Notes a subdirectory of the one in hand.
    pub(super) fn note(&mut self, name: Both) {
        if let Some(step) = self.steps.last_mut() {
            step.below.push(name);
        }
    }

    /// Goes up to the next subdirectory that was noted; `None` when all were given.
    pub(super) fn next(&mut self) -> Option<Both> {
        loop {
            if let Some(name) = self.steps.last_mut()?.below.pop() {
                return Some(name);
            }
            self.steps.pop();
        }
    }

    /// Whether a subdirectory of the one in hand is not there any more.
    pub(super) fn has_lost(&mut self, (stored, _): &Both) -> bool {
        self.dir().is_ok_and(|(dir, _)| is_gone(&*dir, stored))
    }

    /// The directory in hand and its id.
    pub(super) fn dir(&mut self) -> io::Result<(Arc<dyn Dir>, DirId)> {
        let depth = self.steps.len();
        let held = self.steps.iter().rposition(|step| step.dir.is_some()).unwrap_or(0);
        let mut dir = Arc::clone(&self.top);
        for (n, step) in self.steps.iter_mut().enumerate().skip(held) {
            dir = match &step.dir {
                Some(open) => Arc::clone(open),
                None if n == 0 => dir,
                None => dir.open_dir(&step.name.0)?,
            };
            step.dir = (n.saturating_add(HELD) >= depth).then(|| Arc::clone(&dir));
        }
        Ok((dir, self.steps.last().map_or(DirId::ROOT, |step| step.id)))
    }

    /// The plaintext path of a subdirectory of the one in hand.
    pub(super) fn path_of(&self, name: &Both) -> Vec<u8> {
        self.joined(name, |(_, text)| text)
    }

    /// Its place in the store.
    pub(super) fn object_of(&self, name: &Both) -> String {
        String::from_utf8_lossy(&self.joined(name, |(stored, _)| stored)).into_owned()
    }

    fn joined(&self, last: &Both, part: impl Fn(&Both) -> &Vec<u8>) -> Vec<u8> {
        let names = self.steps.iter().map(|step| &step.name).chain([last]);
        names.map(|name| part(name).as_slice()).collect::<Vec<_>>().join(&b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runvault_store::posix;

    #[test]
    fn a_deep_way_holds_few_directories_and_finds_back_up() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().canonicalize().unwrap();
        let open_below = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            open.filter(|fd| {
                std::fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|p| p.starts_with(&root))
            })
            .count()
        };
        let level = |dir| Level { dir, id: DirId::ROOT, path: b"run".to_vec(), object: "top".into() };
        let mut way = Way::new(&level(posix::open_root(&root).unwrap()));
        let (inner, other) = ((b"a".to_vec(), b"plain".to_vec()), (b"b".to_vec(), b"other".to_vec()));
        for _ in 0..3 * HELD {
            let (dir, _) = way.dir().unwrap();
            for (stored, _) in [&inner, &other] {
                dir.create_dir(stored, 0o700).unwrap();
            }
            way.note(other.clone());
            way.enter(inner.clone(), &level(dir.open_dir(&inner.0).unwrap()));
        }
        assert!(open_below() < HELD + 5, "{} are open", open_below());
        let mut above = 3 * HELD;
        while let Some(name) = way.next() {
            above -= 1;
            let (dir, _) = way.dir().unwrap();
            assert!(dir.open_dir(&name.0).is_ok());
            assert_eq!(way.path_of(&name).len(), "run/other".len() + above * "/plain".len());
            assert_eq!(way.object_of(&name).len(), "top/b".len() + above * "/a".len());
            assert!(open_below() < HELD + 5, "{} are open", open_below());
        }
        assert_eq!(above, 0);
    }
}
