//! Switches each rule of the protocol off in turn.

use std::env;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::search::Budget;
use super::target::{self, Mutant};
use super::templates::Templates;

/// Not a mutant of the store: the lock on the device is released before the writes of a killed process have completed.
const LOCK_RELEASED_EARLY: &str = "LockReleasedEarly";

/// The focus of the scenarios that show a mutant soonest; any, if it is not here.
const FOCUS: &[(&str, &[&str])] = &[
    ("Openings", &["ChecksumsUnchecked", "OpenedWithoutFlush", "NotMarkedOpen", "Superblock"]),
    ("Filling", &["Sequences", "NoCheckpointAfterRecovery"]),
    ("Tables", &["UnknownOverwritten", "TableWithoutCheckpoint"]),
    ("Misreads", &["AbsentDeletes"]),
    ("Retries", &["FilledPastFailedSlot"]),
    ("Opened", &["PutAlthoughSegmentHeaderFailed"]),
    ("Decay", &["LostCheckpoint", "Discarded"]),
    ("Refilling", &["TableOfOther"]),
    ("Moves", &["MovedWhileCopying"]),
    ("Space", &["ReleasedWithLiveObjects"]),
    ("Readers", &["ReopenedWhileRead"]),
    (
        "Headers",
        &["UndestroyedContainerUsed", "FailedHeader", "FailedNumber", "EvictedBeforeCommit"],
    ),
    (
        "Slow",
        &[
            "ScannedBelowCovered",
            "SlotGeneration",
            "NoSearch",
            "AllocatedPastWindow",
            "PutBeforeSegmentHeader",
            "CoveredIsCurrent",
            "SettledUpToCursor",
            "TombstonesForgotten",
            "ReleasedAboveCovered",
            "CompletedCounts",
            "DeletesNotCounted",
            "CoveredChosen",
            "PrefixChosen",
            "OnlyPrefixNamed",
            "AboveCovered",
            "TombstonesNotNamed",
        ],
    ),
];

/// The most places at which the power is cut of one scenario.
const MAX_PLACES: u64 = 8;

/// Runs scenarios with each mutant whose name contains `only`, and wants a violation for each. Prints a table.
pub(super) fn run(budget: Budget, only: &str) -> Result<()> {
    let names = target::mutants().iter().map(|mutant| format!("{mutant:?}"));
    let names = names.chain([LOCK_RELEASED_EARLY.to_owned()]);
    let names: Vec<_> = names.filter(|name| name.contains(only)).collect();
    let mut missed = Vec::new();
    println!("| mutant | noticed after | scenario | by |\n|---|---|---|---|");
    for name in &names {
        let began = Instant::now();
        let said = run_one(budget, name)?;
        let seconds = began.elapsed().as_secs_f64();
        let line = |start: &str| said.lines().find_map(|line| line.strip_prefix(start));
        let cuts = said.lines().find_map(|line| line.split_once(" cuts,"));
        let cuts = cuts.map_or("?", |(cuts, _)| cuts);
        match line("violation: ") {
            Some(violation) => {
                let again = line("  again: ").unwrap_or("");
                let id = again.rsplit(' ').next().unwrap_or("");
                println!("| `{name}` | {cuts} cuts, {seconds:.1} s | {id} | {violation} |");
            }
            None => {
                println!("| `{name}` | NOT NOTICED in {cuts} cuts, {seconds:.1} s | | |");
                missed.push(name);
            }
        }
    }
    println!("{} mutants, {} not noticed", names.len(), missed.len());
    if !missed.is_empty() {
        bail!("not noticed: {missed:?}");
    }
    Ok(())
}

/// Runs scenarios with one mutant until the first violation, in a process that may hang or end. Returns what it printed.
fn run_one(budget: Budget, name: &str) -> Result<String> {
    let focus = FOCUS.iter().find(|(_, names)| names.iter().any(|part| name.starts_with(part)));
    let focus = budget
        .focus
        .map(|focus| format!("{focus:?}"))
        .or_else(|| focus.map(|(focus, _)| (*focus).to_owned()));
    let output = Command::new(env::current_exe().context("cannot find this program")?)
        .args(["crash", "--with", name, "--violations", "1"])
        .args(["--cuts", &budget.cuts.to_string()])
        .args(["--seed", &budget.seed.to_string()])
        .args(["--threads", &budget.threads.to_string()])
        .args(focus.iter().flat_map(|focus| ["--focus", focus]))
        // Different scenarios find more than different cuts.
        .args(["--places", &budget.places.min(MAX_PLACES).to_string()])
        .output()
        .context("cannot start a process for a mutant")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() || said.contains("violation: ") {
        return Ok(said);
    }
    Ok(format!("{said}\nviolation: the process ended with {}", output.status))
}

/// Switches the mutant of this name on.
pub(super) fn switch_on(templates: &Templates, name: &str) -> Result<()> {
    if name == LOCK_RELEASED_EARLY {
        templates.leave_writes.store(true, Ordering::SeqCst);
        return Ok(());
    }
    let mut mutants: std::slice::Iter<'_, Mutant> = target::mutants().iter();
    match mutants.find(|mutant| format!("{mutant:?}") == name) {
        Some(mutant) => mutant.switch_on(),
        None => bail!("there is no mutant {name:?}"),
    }
    Ok(())
}
