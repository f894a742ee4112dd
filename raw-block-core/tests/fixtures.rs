//! The devices that tests run on are what they say.

use std::fs;
use std::os::unix::fs::MetadataExt;

use raw_block_core::conformance::fixture::{LoopDevice, temp_file};
use raw_block_core::{DeviceFile, Direct};

const LEN: u64 = 9 << 20;

#[test]
fn a_temporary_file_has_its_length_and_no_holes_and_goes_away() {
    let file = temp_file(LEN).expect("there is a directory for it");
    let path = file.path().to_owned();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), LEN);
    assert!(metadata.blocks() * 512 >= LEN, "it has holes");
    drop(file);
    assert!(!path.exists());
}

#[test]
fn two_temporary_files_are_two() {
    let files = [temp_file(512).unwrap(), temp_file(512).unwrap()];
    assert_ne!(files[0].path(), files[1].path());
}

#[test]
fn a_loop_device_has_its_length_and_sectors_and_goes_away() {
    for sector_size in [512, 4096] {
        let device = match LoopDevice::attach(LEN, sector_size) {
            Ok(device) => device,
            Err(skipped) => return skipped.tell(),
        };
        let opened = DeviceFile::open(device.path(), Direct::Required).unwrap();
        assert!(opened.is_block_device());
        assert_eq!(opened.geometry().capacity, LEN);
        assert_eq!(opened.geometry().logical_block, sector_size);

        let name = device.path().file_name().unwrap().to_str().unwrap().to_owned();
        let backing = format!("/sys/block/{name}/loop/backing_file");
        let file = fs::read_to_string(&backing).unwrap();
        drop(opened);
        drop(device);
        // Another test may have attached it anew.
        assert_ne!(fs::read_to_string(&backing).unwrap_or_default(), file);
    }
}
