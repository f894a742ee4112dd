//! What sysfs reports about a namespace: its block device, and the limits of the driver.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use raw_block_core::Geometry;

const SYS: &str = "/sys";

/// The directory of a character device in sysfs.
fn directory(sys: &Path, node: &File) -> Option<PathBuf> {
    let device = node.metadata().ok()?.rdev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    fs::canonicalize(sys.join(format!("dev/char/{major}:{minor}"))).ok()
}

/// The class of a character device, such as `nvme-generic`.
pub(crate) fn class(node: &File) -> Option<String> {
    let subsystem = directory(Path::new(SYS), node)?.join("subsystem");
    let class = fs::canonicalize(subsystem).ok()?;
    Some(class.file_name()?.to_string_lossy().into_owned())
}

/// The block device of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sibling {
    /// Its directory in sysfs.
    directory: PathBuf,
    /// Its name in sysfs and in `/dev`.
    name: String,
}

impl Sibling {
    /// Finds the block device that has the same parent (a controller, or with multipath a
    /// subsystem) and the same namespace identifier.
    ///
    /// Names do not show it: with multipath, `ng0n1` and `nvme0n1` belong to a subsystem, and the
    /// paths of the namespace are hidden and have no node.
    pub(crate) fn find(node: &File, nsid: u32) -> Option<Self> {
        Self::find_below(Path::new(SYS), &directory(Path::new(SYS), node)?, nsid)
    }

    fn find_below(sys: &Path, generic: &Path, nsid: u32) -> Option<Self> {
        let parent = |directory: &Path| fs::canonicalize(directory.join("device")).ok();
        let own = parent(generic)?;
        let contains = |path: PathBuf, expected: &str| {
            fs::read_to_string(path).is_ok_and(|text| text.trim() == expected)
        };
        fs::read_dir(sys.join("block")).ok()?.flatten().find_map(|entry| {
            let directory = entry.path();
            let matches = contains(directory.join("nsid"), &nsid.to_string())
                && !contains(directory.join("hidden"), "1")
                && parent(&directory).as_ref() == Some(&own);
            let name = entry.file_name().to_string_lossy().into_owned();
            matches.then_some(Self { directory, name })
        })
    }

    /// Its node in `/dev`, if that exists and belongs to it.
    pub(crate) fn node(&self) -> Option<PathBuf> {
        let node = Path::new("/dev").join(&self.name);
        let metadata = fs::metadata(&node).ok()?;
        let number = format!("{}:{}", libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
        let expected = fs::read_to_string(self.directory.join("dev")).ok()?;
        (metadata.file_type().is_block_device() && expected.trim() == number).then_some(node)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the kernel refuses writes: the namespace is write-protected, or an operator used
    /// `blockdev --setro`.
    pub(crate) fn is_read_only(&self) -> bool {
        fs::read_to_string(self.directory.join("ro")).is_ok_and(|text| text.trim() == "1")
    }

    /// The limits of its queue, if the kernel reports them.
    pub(crate) fn limits(&self) -> Option<QueueLimits> {
        let number = |name: &str| -> Option<u64> {
            let text = fs::read_to_string(self.directory.join("queue").join(name)).ok()?;
            text.trim().parse().ok()
        };
        Some(QueueLimits {
            max_hw_bytes: number("max_hw_sectors_kb")? << 10,
            max_segments: number("max_segments")?,
            // Older kernels do not report these two; the defaults are their values for NVMe.
            gap_mask: number("virt_boundary_mask").unwrap_or(4095),
            memory_alignment: number("dma_alignment").map_or(Geometry::MIN_LOGICAL_BLOCK, |mask| {
                u32::try_from(mask).unwrap_or(Geometry::MIN_LOGICAL_BLOCK).saturating_add(1)
            }),
            discards: number("discard_max_bytes") != Some(0),
            writes_zeroes: number("write_zeroes_max_bytes") != Some(0),
            polls: number("io_poll") == Some(1),
        })
    }
}

/// The limits of the kernel's driver for one command, and the commands that it does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// The most bytes of a command.
    pub(crate) max_hw_bytes: u64,
    /// The most memory segments of a command.
    pub(crate) max_segments: u64,
    /// Between two segments, one may end and the next begin only at multiples of this plus one.
    pub(crate) gap_mask: u64,
    /// The alignment of memory in bytes. The kernel copies memory at other addresses.
    pub(crate) memory_alignment: u32,
    /// Whether it uses Dataset Management.
    pub(crate) discards: bool,
    /// Whether it uses Write Zeroes: some controllers support it incorrectly.
    pub(crate) writes_zeroes: bool,
    /// Whether it has queues for polling.
    pub(crate) polls: bool,
}
