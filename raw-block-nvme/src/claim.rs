//! Exclusive use of a namespace.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use raw_block_core::backend::DeviceFile;
use raw_block_core::{Direct, Error, ErrorKind};

use crate::node::Node;
use crate::sysfs::Sibling;

/// What keeps other processes from using the namespace. The rings keep it open until their last
/// command has completed, so after `SIGKILL` the next process waits for the commands in flight.
pub(crate) enum Claim {
    /// The block device, opened exclusively.
    BlockDevice(DeviceFile),
    /// A lock on the character device, which only this library respects.
    Lock(File),
}

impl Claim {
    /// Holds the block device of the namespace, or if `force` is set and there is none to hold,
    /// locks the character device.
    pub(crate) fn take(
        node: &Node,
        path: &Path,
        block_device: Option<&Sibling>,
        force: bool,
        read_only: bool,
    ) -> Result<Self, Error> {
        let lock = || node.lock(&path.display().to_string()).map(Self::Lock);
        let hold = if read_only { DeviceFile::open_read_only } else { DeviceFile::open };
        let missing = match block_device.map(|device| (device.name(), device.node())) {
            Some((_, Some(path))) => match hold(path, Direct::Preferred) {
                Ok(held) => return Ok(Self::BlockDevice(held)),
                Err(error) if error.kind() == ErrorKind::Busy || !force => {
                    let rule = format!("its block device cannot be held exclusively: {error}");
                    return Err(Error::new(error.kind(), "open", rule));
                }
                Err(_) => return lock(),
            },
            Some((name, None)) => format!("block device {name} has no node in /dev"),
            None => "block device is not in /sys".to_owned(),
        };
        if force {
            return lock();
        }
        let rule = format!(
            "its {missing}, so nothing would prevent that it is mounted: make it visible here, or open \
             with `force`"
        );
        Err(Error::new(ErrorKind::Unsupported, "open", rule))
    }
}

impl AsFd for Claim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::BlockDevice(held) => held.as_fd(),
            Self::Lock(node) => node.as_fd(),
        }
    }
}
