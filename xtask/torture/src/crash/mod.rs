//! `cargo xtask crash`.

mod bit_rot;
mod client;
mod faults;
mod focus;
mod history;
mod holds;
mod incarnations;
mod last;
mod model;
mod mutants;
mod objects;
mod openings;
mod options;
mod pinned;
mod processors;
mod run;
mod scenario;
mod search;
mod steps;
mod target;
mod templates;

use std::time::Instant;

use anyhow::{Result, bail};

use focus::Focus;
pub(crate) use options::{ABOUT, Options};
use run::Outcome;
use scenario::ScenarioId;
use search::Budget;
use templates::Templates;

/// Runs the chore.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { cuts, seed, threads, places, violations, .. } = *options;
    let focus = options.focus.as_deref().map(Focus::of_name).transpose()?;
    let budget = Budget { cuts, seed, threads, places, violations, focus };
    if options.mutants {
        return mutants::run(budget, options.only.as_deref().unwrap_or(""));
    }
    target::set_up();
    let templates = Templates::new()?;
    if let Some(name) = &options.with {
        mutants::switch_on(&templates, name)?;
    }
    if let Some(id) = &options.replay {
        return replay(&templates, id.parse()?);
    }
    let began = Instant::now();
    let found = search::search(&templates, budget, true);
    for (id, violation) in &found.violations {
        println!("violation: {violation}\n  again: cargo xtask crash --replay {id}");
    }
    let (cuts, violations) = (found.cuts, found.violations.len());
    println!("{cuts} cuts, {violations} violations, {:.0} s", began.elapsed().as_secs_f64());
    if violations > 0 {
        bail!("the store broke a guarantee");
    }
    Ok(())
}

fn replay(templates: &Templates, id: ScenarioId) -> Result<()> {
    let Outcome { trace, violation, .. } = run::run(templates, id, true);
    print!("{trace}");
    match violation {
        Some(violation) => bail!("{violation}"),
        None => println!("no guarantee was broken"),
    }
    Ok(())
}
