//! What can be run: layers, operations, and batches of a certain shape.

use serde::Serialize;

use super::options::EngineName;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Layer {
    Raw,
    Serial,
    Store,
    Fio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    Write,
    Read,
    Put,
    Get,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Put => "put",
            Self::Get => "get",
        }
    }
}

/// How the keys of a batch lie on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Places {
    /// Anywhere.
    Apart,
    /// One behind the other; the batch lies anywhere.
    Neighbouring,
}

/// The shape of the batches of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of one value.
    pub(super) value: u64,
    pub(super) batch: usize,
    pub(super) threads: usize,
    /// Bytes of metadata that each object of a store has; gets read them too.
    pub(super) metadata: usize,
}

/// What has one row in the report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) layer: Layer,
    pub(super) engine: EngineName,
    pub(super) operation: Operation,
    pub(super) places: Places,
    pub(super) shape: Shape,
    /// The case of fio that does the same work.
    pub(super) fio: Option<usize>,
    /// For a case of fio: the second run of it. That one has no row.
    pub(super) control: Option<usize>,
    pub(super) is_control: bool,
}

/// What runs in one go, because it shares an open engine; it measures `cases`, in their order.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) job: Job,
    pub(super) shape: Shape,
    pub(super) cases: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// Writes, then reads.
    Raw(EngineName),
    /// Puts, then gets.
    Serial(EngineName),
    /// Puts, then gets of neighbours, then (with batches above 1) gets of keys that lie apart.
    Store {
        engine: EngineName,
        put_bytes: u64,
    },
    Fio(FioJob),
}

/// What fio shall do, apart from the shape of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FioJob {
    pub(super) writes: bool,
    /// Bytes of one transfer.
    pub(super) io_bytes: u64,
    /// How many transfers lie one behind the other.
    pub(super) run: usize,
    /// Bytes at the front of the device over which the transfers are spread.
    pub(super) span: u64,
}
