//! Executing requests with the blocking calls of the store.

use std::io::IoSlice;
use std::slice;

use raw_block_core::ErrorKind;

use super::catch;
use super::evidence::Evidence;
use super::job::{Call, Job, Reply};
use super::owned::{OwnedGet, OwnedPut};
use crate::{BatchResult, Error, Get, GetInfo, Put, Store};

/// Requests of one kind. All but one of the lists are empty.
#[derive(Default)]
struct Calls {
    put: Vec<Call<OwnedPut, ()>>,
    put_if_absent: Vec<Call<OwnedPut, bool>>,
    get: Vec<Call<OwnedGet, Option<GetInfo>>>,
    delete: Vec<Call<Vec<u8>, bool>>,
    contains: Vec<Call<Vec<u8>, bool>>,
    flush: Vec<Reply<Result<(), Error>>>,
}

impl Calls {
    fn add(&mut self, job: Job) {
        match job {
            Job::Put(call) => self.put.push(call),
            Job::PutIfAbsent(call) => self.put_if_absent.push(call),
            Job::Get(call) => self.get.push(call),
            Job::Delete(call) => self.delete.push(call),
            Job::Contains(call) => self.contains.push(call),
            Job::Flush(reply) => self.flush.push(reply),
        }
    }
}

/// Executes requests of one kind as one call of the store.
///
/// `ended` is called when the call has returned, before its results are sent: a caller that gets
/// its result finds that its request does not count any more.
pub(super) fn execute(store: &Store, jobs: Vec<Job>, ended: impl FnOnce(Evidence)) {
    let mut calls = Calls::default();
    jobs.into_iter().for_each(|job| calls.add(job));
    let Calls { put, put_if_absent, get, delete, contains, flush } = calls;
    if !put.is_empty() {
        let act = |puts: &mut [&mut OwnedPut]| with_puts(puts, |puts| store.put_many(puts));
        run(put, ended, |()| true, act);
    } else if !put_if_absent.is_empty() {
        let act =
            |puts: &mut [&mut OwnedPut]| with_puts(puts, |puts| store.put_many_if_absent(puts));
        run(put_if_absent, ended, |&was_put| was_put, act);
    } else if !get.is_empty() {
        run(get, ended, Option::is_some, |gets| get_all(store, gets));
    } else if !delete.is_empty() {
        run(delete, ended, |_| true, |keys| store.delete_many(&slices(keys)));
    } else if !contains.is_empty() {
        run(contains, ended, |_| false, |keys| contains_all(store, keys));
    } else {
        let flushed = catch::logged("a backend", || store.flush());
        let flushed = flushed.unwrap_or_else(|| Err(panicked()));
        ended(Evidence::of(slice::from_ref(&flushed), |()| true));
        flush.into_iter().for_each(|reply| reply.send(flushed.clone()));
    }
}

/// Executes the items of all calls as one, and sends each call its results. `used_device` says
/// whether a result shows that the device works.
fn run<R, T>(
    mut calls: Vec<Call<R, T>>,
    ended: impl FnOnce(Evidence),
    used_device: impl Fn(&T) -> bool,
    act: impl FnOnce(&mut [&mut R]) -> BatchResult<T>,
) {
    let mut items: Vec<_> = calls.iter_mut().flat_map(|call| call.items.iter_mut()).collect();
    let results = catch::logged("a backend", || act(&mut items));
    let results = results.unwrap_or_else(|| items.iter().map(|_| Err(panicked())).collect());
    ended(Evidence::of(&results, used_device));
    let mut results = results.into_iter();
    for call in calls {
        let count = call.items.len();
        call.send(results.by_ref().take(count));
    }
}

/// Calls `act` with borrowed puts of owned ones.
fn with_puts<T>(
    puts: &[&mut OwnedPut],
    act: impl FnOnce(&[Put<'_>]) -> BatchResult<T>,
) -> BatchResult<T> {
    let pieces: Vec<Vec<IoSlice<'_>>> = puts
        .iter()
        .map(|put| put.payload().iter().map(|piece| IoSlice::new(piece)).collect())
        .collect();
    let puts: Vec<_> = puts
        .iter()
        .zip(&pieces)
        .map(|(put, pieces)| {
            match &pieces[..] {
                [piece] => Put::new(put.key(), piece),
                pieces => Put::gather(put.key(), pieces),
            }
            .with_metadata(put.metadata())
        })
        .collect();
    act(&puts)
}

fn get_all(store: &Store, gets: &mut [&mut OwnedGet]) -> BatchResult<Option<GetInfo>> {
    let parts = gets.iter_mut().map(|get| get.parts());
    let get = |(key, payload, metadata)| Get::new(key, payload).with_metadata(metadata);
    let mut gets: Vec<_> = parts.map(get).collect();
    store.get_many(&mut gets)
}

fn contains_all(store: &Store, keys: &[&mut Vec<u8>]) -> BatchResult<bool> {
    match store.contains_many(&slices(keys)) {
        Ok(present) => present.into_iter().map(Ok).collect(),
        Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
    }
}

fn slices<'a>(keys: &'a [&mut Vec<u8>]) -> Vec<&'a [u8]> {
    keys.iter().map(|key| &key[..]).collect()
}

/// The error of a call during which the backend panicked.
pub(super) fn panicked() -> Error {
    let rule = "the backend panicked, and its message was logged: a change may have taken effect";
    let error = raw_block_core::Error::new(ErrorKind::Io, "execute a request", rule);
    Error::Device { context: "use the store", error }
}
