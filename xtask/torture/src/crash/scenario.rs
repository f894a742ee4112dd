//! Scenario ids.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};

/// Identifies a scenario: its seed, the number of writes and flushes before the first power cut,
/// and the number in the next incarnation before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScenarioId {
    pub(super) seed: u64,
    pub(super) cut: Option<u64>,
    pub(super) again: Option<u64>,
}

impl fmt::Display for ScenarioId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        [self.cut, self.again].iter().flatten().try_for_each(|cut| write!(f, ":{cut}"))
    }
}

impl FromStr for ScenarioId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || format!("{text:?} is not a scenario: expected SEED, SEED:CUT or SEED:CUT:CUT");
        let numbers: Result<Vec<u64>, _> = text.split(':').map(str::parse).collect();
        match numbers.with_context(wrong)?[..] {
            [seed] => Ok(Self { seed, cut: None, again: None }),
            [seed, cut] => Ok(Self { seed, cut: Some(cut), again: None }),
            [seed, cut, again] => Ok(Self { seed, cut: Some(cut), again: Some(again) }),
            _ => Err(anyhow::anyhow!(wrong())),
        }
    }
}
