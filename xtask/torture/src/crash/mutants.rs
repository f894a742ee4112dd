//! Switches off each rule of the protocol in turn.

use std::env;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::search::Budget;
use super::target::{self, Mutant};
use super::templates::Templates;

/// Not a mutant of the store: the lock on the device is released before the writes of a killed
/// process have completed.
const LOCK_RELEASED_EARLY: &str = "LockReleasedEarly";

/// The focus of the scenarios that notice a mutant soonest. A mutant that is not listed has no
/// focus.
const FOCUS: &[(&str, &[&str])] = &[
    ("Openings", &["ChecksumsUnchecked", "OpenedWithoutFlush", "NotMarkedOpen", "Superblock"]),
    ("Filling", &["SequencesGoOn", "NoCheckpointAfterRecovery"]),
    ("Tables", &["TableWithoutCheckpoint"]),
    ("Misreads", &["AbsentDeletes"]),
    ("Retries", &["FilledPastFailedSlot"]),
    ("Opened", &["PutAlthoughSegmentHeaderFailed"]),
    ("BitRot", &["LostCheckpoint", "OlderCheckpoints", "Discarded"]),
    ("Moves", &["MovedWhileCopying"]),
    ("Space", &["ReleasedWithLiveObjects", "TombstoneSegment"]),
    ("Races", &["LastToCompleteWins"]),
    ("Reserve", &["DeletedWithoutCheckpoint"]),
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
            "PutBeforeSegmentHeader",
            "AllocatedPastWindow",
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

/// Mutants that need too many scenarios, and tests of the store that fail with them.
const TESTS: &[(&str, &str)] = &[
    ("OpenedWithoutFlush", "an_opening_that_cannot_flush_writes_nothing"),
    ("CleanMarkOfSomeCopies", "a_damaged_copy_of_the_superblock_is_written_again"),
    ("TornObjectsMoved", "a_damaged_object_stays_damaged_when_it_is_moved"),
    ("LastSegmentNotForMoves", "a_store_with_half_of_its_reserve_is_compacted"),
    ("MovesShareNoSlots", "copies_share_slots_and_keep_their_sequences"),
    ("TombstonesNotNamed", "tombstones_are_named_until_a_commit_covers_them"),
    ("TombstonesForgottenByAnyCommit", "tombstones_count_until_a_commit_covers_them"),
    ("SequencesJumpTooShort", "named_objects_of_a_table_are_found"),
    ("ScannedBelowCovered", "past_the_settled_prefix_only_newer_entries_count"),
    ("SlotGenerationUnchecked", "slots_of_an_older_generation_do_not_count"),
    ("LostCheckpointUnnoticed", "a_lost_checkpoint_is_noticed_by_segment_headers"),
    ("AllocatedPastWindow", "nothing_is_allocated_far_past_an_incomplete_slot"),
    ("FilledPastFailedSlot", "what_failed_is_written_elsewhere_with_its_old_sequence"),
    ("ReleasedAboveCovered", "a_segment_is_released_when_it_is_dead_covered_and_settled"),
    ("DiscardedBeforeAllCheckpoints", "a_segment_is_discarded_when_every_checkpoint_calls_it_free"),
    ("OnlyPrefixNamed", "changes_in_flight_bound_the_covered_sequence_and_the_prefix"),
    ("CopiesPublishedOneByOne", "copies_of_a_segment_are_published_all_or_none"),
    ("EmptyTargetStaysOpen", "an_empty_target_of_moves_is_sealed_when_space_is_needed"),
    ("VictimNotCovered", "a_victim_is_covered_by_the_committed_checkpoint"),
    ("VictimWithPinnedVersion", "a_pinned_version_that_was_replaced_keeps_its_segment"),
    ("WaitingDeletesNotServedFirst", "a_delete_finds_space_in_a_full_store_and_returns_it"),
    ("TableOfOtherCheckpointUsed", "a_table_of_another_place_or_checkpoint_is_refused"),
    ("GoneForgotten", "a_late_older_put_does_not_undo_a_deletion"),
    ("UnknownOverwritten", "a_late_write_of_a_checkpoint_stops_writes"),
    ("ClearLeavesPinned", "what_is_pinned_stays_readable_and_leaves_the_index"),
    ("DeletedBeforeOlderChanges", "a_delete_without_tombstone_brings_no_older_version_back"),
    ("DeletedDuringCheckpoint", "a_delete_without_tombstone_waits_for_the_running_checkpoint"),
    ("DeletesWithoutLimit", "deletes_without_tombstones_use_the_expected_sequences"),
    ("ChecksumsUnchecked", "every_flipped_bit_of_a_superblock_is_found"),
];

/// The maximum number of cuts of one scenario.
const MAX_PLACES: u64 = 8;

/// Runs scenarios with each mutant whose name contains `only`, and requires a violation of each.
/// Prints a table.
pub(super) fn run(budget: Budget, only: &str) -> Result<()> {
    let names = target::mutants().iter().map(|mutant| format!("{mutant:?}"));
    let names = names.chain([LOCK_RELEASED_EARLY.to_owned()]);
    let names: Vec<_> = names.filter(|name| name.contains(only)).collect();
    let mut missed = Vec::new();
    println!("| mutant | noticed after | scenario | by |\n|---|---|---|---|");
    for name in &names {
        let began = Instant::now();
        if let Some((_, test)) = TESTS.iter().find(|(mutant, _)| mutant == name) {
            let seconds = || began.elapsed().as_secs_f64();
            if fails(name, test)? {
                println!("| `{name}` | {:.1} s | | the test {test} |", seconds());
            } else {
                println!("| `{name}` | NOT NOTICED by {test}, {:.1} s | | |", seconds());
                missed.push(name);
            }
            continue;
        }
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

/// Runs scenarios with one mutant until the first violation, in a process, because it may hang or
/// abort. Returns its output.
fn run_one(budget: Budget, name: &str) -> Result<String> {
    let focus = FOCUS.iter().find(|(_, names)| names.iter().any(|part| name.starts_with(part)));
    let focus = budget
        .focus
        .map(|focus| format!("{focus:?}"))
        .or_else(|| focus.map(|(focus, _)| (*focus).to_owned()));
    let output = Command::new(env::current_exe().context("cannot find the path of this program")?)
        .args(["crash", "--with", name, "--violations", "1"])
        .args(["--cuts", &budget.cuts.to_string()])
        .args(["--seed", &budget.seed.to_string()])
        .args(["--threads", &budget.threads.to_string()])
        .args(focus.iter().flat_map(|focus| ["--focus", focus]))
        // More scenarios notice more than more cuts of one.
        .args(["--places", &budget.places.min(MAX_PLACES).to_string()])
        .output()
        .context("cannot start a process for a mutant")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() || said.contains("violation: ") {
        return Ok(said);
    }
    Ok(format!("{said}\nviolation: the process ended with {}", output.status))
}

/// Whether a test of the store fails with a mutant.
///
/// # Errors
/// When the test fails without the mutant, or cannot be run.
fn fails(mutant: &str, test: &str) -> Result<bool> {
    let run = |mutant: &str| {
        Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
            .args(["test", "--quiet", "--package", "raw-block-store", "--features", "faults"])
            .args(["--lib", "--test", "late_writes", test])
            .env("RAW_BLOCK_MUTANT", mutant)
            .output()
            .context("cannot run a test of the store")
    };
    let passed = run("")?;
    let said = String::from_utf8_lossy(&passed.stdout);
    if !passed.status.success() || !said.contains(" 1 passed") {
        bail!("the test {test} fails without a mutant: {said}");
    }
    Ok(!run(mutant)?.status.success())
}

/// Switches on the mutant with this name.
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
