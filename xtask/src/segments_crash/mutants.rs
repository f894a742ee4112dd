//! Switches each rule of the protocol off in turn.

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
    for &mutant in target::mutants() {
        if !format!("{mutant:?}").contains(only) {
            continue;
        }
        count += 1;
        mutant.switch_on();
        let began = Instant::now();
        let found = search::search(templates, Budget { violations: 1, ..budget }, false);
        Mutant::switch_off();
        let (cuts, seconds) = (found.cuts, began.elapsed().as_secs_f64());
        match found.violations.first() {
            Some((id, violation)) => {
                println!("| `{mutant:?}` | {cuts} cuts, {seconds:.1} s | {id} | {violation} |");
            }
            None => {
                println!("| `{mutant:?}` | NOT NOTICED in {cuts} cuts, {seconds:.1} s | | |");
                missed.push(mutant);
            }
        }
    }
    println!("{count} mutants, {} not noticed", missed.len());
    if !missed.is_empty() {
        bail!("not noticed: {missed:?}");
    }
    Ok(())
}
