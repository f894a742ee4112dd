//! Whether completions can be polled for, instead of being waited for (`IOPOLL`).

use std::sync::Arc;

use raw_block_core::backend::OpKind;
use raw_block_core::{AlignedBuf, Error, ErrorKind, WriteOptions};
use raw_block_uring::ring::{Big, Linux, Lookup, Ring, RingDevice};

use crate::queue::{IO, command_entry};
use crate::sysfs::QueueLimits;
use crate::translator::Translator;
use crate::verdict;

const POLL: &str = "poll for completions";

/// Refuses a namespace whose driver has no queues for polling: the kernel would take the commands all the same, wait for
/// interrupts and poll for nothing.
pub(crate) fn check_driver(kernel: Option<&QueueLimits>) -> Result<(), Error> {
    let rule = match kernel {
        Some(kernel) if kernel.polls => return Ok(()),
        Some(_) => {
            "the driver has no queues for polling (`queue/io_poll` of the block device is 0): set the module parameter \
             `poll_queues` of nvme, or open the namespace without completion polling"
        }
        None => {
            "sysfs does not say whether the driver has queues for polling: make /sys visible here, or open the \
             namespace without completion polling"
        }
    };
    Err(Error::new(ErrorKind::Unsupported, POLL, rule))
}

/// Reads the first block, to see whether the kernel polls for passthrough commands.
///
/// A command that the controller fails has been polled for, so that is not an error here.
pub(crate) fn check_kernel(rings: &Arc<RingDevice>, translator: &Translator) -> Result<(), Error> {
    let block = translator.limits.block;
    let mut buffer = AlignedBuf::zeroed(usize::try_from(block).unwrap_or(usize::MAX))?;
    let mut ring = Ring::<Big, ()>::open(Arc::clone(rings), 1, Linux)?;
    let read = translator.command(OpKind::Read, WriteOptions::new(), 0, block);
    let (Ok(slot), Some(read)) = (ring.insert(()), read) else {
        unreachable!("a new ring has a free slot, and a read is a command")
    };
    let read = read.over(buffer.as_mut_ptr() as usize, buffer.len());
    // SAFETY: the buffer is as long as the command says, and lives until the completion was taken below, or for ever.
    unsafe { ring.push(slot, command_entry(IO, read, None), Lookup::Plain) };
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
            let rule = "the kernel does not poll for passthrough commands, which takes Linux 6.1: open the namespace \
                        without completion polling";
            let source = std::io::Error::from_raw_os_error(errno);
            Err(Error::new(ErrorKind::Unsupported, POLL, rule).with_source(source))
        }
        _ => Err(verdict::error(OpKind::Read, result)),
    }
}
