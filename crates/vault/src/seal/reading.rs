//! The files of a run, read on all cores and told in their order.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use runvault_crypto::registers;
use runvault_format::pins::NONCE;

use crate::{Error, Result, cores};

/// Files that are read, or were, before it is their turn.
const AHEAD: usize = 32;
/// Nonces that are told at once: those of 4 MiB, after which a seal that nobody wants any more ends.
const BATCH: usize = 512;
/// Of a file whose turn has not come, so many are kept; then its reader waits.
const BATCHES: usize = 128;

/// Takes the nonces of a file's chunks in turn.
pub(super) type Nonces<'a> = &'a mut dyn FnMut(&[u8; NONCE]) -> Result<()>;

enum Message<T> {
    Nonces(Vec<[u8; NONCE]>),
    End(Result<T>),
}

/// Calls `read` for each of `files`, several at a time. In the order of `files`, `nonce` is given what each told, and
/// `take` what came of it. What each reader keeps between its files begins as `S::default()`.
///
/// # Errors
/// Those of `nonce` and `take`, which end it.
pub(super) fn in_order<S: Default, T: Send>(
    files: &[usize],
    read: &(impl Fn(&mut S, usize, Nonces<'_>) -> Result<T> + Sync),
    nonce: &mut dyn FnMut(usize, &[u8; NONCE]) -> Result<()>,
    take: &mut dyn FnMut(usize, Result<T>) -> Result<()>,
) -> Result<()> {
    let (queue, turns) = sync_channel(AHEAD);
    let next = Mutex::new((files.iter(), queue));
    let work = || {
        let mut state = S::default();
        while let Some((file, messages)) = turn(&next) {
            let mut batch = Vec::new();
            let found = read(&mut state, file, &mut |nonce| {
                batch.push(*nonce);
                if batch.len() == BATCH { send(&messages, &mut batch) } else { Ok(()) }
            });
            // Whoever does not listen any more has its own error.
            if send(&messages, &mut batch).is_err() || messages.send(Message::End(found)).is_err() {
                break;
            }
        }
        registers::wipe();
    };
    let threads = cores::count();
    std::thread::scope(|scope| {
        let start = |_: &usize| std::thread::Builder::new().spawn_scoped(scope, work).is_ok();
        // A machine that gives no more threads is only slower.
        if (0..threads.min(files.len())).take_while(start).count() > 0 {
            return tell(files.len(), turns, nonce, take);
        }
        let mut state = S::default();
        files.iter().try_for_each(|file| {
            let found = read(&mut state, *file, &mut |found| nonce(*file, found));
            take(*file, found)
        })
    })
}

type Turn<T> = (usize, Receiver<Message<T>>);

/// The next file, and where its messages go. In one step: the queue has the files in their order.
fn turn<T>(
    next: &Mutex<(std::slice::Iter<'_, usize>, SyncSender<Turn<T>>)>,
) -> Option<(usize, SyncSender<Message<T>>)> {
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let file = *next.0.next()?;
    let (messages, told) = sync_channel(BATCHES);
    next.1.send((file, told)).ok()?;
    Some((file, messages))
}

fn send<T>(messages: &SyncSender<Message<T>>, batch: &mut Vec<[u8; NONCE]>) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    messages.send(Message::Nonces(std::mem::take(batch))).map_err(|_| Error::Closed)
}

/// Ends, and with it what the readers wait for, at the first error.
fn tell<T>(
    files: usize,
    turns: Receiver<Turn<T>>,
    nonce: &mut dyn FnMut(usize, &[u8; NONCE]) -> Result<()>,
    take: &mut dyn FnMut(usize, Result<T>) -> Result<()>,
) -> Result<()> {
    for _ in 0..files {
        // Only a reader that panicked tells nothing.
        let (file, told) = turns.recv().map_err(|_| Error::Closed)?;
        loop {
            match told.recv().map_err(|_| Error::Closed)? {
                Message::Nonces(batch) => batch.iter().try_for_each(|found| nonce(file, found))?,
                Message::End(found) => {
                    take(file, found)?;
                    break;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nonce of a chunk in these tests.
    fn numbered(file: usize, chunk: usize) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        nonce[..4].copy_from_slice(&(file as u32).to_le_bytes());
        nonce[4..8].copy_from_slice(&(chunk as u32).to_le_bytes());
        nonce
    }

    fn chunks(file: usize) -> usize {
        if file.is_multiple_of(97) { BATCH * (BATCHES + 3) + 1 } else { file % 5 }
    }

    fn read(seen: &mut usize, file: usize, nonces: Nonces<'_>) -> Result<usize> {
        *seen += 1;
        (0..chunks(file)).try_for_each(|chunk| nonces(&numbered(file, chunk)))?;
        if file % 11 == 3 { Err(Error::Closed) } else { Ok(file) }
    }

    #[test]
    fn everything_comes_in_its_order_however_long_one_takes() {
        let files: Vec<usize> = (0..500).filter(|file| file % 7 != 1).collect();
        let (mut told, mut taken) = (Vec::new(), Vec::new());
        in_order(
            &files,
            &read,
            &mut |file, nonce| {
                told.push((file, *nonce));
                Ok(())
            },
            &mut |file, found| {
                assert_eq!(found.ok(), (file % 11 != 3).then_some(file));
                taken.push(file);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(taken, files);
        let all = files.iter().flat_map(|file| (0..chunks(*file)).map(|n| (*file, numbered(*file, n))));
        assert_eq!(told, all.collect::<Vec<_>>());
    }

    #[test]
    fn the_first_error_ends_it() {
        let files: Vec<usize> = (0..500).collect();
        let mut taken = 0;
        let ended = in_order(&files, &read, &mut |_, _| Ok(()), &mut |file, _| {
            taken += 1;
            if file == 40 { Err(Error::Sealed { run: String::new() }) } else { Ok(()) }
        });
        assert!(matches!(ended, Err(Error::Sealed { .. })));
        assert_eq!(taken, 41);
        let ended = in_order(
            &files,
            &read,
            &mut |file, _| if file == 97 { Err(Error::Closed) } else { Ok(()) },
            &mut |_, _| Ok(()),
        );
        assert!(matches!(ended, Err(Error::Closed)));
        assert!(in_order(&[], &read, &mut |_, _| Ok(()), &mut |_, _| Ok(())).is_ok());
    }
}
