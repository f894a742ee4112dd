//! The events that a store logs for its operator.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::ops::ControlFlow;
use std::sync::Once;

use common::faulty::{Fate, Faulty};
use common::{flip, memory, put_all, slot_offset, superblock};
use raw_block_core::{Op, OpKind};
use raw_block_store::{EvictionPolicy, FormatOptions, OpenOptions, Put, Store};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Notes the events of the store, one a line, with the level in front.
///
/// It is the one subscriber of the process, and keeps the events of each thread apart. Every test installs it first: if a
/// thread reaches an event while no subscriber is installed, `tracing` may remember that none wants it.
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

/// Without a thread for checkpoints everything is logged by the thread that calls.
fn without_thread() -> OpenOptions {
    OpenOptions { checkpoint_thread: false, ..OpenOptions::default() }
}

#[test]
fn the_life_of_a_store_is_logged() {
    Log::install();
    let device = memory(1 << 20);
    let log = Log::of(|| {
        let options = FormatOptions { slot_count: Some(8), ..FormatOptions::for_payloads(4096) };
        Store::format(device.clone(), &options).unwrap();
        let store = Store::open_with(device.clone(), &without_thread()).unwrap();
        store.put(b"key", &[1; 4096]).unwrap();
        store.checkpoint().unwrap();
        drop(store);
        Store::open_with(device.clone(), &without_thread()).unwrap().close().unwrap();
    });
    let expected = "\
        INFO: a store was made\n\
        INFO: a store was opened\n\
        DEBUG: a checkpoint was committed\n\
        INFO: a store that was not closed in order is recovered\n\
        INFO: a store that was not closed in order was recovered\n\
        INFO: a store was opened\n\
        DEBUG: a checkpoint was committed\n\
        INFO: a store was closed\n";
    assert_eq!(log, expected);
}

#[test]
fn damage_is_logged_and_counted_where_it_is_found() {
    Log::install();
    let device = memory(1 << 20);
    let options = FormatOptions { slot_count: Some(8), ..FormatOptions::for_payloads(4096) };
    Store::format(device.clone(), &options).unwrap();
    let store = Store::open_with(device.clone(), &without_thread()).unwrap();
    put_all(&store, &[Put::new(b"a", &[1; 4096]), Put::new(b"b", &[2; 4096])]);
    store.checkpoint().unwrap();
    flip(&device, slot_offset(&device, 1) + 4096);
    let log = Log::of(|| assert!(store.get(b"b").is_err()));
    assert_eq!(log, "WARN: an object failed its checks\n");
    let log = Log::of(|| {
        let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.findings.len(), 1);
    });
    assert_eq!(log, "WARN: the scrub found a damage\n");
    assert_eq!(store.stats().failed_checks, 2);
    drop(store);
    flip(&device, slot_offset(&device, 1));
    let log = Log::of(|| {
        let store = Store::open_with(device.clone(), &without_thread()).unwrap();
        assert_eq!(store.stats().failed_checks, 1);
        assert!(!store.contains(b"b") && store.contains(b"a"));
    });
    assert!(
        log.contains("WARN: objects that the checkpoint names are damaged, and gone\n"),
        "{log}"
    );
}

#[test]
fn a_scrub_logs_its_first_findings_and_counts_the_others() {
    Log::install();
    let device = memory(1 << 20);
    let options = FormatOptions { slot_count: Some(32), ..FormatOptions::for_payloads(4096) };
    Store::format(device.clone(), &options).unwrap();
    let store = Store::open_with(device.clone(), &without_thread()).unwrap();
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
    (0..9).for_each(|slot| flip(&device, slot_offset(&device, slot) + 4096));
    assert_eq!(scrub(), (10, one.repeat(10)));
    (9..32).for_each(|slot| flip(&device, slot_offset(&device, slot) + 4096));
    let more = "WARN: the scrub found more damages than it logged\n";
    assert_eq!(scrub(), (33, one.repeat(10) + more));
}

#[test]
fn a_recovery_logs_its_first_damages_and_counts_the_others() {
    Log::install();
    let device = Faulty::new(1 << 20);
    let options = FormatOptions {
        slot_count: Some(32),
        delete_log_blocks: Some(16),
        ..FormatOptions::for_payloads(4096)
    };
    Store::format(device.backend(), &options).unwrap();
    let store = Store::open_with(device.backend(), &without_thread()).unwrap();
    for key in (0..12).chain(0..12) {
        store.put(&[key], &[key; 4096]).unwrap();
    }
    for _ in 0..12 {
        assert!(!store.delete_many(&[b"absent"]).remove(0).unwrap());
    }
    drop(store);
    let layout = superblock(&device.backend());
    let (log, slots) = (layout.delete_log_offset.get(), layout.slots_offset.get());
    let recovery = |fate: fn(&Op, u64, u64) -> Fate| {
        device.rule(move |op| fate(op, log, slots));
        let options = OpenOptions { accept_older_states: true, ..without_thread() };
        Log::of(|| drop(Store::open_read_only(device.backend(), &options).unwrap()))
    };
    let more = "WARN: the recovery found more damages than it logged\n";
    let logged = |log: &str, line| log.matches(line).count();

    let unread = recovery(|op, _, slots| {
        let header = op.offset() >= slots && op.len() <= 4096;
        if header { Fate::Failed } else { Fate::Done }
    });
    assert_eq!(logged(&unread, "ERROR: what cannot be read is left out: an older object"), 10);
    assert!(unread.contains(more), "{unread}");

    let unread = recovery(|op, _, slots| {
        let object = op.offset() >= slots && op.len() > 4096;
        if object { Fate::Failed } else { Fate::Done }
    });
    assert_eq!(logged(&unread, "WARN: an object that cannot be read has an older one"), 10);
    assert!(unread.contains(more), "{unread}");

    (0..12).for_each(|block| flip(&device.backend(), log + block * 4096 + 100));
    let damaged = recovery(|_, _, _| Fate::Done);
    assert_eq!(logged(&damaged, "WARN: a block of the delete log is left out"), 10);
    assert!(damaged.contains(more), "{damaged}");
}

#[test]
fn a_device_that_fails_is_logged() {
    Log::install();
    let device = Faulty::new(1 << 20);
    let options = FormatOptions { slot_count: Some(8), ..FormatOptions::for_payloads(4096) };
    Store::format(device.backend(), &options).unwrap();
    let eviction = EvictionPolicy::Lru;
    let options = OpenOptions { eviction, ..without_thread() };
    let store = Store::open_with(device.backend(), &options).unwrap();
    device.rule(|op| if op.kind() == OpKind::Flush { Fate::Failed } else { Fate::Done });
    let log = Log::of(|| assert!(store.flush().is_err()));
    assert_eq!(log, "ERROR: a flush failed: writes are refused from now on\n");
    drop(store);
    device.fail_at(OpKind::Read, 4096);
    let log = Log::of(|| drop(Store::open_with(device.backend(), &options).unwrap()));
    assert!(log.contains("WARN: a copy of the superblock cannot be read\n"), "{log}");
}
