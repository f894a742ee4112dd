//! What the fuzz targets of the store on segments share.

use raw_block_store::segments::format::{Layout, LayoutRequest, SLOT_HEADER_LEN, header_hash};

use crate::Wants;

/// Where the keyed hash of a slot header lies.
const KEYED_HASH: usize = 32;
/// Where the bytes begin that it covers.
const HASHED: usize = 40;
/// Where the slot header says at which byte they end.
const LEN: std::ops::Range<usize> = 68..72;

/// The identity of the member.
pub const MEMBER: [u8; 16] = [0x5A; 16];

/// The layout of a store of at least 8 segments of 64 blocks.
#[must_use]
pub fn layout(block_size: u32) -> Layout {
    let segment_size = 64 * u64::from(block_size);
    let request = LayoutRequest {
        capacity: 12 * segment_size,
        block_size,
        segment_size: Some(segment_size),
        largest_object: None,
    };
    let layout = Layout::plan(&request).expect("there is space for 8 segments");
    layout.with_identity(&MEMBER, &[0xA5; 16])
}

impl Wants {
    /// One of the layouts, by three bits.
    #[must_use]
    pub fn layout(self) -> Layout {
        layout(self.block_size())
    }

    /// Puts right what is wanted of a slot header, the keyed hash included: no hostile author can know it, but
    /// what lies behind it is to be tried.
    pub fn put_slot_right(self, block: &mut [u8], layout: &Layout) {
        let len = block[LEN].try_into().map_or(0, u32::from_le_bytes) as usize;
        if let Some(hashed) = block.get(HASHED..len) {
            let hash = header_hash(layout, hashed).to_le_bytes();
            block[KEYED_HASH..HASHED].copy_from_slice(&hash);
        }
        self.put_right(&mut block[..SLOT_HEADER_LEN], *b"RAWBLKSL", &layout.member);
    }
}
