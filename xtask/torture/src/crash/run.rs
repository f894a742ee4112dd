//! Runs one scenario, and catches its panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::incarnations::{Counts, Incarnations};
use super::scenario::ScenarioId;
use super::templates::Templates;

/// The result of a scenario.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) counts: Counts,
    /// The first violation.
    pub(super) violation: Option<String>,
    /// The steps, if the caller has asked for them.
    pub(super) trace: String,
}

/// Runs a scenario to its end.
pub(super) fn run(templates: &Templates, id: ScenarioId, trace: bool) -> Outcome {
    let mut incarnations = Incarnations::draw(templates, id.seed, trace);
    let ended = catch_unwind(AssertUnwindSafe(|| incarnations.run_all(id)));
    let violation = match ended {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(format!("{violation:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("panicked: {}", text.unwrap_or("without a text")))
        }
    };
    let (counts, trace) = incarnations.into_parts();
    Outcome { counts, violation, trace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_runs_the_same_way_every_time() {
        let templates = [Templates::new().unwrap(), Templates::new().unwrap()];
        for seed in 0..40 {
            for (cut, again) in [(None, None), (Some(7), None), (Some(9), Some(3))] {
                let id = ScenarioId { seed, cut, again };
                let first = run(&templates[0], id, true);
                assert_eq!(first.trace, run(&templates[1], id, true).trace);
                assert_eq!(first.violation, None, "{id}");
                assert_eq!(id.to_string().parse::<ScenarioId>().unwrap(), id);
            }
        }
    }
}
