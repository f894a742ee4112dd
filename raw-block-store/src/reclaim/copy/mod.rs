//! Copies of objects: read from their segment, verified, and written to their new slots.

mod copier;
mod group;
mod long;
mod source;

pub(super) use copier::CopyOutcome;
use copier::{Copier, group_len};
use source::Source;

use crate::Error;
use crate::io::segment_header;
use crate::state::StoreState;
use crate::state::policy::Candidate;
use crate::state::space::Allocation;

/// What became of the objects of a plan, in the order of their allocation.
#[derive(Debug)]
pub(super) struct CopyResults {
    pub(super) of: Vec<CopyOutcome>,
    /// There was no memory.
    pub(super) error: Option<Error>,
}

/// Copies objects of one segment to the slots of an allocation, until something fails.
pub(super) fn copy(
    state: &StoreState,
    objects: &[Candidate],
    allocation: &Allocation,
) -> CopyResults {
    let mut copies =
        CopyResults { of: vec![CopyOutcome::NotTried; allocation.objects.len()], error: None };
    for slot in &allocation.slots {
        if let Some(opened) = &slot.opened {
            segment_header::write(state, opened);
        }
    }
    let Some(first) = objects.first() else { return copies };
    let copier = Copier {
        state,
        source: Source::new(state, first.object.place.segment),
        objects,
        allocation,
    };
    let mut rest = &allocation.slots[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(copier.group_len(rest));
        let copied = match now {
            // Objects that share a slot are never long.
            [long] if copier.bytes(long) > group_len() && long.objects.len() == 1 => {
                long::copy(&copier, long, &mut copies.of)
            }
            group => group::copy(&copier, group, &mut copies.of),
        };
        if let Err(error) = copied {
            copies.error = Some(error);
            break;
        }
        if copies
            .of
            .iter()
            .any(|copy| matches!(copy, CopyOutcome::WriteFailed | CopyOutcome::Unreadable))
        {
            break;
        }
        rest = later;
    }
    copies
}
