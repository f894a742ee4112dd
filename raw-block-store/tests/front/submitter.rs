//! A thread that submits random requests, and compares their results with a model.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use raw_block_core::{AlignedBuf, Buffer};
use raw_block_store::{
    AsyncStore, Batch, CompletionQueue, Error, Finished, Outcome, OwnedGet, OwnedPut, Refused,
    Region, RequestId,
};

use crate::model::{Change, Key, PAYLOAD};
use crate::support::block_on;

/// Keys of each thread.
pub(crate) const KEYS: usize = 4;

type Pending = Pin<Box<dyn Future<Output = Outcome>>>;

/// What a request does with its key.
#[derive(Clone, Copy, Debug)]
enum Action {
    Change(Change),
    Get,
    Contains,
}

pub(crate) struct Submitter {
    front: AsyncStore,
    queue: CompletionQueue,
    rng: fastrand::Rng,
    pub(crate) keys: Vec<Key>,
    /// Memory for a payload of each key.
    pub(crate) region: Region,
    /// For each key, whether a get of it was dropped that may still have its memory.
    has_lost_memory: [bool; KEYS],
}

impl Submitter {
    pub(crate) fn new(front: &AsyncStore, me: u8, mut rng: fastrand::Rng) -> Self {
        let capacity = rng.usize(1..5);
        Self {
            front: front.clone(),
            queue: front.completions(capacity).unwrap(),
            rng,
            keys: (0..).take(KEYS).map(|key| Key::new([me, key])).collect(),
            region: Region::owned(AlignedBuf::zeroed(KEYS * PAYLOAD).unwrap()).unwrap(),
            has_lost_memory: [false; KEYS],
        }
    }

    /// Submits a request for some of the keys, and waits for the results of most.
    pub(crate) fn round(&mut self) {
        let mut futures = Vec::new();
        let mut submitted = BTreeMap::new();
        for key in 0..KEYS {
            let action = self.choose(key);
            if self.rng.bool() {
                futures.push((key, action, self.call(key, action)));
                continue;
            }
            match self.submit(key, action) {
                Ok(id) => assert!(submitted.insert(id, (key, action)).is_none()),
                Err(refused) => self.apply(key, action, refused),
            }
        }
        for (key, action, mut future) in futures {
            match self.rng.u8(..8) {
                0 => {
                    // Polled once, and dropped.
                    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    if polled.is_pending() {
                        drop(future);
                        self.give_up(key, action);
                    } else if let std::task::Poll::Ready(outcome) = polled {
                        self.apply(key, action, outcome);
                    }
                }
                _ => {
                    let outcome = block_on(future);
                    self.apply(key, action, outcome);
                }
            }
        }
        let mut completions = Vec::new();
        while !submitted.is_empty() {
            self.queue.drain(&mut completions).unwrap();
            for completion in completions.drain(..) {
                let (key, action) = submitted.remove(&completion.id).expect("it completes once");
                self.apply(key, action, completion.outcome);
            }
        }
    }

    fn choose(&mut self, key: usize) -> Action {
        let value = self.keys[key].next_value();
        match self.rng.u8(..10) {
            0..4 => Action::Change(Change::Put(value)),
            4 => Action::Change(Change::PutIfAbsent(value)),
            5 => Action::Change(Change::Delete),
            6 => Action::Contains,
            _ => Action::Get,
        }
    }

    /// A batch, of which some have a deadline that passes soon.
    fn batch<R>(&mut self, item: R) -> Batch<R> {
        let soon = Instant::now() + Duration::from_micros(self.rng.u64(1..200));
        let batch = Batch::new([item]);
        if self.rng.u8(..4) == 0 { batch.by(soon) } else { batch }
    }

    fn put(&mut self, key: usize, value: u8) -> Batch<OwnedPut> {
        let (front, back) = ([value; 300], [value; PAYLOAD - 300]);
        let put = OwnedPut::gather(self.keys[key].name, [front.to_vec(), back.to_vec()]);
        self.batch(put)
    }

    fn get(&mut self, key: usize) -> Batch<OwnedGet> {
        let start = key * PAYLOAD;
        let memory = match self.region.lease(start..start + PAYLOAD) {
            Ok(lease) => Buffer::from(lease),
            Err(_) => {
                assert!(self.has_lost_memory[key], "the memory has another owner");
                vec![0; PAYLOAD].into()
            }
        };
        let get = OwnedGet::new(self.keys[key].name, memory);
        self.batch(get)
    }

    fn name(&mut self, key: usize) -> Batch<Vec<u8>> {
        let name = self.keys[key].name.to_vec();
        self.batch(name)
    }

    fn call(&mut self, key: usize, action: Action) -> Pending {
        let front = self.front.clone();
        match action {
            Action::Change(Change::Put(value)) => {
                let pending = front.put_many(self.put(key, value));
                Box::pin(async { Outcome::Put(pending.await) })
            }
            Action::Change(Change::PutIfAbsent(value)) => {
                let pending = front.put_many_if_absent(self.put(key, value));
                Box::pin(async { Outcome::PutIfAbsent(pending.await) })
            }
            Action::Change(Change::Delete) => {
                let pending = front.delete_many(self.name(key));
                Box::pin(async { Outcome::Delete(pending.await) })
            }
            Action::Get => {
                let pending = front.get_many(self.get(key));
                Box::pin(async { Outcome::Get(pending.await) })
            }
            Action::Contains => {
                let pending = front.contains_many(self.name(key));
                Box::pin(async { Outcome::Contains(pending.await) })
            }
        }
    }

    fn submit(&mut self, key: usize, action: Action) -> Result<RequestId, Outcome> {
        match action {
            Action::Change(Change::Put(value)) => {
                let batch = self.put(key, value);
                self.queue.submit_put(batch).map_err(|refused| Outcome::Put(failed(refused)))
            }
            Action::Change(Change::PutIfAbsent(value)) => {
                let batch = self.put(key, value);
                let submitted = self.queue.submit_put_if_absent(batch);
                submitted.map_err(|refused| Outcome::PutIfAbsent(failed(refused)))
            }
            Action::Change(Change::Delete) => {
                let batch = self.name(key);
                self.queue.submit_delete(batch).map_err(|refused| Outcome::Delete(failed(refused)))
            }
            Action::Get => {
                let batch = self.get(key);
                self.queue.submit_get(batch).map_err(|refused| Outcome::Get(failed(refused)))
            }
            Action::Contains => {
                let batch = self.name(key);
                let submitted = self.queue.submit_contains(batch);
                submitted.map_err(|refused| Outcome::Contains(failed(refused)))
            }
        }
    }

    fn give_up(&mut self, key: usize, action: Action) {
        match action {
            Action::Change(change) => self.keys[key].give_up(change),
            Action::Get => self.has_lost_memory[key] = true,
            Action::Contains => {}
        }
    }

    fn apply(&mut self, at: usize, action: Action, outcome: Outcome) {
        let key = &mut self.keys[at];
        match (action, outcome) {
            (Action::Change(change @ Change::Put(_)), Outcome::Put(done)) => {
                assert_eq!(only(&done).item.key(), key.name);
                key.change(change, only(&done).result.clone().map(|()| true));
            }
            (Action::Change(change @ Change::PutIfAbsent(_)), Outcome::PutIfAbsent(done)) => {
                assert_eq!(only(&done).item.key(), key.name);
                key.change(change, only(&done).result.clone());
            }
            (Action::Change(change @ Change::Delete), Outcome::Delete(done)) => {
                assert_eq!(only(&done).item, key.name);
                key.change(change, only(&done).result.clone());
            }
            (Action::Contains, Outcome::Contains(done)) => {
                assert_eq!(only(&done).item, key.name);
                if let Ok(is_present) = only(&done).result {
                    key.check_presence(is_present);
                }
            }
            (Action::Get, Outcome::Get(done)) => {
                assert_eq!(only(&done).item.key(), key.name);
                match &only(&done).result {
                    Ok(_) => key.check(only(&done).payload()),
                    Err(Error::BufferTooSmall { .. } | Error::Damaged { .. }) => panic!("{done:?}"),
                    Err(_) => {}
                }
            }
            (action, outcome) => panic!("{action:?} completes with {outcome:?}"),
        }
    }
}

/// The only result of a batch.
fn only<R, T>(done: &[Finished<R, T>]) -> &Finished<R, T> {
    assert_eq!(done.len(), 1);
    &done[0]
}

fn failed<R, T>(refused: Refused<R>) -> Vec<Finished<R, T>> {
    let Refused { error, items, .. } = refused;
    items.into_iter().map(|item| Finished { item, result: Err(error.clone()) }).collect()
}
