//! The backend.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raw_block_core::backend::{Arena, DeviceFile, FlushState, IoBackend, IoQueue, OpKind, Stats};
use raw_block_core::{Direct, Error, ErrorClass, ErrorKind, Geometry};
use raw_block_uring::ring::{Linux, RingDevice};

use crate::identify::{Controller, Namespace};
use crate::limits::Limits;
use crate::node::Node;
use crate::options::NvmeOptions;
use crate::placement::{self, ReclaimUnitHandle};
use crate::polling;
use crate::queue::NvmeQueue;
use crate::sysfs::{QueueLimits, Sibling};
use crate::translator::Translator;
use crate::verdict::explain;

/// An NVMe namespace, read and written by commands of its own, past the kernel's block layer.
///
/// Needs Linux 5.19, and before 6.2 the capability `CAP_SYS_ADMIN`. See the [crate](crate) for an example.
pub struct NvmeBackend {
    shared: Arc<Shared>,
    rings: Arc<RingDevice>,
    path: Arc<str>,
}

/// What the queues of a backend share: the open namespace and what is known of it.
pub(crate) struct Shared {
    node: Node,
    block_device: Option<PathBuf>,
    /// Keeps others away.
    claim: Claim,
    pub(crate) controller: Controller,
    namespace: Namespace,
    handles: Vec<ReclaimUnitHandle>,
    geometry: Geometry,
    pub(crate) translator: Translator,
}

/// What is held so that no other process uses the namespace. The rings keep it open until their last command has
/// completed, so that after `SIGKILL` the next process waits for the commands in flight.
enum Claim {
    /// The block device, exclusively.
    BlockDevice(DeviceFile),
    /// A lock on the character device, which only others of this library heed.
    Lock(File),
}

impl NvmeBackend {
    /// Opens the namespace whose character device (`/dev/ngXnY`) is at `path`.
    ///
    /// Nothing is written by opening. The block device of the same namespace is held exclusively as long as there are
    /// queues, so it cannot be mounted, partitions of it neither. After `SIGKILL` it is held until the last command of the
    /// process has completed; opening waits for that as [`DeviceFile::open`] does.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`]: as the system says.
    /// - [`ErrorKind::PermissionDenied`]: the namespace is write-protected, or its block device read-only.
    /// - [`ErrorKind::Busy`]: the block device is mounted, or somebody else holds it.
    /// - [`ErrorKind::Unsupported`]: this is no NVMe namespace, or has a format or a command set that is not
    ///   for blocks alone, or its block device is not there to be held; or the kernel is older than 5.19.
    /// - [`ErrorKind::Unsupported`] also if completions are to be polled for, and driver or kernel cannot.
    /// - [`ErrorKind::Misaligned`], [`ErrorKind::OutOfRange`], [`ErrorKind::InvalidInput`]: the options do not
    ///   fit the namespace.
    pub fn open(path: impl AsRef<Path>, options: &NvmeOptions) -> Result<Self, Error> {
        Self::open_for(path.as_ref(), options, false)
    }

    /// Opens the namespace read-only, which takes no permission to write, and keeps writers out for as long. The
    /// namespace may be write-protected.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), but for those of write protection.
    pub fn open_read_only(path: impl AsRef<Path>, options: &NvmeOptions) -> Result<Self, Error> {
        Self::open_for(path.as_ref(), options, true)
    }

    fn open_for(path: &Path, options: &NvmeOptions, read_only: bool) -> Result<Self, Error> {
        let name: Arc<str> = path.display().to_string().into();
        let shared = Shared::open(path, options, read_only);
        let shared = Arc::new(shared.map_err(|error| error.on(Arc::clone(&name)))?);
        let mut rings = RingDevice::new(Device(Arc::clone(&shared)), &name, None)?;
        if options.completion_polling {
            rings = rings.polling_completions()?;
        }
        let rings = Arc::new(rings.holding(Claimed(Arc::clone(&shared))));
        if options.completion_polling {
            let polled = polling::check_kernel(&rings, &shared.translator);
            polled.map_err(|error| error.on(Arc::clone(&name)))?;
        }
        Ok(Self { shared, rings, path: name })
    }

    /// What the controller says about itself.
    #[must_use]
    pub fn controller(&self) -> &Controller {
        &self.shared.controller
    }

    /// What the namespace says about itself.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.shared.namespace
    }

    /// The block device of the same namespace (`/dev/nvmeXnY`), which is held as long as there are queues. `None` where
    /// it has no node.
    #[must_use]
    pub fn block_device(&self) -> Option<&Path> {
        self.shared.block_device.as_deref()
    }

    /// The reclaim unit handles of the namespace, as they were when it was opened; none without flexible data placement.
    #[must_use]
    pub fn reclaim_unit_handles(&self) -> &[ReclaimUnitHandle] {
        &self.shared.handles
    }

    /// The placement handle, as [`WriteOptions::placement`](raw_block_core::WriteOptions::placement) counts them, of the
    /// reclaim unit handle with this placement identifier, as `nvme fdp status` prints it. `None` if the namespace may
    /// not use that one.
    ///
    /// # Examples
    /// ```no_run
    /// use raw_block_core::WriteOptions;
    /// use raw_block_nvme::{NvmeBackend, NvmeOptions};
    ///
    /// let backend = NvmeBackend::open("/dev/ng0n1", &NvmeOptions::default())?;
    /// let placement = backend.placement_of(3);
    /// assert!(placement.is_some(), "the namespace has no placement identifier 3");
    /// let options = WriteOptions::new().placement(placement);
    /// # Ok::<(), raw_block_core::Error>(())
    /// ```
    #[must_use]
    pub fn placement_of(&self, placement_id: u16) -> Option<u16> {
        placement::index_of(&self.shared.handles, placement_id)
    }
}

/// The open namespace, as the rings keep it.
struct Device(Arc<Shared>);

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.node.as_fd()
    }
}

/// What is held, as the rings keep it.
struct Claimed(Arc<Shared>);

impl AsFd for Claimed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0.claim {
            Claim::BlockDevice(held) => held.as_fd(),
            Claim::Lock(node) => node.as_fd(),
        }
    }
}

impl Shared {
    fn open(path: &Path, options: &NvmeOptions, read_only: bool) -> Result<Self, Error> {
        let node = Node::open(path, read_only)?;
        let namespace = node.namespace()?;
        let controller = node.controller()?;
        let sibling = Sibling::find(node.file(), namespace.id);
        if !read_only {
            namespace.check_writable(sibling.as_ref().is_some_and(Sibling::is_read_only))?;
        }
        let block_device = sibling.as_ref().and_then(Sibling::node);
        let claim = claim(&node, path, sibling.as_ref(), options.force, read_only)?;
        let kernel = sibling.as_ref().and_then(Sibling::limits);
        if options.completion_polling {
            polling::check_driver(kernel.as_ref())?;
        }
        let handles = if controller.data_placement {
            node.reclaim_unit_handles(namespace.id)?
        } else {
            Vec::new()
        };
        let limits = Limits::new(&controller, &namespace, kernel.as_ref(), options.max_command)?;
        let mut geometry = geometry(&controller, &namespace, kernel.as_ref(), &limits, options)?;
        geometry.read_only = read_only;
        // At most 128.
        geometry.placement_handles = u16::try_from(handles.len()).unwrap_or(u16::MAX);
        let translator = Translator {
            nsid: namespace.id,
            offset: options.offset,
            limits,
            volatile_write_cache: controller.volatile_write_cache,
            timeout: options.timeout,
            placement_ids: handles.iter().map(|handle| handle.placement_id).collect(),
        };
        Ok(Self { node, block_device, claim, controller, namespace, handles, geometry, translator })
    }
}

impl Shared {
    /// Why the kernel does not take a command, which it says in the same way whatever the reason.
    pub(crate) fn explain_refusal(&self, kind: OpKind) -> Error {
        let refused = explain(kind, libc::EINVAL);
        if self.node.is_there() {
            return refused;
        }
        let source = std::io::Error::from_raw_os_error(libc::EINVAL);
        let rule = "the device is gone: no path to the namespace is left";
        Error::new(ErrorKind::DeviceGone, kind.name(), rule)
            .with_source(source)
            .with_class(ErrorClass::NotStarted)
    }
}

#[cfg(test)]
impl Shared {
    /// A namespace for tests of queues: `file` stands for its character device, and nothing is asked of it.
    pub(crate) fn without_device(
        file: File,
        controller: Controller,
        namespace: Namespace,
    ) -> Result<Self, Error> {
        let claim = Claim::Lock(file.try_clone().map_err(|error| Error::os("open", error))?);
        let limits = Limits::new(&controller, &namespace, None, None)?;
        let options = NvmeOptions::default();
        let geometry = geometry(&controller, &namespace, None, &limits, &options)?;
        let translator = Translator {
            nsid: namespace.id,
            offset: 0,
            limits,
            volatile_write_cache: controller.volatile_write_cache,
            timeout: None,
            placement_ids: Vec::new(),
        };
        Ok(Self {
            node: Node::of(file),
            block_device: None,
            claim,
            controller,
            namespace,
            handles: Vec::new(),
            geometry,
            translator,
        })
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }
}

/// Holds the block device of the namespace, or says why not.
fn claim(
    node: &Node,
    path: &Path,
    sibling: Option<&Sibling>,
    force: bool,
    read_only: bool,
) -> Result<Claim, Error> {
    let lock = || node.lock(&path.display().to_string()).map(Claim::Lock);
    let hold = if read_only { DeviceFile::open_read_only } else { DeviceFile::open };
    let missing = match sibling.map(|sibling| (sibling.name(), sibling.node())) {
        Some((_, Some(path))) => match hold(path, Direct::Preferred) {
            Ok(held) => return Ok(Claim::BlockDevice(held)),
            Err(error) if error.kind() == ErrorKind::Busy || !force => {
                let rule = format!("its block device has to be held: {error}");
                return Err(Error::new(error.kind(), "open", rule));
            }
            Err(_) => return lock(),
        },
        Some((name, None)) => format!("block device {name} has no node in /dev"),
        None => "block device is not to be found in /sys".to_owned(),
    };
    if force {
        return lock();
    }
    let rule = format!(
        "its {missing}, so that nothing keeps it from being mounted: make it visible here, or open with `force`"
    );
    Err(Error::new(ErrorKind::Unsupported, "open", rule))
}

fn geometry(
    controller: &Controller,
    namespace: &Namespace,
    kernel: Option<&QueueLimits>,
    limits: &Limits,
    options: &NvmeOptions,
) -> Result<Geometry, Error> {
    let block = namespace.block;
    let size = namespace.blocks.saturating_mul(block);
    let refuse = |kind, rule: String| Err(Error::new(kind, "open", rule));
    let len = options.len.unwrap_or_else(|| size.saturating_sub(options.offset));
    if options.offset.checked_add(len).is_none_or(|end| end > size) {
        return refuse(
            ErrorKind::OutOfRange,
            format!(
                "the part of {len} bytes from byte {} on ends behind the namespace's {size} bytes",
                options.offset
            ),
        );
    }
    if !options.offset.is_multiple_of(block) || !len.is_multiple_of(block) {
        return refuse(
            ErrorKind::Misaligned,
            format!("the part to use begins or ends inside a block of {block} bytes"),
        );
    }
    // The exponent of a block is below 32.
    let mut geometry = Geometry::new(len, u32::try_from(block).unwrap_or(0))?;
    geometry.memory_alignment = kernel.map_or(geometry.logical_block, |kernel| {
        kernel.memory_alignment.min(geometry.logical_block)
    });
    geometry.max_transfer = limits.transfer;
    geometry.max_segments = u32::try_from(limits.pages).unwrap_or(u32::MAX).max(1);
    geometry.volatile_write_cache = controller.volatile_write_cache;
    geometry.durable_writes = true;
    geometry.discard = controller.deallocate && kernel.is_none_or(|kernel| kernel.discards);
    geometry.write_zeroes =
        controller.write_zeroes && kernel.is_none_or(|kernel| kernel.writes_zeroes);
    Ok(geometry)
}

impl IoBackend for NvmeBackend {
    fn engine(&self) -> &'static str {
        "nvme"
    }

    fn name(&self) -> &str {
        &self.path
    }

    fn geometry(&self) -> &Geometry {
        &self.shared.geometry
    }

    fn stats(&self) -> &Stats {
        self.rings.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.rings.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (shared, rings) = (Arc::clone(&self.shared), Arc::clone(&self.rings));
        Ok(Box::new(NvmeQueue::open(shared, rings, depth, Linux)?))
    }

    fn open_local_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (shared, rings) = (Arc::clone(&self.shared), Arc::clone(&self.rings));
        Ok(Box::new(NvmeQueue::open_local(shared, rings, depth, Linux)?))
    }

    fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        self.rings.register(arena)
    }

    fn unregister(&self, arena: &Arc<Arena>) {
        self.rings.unregister(arena);
    }
}

impl Drop for NvmeBackend {
    /// Registered memory may go away with its registration from now on.
    fn drop(&mut self) {
        self.rings.unregister_all();
    }
}

impl fmt::Debug for NvmeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NvmeBackend")
            .field("device", &self.path)
            .field("namespace", &self.shared.namespace)
            .field("geometry", &self.shared.geometry)
            .finish_non_exhaustive()
    }
}
