//! `cargo xtask crash`.

mod actor;
mod options;
mod oracle;
mod shelf;
mod story;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use raw_block_store::Fault;

pub(crate) use options::{ABOUT, Options};
use shelf::{Shelf, Title};
use story::{Told, tell};

/// So many violations are enough to look at.
const MAX_VIOLATIONS: usize = 5;

/// Runs the chore.
pub(crate) fn run(options: &Options) -> Result<()> {
    raw_block_store::take_checkpoints_in_single_blocks();
    let shelf = Shelf::new()?;
    if let Some(story) = &options.replay {
        return replay(&shelf, story.parse()?);
    }
    if options.bite {
        return bite(&shelf, options);
    }
    let began = Instant::now();
    let found = search(&shelf, options, MAX_VIOLATIONS, true);
    for (title, violation) in &found.violations {
        println!("violation: {violation}\n  told again by: cargo xtask crash --replay {title}");
    }
    let (cuts, violations) = (found.cuts, found.violations.len());
    println!("{cuts} cuts, {violations} violations, {:.0} s", began.elapsed().as_secs_f64());
    if violations > 0 {
        bail!("the store broke a promise");
    }
    Ok(())
}

fn replay(shelf: &Shelf, title: Title) -> Result<()> {
    let Told { trace, violation, .. } = tell(shelf, title, true);
    print!("{trace}");
    match violation {
        Some(violation) => bail!("{violation}"),
        None => println!("no promise was broken"),
    }
    Ok(())
}

/// Switches each fault on, and wants a violation for it.
fn bite(shelf: &Shelf, options: &Options) -> Result<()> {
    let mut missed = Vec::new();
    for fault in Fault::ALL {
        fault.switch_on();
        let began = Instant::now();
        let found = search(shelf, options, 1, false);
        Fault::switch_off();
        let seconds = began.elapsed().as_secs_f64();
        match found.violations.first() {
            Some((title, violation)) => println!(
                "{fault:?}: noticed after {} cuts, {seconds:.1} s, story {title}: {violation}",
                found.cuts
            ),
            None => {
                println!("{fault:?}: NOT NOTICED in {} cuts, {seconds:.1} s", found.cuts);
                missed.push(fault);
            }
        }
    }
    println!("{} faults, {} not noticed", Fault::ALL.len(), missed.len());
    if !missed.is_empty() {
        bail!("not noticed: {missed:?}");
    }
    Ok(())
}

struct Found {
    cuts: u64,
    violations: Vec<(Title, String)>,
}

/// Tells stories, each with the first cut at every place in turn and one recovery with the second, until there
/// were enough cuts or violations.
fn search(shelf: &Shelf, options: &Options, enough: usize, shown: bool) -> Found {
    let bar = if shown { progress(options.cuts) } else { ProgressBar::hidden() };
    let (cuts, next_seed) = (AtomicU64::new(0), AtomicU64::new(options.seed));
    let violations = Mutex::new(Vec::new());
    let over = || {
        cuts.load(Ordering::Relaxed) >= options.cuts
            || violations
                .lock()
                .is_ok_and(|found: std::sync::MutexGuard<'_, Vec<_>>| found.len() >= enough)
    };
    let tell_one = |title: Title| {
        let told = tell(shelf, title, false);
        bar.set_position(cuts.fetch_add(told.cuts, Ordering::Relaxed));
        if let (Some(violation), Ok(mut violations)) = (told.violation, violations.lock()) {
            violations.push((title, violation));
        }
        (told.effects, told.recovery_effects)
    };
    thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                while !over() {
                    let seed = next_seed.fetch_add(1, Ordering::Relaxed);
                    let (effects, _) = tell_one(Title { seed, cut: None, again: None });
                    // After one of the cuts the recovery is cut everywhere too.
                    let twice = 1 + seed % effects.max(1);
                    for cut in (1..=effects).map(Some) {
                        let (_, recovery) = tell_one(Title { seed, cut, again: None });
                        let recovery = if cut == Some(twice) { recovery } else { 0 };
                        for again in (1..=recovery).map(Some) {
                            tell_one(Title { seed, cut, again });
                        }
                        if over() {
                            return;
                        }
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut violations = violations.into_inner().unwrap_or_default();
    violations.sort_unstable();
    Found { cuts: cuts.into_inner(), violations }
}

fn progress(cuts: u64) -> ProgressBar {
    let style = "{bar:40} {pos} of {len} cuts, about {eta} left";
    let bar = ProgressBar::new(cuts);
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}
