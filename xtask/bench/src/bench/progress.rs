//! Shows the progress of a run: a bar in a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

pub(super) struct Progress {
    /// `None` if the output is not a terminal.
    bar: Option<ProgressBar>,
    rounds: usize,
    begin: Instant,
}

impl Progress {
    pub(super) fn new(rounds: usize, tasks_per_round: usize) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new((rounds * tasks_per_round) as u64);
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} {bar:30} {percent:>3} %, {eta} left  {msg}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar, rounds, begin: Instant::now() }
    }

    pub(super) fn begin_round(&self, round: usize) {
        let name = format!("round {} of {}", round + 1, self.rounds);
        if let Some(bar) = &self.bar {
            return bar.set_prefix(name);
        }
        if round == 0 {
            return eprintln!("{name}");
        }
        let done = u32::try_from(round).unwrap_or(u32::MAX);
        let left = u32::try_from(self.rounds - round).unwrap_or(u32::MAX);
        let left = self.begin.elapsed() / done * left;
        eprintln!("{name}, about {} s left", left.as_secs().max(1));
    }

    pub(super) fn begin_task(&self, name: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(name);
        }
    }

    pub(super) fn end_task(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
