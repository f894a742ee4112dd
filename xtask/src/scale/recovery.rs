//! How fast a store is recovered that was not closed.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use raw_block_core::{AlignedBuf, Direct, IoBackend};
use raw_block_store::{Engine, FormatOptions, OpenOptions, Put, Store, open_device};

use super::{median, scatter};

/// With its header block an object takes 8 KiB.
const PAYLOAD: usize = 4096;
/// Objects that are put at once.
const BATCH: usize = 512;

pub(super) fn run(path: &Path, slots: u64, rounds: u32) -> Result<()> {
    eprintln!("putting {slots} objects into {}", path.display());
    let file = std::fs::File::create(path)?;
    file.set_len(slots * 8300 + (64 << 20))?;
    drop(file);
    let open = || open_device(path, Engine::Uring, Direct::Required);
    let options = FormatOptions { slot_count: Some(slots), ..FormatOptions::for_payloads(4096) };
    let device = open()?;
    Store::format(Arc::clone(&device), &options)?;
    let store = without_thread(device)?;
    let mut payload = AlignedBuf::zeroed(PAYLOAD)?;
    payload.chunks_mut(8).zip(0..).for_each(|(bytes, number)| {
        bytes.copy_from_slice(&scatter(number).to_le_bytes());
    });
    for first in (0..slots).step_by(BATCH) {
        let keys: Vec<_> = (first..slots.min(first + BATCH as u64)).map(u64::to_le_bytes).collect();
        let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &payload)).collect();
        store.put_many(&puts).into_iter().collect::<Result<(), _>>()?;
    }
    store.flush()?;
    drop(store);

    let mut ratios = Vec::new();
    for round in 0..rounds {
        let theirs = fio(path)?;
        let device = open()?;
        // With a read-only store the next round finds the same.
        let began = Instant::now();
        let store = Store::open_read_only(device, &OpenOptions::default())?;
        let ours = slots as f64 / began.elapsed().as_secs_f64();
        if store.stats().live_slots != slots {
            bail!("the recovery found {} of {slots} objects", store.stats().live_slots);
        }
        println!(
            "recovery, round {round}: {ours:.0} slots/s, fio reads {theirs:.0} blocks/s: {:.2}",
            ours / theirs
        );
        ratios.push(ours / theirs);
    }
    println!("recovery: {:.2} of fio's random reads of 4 KiB at depth 128", median(ratios));
    Ok(())
}

fn without_thread(device: Arc<dyn IoBackend>) -> Result<Store> {
    let options = OpenOptions { checkpoint_thread: false, ..OpenOptions::default() };
    Ok(Store::open_with(device, &options)?)
}

/// Random reads of 4 KiB in a second that fio does.
fn fio(path: &Path) -> Result<f64> {
    let output = Command::new("fio")
        .arg(format!("--filename={}", path.display()))
        .args(["--name=scale", "--output-format=json", "--thread", "--ioengine=io_uring"])
        .args(["--direct=1", "--rw=randread", "--bs=4k", "--iodepth=128", "--registerfiles=1"])
        .args(["--fixedbufs=1", "--norandommap", "--randrepeat=0", "--gtod_reduce=1"])
        .args(["--iodepth_batch_submit=32", "--iodepth_batch_complete_min=32"])
        .args(["--runtime=4", "--time_based"])
        .output()
        .context("fio cannot be run: install it (packages are called `fio`)")?;
    if !output.status.success() {
        bail!("fio failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    report["jobs"][0]["read"]["iops"].as_f64().context("fio reports no rate")
}
