//! The cases: layers, operations, and shapes of batches.

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

/// The offsets of the keys of a batch on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Places {
    /// Random.
    Apart,
    /// Consecutive, from a random offset.
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

/// A case, which has one row in the report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) layer: Layer,
    pub(super) engine: EngineName,
    pub(super) operation: Operation,
    pub(super) places: Places,
    pub(super) shape: Shape,
    /// The case of fio that does the same work.
    pub(super) fio: Option<usize>,
    /// For a case of fio: its second run, the control, which has no row.
    pub(super) control: Option<usize>,
    pub(super) is_control: bool,
}

/// Cases that run together because they share an open engine. Measures `cases`, in their order.
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
    /// Puts, then gets of neighbours, then (with batches above 1) gets of scattered keys.
    Store {
        engine: EngineName,
        put_bytes: u64,
    },
    Fio(FioJob),
}

/// A job of fio, apart from the shape of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FioJob {
    pub(super) writes: bool,
    /// Bytes of one transfer.
    pub(super) io_bytes: u64,
    /// Number of consecutive transfers.
    pub(super) run: usize,
    /// Bytes at the front of the device in which the transfers are.
    pub(super) span: u64,
}
