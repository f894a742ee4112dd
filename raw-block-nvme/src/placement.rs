//! Flexible data placement: the reclaim unit handles of a namespace.

/// Room for the header and 128 handles, the most that a namespace may have (Base Specification, "Reclaim Unit Handle
/// Status").
pub(crate) const ANSWER_LEN: usize = HEADER + 128 * DESCRIPTOR;
const HEADER: usize = 16;
const DESCRIPTOR: usize = 32;

/// A reclaim unit handle: the device keeps what was written through it together, apart from what was written through
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReclaimUnitHandle {
    /// What commands name it by (PID).
    pub placement_id: u16,
    /// Its identifier in the endurance group (RUHID).
    pub id: u16,
    /// Blocks that can be written until its reclaim unit is full (RUAMW).
    pub blocks_left: u64,
}

/// The descriptors of a Reclaim Unit Handle Status.
pub(crate) fn parse(answer: &[u8]) -> Vec<ReclaimUnitHandle> {
    let Some((header, descriptors)) = answer.split_at_checked(HEADER) else { return Vec::new() };
    let count = u16::from_le_bytes([header[14], header[15]]);
    let descriptors = descriptors.chunks_exact(DESCRIPTOR).take(count.into());
    descriptors
        .map(|descriptor| ReclaimUnitHandle {
            placement_id: u16::from_le_bytes([descriptor[0], descriptor[1]]),
            id: u16::from_le_bytes([descriptor[2], descriptor[3]]),
            blocks_left: u64::from_le_bytes(std::array::from_fn(|index| descriptor[8 + index])),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_read_up_to_the_number_that_the_header_gives() {
        let mut answer = [0; ANSWER_LEN];
        answer[14] = 2;
        answer[HEADER..HEADER + 16]
            .copy_from_slice(&[7, 1, 3, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
        let handles = parse(&answer);
        let first = ReclaimUnitHandle { placement_id: 0x107, id: 3, blocks_left: 512 };
        assert_eq!((handles.len(), handles[0]), (2, first));
        answer[14..16].fill(0xFF);
        assert_eq!(parse(&answer).len(), 128, "no more than there is room for");
        assert_eq!(parse(&[]), []);
    }
}
