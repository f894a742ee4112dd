//! The budget of a store that evicts: how many blocks may be moved to keep used objects.

use super::Shape;

/// Unused budget is saved, up to this part of the store, because in small segments used objects may
/// be concentrated in few of them.
const SAVED_PART: i64 = 16;

/// The budget for moves: a share of what is put, in hundredths of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoveBudget {
    /// Blocks that may be moved for each hundred that are put.
    percent: i64,
    left: i64,
    /// The most that is saved.
    most: i64,
}

impl MoveBudget {
    pub(super) fn new(shape: &Shape, percent: u8) -> Self {
        let blocks = i64::from(shape.segments) * i64::from(shape.segment_blocks) / SAVED_PART;
        let most = 100 * blocks.max(shape.segment_blocks.into());
        Self { percent: percent.into(), left: most, most }
    }

    /// Blocks were put.
    pub(super) fn earn(&mut self, blocks: u32) {
        self.left = (self.left + self.percent * i64::from(blocks)).min(self.most);
    }

    /// Blocks were moved.
    pub(super) fn spend(&mut self, blocks: u64) {
        let blocks = i64::try_from(blocks).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(blocks.saturating_mul(100)).max(-self.most);
    }

    /// Blocks that may be moved now. Without a share there are none.
    pub(super) fn left(&self) -> u64 {
        if self.percent == 0 { 0 } else { u64::try_from(self.left / 100).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_paid_for_by_puts_and_saved_up_to_a_limit() {
        let shape = Shape::new(64, 1024, 4096);
        let mut budget = MoveBudget::new(&shape, 25);
        assert_eq!(budget.left(), 4 * 1024, "a sixteenth of the store");
        budget.earn(1000);
        assert_eq!(budget.left(), 4 * 1024);
        budget.spend(5 * 1024);
        assert_eq!(budget.left(), 0);
        budget.earn(4 * 1024);
        assert_eq!(budget.left(), 0, "the debt is paid");
        budget.earn(402);
        assert_eq!(budget.left(), 100);
    }

    #[test]
    fn nothing_is_moved_without_a_share() {
        assert_eq!(MoveBudget::new(&Shape::new(8, 64, 4096), 0).left(), 0);
    }
}
