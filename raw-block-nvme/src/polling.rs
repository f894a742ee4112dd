//! Checks whether the driver and the kernel can poll for completions (`IOPOLL`).

use std::sync::Arc;

use raw_block_core::backend::OpKind;
use raw_block_core::{AlignedBuf, Error, ErrorKind, WriteOptions};
use raw_block_uring::ring::{Big, Linux, Lookup, Ring, RingDevice};

use crate::entry::{self, IO};
use crate::sysfs::QueueLimits;
use crate::translator::Translator;
use crate::verdict;

const POLL: &str = "poll for completions";

/// Refuses a namespace whose driver has no queues for polling. The kernel would accept the
/// commands, and poll for nothing while it waits for interrupts.
pub(crate) fn check_driver(driver: Option<&QueueLimits>) -> Result<(), Error> {
    let rule = match driver {
        Some(driver) if driver.polls => return Ok(()),
        Some(_) => {
            "the driver has no queues for polling (`queue/io_poll` of the block device is 0): set the module parameter \
             `poll_queues` of nvme, or open the namespace without completion polling"
        }
        None => {
            "sysfs does not report whether the driver has queues for polling: make /sys visible here, or open the \
             namespace without completion polling"
        }
    };
    Err(Error::new(ErrorKind::Unsupported, POLL, rule))
}

/// Reads the first block to find out whether the kernel polls for passthrough commands.
pub(crate) fn check_kernel(rings: &Arc<RingDevice>, translator: &Translator) -> Result<(), Error> {
    let block = translator.limits.block;
    let mut buffer = AlignedBuf::zeroed(usize::try_from(block).unwrap_or(usize::MAX))?;
    let mut ring = Ring::<Big, ()>::open(Arc::clone(rings), 1, Linux)?;
    let read = translator.command(OpKind::Read, WriteOptions::new(), 0, block);
    let (Ok(slot), Some(read)) = (ring.insert(()), read) else {
        unreachable!("a new ring has a free slot, and a read is a command")
    };
    let read = read.over(buffer.as_mut_ptr() as usize, buffer.len());
    // SAFETY: the buffer has the length in the command, and lives until the completion was taken
    // below, or is leaked.
    unsafe { ring.push(slot, entry::of_command(IO, read, None), Lookup::Plain) };
    let result = loop {
        if let Some((_, outcome)) = ring.take_completion() {
            break outcome.result;
        }
        if let Some((_, error)) = ring.take_lost() {
            std::mem::forget(buffer);
            return Err(Error::os(POLL, error));
        }
        ring.enter(1, None);
    };
    ring.remove(slot);
    match result.saturating_neg() {
        ..=0 => Ok(()),
        errno @ (libc::EINVAL | libc::EOPNOTSUPP) => {
            let rule = "the kernel does not poll for passthrough commands (needs Linux 6.1): open the namespace \
                        without completion polling";
            let source = std::io::Error::from_raw_os_error(errno);
            Err(Error::new(ErrorKind::Unsupported, POLL, rule).with_source(source))
        }
        _ => Err(verdict::error(OpKind::Read, result)),
    }
}
