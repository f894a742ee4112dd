//! The submission entry of a passthrough command.

use io_uring::squeue::Entry128;
use io_uring::{opcode, types};

use crate::command::Command;

/// The namespace's index in the ring's table of registered files.
const NAMESPACE: types::Fixed = types::Fixed(0);

/// The operation for a command with one segment of memory, or none. `linux/nvme_ioctl.h`:
/// `_IOWR('N', 0x80, struct nvme_uring_cmd)`.
#[expect(clippy::cast_possible_truncation, reason = "the numbers of ioctls have 32 bits")]
pub(crate) const IO: u32 = nix::request_code_readwrite!(b'N', 0x80, size_of::<Command>()) as u32;
/// The operation for a command with a list of segments: `_IOWR('N', 0x81, struct nvme_uring_cmd)`.
#[expect(clippy::cast_possible_truncation, reason = "the numbers of ioctls have 32 bits")]
pub(crate) const IO_VECTORED: u32 =
    nix::request_code_readwrite!(b'N', 0x81, size_of::<Command>()) as u32;

/// The entry for a command, which may use a region of registered memory.
pub(crate) fn of_command(operation: u32, command: Command, region: Option<u16>) -> Entry128 {
    opcode::UringCmd80::new(NAMESPACE, operation).buf_index(region).cmd(command.to_entry()).build()
}
