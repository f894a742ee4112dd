//! The operator's tool: makes, inspects, checks and changes a store from a shell.

mod arguments;
mod check;
mod destination;
mod device;
mod dump;
mod info;
mod lift;
mod make;
mod objects;
mod output;
mod read;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

use arguments::{Arguments, Command};

/// The answer of a command: yes, or no with a reason that was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    /// A key is not there, or, to a put that asks for that, is there; or the store is damaged.
    No,
}

fn main() -> ExitCode {
    ignore_file_size_signal();
    let ended = match Arguments::try_parse() {
        Ok(arguments) => {
            log_to_stderr(&arguments.command);
            run(&arguments)
        }
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => help.print().context(output::UNWRITTEN).map(|()| Answer::Yes),
    };
    match ended {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Answer> {
    match &arguments.command {
        Command::Format(options) => make::run(options),
        Command::Info(options) => info::run(options),
        Command::Ls(options) => objects::list(options),
        Command::Get(options) => objects::get(options),
        Command::Put(options) => objects::put(options),
        Command::Rm(options) => objects::remove(options),
        Command::Clear(options) => objects::clear(options),
        Command::Check(options) => check::run(options),
        Command::Lift(options) => lift::run(options),
        Command::Dump(options) => dump::run(options),
    }
}

/// Blocks SIGXFSZ, for this thread and those it starts: a write beyond a file size limit then fails
/// with `EFBIG`, where it would otherwise end the process without a message.
fn ignore_file_size_signal() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    // It cannot fail: the set is a valid one.
    let _ = signals.thread_block();
}

/// Warnings of the libraries, such as that POSIX takes the place of io_uring, are for the operator
/// too.
fn log_to_stderr(command: &Command) {
    let level = match command {
        // What it finds, it prints.
        Command::Check(_) => tracing::Level::ERROR,
        _ => tracing::Level::WARN,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        // Otherwise a standard error that cannot be written to is a panic.
        .log_internal_errors(false)
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
