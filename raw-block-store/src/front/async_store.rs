//! The handle of an asynchronous front.

use std::fmt;
use std::sync::Arc;

use super::batch::{Batch, Finished, Refused};
use super::future::Pending;
use super::job::{Job, Reply};
use super::operation::{CONTAINS, DELETE, FLUSH_SIZE, GET, Operation, PUT, PUT_IF_ABSENT};
use super::options::AsyncOptions;
use super::owned::{OwnedGet, OwnedPut};
use super::shared::Shared;
use super::slot::Slot;
use super::state::Phase;
use super::stats::AsyncStats;
use super::worker::Worker;
use crate::{Error, GetInfo, Store};

/// An asynchronous front of a [`Store`]: calls return at once, with a future, or with an id in a
/// [completion queue](Self::completions).
///
/// Requests own their memory and return it with their results. They wait in bounded queues for
/// worker threads, which execute the blocking calls of the store. Gets have their own workers, so
/// they never wait for puts in a queue; neither do look-ups. Small requests that wait are executed
/// together.
///
/// Requests of a kind begin in the order in which they were submitted. Those in progress
/// concurrently have no order among each other: await a put before a get of its key. A
/// [`flush`](Self::flush) makes durable what had completed when it was submitted.
///
/// Nothing here depends on a runtime: any executor can poll the futures.
///
/// A clone is another handle of the same front. When the last handle is dropped, requests that wait
/// complete with [`Error::Closed`], those in progress end in their own time, then the threads end,
/// and the last one drops the store. [`close`](Self::close) ends the front in order.
///
/// In a forked child, calls are refused with
/// [`ErrorKind::Forked`](raw_block_core::ErrorKind::Forked).
///
/// # Examples
/// ```
/// use std::future::Future;
/// use std::pin::pin;
/// use std::sync::Arc;
/// use std::task::{Context, Poll, Wake};
/// use std::thread::{self, Thread};
/// use std::time::Duration;
///
/// use raw_block_store::core::MemoryBackend;
/// use raw_block_store::{
///     AlignedBuf, AsyncOptions, AsyncStore, FormatOptions, OwnedGet, OwnedPut, Store,
/// };
///
/// /// The smallest executor; any runtime does.
/// fn block_on<F: Future>(future: F) -> F::Output {
///     struct Unpark(Thread);
///     impl Wake for Unpark {
///         fn wake(self: Arc<Self>) {
///             self.0.unpark();
///         }
///     }
///     let waker = Arc::new(Unpark(thread::current())).into();
///     let mut future = pin!(future);
///     loop {
///         match future.as_mut().poll(&mut Context::from_waker(&waker)) {
///             Poll::Ready(output) => return output,
///             Poll::Pending => thread::park(),
///         }
///     }
/// }
///
/// let device = Arc::new(MemoryBackend::new(16 << 20)?);
/// Store::format(device.clone(), &FormatOptions::default())?;
/// let store = AsyncStore::start(Store::open(device)?, &AsyncOptions::new())?;
///
/// block_on(async {
///     let mut layer = AlignedBuf::zeroed(4096)?;
///     layer.fill(7);
///     for put in store.put_many([OwnedPut::new(b"layer 0", layer)]).await {
///         put.result?;
///     }
///     let gets = [b"layer 0", b"layer 1"].map(|key| (key, AlignedBuf::zeroed(4096)));
///     let mut batch = Vec::new();
///     for (key, memory) in gets {
///         batch.push(OwnedGet::new(key, memory?));
///     }
///     let found = store.get_many(batch).await;
///     assert_eq!(found[0].payload(), Some(&[7; 4096][..]));
///     assert_eq!(found[1].payload(), None);
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// assert!(store.close(Duration::from_secs(10))?.is_closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AsyncStore {
    handle: Arc<Handle>,
}

/// What all clones share. The fields are dropped in this order: the workers have the store until
/// the front ends, so dropping a handle never drops the store.
struct Handle {
    store: Arc<Store>,
    end: EndOnDrop,
}

/// Ends the front when the last handle is dropped.
struct EndOnDrop(Arc<Shared>);

impl AsyncStore {
    /// Starts a front of a store, with its threads. The store can still be used directly, through
    /// its own handles or [`store`](Self::store).
    ///
    /// # Errors
    /// [`Error::Device`] when the system starts no further thread, or in a forked child.
    pub fn start(store: impl Into<Arc<Store>>, options: &AsyncOptions) -> Result<Self, Error> {
        let store = store.into();
        store.state.check_process()?;
        let shared = Arc::new(Shared::new(store.state.device_name(), options));
        Worker::start(&shared, &store, options)?;
        Ok(Self { handle: Arc::new(Handle { store, end: EndOnDrop(shared) }) })
    }

    /// Puts a batch of objects. See [`Store::put_many`].
    ///
    /// Further errors of results are [`Error::Overloaded`], [`Error::Unavailable`],
    /// [`Error::DeadlinePassed`] and [`Error::Closed`]: the objects were not put.
    pub fn put_many(
        &self,
        puts: impl Into<Batch<OwnedPut>>,
    ) -> Pending<Vec<Finished<OwnedPut, ()>>> {
        self.submit(&PUT, puts.into())
    }

    /// Puts those objects of a batch whose keys are absent. Each result says whether its object was
    /// put. See [`Store::put_many_if_absent`]; further errors are those of
    /// [`put_many`](Self::put_many).
    pub fn put_many_if_absent(
        &self,
        puts: impl Into<Batch<OwnedPut>>,
    ) -> Pending<Vec<Finished<OwnedPut, bool>>> {
        self.submit(&PUT_IF_ABSENT, puts.into())
    }

    /// Gets a batch of objects. See [`Store::get_many`]; further errors are those of
    /// [`put_many`](Self::put_many).
    ///
    /// A get that has begun completes when the device has answered, also after its deadline: until
    /// then the device may write to its memory.
    pub fn get_many(
        &self,
        gets: impl Into<Batch<OwnedGet>>,
    ) -> Pending<Vec<Finished<OwnedGet, Option<GetInfo>>>> {
        self.submit(&GET, gets.into())
    }

    /// Deletes the objects with these keys. Each result says whether there was one. See
    /// [`Store::delete_many`]; further errors are those of [`put_many`](Self::put_many).
    pub fn delete_many(
        &self,
        keys: impl Into<Batch<Vec<u8>>>,
    ) -> Pending<Vec<Finished<Vec<u8>, bool>>> {
        self.submit(&DELETE, keys.into())
    }

    /// Whether there is an object with each of these keys. See [`Store::contains_many`].
    ///
    /// Never waits for the device. While the device is [slow or failed](crate::FrontHealth), every
    /// key is absent: a get of it would be refused.
    pub fn contains_many(
        &self,
        keys: impl Into<Batch<Vec<u8>>>,
    ) -> Pending<Vec<Finished<Vec<u8>, bool>>> {
        self.submit(&CONTAINS, keys.into())
    }

    /// Makes durable every put and delete that had completed when this was called. See
    /// [`Store::flush`]; further errors are those of [`put_many`](Self::put_many).
    pub fn flush(&self) -> Pending<Result<(), Error>> {
        let slot = Arc::new(Slot::new());
        let make = |_| Job::Flush(Reply::Future(Arc::clone(&slot)));
        match self.shared().submit(FLUSH_SIZE, None, make) {
            Ok(id) => Pending::new(slot, self.shared(), FLUSH_SIZE.kind, id),
            Err(error) => Pending::ready(Err(error)),
        }
    }

    /// The store. Its calls block; those on the index, such as
    /// [`pin_prefix`](Store::pin_prefix), do not wait for the device.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.handle.store
    }

    /// The state of the front and its counters as they are now. Zeroes in a forked child.
    #[must_use]
    pub fn stats(&self) -> AsyncStats {
        if self.shared().is_inherited() {
            return AsyncStats::default();
        }
        self.shared().with(|state| state.stats())
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.end.0
    }

    fn submit<R, T>(
        &self,
        operation: &Operation<R, T>,
        batch: Batch<R>,
    ) -> Pending<Vec<Finished<R, T>>> {
        let slot = Arc::new(Slot::new());
        let reply = |_| Reply::Future(Arc::clone(&slot));
        match operation.submit(self.shared(), batch, reply) {
            Ok(id) => Pending::new(slot, self.shared(), operation.kind, id),
            Err(Refused { error, items }) => {
                let refused = |item| Finished { item, result: Err(error.clone()) };
                Pending::ready(items.into_iter().map(refused).collect())
            }
        }
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if self.0.is_inherited() {
            return;
        }
        let (waiting, error) = self.0.with(|state| {
            state.phase = Phase::Ended;
            (state.turn_away(), state.closed())
        });
        waiting.into_iter().for_each(|request| request.job.fail(&error));
    }
}

impl fmt::Debug for AsyncStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncStore")
            .field("store", &self.handle.store)
            .field("stats", &self.stats())
            .finish()
    }
}
