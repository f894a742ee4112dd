//! What to try: batches before they have places, lengths and memory.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// Blocks that the array has. They are the last ones of the device, so that its end is near.
pub(super) const WINDOW: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) queue_depth: usize,
    pub(super) batches: Vec<Batch>,
}

#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) write: bool,
    pub(super) call: Call,
    pub(super) transfers: Vec<Plan>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// Borrowed memory, with this number of segments each.
    Borrowed(usize),
    Wait,
    TryWait,
    WaitDeadline,
}

/// A transfer before it has a place and lengths.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) place: Place,
    pub(super) offset_shift: usize,
    /// Length of each segment, and how far off an aligned address it begins.
    pub(super) segments: [(usize, usize); 3],
    pub(super) total: Total,
    /// How much longer an owned buffer is than its payload.
    pub(super) slack: isize,
    pub(super) memory: Memory,
}

/// What the memory of an owned transfer is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Memory {
    Aligned,
    Vector,
    /// Two segments: a vector of at most this length, and aligned memory.
    Two(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Block(usize),
    /// Where the one before it ends.
    Next,
    /// This number of blocks before the highest block number.
    Huge(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Total {
    Payload,
    /// Whole blocks, and some more of them.
    Padded(usize),
    Short,
    Zero,
}

pub(super) fn cases(block: usize) -> impl Strategy<Value = Case> {
    (prop_oneof![1..8_usize, Just(128)], vec(batches(block), 1..8))
        .prop_map(|(queue_depth, batches)| Case { queue_depth, batches })
}

fn batches(block: usize) -> impl Strategy<Value = Batch> {
    let call = prop_oneof![
        4 => (0..4_usize).prop_map(Call::Borrowed),
        1 => Just(Call::Wait),
        1 => Just(Call::TryWait),
        1 => Just(Call::WaitDeadline),
    ];
    (any::<bool>(), call, vec(plans(block), 0..12)).prop_map(|(write, call, transfers)| Batch {
        write,
        call,
        transfers,
    })
}

fn plans(block: usize) -> impl Strategy<Value = Plan> {
    let place = prop_oneof![
        6 => (0..WINDOW).prop_map(Place::Block),
        6 => Just(Place::Next),
        2 => (WINDOW - 3..WINDOW + 3).prop_map(Place::Block),
        1 => (1..4_u64).prop_map(Place::Huge),
    ];
    let total = prop_oneof![
        8 => (0..3_usize).prop_map(Total::Padded),
        4 => Just(Total::Payload),
        1 => Just(Total::Short),
        1 => Just(Total::Zero),
    ];
    let offset_shift = prop_oneof![15 => Just(0), 1 => 1..block];
    let segments = [segments(block), segments(block), segments(block)];
    let slack = prop_oneof![5 => 0..100_isize, 1 => Just(-1)];
    let memory = prop_oneof![
        2 => Just(Memory::Aligned),
        1 => Just(Memory::Vector),
        1 => (0..2 * block).prop_map(Memory::Two),
    ];
    (place, offset_shift, segments, total, slack, memory).prop_map(
        |(place, offset_shift, segments, total, slack, memory)| Plan {
            place,
            offset_shift,
            segments,
            total,
            slack,
            memory,
        },
    )
}

fn segments(block: usize) -> impl Strategy<Value = (usize, usize)> {
    let len = prop_oneof![
        6 => (1..5_usize).prop_map(move |blocks| blocks * block),
        3 => 0..3 * block,
        1 => Just(0),
        1 => Just(block / 2),
    ];
    (len, prop_oneof![3 => Just(0), 1 => 1..block])
}
