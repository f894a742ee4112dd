//! Switches each rule of the protocol off in turn.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Result, bail};

use super::search::{self, Budget};
use super::target::{self, Mutant};
use super::templates::Templates;

/// Runs scenarios with each mutant whose name contains `only`, and wants a violation for each. Prints a table.
pub(super) fn run(templates: &Templates, budget: Budget, only: &str) -> Result<()> {
    let mut missed = Vec::new();
    let mut count = 0;
    println!("| mutant | noticed after | scenario | by |\n|---|---|---|---|");
    let mut check = |name: String, switch: &dyn Fn(bool)| {
        if !name.contains(only) {
            return;
        }
        count += 1;
        switch(true);
        let began = Instant::now();
        let found = search::search(templates, Budget { violations: 1, ..budget }, false);
        switch(false);
        let (cuts, seconds) = (found.cuts, began.elapsed().as_secs_f64());
        match found.violations.first() {
            Some((id, violation)) => {
                println!("| `{name}` | {cuts} cuts, {seconds:.1} s | {id} | {violation} |");
            }
            None => {
                println!("| `{name}` | NOT NOTICED in {cuts} cuts, {seconds:.1} s | | |");
                missed.push(name);
            }
        }
    };
    for mutant in target::mutants() {
        check(format!("{mutant:?}"), &|on| {
            if on {
                mutant.switch_on();
            } else {
                Mutant::switch_off();
            }
        });
    }
    check(LOCK_RELEASED_EARLY.to_owned(), &|on| templates.leave_writes.store(on, Ordering::SeqCst));
    println!("{count} mutants, {} not noticed", missed.len());
    if !missed.is_empty() {
        bail!("not noticed: {missed:?}");
    }
    Ok(())
}

/// Not a mutant of the store: the lock on the device is released before the writes of a killed process have completed.
const LOCK_RELEASED_EARLY: &str = "LockReleasedEarly";

/// Switches the mutant of this name on.
pub(super) fn switch_on(templates: &Templates, name: &str) -> Result<()> {
    if name == LOCK_RELEASED_EARLY {
        templates.leave_writes.store(true, Ordering::SeqCst);
        return Ok(());
    }
    let mut mutants = target::mutants().iter();
    match mutants.find(|mutant| format!("{mutant:?}") == name) {
        Some(mutant) => mutant.switch_on(),
        None => bail!("there is no mutant {name:?}"),
    }
    Ok(())
}
