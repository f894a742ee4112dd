//! `cargo xtask vm`.

mod controllers;
mod initramfs;
mod kernel;
mod options;
mod power_loss;
mod qemu;
mod report;
mod tools;
mod write_log;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use controllers::Controllers;
use initramfs::Initramfs;
use kernel::Kernel;
pub(crate) use options::{ABOUT, Options};
use qemu::Guest;
use report::Report;
use tools::Tools;

use crate::programs::{self, Program};

/// The profile in the workspace's `Cargo.toml`.
const PROFILE: &str = "vm";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Random cases of each property, unless `PROPTEST_CASES` is set: an emulated processor is slow.
const CASES: &str = "16";

/// Runs the tests in a guest. Their output is that of this program.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = directory();
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let tools = Tools::find(&directory)?;
    let mut programs = programs(&directory.join("build"))?;
    if let Some(name) = &options.program {
        programs.retain(|program| program.name.contains(name));
    }
    let (after_power_loss, programs): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|program| program.name == power_loss::PROGRAM);
    let initramfs = |name: &str, programs: &[Program]| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::write(&path, archive(&tools.busybox, &tools.kernel, programs)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    let patience = ("RAW_BLOCK_VM_PATIENCE", options.test_timeout.as_secs().to_string());
    let rounds = ("RAW_BLOCK_VM_ROUNDS", options.rounds.to_string());
    let cases = env::var("PROPTEST_CASES").unwrap_or_else(|_| CASES.to_owned());
    let guest = Guest {
        qemu: &tools.qemu,
        kernel: &tools.kernel.image,
        initramfs: initramfs("tests.cpio", &programs)?,
        devices: Vec::new(),
        variables: vec![patience, ("PROPTEST_CASES", cases), rounds],
        console: directory.join("console.log"),
        timeout: options.timeout,
    };
    let Controllers { arguments, variables, missing } =
        controllers::all(tools.qemu_version, &directory)?;
    let mut with_controllers = Guest { devices: arguments, ..guest.clone() };
    with_controllers.variables.extend(variables);
    let filter = options.filter.clone().unwrap_or_default();
    let with_power_loss = !after_power_loss.is_empty() && power_loss::PROGRAM.contains(&filter);
    with_controllers.variables.push(("RAW_BLOCK_VM_ARGUMENTS", filter));
    let mut report =
        if programs.is_empty() { Report::default() } else { tests(&with_controllers)? };
    if with_power_loss {
        let guest = Guest { initramfs: initramfs("power-loss.cpio", &after_power_loss)?, ..guest };
        match power_loss::run(&guest, &directory, tests) {
            Ok(more) => report.add(more),
            Err(error) => report.fail(&format!("power loss: {error:#}")),
        }
    }

    for scenario in missing {
        println!("skipped scenario: {scenario}");
    }
    for failure in &report.failures {
        println!("failed: {failure}");
    }
    println!("{}", report.tally);
    match report.tally {
        tally if tally.failed > 0 => bail!("tests failed in the virtual machine"),
        tally if tally.passed == 0 => bail!("no test with this name passed in the virtual machine"),
        _ => Ok(()),
    }
}

/// The test programs for the guest, linked statically: every integration test of the workspace
/// whose name begins with `vm_`.
fn programs(directory: &Path) -> Result<Vec<Program>> {
    let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" -Ctarget-feature=+crt-static");
    let mut command = programs::compiling();
    command.args(["--test", "vm_*", "--profile", PROFILE, "--target", TARGET, "--target-dir"]);
    programs::build(command.arg(directory).env("RUSTFLAGS", flags))
}

/// Runs every test program in one guest.
fn tests(guest: &Guest<'_>) -> Result<Report> {
    let mut report = Report::default();
    let mut running = match guest.start() {
        Ok(running) => running,
        Err(error) => {
            report.fail(&format!("{error:#}"));
            return Ok(report);
        }
    };
    let death = loop {
        match running.next_line() {
            Ok(Some(line)) => {
                report.take(&line);
                println!("{line}");
            }
            Ok(None) => {
                let status = running.wait()?;
                break format!("the guest died: QEMU ended ({status}){}", running.last_words());
            }
            Err(error) => break format!("{error:#}"),
        }
    };
    if !report.has_ended {
        report.fail(&death);
    }
    Ok(report)
}

/// The file system of the guest.
fn archive(busybox: &Path, kernel: &Kernel, programs: &[Program]) -> Result<Vec<u8>> {
    let mut archive = Initramfs::default();
    archive.file("init", include_bytes!("init.sh"))?;
    for name in ["bin", "modules", "tests"] {
        archive.directory(name)?;
    }
    archive.copy("bin/busybox", busybox)?;
    let mut order = String::new();
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.copy(&format!("modules/{name}"), module)?;
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes())?;
    for Program { name, path, .. } in programs {
        archive.copy(&format!("tests/{name}"), path)?;
    }
    archive.finish()
}

fn directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let default = || workspace.unwrap_or_else(|| Path::new(".")).join("target");
    target.unwrap_or_else(default).join("vm")
}
