//! Devices of the kernel's device mapper: a table of one target over another device, which can be
//! changed while the device is in use. The calls are those of the kernel's
//! `include/uapi/linux/dm-ioctl.h`, version 4.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a sector, the unit of the kernel whatever the device.
const SECTOR: u64 = 512;
const CONTROL: &str = "/dev/mapper/control";
/// Bytes of `struct dm_ioctl`, and of a request: the structure and its data.
const HEADER_LEN: usize = 312;
const REQUEST_LEN: usize = 1024;
/// Offsets in `struct dm_ioctl`.
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const FLAGS: usize = 28;
const DEVICE: usize = 40;
const NAME: usize = 48;
/// Flag of a suspension: the device holds ops back until it is resumed, by a call without this
/// flag.
const SUSPEND: u32 = 1 << 1;
/// Flag of a suspension: no file system is frozen.
const SKIP_LOCKFS: u32 = 1 << 10;

/// How long to wait for a device that is still open.
const TIMEOUT: Duration = Duration::from_secs(20);

#[repr(C, align(8))]
struct Request([u8; REQUEST_LEN]);

/// The part of a request whose length the number of a call contains.
#[repr(C, align(8))]
struct Header([u8; HEADER_LEN]);

/// The calls: their names in the kernel's header, without `DM_`.
mod call {
    use super::Header;

    nix::ioctl_readwrite!(dev_create, 0xFD, 3, Header);
    nix::ioctl_readwrite!(dev_remove, 0xFD, 4, Header);
    nix::ioctl_readwrite!(dev_suspend, 0xFD, 6, Header);
    nix::ioctl_readwrite!(table_load, 0xFD, 9, Header);
    nix::ioctl_readwrite!(target_msg, 0xFD, 14, Header);
}

type Call = unsafe fn(libc::c_int, *mut Header) -> nix::Result<libc::c_int>;

/// A mapped device; it is removed when this is dropped.
pub(crate) struct Mapped {
    control: File,
    name: &'static str,
    sectors: u64,
    path: PathBuf,
}

impl Mapped {
    /// Makes a device of this length, of one target with these parameters.
    pub(crate) fn new(name: &'static str, len: u64, target: &str, parameters: &str) -> Self {
        let control = File::options().read(true).write(true).open(CONTROL).unwrap();
        let sectors = len / SECTOR;
        let mut mapped = Self { control, name, sectors, path: PathBuf::new() };
        let made = mapped.call(call::dev_create, 0, 0, &[]);
        // As the kernel's `huge_encode_dev` packs it; a mapped device has a small number.
        let device = u64::from_le_bytes(made.0[DEVICE..DEVICE + 8].try_into().unwrap());
        mapped.path = format!("/dev/dm-{}", device & 0xFF).into();
        mapped.load(target, parameters);
        mapped
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the target. Ops in flight have completed when this returns.
    pub(crate) fn change(&self, target: &str, parameters: &str) {
        self.call(call::dev_suspend, SUSPEND | SKIP_LOCKFS, 0, &[]);
        self.load(target, parameters);
    }

    /// Sends the target a message.
    pub(crate) fn send(&self, message: &str) {
        // To the target at sector 0.
        let data = [&[0; 8], message.as_bytes(), &[0]].concat();
        self.call(call::target_msg, 0, 0, &data);
    }

    fn load(&self, target: &str, parameters: &str) {
        // `struct dm_target_spec`: first sector, length, status, offset of the next one, type.
        let mut data = vec![0; 40];
        data[8..16].copy_from_slice(&self.sectors.to_le_bytes());
        data[24..24 + target.len()].copy_from_slice(target.as_bytes());
        data.extend_from_slice(parameters.as_bytes());
        data.push(0);
        self.call(call::table_load, 0, 1, &data);
        self.call(call::dev_suspend, 0, 0, &[]);
    }

    fn call(&self, call: Call, flags: u32, targets: u32, data: &[u8]) -> Request {
        self.try_call(call, flags, targets, data).unwrap_or_else(|errno| {
            let data = String::from_utf8_lossy(data);
            panic!("the device mapper refuses a call about {}, {data:?}: {errno}", self.name)
        })
    }

    fn try_call(&self, call: Call, flags: u32, targets: u32, data: &[u8]) -> nix::Result<Request> {
        let mut request = Request([0; REQUEST_LEN]);
        let mut set =
            |at: usize, bytes: &[u8]| request.0[at..at + bytes.len()].copy_from_slice(bytes);
        set(0, &4_u32.to_le_bytes());
        set(DATA_SIZE, &u32::try_from(REQUEST_LEN).unwrap().to_le_bytes());
        set(DATA_START, &u32::try_from(HEADER_LEN).unwrap().to_le_bytes());
        set(TARGET_COUNT, &targets.to_le_bytes());
        set(FLAGS, &flags.to_le_bytes());
        set(NAME, self.name.as_bytes());
        set(HEADER_LEN, data);
        // SAFETY: the kernel reads and writes `data_size` bytes, which is the length of the
        // request.
        unsafe { call(self.control.as_raw_fd(), (&raw mut request).cast()) }?;
        Ok(request)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // The kernel releases rings, and their files, in the background.
        let began = Instant::now();
        while self.try_call(call::dev_remove, 0, 0, &[]).is_err() {
            if began.elapsed() > TIMEOUT {
                assert!(thread::panicking(), "{} is still in use", self.name);
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
