//! The threads of the front.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use raw_block_core::{AlignedBuf, ReadAt, sync};

use super::catch;
use super::execute::{execute, panicked};
use super::health::FrontHealth;
use super::job::QueueKind;
use super::options::AsyncOptions;
use super::shared::Shared;
use super::state::{Phase, StoreClosing, Task};
use crate::error::Context;
use crate::stats::health::Concern;
use crate::{Error, Store};

/// What a thread of the front uses. The last one that ends drops the store, if no caller holds it.
pub(super) struct Worker {
    shared: Arc<Shared>,
    store: Arc<Store>,
    /// Held while the health of the store is set.
    reporting: Mutex<()>,
}

impl Worker {
    /// Starts the workers and the timer.
    ///
    /// # Errors
    /// [`Error::Device`] when the system starts no further thread; those that were started end.
    pub(super) fn start(
        shared: &Arc<Shared>,
        store: &Arc<Store>,
        options: &AsyncOptions,
    ) -> Result<(), Error> {
        let worker = Arc::new(Self {
            shared: Arc::clone(shared),
            store: Arc::clone(store),
            reporting: Mutex::new(()),
        });
        let count = |kind| match kind {
            QueueKind::Lookup => 1,
            QueueKind::Load => options.load_threads.max(1),
            QueueKind::Store => options.store_threads.max(1),
        };
        let start = || -> std::io::Result<()> {
            for kind in QueueKind::ALL {
                for _ in 0..count(kind) {
                    let worker = Arc::clone(&worker);
                    let name = format!("front-{}", kind.name());
                    let builder = thread::Builder::new().name(name);
                    sync::spawn(builder, move || worker.run(kind))?;
                }
            }
            let builder = thread::Builder::new().name("front-timer".to_owned());
            let worker = Arc::clone(&worker);
            sync::spawn(builder, move || worker.watch()).map(drop)
        };
        start()
            .map_err(|error| raw_block_core::Error::os("start a thread", error))
            .context("start the front of the store")
            .inspect_err(|_| shared.with(|state| state.phase = Phase::Ended))
    }

    /// Executes requests of one queue until the front has ended.
    fn run(&self, kind: QueueKind) {
        while let Some(task) = self.shared.next(kind) {
            match task {
                Task::Run { id, jobs } => execute(&self.store, jobs, |evidence| {
                    if self.shared.ended(kind, id, &evidence) {
                        self.report_health();
                    }
                }),
                Task::Probe => self.probe(),
                Task::Close => {
                    let closed = catch::logged("a backend", || self.store.close());
                    let closed = closed.unwrap_or_else(|| Err(panicked()));
                    self.shared.with(|state| state.closing = StoreClosing::Done(closed));
                }
            }
        }
    }

    /// Answers requests at their deadlines, and watches how long calls take, until the front has
    /// ended.
    fn watch(&self) {
        loop {
            let late = self.shared.at_next_moment(|state, now| {
                let expired = state.take_expired(now);
                let is_slow = state.health.watch(now, state.oldest());
                let turned_away = is_slow.then(|| (state.turn_away(), state.unavailable()));
                (expired, turned_away)
            });
            let Some((expired, turned_away)) = late else { return };
            expired.into_iter().for_each(|request| request.job.fail(&Error::DeadlinePassed));
            if let Some((requests, error)) = turned_away {
                requests.into_iter().for_each(|request| request.job.miss(&error));
                self.report_health();
            }
        }
    }

    /// Reads from the device to find out whether it works.
    fn probe(&self) {
        let began = Instant::now();
        let read = || -> Result<(), Error> {
            let _call = self.store.state.begin_call()?;
            let dispatcher = &self.store.state.dispatcher;
            let len = dispatcher.geometry().transfer_alignment as usize;
            let mut block = AlignedBuf::zeroed(len).context("probe the device")?;
            let read = dispatcher.read_buffers(&mut [ReadAt::new(0, &mut block)]).all();
            read.map(drop).context("probe the device")
        };
        let result = catch::logged("a backend", read).unwrap_or_else(|| Err(panicked()));
        let works = self.shared.with(|state| {
            let oldest = state.oldest();
            state.health.probe_ended(began, Instant::now(), &result, oldest)
        });
        if works {
            self.report_health();
        }
    }

    /// Makes the health of the store what the front knows now.
    fn report_health(&self) {
        // The last report is that of the newest state.
        let _reporting = sync::lock(&self.reporting);
        let (current, reason) =
            self.shared.with(|state| (state.health.current(), state.health.reason().to_owned()));
        let state = &self.store.state;
        let device = state.device_name();
        catch::logged("a subscriber", || {
            for (bad, concern) in
                [(FrontHealth::Slow, Concern::Slow), (FrontHealth::Failed, Concern::Device)]
            {
                if current == bad {
                    state.health.raise(concern, device, reason.clone());
                } else {
                    state.health.clear(concern, device);
                }
            }
        });
    }
}
