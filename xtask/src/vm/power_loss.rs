//! Cuts the power of a guest that writes to a store, and checks in a second guest what its drive
//! has kept.
//!
//! A kill of QEMU would lose nothing: its writes are in the page cache of the host. Therefore QEMU
//! logs the writes of the drive, and the image of the second guest is made from the log. A drive
//! with a volatile cache could leave it: each sector that was written since the last flush is there
//! or not.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::controllers::{escaped, new_image};
use super::qemu::Guest;
use super::report::Report;
use super::write_log;

/// The test program, and the tests in it that each guest runs.
pub(crate) const PROGRAM: &str = "raw-block-store.vm_power_loss";
const WRITER: &str = "write_until_the_power_goes";
const CHECKER: &str = "everything_acknowledged_is_there_after_the_power_came_back";

/// The rounds in which the power is cut, early and after many checkpoints, and the delay after the
/// acknowledgement: the cut interrupts the next round.
const CUTS: [(u64, Duration); 4] = [
    (4, Duration::from_millis(2)),
    (43, Duration::from_millis(5)),
    (96, Duration::from_millis(9)),
    (157, Duration::from_millis(14)),
];

/// Capacity for all writes of a guest. The file is sparse.
const LOG_LEN: u64 = 4 << 30;

/// Cuts the power at each of the points in turn. `guest` has no drive and no tests yet.
pub(crate) fn run(
    guest: &Guest<'_>,
    directory: &Path,
    tests: impl Fn(&Guest<'_>) -> Result<Report>,
) -> Result<Report> {
    let mut report = Report::default();
    for (cut, later) in CUTS {
        println!("\npower loss after round {cut}");
        let image = new_image(directory, "power-loss")?;
        let log = directory.join("power-loss.log");
        File::create(&log)
            .and_then(|file| file.set_len(LOG_LEN))
            .with_context(|| format!("cannot make {}", log.display()))?;
        let drive = format!(
            "driver=blklogwrites,node-name=drive,file.driver=file,file.filename={},\
             log.driver=file,log.filename={}",
            escaped(&image),
            escaped(&log)
        );
        let acknowledged = write(&with_drive(guest, &drive, WRITER, Vec::new()), cut, later)?;

        let image = new_image(directory, "power-loss")?;
        let replayed = write_log::replay(&log, &image, cut)?;
        println!(
            "round {acknowledged} was acknowledged; {} writes were durable; of {} sectors in the cache, {} were lost",
            replayed.durable,
            replayed.kept + replayed.lost,
            replayed.lost
        );
        let drive = format!("driver=file,node-name=drive,filename={}", escaped(&image));
        let variables = vec![("RAW_BLOCK_VM_ACKNOWLEDGED", acknowledged.to_string())];
        report.add(tests(&with_drive(guest, &drive, CHECKER, variables))?);
    }
    Ok(report)
}

/// A guest with one drive, which runs one test.
fn with_drive<'a>(
    guest: &Guest<'a>,
    drive: &str,
    test: &str,
    mut variables: Vec<(&'static str, String)>,
) -> Guest<'a> {
    let devices = ["-blockdev", drive, "-device", "nvme,id=power-loss,serial=power-loss"]
        .into_iter()
        .chain(["-device", "nvme-ns,bus=power-loss,nsid=1,drive=drive"]);
    variables.extend(guest.variables.iter().cloned());
    variables.push(("RAW_BLOCK_VM_ARGUMENTS", format!("--ignored --nocapture --exact {test}")));
    Guest { devices: devices.map(str::to_owned).collect(), variables, ..guest.clone() }
}

/// Runs the writer, and kills it shortly after it has acknowledged round `cut`. It may acknowledge
/// later rounds before the kill.
fn write(guest: &Guest<'_>, cut: u64, later: Duration) -> Result<u64> {
    let mut running = guest.start()?;
    let mut last = None;
    let mut is_cut = false;
    while let Some(line) = running.next_line()? {
        let round = line.rsplit_once("acknowledged ").and_then(|(_, round)| round.parse().ok());
        last = round.or(last);
        if last.is_none() {
            println!("{line}");
        }
        if !is_cut && last >= Some(cut) {
            thread::sleep(later);
            running.kill()?;
            is_cut = true;
        }
    }
    match last {
        Some(round) if is_cut => Ok(round),
        _ => bail!("the writing guest ended before its power was cut{}", running.last_words()),
    }
}
