//! Programs of the nightly toolchain.

use std::process::Command;

/// A program of the nightly toolchain, started by rustup. The variables are removed because cargo
/// sets them to the toolchain of this program.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", name]);
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}
