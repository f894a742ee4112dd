//! The open namespace: what the queues of a backend share.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raw_block_core::backend::OpKind;
use raw_block_core::{Error, ErrorClass, ErrorKind, Geometry};

use crate::claim::Claim;
use crate::identify::{Controller, Namespace};
use crate::limits::Limits;
use crate::node::Node;
use crate::options::NvmeOptions;
use crate::placement::ReclaimUnitHandle;
use crate::polling;
use crate::sysfs::{QueueLimits, Sibling};
use crate::translator::Translator;
use crate::verdict::explain;

/// The open namespace and what is known about it.
pub(crate) struct NvmeDevice {
    node: Node,
    /// The node of the block device of the same namespace.
    pub(crate) block_device: Option<PathBuf>,
    pub(crate) claim: Arc<Claim>,
    pub(crate) controller: Controller,
    pub(crate) namespace: Namespace,
    pub(crate) handles: Vec<ReclaimUnitHandle>,
    pub(crate) geometry: Geometry,
    pub(crate) translator: Translator,
}

impl NvmeDevice {
    pub(crate) fn open(path: &Path, options: &NvmeOptions, read_only: bool) -> Result<Self, Error> {
        let node = Node::open(path, read_only)?;
        let namespace = node.namespace()?;
        let controller = node.controller()?;
        let sibling = Sibling::find(node.file(), namespace.id);
        if !read_only {
            namespace.check_writable(sibling.as_ref().is_some_and(Sibling::is_read_only))?;
        }
        let block_device = sibling.as_ref().and_then(Sibling::node);
        let claim = Claim::take(&node, path, sibling.as_ref(), options.force, read_only)?;
        let driver = sibling.as_ref().and_then(Sibling::limits);
        if options.completion_polling {
            polling::check_driver(driver.as_ref())?;
        }
        let handles = if controller.data_placement {
            node.reclaim_unit_handles(namespace.id)?
        } else {
            Vec::new()
        };
        let limits = Limits::new(&controller, &namespace, driver.as_ref(), options.max_command)?;
        let mut geometry = geometry(&controller, &namespace, driver.as_ref(), &limits, options)?;
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
        let claim = Arc::new(claim);
        Ok(Self { node, block_device, claim, controller, namespace, handles, geometry, translator })
    }

    /// Explains why the kernel rejects a command. It reports `EINVAL` for several causes.
    pub(crate) fn explain_rejection(&self, kind: OpKind) -> Error {
        let rejected = explain(kind, libc::EINVAL);
        if self.node.is_there() {
            return rejected;
        }
        let source = std::io::Error::from_raw_os_error(libc::EINVAL);
        let rule = "the device is gone: no path to the namespace is left";
        Error::new(ErrorKind::DeviceGone, kind.name(), rule)
            .with_source(source)
            .with_class(ErrorClass::NotStarted)
    }
}

impl AsFd for NvmeDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.as_fd()
    }
}

/// The geometry of the part of the namespace that the options select.
fn geometry(
    controller: &Controller,
    namespace: &Namespace,
    driver: Option<&QueueLimits>,
    limits: &Limits,
    options: &NvmeOptions,
) -> Result<Geometry, Error> {
    let block = namespace.block;
    let size = namespace.blocks.saturating_mul(block);
    let offset = options.offset;
    let refuse = |kind, rule: String| Err(Error::new(kind, "open", rule));
    let len = options.len.unwrap_or_else(|| size.saturating_sub(offset));
    if offset.checked_add(len).is_none_or(|end| end > size) {
        return refuse(
            ErrorKind::OutOfRange,
            format!(
                "{len} bytes from byte {offset} on extend past the end of the namespace ({size} bytes)"
            ),
        );
    }
    if !offset.is_multiple_of(block) || !len.is_multiple_of(block) {
        return refuse(
            ErrorKind::Misaligned,
            format!("the offset and the length must be multiples of the block of {block} bytes"),
        );
    }
    // The exponent of a block is below 32.
    let mut geometry = Geometry::new(len, u32::try_from(block).unwrap_or(0))?;
    geometry.memory_alignment = driver.map_or(geometry.logical_block, |driver| {
        driver.memory_alignment.min(geometry.logical_block)
    });
    geometry.max_transfer = limits.transfer;
    geometry.max_segments = u32::try_from(limits.pages).unwrap_or(u32::MAX).max(1);
    geometry.volatile_write_cache = controller.volatile_write_cache;
    geometry.durable_writes = true;
    geometry.discard = controller.deallocate && driver.is_none_or(|driver| driver.discards);
    geometry.write_zeroes =
        controller.write_zeroes && driver.is_none_or(|driver| driver.writes_zeroes);
    Ok(geometry)
}

#[cfg(test)]
impl NvmeDevice {
    /// A namespace for tests of queues. `file` replaces its character device, and gets no `ioctl`.
    pub(crate) fn without_device(
        file: std::fs::File,
        controller: Controller,
        namespace: Namespace,
    ) -> Result<Self, Error> {
        let claim = Claim::Lock(file.try_clone().map_err(|error| Error::os("open", error))?);
        let limits = Limits::new(&controller, &namespace, None, None)?;
        let geometry = geometry(&controller, &namespace, None, &limits, &NvmeOptions::new())?;
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
            claim: Arc::new(claim),
            controller,
            namespace,
            handles: Vec::new(),
            geometry,
            translator,
        })
    }
}
