//! The events that a store logs for its operator.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Once};

use common::faulty::{Fate, Faulty};
use common::{flip, memory, newest, put_all, small, versions, without_thread};
use raw_block_core::backend::{IoBackend, OpKind};
use raw_block_store::{HealthState, Put, Store};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Notes the events of the store, one a line, with the level in front.
///
/// It is the only subscriber of the process, and keeps the events of each thread apart. Every test
/// installs it first: if a thread reaches an event while no subscriber is installed, `tracing` may
/// remember that none wants it.
struct Log;

thread_local! {
    /// What this thread logs, while it is asked for.
    static LOGGED: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl Log {
    fn install() {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
    }

    /// What this thread logs while `act` runs.
    fn of(act: impl FnOnce()) -> String {
        LOGGED.set(Some(String::new()));
        act();
        LOGGED.take().unwrap()
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").unwrap();
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("raw_block")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        LOGGED.with_borrow_mut(|log| {
            let Some(log) = log else { return };
            write!(log, "{}: ", event.metadata().level()).unwrap();
            event.record(&mut Line(log));
            log.push('\n');
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A formatted store on a device, opened without a background thread: the calling thread logs
/// everything.
fn store_on(device: Arc<dyn IoBackend>) -> Store {
    Store::format(device.clone(), &small()).unwrap();
    Store::open_with(device, &without_thread()).unwrap()
}

fn times(log: &str, line: &str) -> usize {
    log.matches(line).count()
}

#[test]
fn the_life_of_a_store_is_logged() {
    Log::install();
    let device = memory(1 << 20);
    let log = Log::of(|| {
        let store = store_on(device.clone());
        store.put(b"key", &[1; 4096]).unwrap();
        store.checkpoint().unwrap();
        drop(store);
        Store::open_with(device.clone(), &without_thread()).unwrap().close().unwrap();
    });
    let expected = "\
        DEBUG: a checkpoint was committed\n\
        INFO: a store was made\n\
        INFO: a store is being opened\n\
        INFO: a store was opened\n\
        DEBUG: a checkpoint was committed\n\
        INFO: a store is being opened\n\
        DEBUG: a checkpoint was committed\n\
        INFO: a store was opened\n\
        DEBUG: a checkpoint was committed\n\
        INFO: a store was closed\n";
    assert_eq!(log, expected);
}

#[test]
fn objects_that_waste_space_are_logged_once() {
    Log::install();
    let store = store_on(memory(1 << 20));
    let log = Log::of(|| {
        for len in [4096, 4097, 8192] {
            store.put(b"key", &vec![1; len]).unwrap();
        }
    });
    assert_eq!(
        log,
        "WARN: an object is longer than an eighth of a segment: space is wasted where no other fits\n"
    );
}

#[test]
fn damage_is_logged_and_counted_where_it_is_found() {
    Log::install();
    let device = memory(1 << 20);
    let store = store_on(device.clone());
    put_all(&store, &[Put::new(b"a", &[1; 4096]), Put::new(b"b", &[2; 4096])]);
    store.checkpoint().unwrap();
    flip(&device, newest(&device, b"b").payload);
    let log = Log::of(|| assert!(store.get(b"b").is_err()));
    assert_eq!(log, "WARN: an object is damaged\n");
    let log = Log::of(|| assert!(store.get(b"b").is_err()));
    assert_eq!(log, "", "it is known");
    let log = Log::of(|| {
        let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.findings.len(), 1);
    });
    assert_eq!(log, "WARN: the scrub found a damage\n");
    assert_eq!(store.stats().failed_checks, 1);
    drop(store);
    flip(&device, newest(&device, b"b").slot);
    let log = Log::of(|| {
        let store = Store::open_with(device.clone(), &without_thread()).unwrap();
        assert_eq!((store.stats().objects, store.stats().failed_checks), (0, 2));
    });
    // Both objects share the header.
    assert_eq!(
        times(
            &log,
            "ERROR: objects that the checkpoint names are lost, unless they were replaced or deleted since\n"
        ),
        1,
        "{log}"
    );
}

#[test]
fn a_scrub_logs_its_first_findings_and_counts_the_others() {
    Log::install();
    let device = memory(1 << 20);
    let store = store_on(device.clone());
    for key in 0..32 {
        store.put(&[key], &[key; 4096]).unwrap();
    }
    // A copy of the superblock is a finding like any other.
    flip(&device, 4096);
    let scrub = || {
        let mut findings = 0;
        let log = Log::of(|| {
            let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
            findings = report.findings.len();
        });
        (findings, log)
    };
    let one = "WARN: the scrub found a damage\n";
    assert_eq!(scrub(), (1, one.to_owned()));
    let payloads: Vec<_> = versions(&device).iter().map(|version| version.payload).collect();
    payloads[..9].iter().for_each(|&payload| flip(&device, payload));
    assert_eq!(scrub(), (10, one.repeat(10)));
    payloads[9..].iter().for_each(|&payload| flip(&device, payload));
    let more = "WARN: the scrub found more damages than it logged\n";
    assert_eq!(scrub(), (33, one.repeat(10) + more));
}

#[test]
fn a_recovery_logs_its_first_damages_and_counts_the_others() {
    Log::install();
    let device = Faulty::new(1 << 20);
    let store = store_on(device.backend());
    for key in (0..20).chain(0..20) {
        store.put(&[key], &[key; 4096]).unwrap();
    }
    drop(store);
    let found = versions(&device.backend());
    let headers: Vec<_> = found.iter().map(|version| version.slot..version.slot + 1).collect();
    let payloads: Vec<_> = found.iter().map(|version| version.payload..version.slot_end).collect();
    let recovery = |ranges: &[Range<u64>]| {
        device.fail_within(OpKind::Read, ranges);
        let options = without_thread().accept_older_states(true);
        Log::of(|| drop(Store::open_read_only(device.backend(), &options).unwrap()))
    };
    let more = "WARN: the recovery found more damages than it logged\n";
    let log = recovery(&headers);
    let one =
        "ERROR: a block of a segment that was filled is left out: an older object may be back\n";
    assert_eq!((times(&log, one), times(&log, more)), (10, 1), "{log}");
    // Each key was put twice.
    let log = recovery(&payloads);
    let one = "WARN: an object cannot be read\n";
    assert_eq!((times(&log, one), times(&log, more)), (10, 1), "{log}");
}

#[test]
fn a_device_that_fails_is_logged() {
    Log::install();
    let device = Faulty::new(1 << 20);
    let store = store_on(device.backend());
    device.rule(|op| if op.kind() == OpKind::Flush { Fate::Failed } else { Fate::Done });
    let log = Log::of(|| assert!(store.flush().is_err()));
    assert_eq!(log, "ERROR: a flush failed: writes are refused from now on\n");
    drop(store);
    device.fail_at(OpKind::Read, 4096);
    let log = Log::of(|| drop(Store::open_with(device.backend(), &without_thread()).unwrap()));
    assert!(log.contains("WARN: a copy of the superblock cannot be read\n"), "{log}");
}

#[test]
fn the_health_of_a_store_is_logged_when_it_changes() {
    Log::install();
    let device = Faulty::new(1 << 20);
    let store = store_on(device.backend());
    device.rule(|op| if op.kind() == OpKind::Write { Fate::Failed } else { Fate::Done });
    let log = Log::of(|| {
        assert!(store.put(b"key", b"value").is_err());
        assert!(store.put(b"key", b"value").is_err());
    });
    assert_eq!(times(&log, "WARN: the store's health is worse\n"), 1, "{log}");
    assert_eq!(store.stats().health.state, HealthState::ReadOnly);
    device.rule(|_| Fate::Done);
    let log = Log::of(|| store.checkpoint().unwrap());
    assert_eq!(times(&log, "INFO: the store's health is better\n"), 1, "{log}");
    store.put(b"key", b"value").unwrap();
}
