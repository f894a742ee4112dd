//! Deletes that are written together.

use std::sync::{Arc, Condvar, Mutex, OnceLock};

use raw_block_core::{ErrorKind, sync};

use crate::Error;
use crate::state::index::KeyHash;
use crate::state::unwind::OnPanic;

/// Collects the keys of concurrent deletes while a thread writes those that came before: the next
/// thread writes them all, in as few blocks as they need.
#[derive(Default)]
pub(crate) struct DeleteQueue {
    queue: Mutex<Queue>,
    /// Signalled when a group was written.
    written: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Whether a thread writes a group.
    writing: bool,
    /// The keys of the next group.
    hashes: Vec<KeyHash>,
    group: Arc<Group>,
}

/// Keys that are written together: what became of each.
#[derive(Default)]
struct Group(OnceLock<Vec<Result<bool, Error>>>);

impl DeleteQueue {
    /// Adds these keys to the next group, and returns what became of each when it is written. One
    /// of the threads whose keys are in the group calls `write`, which returns a result for each
    /// key of the group.
    pub(crate) fn delete(
        &self,
        hashes: &[KeyHash],
        write: impl FnOnce(&[KeyHash]) -> Vec<Result<bool, Error>>,
    ) -> Vec<Result<bool, Error>> {
        let mut queue = sync::lock(&self.queue);
        let first = queue.hashes.len();
        queue.hashes.extend(hashes);
        let group = Arc::clone(&queue.group);
        loop {
            if let Some(results) = group.0.get() {
                return results.get(first..first + hashes.len()).unwrap_or(&[]).to_vec();
            }
            if !queue.writing {
                break;
            }
            queue = sync::wait(&self.written, &self.queue, queue);
        }
        queue.writing = true;
        let of_group = std::mem::take(&mut queue.hashes);
        queue.group = Arc::default();
        drop(queue);

        let fail = OnPanic(|| self.end(&group, vec![Err(panicked()); of_group.len()]));
        let results = write(&of_group);
        drop(fail);
        debug_assert_eq!(results.len(), of_group.len());
        let own = results.get(first..first + hashes.len()).unwrap_or(&[]).to_vec();
        self.end(&group, results);
        own
    }

    fn end(&self, group: &Group, results: Vec<Result<bool, Error>>) {
        let mut queue = sync::lock(&self.queue);
        queue.writing = false;
        // It is set once.
        let _ = group.0.set(results);
        drop(queue);
        self.written.notify_all();
    }
}

/// The error of keys that another thread was writing when it panicked.
fn panicked() -> Error {
    let rule = "the thread that wrote the tombstones panicked";
    let error = raw_block_core::Error::new(ErrorKind::Io, "write", rule);
    Error::Device { context: "delete an object", error }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn hash(key: u8) -> KeyHash {
        [key; 16]
    }

    #[test]
    fn keys_that_arrive_during_a_write_are_written_together() {
        let queue = DeleteQueue::default();
        let (began, has_begun) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let even =
            |hashes: &[KeyHash]| hashes.iter().map(|hash| Ok(hash[0] % 2 == 0)).collect::<Vec<_>>();
        let groups = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let (queue, groups) = (&queue, &groups);
            scope.spawn(move || {
                queue.delete(&[hash(0)], |hashes| {
                    began.send(()).unwrap();
                    goes_on.recv().unwrap();
                    groups.lock().unwrap().push(hashes.len());
                    even(hashes)
                })
            });
            has_begun.recv().unwrap();
            let others: Vec<_> = (1..5)
                .map(|key| {
                    let deleted = move || {
                        let keys = [hash(key), hash(key + 1)];
                        let results = queue.delete(&keys, |hashes| {
                            groups.lock().unwrap().push(hashes.len());
                            even(hashes)
                        });
                        results.into_iter().map(|result| result.unwrap()).collect::<Vec<_>>()
                    };
                    (key, scope.spawn(deleted))
                })
                .collect();
            while sync::lock(&queue.queue).hashes.len() < 8 {
                thread::yield_now();
            }
            go_on.send(()).unwrap();
            for (key, thread) in others {
                assert_eq!(thread.join().unwrap(), [key % 2 == 0, key % 2 == 1]);
            }
        });
        assert_eq!(*groups.lock().unwrap(), [1, 8]);
    }
}
