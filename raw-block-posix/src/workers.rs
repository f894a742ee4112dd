//! The threads of a backend.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use raw_block_core::backend::{DeviceFile, Op};

use crate::share::Share;
use crate::transfer::carry_out;

/// The name of the threads, as long as the kernel stores it.
const THREAD_NAME: &str = "raw-block-posix";

/// The threads of a backend, with the device that they work on. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Workers {
    crew: Arc<Crew>,
    /// The process that has the threads: a forked child does not.
    process: u32,
}

/// What the threads themselves hold.
#[derive(Debug)]
struct Crew {
    device: DeviceFile,
    duty: Mutex<Duty>,
    /// Notified once per call.
    called: Condvar,
}

#[derive(Debug)]
struct Duty {
    /// Queues that may have ops to begin, each once; the one whose turn it is in front.
    ///
    /// While this is not empty, somebody who will look here is awake or called.
    ready: VecDeque<Arc<Share>>,
    /// Workers that sleep, without those that are called.
    idle: usize,
    /// Workers that are called and not yet awake.
    calls: usize,
    hired: usize,
    /// How many may be hired.
    limit: usize,
    threads: Vec<JoinHandle<()>>,
    closing: bool,
}

/// How one more worker comes.
#[derive(Clone, Copy, Debug)]
enum Help {
    None,
    Wake,
    Hire,
}

impl Duty {
    /// An op to begin, from the queue whose turn it is.
    fn next_op(&mut self) -> Option<(Arc<Share>, Op)> {
        while let Some(share) = self.ready.pop_front() {
            let (op, more) = share.take_for_worker();
            if more {
                self.ready.push_back(Arc::clone(&share));
            }
            // Without an op, the queue's owner was faster.
            if let Some(op) = op {
                return Some((share, op));
            }
        }
        None
    }

    /// Decides how one more worker comes, if there is work and a worker to be had.
    fn call(&mut self) -> Help {
        if self.ready.is_empty() {
            Help::None
        } else if self.idle > 0 {
            self.idle -= 1;
            self.calls += 1;
            Help::Wake
        } else if self.hired < self.limit {
            self.hired += 1;
            Help::Hire
        } else {
            Help::None
        }
    }
}

impl Workers {
    /// No thread yet, and at most `limit`.
    pub(crate) fn new(device: DeviceFile, limit: usize) -> Self {
        let duty = Duty {
            ready: VecDeque::new(),
            idle: 0,
            calls: 0,
            hired: 0,
            limit,
            threads: Vec::new(),
            closing: false,
        };
        let crew = Crew { device, duty: Mutex::new(duty), called: Condvar::new() };
        Self { crew: Arc::new(crew), process: std::process::id() }
    }

    pub(crate) fn device(&self) -> &DeviceFile {
        &self.crew.device
    }

    /// Asks for help with the ops of a queue beyond the next `own` ones. Returns whether there are
    /// workers at all.
    pub(crate) fn invite(&self, share: &Arc<Share>, own: usize) -> bool {
        let mut duty = self.crew.duty();
        if duty.limit == 0 {
            return false;
        }
        if share.list(own) {
            duty.ready.push_back(Arc::clone(share));
        }
        let help = duty.call();
        drop(duty);
        self.crew.bring(help) || self.crew.duty().limit > 0
    }

    /// Whether this is a forked child of the process that has the threads.
    pub(crate) fn are_elsewhere(&self) -> bool {
        std::process::id() != self.process
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if self.are_elsewhere() {
            return;
        }
        let mut duty = self.crew.duty();
        duty.closing = true;
        // Nobody hires any more: that is done by queues, which are gone, and before an op is begun.
        let threads = std::mem::take(&mut duty.threads);
        drop(duty);
        self.crew.called.notify_all();
        for thread in threads {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Crew {
    /// The life of a worker.
    fn work(self: &Arc<Self>) {
        let mut duty = self.duty();
        while !duty.closing {
            let mut just_came = true;
            while let Some((share, op)) = duty.next_op() {
                // Who comes calls the next, so that the waking does not fall on one thread. Who comes
                // back from an op does not: where ops end before a worker wakes up, none is woken.
                let help = if just_came { duty.call() } else { Help::None };
                just_came = false;
                drop(duty);
                self.bring(help);
                let (completion, effort) = carry_out(&self.device, op);
                share.finish(completion, effort);
                drop(share);
                duty = self.duty();
            }
            if !duty.closing {
                duty = self.sleep(duty);
            }
        }
    }

    /// Sleeps until this worker is called, or the backend is gone.
    fn sleep<'a>(&self, mut duty: MutexGuard<'a, Duty>) -> MutexGuard<'a, Duty> {
        duty.idle += 1;
        let mut duty = self
            .called
            .wait_while(duty, |duty| duty.calls == 0 && !duty.closing)
            .unwrap_or_else(PoisonError::into_inner);
        duty.calls = duty.calls.saturating_sub(1);
        duty
    }

    /// Lets one more worker come. Returns `false` when there is none to be had.
    fn bring(self: &Arc<Self>, help: Help) -> bool {
        match help {
            Help::None => true,
            Help::Wake => {
                self.called.notify_one();
                true
            }
            Help::Hire => self.hire(),
        }
    }

    fn hire(self: &Arc<Self>) -> bool {
        let crew = Arc::clone(self);
        match thread::Builder::new().name(THREAD_NAME.into()).spawn(move || crew.work()) {
            Ok(handle) => {
                self.duty().threads.push(handle);
                true
            }
            Err(error) => {
                let mut duty = self.duty();
                duty.hired -= 1;
                duty.limit = duty.hired;
                let threads = duty.hired + 1;
                if duty.hired == 0 {
                    // Nobody will come. The owners of the queues do it all themselves.
                    duty.ready.clear();
                }
                drop(duty);
                tracing::warn!(
                    %error,
                    device = self.device.path(),
                    threads,
                    "no more threads to be had: fewer transfers run at once until the device is opened again"
                );
                false
            }
        }
    }

    fn duty(&self) -> MutexGuard<'_, Duty> {
        self.duty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
