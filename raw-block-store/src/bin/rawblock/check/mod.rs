//! `rawblock check`

mod regions;
mod segments;

use std::collections::HashSet;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use raw_block_core::Dispatcher;
use raw_block_store::format::Layout;
use raw_block_store::{Error as StoreError, Finding, ScrubReport, Store};
use serde_json::json;

use crate::Answer;
use crate::arguments::Check;
use crate::device::options;
use crate::output::{BAD, GOOD, Hex, Text, answered, counted, on_stdout, print, shown};
use crate::read::{Copies, Flaw, Reader};

pub(crate) fn run(arguments: &Check) -> Result<Answer> {
    let begin = Instant::now();
    let Verified { damages, scrubbed } = verify(arguments)?;
    let seconds = begin.elapsed().as_secs_f64();
    let printed = print(|out| {
        for damage in &damages {
            writeln!(out, "{}", if arguments.json { damage.json() } else { damage.text() })?;
        }
        if scrubbed.more_findings > 0 && !arguments.json {
            writeln!(out, "{} not listed", counted(scrubbed.more_findings, "more place"))?;
        }
        writeln!(out, "{}", conclusion(arguments, damages.len(), &scrubbed, seconds))
    });
    if damages.is_empty() {
        return answered(Answer::Yes, printed);
    }
    let verdict = || {
        let places = counted(damages.len() as u64, "place");
        format!("{} is damaged in {places}, which are not listed", arguments.device.path.display())
    };
    answered(Answer::No, printed.with_context(verdict))
}

/// What was verified.
#[derive(Default)]
struct Verified {
    damages: Vec<Damaged>,
    scrubbed: ScrubReport,
}

/// Something that is damaged.
struct Damaged {
    /// What it is, where, and what is wrong with it.
    text: String,
    /// Where it begins, if it has a place.
    offset: Option<u64>,
    /// The segment that has it, if one has.
    segment: Option<u32>,
    /// Its key, if it is an object whose header is intact.
    key: Option<Vec<u8>>,
}

impl Damaged {
    fn new(structure: &str, offset: u64, flaw: &Flaw) -> Self {
        let what = match flaw {
            Flaw::Unreadable(_) => "cannot be read",
            Flaw::Damaged(_) => "is damaged",
        };
        let text = format!("{structure} at offset {offset} {what}: {flaw}");
        Self { text, offset: Some(offset), segment: None, key: None }
    }

    fn in_segment(self, segment: u32) -> Self {
        Self { segment: Some(segment), ..self }
    }

    fn text(&self) -> String {
        let key = self.key.as_deref().map(|key| format!(" (key {})", Text(key)));
        format!("{}{}", self.text, key.unwrap_or_default())
    }

    fn json(&self) -> String {
        let key = self.key.as_deref();
        let line = json!({
            "damage": self.text,
            "offset": self.offset,
            "segment": self.segment,
            "key": key.and_then(|key| str::from_utf8(key).ok()),
            "key_hex": key.map(|key| Hex(key).to_string()),
        });
        line.to_string()
    }
}

impl From<&StoreError> for Damaged {
    /// What prevents the store from being opened.
    fn from(error: &StoreError) -> Self {
        let offset = match error {
            StoreError::Damaged { offset, .. } | StoreError::NewestLost { offset, .. } => {
                Some(*offset)
            }
            _ => None,
        };
        Self { text: error.to_string(), offset, segment: None, key: None }
    }
}

impl From<&Finding> for Damaged {
    fn from(finding: &Finding) -> Self {
        let Finding { key, segment, offset, error, .. } = finding;
        Self {
            text: match error {
                StoreError::Device { .. } => {
                    format!("what is at offset {offset} cannot be read: {error}")
                }
                error => error.to_string(),
            },
            offset: Some(*offset),
            segment: *segment,
            key: key.clone(),
        }
    }
}

impl Verified {
    /// Adds what a scrub found. The objects of one slot share its header.
    fn add_findings(&mut self, scrubbed: ScrubReport) {
        let mut known = HashSet::new();
        let is_new = |finding: &&Finding| known.insert((finding.offset, finding.key.clone()));
        let findings: Vec<_> = scrubbed.findings.iter().filter(is_new).map(Damaged::from).collect();
        self.add(findings);
        self.scrubbed = scrubbed;
    }

    /// Adds damages, but for those of a place of which one is known.
    fn add(&mut self, damages: Vec<Damaged>) {
        let known: HashSet<_> = self.damages.iter().filter_map(|damage| damage.offset).collect();
        let is_new = |damage: &Damaged| damage.offset.is_none_or(|at| !known.contains(&at));
        self.damages.extend(damages.into_iter().filter(is_new));
    }
}

/// Verifies the store from its objects, as far as it can be opened, and then from its structures.
fn verify(arguments: &Check) -> Result<Verified> {
    let backend = arguments.device.look()?;
    let mut verified = Verified::default();
    let open = |accept_older_states| {
        Store::open_read_only(Arc::clone(&backend), &options(accept_older_states))
    };
    let store = match open(false) {
        Ok(store) => Some(store),
        Err(
            lost @ (StoreError::CheckpointLost { .. }
            | StoreError::Damaged { .. }
            | StoreError::NewestLost { .. }),
        ) => {
            verified.damages.push(Damaged::from(&lost));
            open(true).ok()
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(store) = &store {
        verified.add_findings(scrub(store)?);
    }
    drop(store);
    let device = Dispatcher::read_only(backend)?;
    let copies = Copies::read(&device)?;
    verified.add(regions::superblocks(&copies));
    if let Some(superblock) = copies.newest() {
        let reader = Reader::new(&device, Layout::of(&superblock));
        verified.add(regions::checkpoints(&reader, &superblock)?);
        verified.add(segments::verify(&reader)?);
    }
    Ok(verified)
}

fn scrub(store: &Store) -> Result<ScrubReport> {
    let show = shown("verifying");
    Ok(store.scrub(|progress| {
        show(progress);
        ControlFlow::Continue(())
    })?)
}

/// The last line: how much was verified, and whether it is intact.
fn conclusion(arguments: &Check, listed: usize, report: &ScrubReport, seconds: f64) -> String {
    let damages = (listed as u64).saturating_add(report.more_findings);
    #[expect(clippy::cast_precision_loss, reason = "a figure has fewer digits than a double")]
    let bytes = report.bytes as f64;
    if arguments.json {
        let healthy = damages == 0;
        let line = json!({
            "healthy": healthy, "damages": damages, "listed": listed, "objects": report.objects, "bytes": report.bytes,
            "seconds": seconds,
        });
        return line.to_string();
    }
    let verified = format!(
        "{}, {:.1} MB verified in {seconds:.1} s ({:.0} MB/s)",
        counted(report.objects, "object"),
        bytes / 1e6,
        bytes / 1e6 / seconds
    );
    let path = arguments.device.path.display();
    if damages == 0 {
        let good = on_stdout(GOOD);
        format!("{good}healthy{good:#} {path}: {verified}")
    } else {
        let (bad, places) = (on_stdout(BAD), counted(damages, "place"));
        format!("{bad}damaged{bad:#} {path}: {places}; {verified}")
    }
}
