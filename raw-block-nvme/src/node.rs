//! The character device of a namespace and its `ioctl`s.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use raw_block_core::backend::lock_device;
use raw_block_core::{Error, ErrorKind};

use crate::command::Command;
use crate::identify::{Controller, Namespace, Page, cns, command_set};
use crate::placement::{self, ReclaimUnitHandle};
use crate::status::Status;
use crate::sysfs;

/// `struct nvme_passthru_cmd64`: the command, and the result that the controller returns with the
/// status.
#[repr(C)]
struct Passthrough {
    command: Command,
    result: u64,
}

mod ioctl {
    use super::Passthrough;

    // `linux/nvme_ioctl.h`: NVME_IOCTL_ID is _IO('N', 0x40); the others take a
    // `struct nvme_passthru_cmd64`.
    nix::ioctl_none!(id, b'N', 0x40);
    nix::ioctl_readwrite!(admin, b'N', 0x47, Passthrough);
    nix::ioctl_readwrite!(io, b'N', 0x48, Passthrough);
}

/// The queue of the controller for a command.
#[derive(Clone, Copy)]
enum Queue {
    Admin,
    Io,
}

/// The open character device of a namespace.
#[derive(Debug)]
pub(crate) struct Node(File);

impl Node {
    /// Opens `path`, which must be the character device of a namespace.
    pub(crate) fn open(path: &Path, read_only: bool) -> Result<Self, Error> {
        let refuse = |what: &str| Err(Error::new(ErrorKind::Unsupported, "open", what.to_owned()));
        let failed = |error: io::Error| Error::os("open", error);
        let kind = fs::metadata(path).map_err(failed)?.file_type();
        if kind.is_block_device() {
            return refuse(
                "it is a block device; passthrough needs the character device of the same namespace, such as \
                 /dev/ng0n1",
            );
        }
        if !kind.is_char_device() {
            return refuse(
                "it is no device; passthrough needs the character device of an NVMe namespace, such as /dev/ng0n1",
            );
        }
        let opened = OpenOptions::new().read(true).write(!read_only).open(path);
        let node = Self(opened.map_err(|error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            let error = failed(error);
            if denied {
                error.with_rule("this user may not open it: check its mode and group")
            } else {
                error
            }
        })?);
        match sysfs::class(&node.0).as_deref() {
            Some("nvme-generic") | None => Ok(node),
            Some("nvme") => refuse(
                "it is a controller; passthrough needs one of its namespaces, such as /dev/ng0n1",
            ),
            Some(class) => {
                refuse(&format!("it is a character device of class {class}, not an NVMe namespace"))
            }
        }
    }

    /// A node that is another file, for tests.
    #[cfg(test)]
    pub(crate) fn of(file: File) -> Self {
        Self(file)
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// Locks the node, which keeps out other processes that use this library. Messages contain
    /// `name`.
    pub(crate) fn lock(&self, name: &str) -> Result<File, Error> {
        lock_device(&self.0, false, name)?;
        self.0.try_clone().map_err(|error| Error::os("lock", error))
    }

    /// The namespace's identifier.
    fn id(&self) -> Result<u32, Error> {
        // SAFETY: this ioctl takes no argument.
        let id = unsafe { ioctl::id(self.0.as_raw_fd()) };
        let id = id.map_err(|errno| match errno {
            Errno::ENOTTY | Errno::EINVAL => Error::new(
                ErrorKind::Unsupported,
                "open",
                "it is a character device, but not an NVMe namespace",
            )
            .with_source(errno.into()),
            errno => failed("get the namespace identifier", errno),
        })?;
        Ok(u32::try_from(id).unwrap_or(0))
    }

    /// Whether the namespace still answers. With multipath: whether a path to it is left.
    pub(crate) fn is_there(&self) -> bool {
        self.id().is_ok()
    }

    /// Executes a command that fills `answer`, and waits for it.
    fn execute(
        &self,
        queue: Queue,
        command: Command,
        answer: &mut [u8],
        action: &'static str,
    ) -> Result<(), Error> {
        let command = command.over(answer.as_mut_ptr() as usize, answer.len());
        let mut passthrough = Passthrough { command, result: 0 };
        let (fd, argument) = (self.0.as_raw_fd(), &raw mut passthrough);
        let status = match queue {
            // SAFETY: the argument is the structure that this ioctl takes. The command in it has
            // the address and the length of `answer`, and has completed when the call returns.
            Queue::Admin => unsafe { ioctl::admin(fd, argument) },
            // SAFETY: as above.
            Queue::Io => unsafe { ioctl::io(fd, argument) },
        };
        match status.map_err(|errno| failed(action, errno))? {
            0 => Ok(()),
            status => Err(Status::new(u16::try_from(status).unwrap_or(u16::MAX)).error(action)),
        }
    }

    fn identify(&self, nsid: u32, cns: u8) -> Result<Box<Page>, Error> {
        let mut page = Box::new([0; size_of::<Page>()]);
        self.execute(Queue::Admin, Command::identify(nsid, cns, 0), &mut page[..], "identify")?;
        Ok(page)
    }

    pub(crate) fn controller(&self) -> Result<Controller, Error> {
        let page = self.identify(0, cns::CONTROLLER)?;
        // Controllers before version 2.0 of the specification lack it.
        let specific = self.identify(0, cns::COMMAND_SET_CONTROLLER).ok();
        Ok(Controller::parse(&page, specific.as_deref()))
    }

    pub(crate) fn namespace(&self) -> Result<Namespace, Error> {
        let id = self.id()?;
        // Not every user may read the descriptors. Without them, the sizes below show another
        // command set.
        if let Ok(page) = self.identify(id, cns::NAMESPACE_DESCRIPTORS)
            && let Some(set @ 1..) = command_set(&page)
        {
            let rule = format!(
                "namespace {id} has command set {set}, but only the NVM command set (0) is supported"
            );
            return Err(Error::new(ErrorKind::Unsupported, "open", rule));
        }
        Namespace::parse(id, &*self.identify(id, cns::NAMESPACE)?)
    }

    /// The reclaim unit handles of the namespace; none if flexible data placement is disabled.
    pub(crate) fn reclaim_unit_handles(&self, nsid: u32) -> Result<Vec<ReclaimUnitHandle>, Error> {
        // Reads the number of handles first, because a controller may refuse a buffer for more.
        let read = |len| {
            let mut answer = vec![0; len];
            let command = Command::reclaim_unit_handles(nsid, len);
            let action = "get the reclaim unit handles";
            self.execute(Queue::Io, command, &mut answer, action).map(|()| answer)
        };
        let answer = read(placement::HEADER).and_then(|header| read(placement::len(&header)));
        match answer {
            Ok(answer) => Ok(placement::parse(&answer)),
            // FDP Disabled, or an endurance group without it.
            Err(error)
                if Status::of(&error)
                    .is_some_and(|status| matches!(status.code(), 0x01 | 0x02 | 0x29)) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn failed(action: &'static str, errno: Errno) -> Error {
    let error = Error::os(action, errno.into());
    if error.kind() == ErrorKind::PermissionDenied {
        return error.with_rule(
            "this user may not send commands to the device: before Linux 6.2 that needs CAP_SYS_ADMIN, whatever \
             the mode of the node",
        );
    }
    error
}
