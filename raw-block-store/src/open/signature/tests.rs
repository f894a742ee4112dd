use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use fastrand::Rng;
use raw_block_core::backend::IoBackend;
use raw_block_core::conformance::Skipped;
use raw_block_core::{Geometry, MemoryBackend, WriteAt};

use super::*;
use crate::{FormatOptions, Store};

/// Above what is looked at, and a multiple of no large number.
const LEN: u64 = (8 << 20) + 8192 + 4096;

fn put(dispatcher: &Dispatcher, offset: u64, bytes: &[u8]) {
    let block = dispatcher.geometry().transfer_alignment as usize;
    let from = offset - offset % block as u64;
    let at = usize::try_from(offset - from).unwrap();
    let mut buffer = vec![0; (at + bytes.len()).next_multiple_of(block)];
    buffer[at..at + bytes.len()].copy_from_slice(bytes);
    dispatcher.write_buffers(&[WriteAt::new(from, &buffer)]).all().unwrap();
}

fn memory(logical_block: u32, regular_file: bool) -> Arc<dyn IoBackend> {
    let mut geometry = Geometry::new(LEN, logical_block).unwrap();
    geometry.regular_file = regular_file;
    Arc::new(MemoryBackend::with_geometry(geometry))
}

/// The parts that are looked at of a device of `LEN` bytes with nothing on it.
fn blank() -> Vec<Part> {
    let dispatcher = Dispatcher::new(memory(512, false)).unwrap();
    looked_at(&dispatcher)
        .map(|(offset, len)| (offset, read(&dispatcher, offset, len).unwrap()))
        .collect()
}

#[test]
fn every_magic_number_is_found_at_every_place() {
    let mut parts = blank();
    assert!(known(&parts, LEN).is_empty());
    for &(what, places, magics) in KNOWN {
        let offsets = places.iter().flat_map(|place| {
            let offsets: Vec<_> = place.offsets(LEN).collect();
            [offsets[0], offsets[offsets.len() - 1]]
        });
        for (offset, magic) in offsets.flat_map(|offset| magics.iter().map(move |it| (offset, it)))
        {
            let (from, part) = parts.iter_mut().rfind(|(from, _)| *from <= offset).unwrap();
            let at = usize::try_from(offset - *from).unwrap();
            part[at..at + magic.len()].copy_from_slice(magic);
            let found = known(&parts, LEN);
            let (_, part) = parts.iter_mut().rfind(|(from, _)| *from <= offset).unwrap();
            part[at..at + magic.len()].fill(0);
            assert!(
                found.iter().any(|found| (found.what, found.offset) == (what, offset)),
                "{what} at {offset}: {found:?}"
            );
        }
    }
}

#[test]
fn every_kind_is_spared_and_is_erased_when_forced() {
    let options = FormatOptions::default();
    for (nth, &(what, places, magics)) in KNOWN.iter().enumerate() {
        let backend = memory([512, 4096][nth % 2], false);
        let dispatcher = Dispatcher::new(backend.clone()).unwrap();
        let offset = places[nth % places.len()].offsets(LEN).next().unwrap();
        put(&dispatcher, offset, magics[nth % magics.len()]);
        match Store::format(backend.clone(), &options) {
            Err(Error::Occupied { what: said, .. }) => assert!(!said.is_empty()),
            other => panic!("{what}: {other:?}"),
        }
        assert!(find(&dispatcher).unwrap().iter().any(|found| found.what == what), "{what}");
        let forced = options.clone().force(true);
        Store::format(backend.clone(), &forced).unwrap();
        assert!(find(&dispatcher).unwrap().is_empty(), "{what} is gone");
        Store::open(backend).unwrap().close().unwrap();
    }
}

#[test]
fn forced_formatting_erases_places_that_were_not_found() {
    let backend = memory(512, false);
    let dispatcher = Dispatcher::new(backend.clone()).unwrap();
    let far = (4 << 20) + 4096;
    for offset in [2 << 20, far, LEN - (2 << 20), LEN - 8192] {
        put(&dispatcher, offset, b"something that no table knows");
    }
    let options = FormatOptions::default().force(true);
    Store::format(backend, &options).unwrap();
    for offset in [2 << 20, far, LEN - (2 << 20), LEN - 8192] {
        assert!(
            read(&dispatcher, offset, 512).unwrap().iter().all(|&byte| byte == 0),
            "at {offset}"
        );
    }
}

#[test]
fn a_store_is_no_signature_and_small_devices_are_looked_at_too() {
    for len in [512, 4096, 40 << 10, 300 << 10, 1 << 20, LEN] {
        let backend: Arc<dyn IoBackend> = Arc::new(MemoryBackend::new(len).unwrap());
        let dispatcher = Dispatcher::new(backend.clone()).unwrap();
        assert!(find(&dispatcher).unwrap().is_empty());
        if Store::format(backend, &FormatOptions::default()).is_ok() {
            assert!(find(&dispatcher).unwrap().is_empty());
        }
    }
}

#[test]
fn every_place_is_looked_at_on_devices_of_any_size() {
    for capacity in [LEN, LEN + 512, LEN + (64 << 10) - 512, 1 << 40, (1 << 40) + (255 << 10)] {
        let (start, end) = (START_LEN, capacity - END_LEN);
        for (what, places, magics) in KNOWN {
            let longest = magics.iter().map(|magic| magic.len() as u64).max().unwrap();
            for offset in places.iter().flat_map(|place| place.offsets(capacity)) {
                let inside = offset + longest <= start || offset >= end;
                assert!(inside && offset + longest <= capacity, "{what} at {offset}");
            }
        }
    }
}

#[test]
fn random_content_is_rarely_taken_for_something() {
    let mut rng = Rng::with_seed(16);
    // The same random bytes at many offsets make many devices.
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(16 << 20).collect();
    let capacity = 1 << 30;
    let mut taken = 0;
    for from in (0..500).map(|nth| nth * 8209) {
        let (start, end) = (512 << 10, usize::try_from(END_LEN).unwrap());
        let part = |from: usize, len: usize| {
            let mut part = AlignedBuf::zeroed(len).unwrap();
            part.copy_from_slice(&bytes[from..from + len]);
            part
        };
        let parts = [(0, part(from, start)), (capacity - END_LEN, part(from + start, end))];
        taken += usize::from(!known(&parts, capacity).is_empty());
    }
    assert!(taken <= 2, "{taken} of 500");
}

#[test]
fn a_device_with_unknown_content_is_formatted_and_a_file_is_not() {
    let options = FormatOptions::default();
    for offset in [0, 77, START_LEN - 1, LEN - END_LEN, LEN - 1] {
        for (regular_file, spared) in [(false, false), (true, true)] {
            let backend = memory(512, regular_file);
            put(&Dispatcher::new(backend.clone()).unwrap(), offset, b"S");
            let formatted = Store::format(backend.clone(), &options);
            match &formatted {
                Err(Error::Occupied { offset: found, .. }) => assert_eq!(*found, offset),
                other => assert!(other.is_ok(), "{other:?}"),
            }
            assert_eq!(formatted.is_err(), spared, "at {offset}");
            Store::format(backend, &options.clone().force(true)).unwrap();
        }
    }
}

#[test]
fn samples_of_a_file_are_taken_between_its_start_and_its_end() {
    let backend = memory(4096, true);
    let dispatcher = Dispatcher::new(backend).unwrap();
    assert!(find(&dispatcher).unwrap().is_empty(), "all zeroes");
    // A quarter of what lies between, wherever: far more than the distance of two samples.
    let between = START_LEN..LEN - END_LEN;
    let quarter = (between.end - between.start) / 4 / 4096 * 4096;
    let from = between.start + quarter;
    let bytes = vec![0xA5; usize::try_from(quarter).unwrap()];
    dispatcher.write_buffers(&[WriteAt::new(from, &bytes)]).all().unwrap();
    let found = find(&dispatcher).unwrap();
    assert!((from..from + quarter).contains(&found[0].offset), "{found:?}");
}

/// What `blkid` names in an image with the content of a device; its exit status, and what it said.
fn blkid(image: &Path, dispatcher: &Dispatcher) -> std::io::Result<(Option<i32>, String)> {
    let file = File::create(image)?;
    file.set_len(dispatcher.geometry().capacity)?;
    for (offset, len) in looked_at(dispatcher) {
        for (offset, block) in
            (offset..).step_by(4096).zip(read(dispatcher, offset, len).unwrap().chunks(4096))
        {
            if *block != [0; 4096][..block.len()] {
                file.write_all_at(block, offset)?;
            }
        }
    }
    let output = Command::new("blkid").args(["-p", "-o", "export"]).arg(image).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// An offset, and what is there.
type Bytes = (u64, &'static [u8]);

/// The least that makes `blkid` believe a magic number, where that alone does not.
const MADE_UP: &[(&str, &[Bytes])] = &[
    (
        "zfs_member",
        &[
            // Label 1 alone.
            ((384 << 10) + 4096, &[0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0]),
            ((384 << 10) + 5120, &[0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0]),
            ((384 << 10) + 6144, &[0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0]),
            ((384 << 10) + 7168, &[0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0]),
            ((384 << 10) + 8192, &[0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0]),
        ],
    ),
    (
        "crypto_LUKS",
        &[
            // The second header alone, which names its own offset.
            (32 << 10, b"SKUL\xBA\xBE\0\x02"),
            ((32 << 10) + 256, &(32_u64 << 10).to_be_bytes()),
        ],
    ),
    (
        "drbd",
        &[
            (BLKID_LEN - 4096 + 60, &[0x83, 0x74, 0x02, 0x6B]),
            (BLKID_LEN - 4096 + 80, &[0, 0, 0x10, 0]),
        ],
    ),
    ("isw_raid_member", &[(BLKID_LEN - 1024, b"Intel Raid ISM Cfg Sig. 1.3.00")]),
];

/// The least that ZFS, the most demanding, is looked for on.
const BLKID_LEN: u64 = 64 << 20;

#[test]
fn blkid_names_nothing_after_forced_formatting() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    let kinds = KNOWN.iter().map(|&(what, places, magics)| {
        let offsets =
            places.iter().flat_map(|place| place.offsets(BLKID_LEN)).zip(magics.iter().cycle());
        (what, offsets.map(|(offset, &magic)| (offset, magic)).collect::<Vec<_>>())
    });
    let made_up = MADE_UP.iter().map(|&(what, bytes)| (what, bytes.to_vec()));
    let mut named = 0;
    for (what, bytes) in kinds.chain(made_up) {
        let backend: Arc<dyn IoBackend> = Arc::new(MemoryBackend::new(BLKID_LEN).unwrap());
        let dispatcher = Dispatcher::new(backend.clone()).unwrap();
        for &(offset, bytes) in &bytes {
            let mut block =
                read(&dispatcher, offset / 512 * 512, 1024.min(BLKID_LEN - offset / 512 * 512))
                    .unwrap();
            let at = usize::try_from(offset % 512).unwrap();
            block[at..at + bytes.len()].copy_from_slice(bytes);
            dispatcher.write_buffers(&[WriteAt::new(offset / 512 * 512, &block)]).all().unwrap();
        }
        let Ok((_, before)) = blkid(&image, &dispatcher) else {
            return Skipped::because("blkid does not run").report();
        };
        named += usize::from(!before.is_empty());
        if MADE_UP.iter().any(|(made_up, _)| *made_up == what) {
            assert!(before.contains(&format!("TYPE={what}")), "{what}: {before}");
        }
        assert!(!find(&dispatcher).unwrap().is_empty(), "{what}");
        Store::format(backend, &FormatOptions::default().force(true)).unwrap();
        // Status 2: it looked, and found nothing.
        assert_eq!(blkid(&image, &dispatcher).unwrap(), (Some(2), String::new()), "{what}");
    }
    assert!(named > 40, "a magic number alone is named {named} times");
}
