//! Flexible data placement: the reclaim unit handles of a namespace.

/// The length of the header of a Reclaim Unit Handle Status (Base Specification), in bytes.
pub(crate) const HEADER: usize = 16;
/// The length of a descriptor, in bytes.
const DESCRIPTOR: usize = 32;

/// A reclaim unit handle. The device stores data written with one handle together, apart from data
/// written with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReclaimUnitHandle {
    /// Its placement identifier in commands (PID).
    pub placement_id: u16,
    /// Its identifier in the endurance group (RUHID).
    pub id: u16,
    /// The number of blocks until its reclaim unit is full (RUAMW).
    pub blocks_left: u64,
}

/// The number of descriptors after a header (NRUHSD, bytes 15:14).
fn count(header: &[u8]) -> usize {
    header.get(14..HEADER).map_or(0, |count| u16::from_le_bytes([count[0], count[1]]).into())
}

/// The length of the status with this header, in bytes.
pub(crate) fn len(header: &[u8]) -> usize {
    HEADER + count(header) * DESCRIPTOR
}

/// The descriptors of a status.
pub(crate) fn parse(status: &[u8]) -> Vec<ReclaimUnitHandle> {
    let Some((header, descriptors)) = status.split_at_checked(HEADER) else { return Vec::new() };
    let descriptors = descriptors.chunks_exact(DESCRIPTOR).take(count(header));
    descriptors
        .map(|descriptor| ReclaimUnitHandle {
            placement_id: u16::from_le_bytes([descriptor[0], descriptor[1]]),
            id: u16::from_le_bytes([descriptor[2], descriptor[3]]),
            blocks_left: u64::from_le_bytes(std::array::from_fn(|index| descriptor[8 + index])),
        })
        .collect()
}

/// The index of the handle with this placement identifier.
pub(crate) fn index_of(handles: &[ReclaimUnitHandle], placement_id: u16) -> Option<u16> {
    let index = handles.iter().position(|handle| handle.placement_id == placement_id)?;
    u16::try_from(index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_identifier_is_mapped_to_the_index_of_its_handle() {
        let handle = |placement_id| ReclaimUnitHandle { placement_id, id: 0, blocks_left: 0 };
        let handles = [handle(0x8000), handle(3), handle(0), handle(3)];
        let indices = [0x8000, 3, 0, 1].map(|placement_id| index_of(&handles, placement_id));
        assert_eq!(indices, [Some(0), Some(1), Some(2), None]);
        assert_eq!(index_of(&[], 0), None);
    }

    #[test]
    fn handles_are_read_up_to_the_number_that_the_header_gives() {
        let mut status = [0; HEADER + 3 * DESCRIPTOR];
        status[14] = 2;
        status[HEADER..HEADER + 10].copy_from_slice(&[7, 1, 3, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(len(&status), HEADER + 2 * DESCRIPTOR);
        let handles = parse(&status);
        let first = ReclaimUnitHandle { placement_id: 0x107, id: 3, blocks_left: 512 };
        assert_eq!((handles.len(), handles[0]), (2, first));
        status[14..16].fill(0xFF);
        assert_eq!(parse(&status).len(), 3, "not past the end");
        assert_eq!(parse(&[]), []);
    }
}
