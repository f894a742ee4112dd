//! `rawblock info`

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::{BinaryBytes, HumanCount};
use raw_block_core::Dispatcher;
use raw_block_core::backend::IoBackend;
use raw_block_store::format::{Layout, SUPERBLOCK_COPIES, Superblock, SuperblockState};
use raw_block_store::{Health, HealthState, Store, StoreStats};
use serde_json::{Value, json};

use crate::Answer;
use crate::arguments::Info;
use crate::device::options;
use crate::dump::uuid;
use crate::output::{Size, Text, date, print};
use crate::read::{Copies, Reader};

pub(crate) fn run(arguments: &Info) -> Result<Answer> {
    let backend = arguments.device.look()?;
    let copies = Copies::read(&Dispatcher::read_only(Arc::clone(&backend))?)?;
    let Some(superblock) = copies.newest() else {
        let flaws: Vec<_> = (0..SUPERBLOCK_COPIES).filter_map(|i| copies.copy(i).err()).collect();
        let mut flaws: Vec<_> = flaws.iter().map(ToString::to_string).collect();
        flaws.dedup();
        bail!(
            "{} contains no store that can be read, because no copy of a superblock is valid: {}",
            arguments.device.path.display(),
            flaws.join("; ")
        );
    };
    let about = About {
        path: arguments.device.path.display().to_string(),
        superblock,
        valid_copies: copies.valid(),
        state: State::of(Arc::clone(&backend), &superblock)?,
        backend,
    };
    let report = about.json();
    let text = if arguments.json { format!("{report}\n") } else { about.text(&report) };
    print(|out| out.write_all(text.as_bytes())).map(|()| Answer::Yes)
}

/// Everything that is shown.
struct About {
    path: String,
    superblock: Superblock,
    valid_copies: usize,
    backend: Arc<dyn IoBackend>,
    state: State,
}

/// What an opened store knows.
struct State {
    /// Nothing if the store cannot be opened.
    stats: Option<StoreStats>,
    health: Health,
    /// Segments in quarantine.
    bad: Vec<u32>,
}

impl State {
    /// Opens the store read-only to find out. If that fails, the reason is the state of its health.
    fn of(backend: Arc<dyn IoBackend>, superblock: &Superblock) -> Result<Self> {
        let store = match Store::open_read_only(backend, &options(false)) {
            Ok(store) => store,
            Err(error) => {
                let health = Health { state: HealthState::Failed, reason: error.to_string() };
                return Ok(Self { stats: None, health, bad: Vec::new() });
            }
        };
        let stats = store.stats();
        let records = if stats.bad_segments > 0 {
            Reader::new(store.dispatcher(), Layout::of(superblock)).newest_records()?
        } else {
            Vec::new()
        };
        let bad = (0..).zip(&records).filter(|(_, record)| record.record.bad);
        let bad = bad.map(|(segment, _)| segment).collect();
        Ok(Self { health: stats.health.clone(), stats: Some(stats), bad })
    }
}

impl About {
    fn json(&self) -> Value {
        let Self { path, superblock, valid_copies, backend, state } = self;
        let layout = Layout::of(superblock);
        let geometry = backend.geometry();
        let stats = state.stats.as_ref();
        json!({
            "path": path,
            "label": superblock.label(),
            "uuid": uuid(&superblock.preamble.uuid),
            "created": date(Duration::from_nanos(superblock.created_unix_ns.get())),
            "state": if is_clean(superblock) { "clean" } else { "open" },
            "format_version": superblock.preamble.version.get(),
            "block_bytes": layout.block_size,
            "segment_bytes": layout.segment_size(),
            "largest_value_bytes": layout.largest_payload(),
            "segments": layout.segment_count,
            "free_segments": stats.map(|stats| stats.free_segments),
            "open_segments": stats.map(|stats| stats.open_segments),
            "full_segments": stats.map(|stats| stats.full_segments),
            "draining_segments": stats.map(|stats| stats.draining_segments),
            "bad_segments": state.bad,
            "objects": stats.map(|stats| stats.objects),
            "lost_objects": stats.map(|stats| stats.failed_checks),
            "payload_bytes": stats.map(|stats| stats.payload_bytes),
            "bytes_left": stats.map(|stats| stats.bytes_left),
            "checkpoint": stats.map(|stats| stats.checkpoint),
            "health": name(state.health.state),
            "health_reason": state.health.reason,
            "valid_superblock_copies": valid_copies,
            "device": {
                "engine": backend.engine(),
                "capacity_bytes": geometry.capacity,
                "logical_block": geometry.logical_block,
                "transfer_alignment": geometry.transfer_alignment,
                "memory_alignment": geometry.memory_alignment,
                "max_transfer": geometry.max_transfer,
                "volatile_write_cache": geometry.volatile_write_cache,
                "discard": geometry.discard,
            },
        })
    }

    fn text(&self, report: &Value) -> String {
        let Self { superblock, valid_copies, backend, state, .. } = self;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut rows = Rows::default();
        let label = Text(superblock.label().as_bytes()).to_string();
        let uuid = text(&report["uuid"]);
        rows.add("store", &if label.is_empty() { uuid } else { format!("{uuid} {label:?}") });
        rows.add("created", &text(&report["created"]));
        rows.add("state", if is_clean(superblock) { "clean" } else { OPEN });
        let layout = Layout::of(superblock);
        rows.add(
            "layout",
            &format!(
                "{} segments of {}, in blocks of {}",
                HumanCount(layout.segment_count.into()),
                Size(layout.segment_size()),
                Size(layout.block_size.into())
            ),
        );
        rows.add("values", &format!("up to {}", Size(layout.largest_payload().into())));
        if let Some(stats) = &state.stats {
            store_rows(stats, &state.bad, &mut rows);
        }
        let Health { state: health, reason } = &state.health;
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        rows.add("health", &format!("{}{reason}", name(*health)));
        rows.add("superblock", &format!("{valid_copies} of {SUPERBLOCK_COPIES} copies are valid"));
        rows.add("device", &device(backend.as_ref()));
        rows.0
    }
}

const OPEN: &str = "open: not closed in order; it is recovered when it is opened";

fn is_clean(superblock: &Superblock) -> bool {
    matches!(superblock.state(), SuperblockState::Clean { .. })
}

fn name(health: HealthState) -> &'static str {
    match health {
        HealthState::Healthy => "healthy",
        HealthState::Degraded => "degraded",
        HealthState::ReadOnly => "read-only",
        _ => "failed",
    }
}

/// Lines of a name and a text.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn add(&mut self, name: &str, text: &str) {
        self.0 += &format!("{name:<12} {text}\n");
    }
}

/// What is in the store, and how full it is.
fn store_rows(stats: &StoreStats, bad: &[u32], rows: &mut Rows) {
    let lost = match stats.failed_checks {
        0 => String::new(),
        lost => format!("; {} more are lost: `rawblock check` names the places", HumanCount(lost)),
    };
    rows.add(
        "objects",
        &format!(
            "{} with {} of values{lost}",
            HumanCount(stats.objects),
            BinaryBytes(stats.payload_bytes)
        ),
    );
    rows.add("space", &format!("about {} more can be put", BinaryBytes(stats.bytes_left)));
    rows.add(
        "segments",
        &format!(
            "{} free, {} open, {} full, {} draining, {} bad",
            HumanCount(stats.free_segments),
            HumanCount(stats.open_segments),
            HumanCount(stats.full_segments),
            HumanCount(stats.draining_segments),
            HumanCount(stats.bad_segments)
        ),
    );
    if !bad.is_empty() {
        let bad: Vec<_> = bad.iter().map(ToString::to_string).collect();
        rows.add("bad", &format!("in quarantine, because writes failed: {}", bad.join(", ")));
    }
    rows.add("checkpoint", &HumanCount(stats.checkpoint).to_string());
}

fn device(backend: &dyn IoBackend) -> String {
    let geometry = backend.geometry();
    format!(
        "{}, {} bytes in blocks of {}, transfers aligned to {}, {}",
        backend.engine(),
        HumanCount(geometry.capacity),
        geometry.logical_block,
        geometry.transfer_alignment,
        if geometry.volatile_write_cache {
            "volatile write cache"
        } else {
            "no volatile write cache"
        }
    )
}
