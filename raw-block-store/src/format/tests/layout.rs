use super::*;

fn request(capacity: u64, block_size: u32) -> LayoutRequest {
    LayoutRequest { capacity, block_size, segment_size: None, largest_object: None }
}

fn planned(request: &LayoutRequest) -> Layout {
    let layout = Layout::plan(request).unwrap();
    let superblock = Superblock::new(&layout, &[9; 16], request.capacity);
    superblock.encode(&mut [0; 4096]).unwrap();
    let mut end = 8192;
    for offset in layout.container_offset {
        assert!(offset >= end, "{layout:?}");
        end = offset + layout.container_len;
    }
    assert!(layout.segments_offset >= end);
    let last = layout.segment_offset(layout.segment_count - 1);
    assert!(last + layout.segment_size() <= layout.last_superblock_offset);
    layout
}

#[test]
fn segments_have_the_default_size_of_the_design() {
    const MIB: u64 = 1 << 20;
    for (capacity, segment) in [
        (512 << 10, 32 << 10),
        (MIB, 32 << 10),
        (1024 * MIB, 32 * MIB),
        (2047 * MIB, 32 * MIB),
        (2048 * MIB, 64 * MIB),
        (15 << 30, 64 * MIB),
        (100 << 30, 256 * MIB),
        (1 << 40, 1024 * MIB),
        (16 << 40, 1024 * MIB),
    ] {
        let layout = planned(&request(capacity, 4096));
        assert_eq!(layout.segment_size(), segment.max(8 * 4096), "{capacity}");
    }
}

#[test]
fn small_devices_take_small_segments_if_asked() {
    for blocks in [8, 16, 64, 128] {
        let segment_size = Some(blocks * 512);
        let layout = planned(&LayoutRequest { segment_size, ..request(1 << 20, 512) });
        let most = (1 << 20) / (blocks * 512);
        let count = u64::from(layout.segment_count);
        assert!(count <= most && count * 100 >= most * 75, "{count} of {most}");
    }
}

#[test]
fn few_bytes_outside_of_segments_are_lost() {
    for capacity in [1 << 30, 100 << 30, 1 << 40, (7 << 40) + 12345] {
        let layout = planned(&request(capacity, 4096));
        let used = u64::from(layout.segment_count) * layout.segment_size();
        assert!(capacity - used < layout.segment_size() + capacity / 1000);
    }
}

#[test]
fn the_largest_object_makes_segments_larger() {
    let largest_object = Some(100 << 20);
    let layout = planned(&LayoutRequest { largest_object, ..request(64 << 30, 4096) });
    assert_eq!(layout.segment_size(), 1 << 30);
    let largest_object = Some(1000);
    let layout = planned(&LayoutRequest { largest_object, ..request(64 << 30, 4096) });
    assert_eq!(layout.segment_size(), 256 << 20);
}

#[test]
fn requests_that_cannot_be_met_are_refused_with_a_reason() {
    let base = request(1 << 20, 512);
    let segment_size = |size| LayoutRequest { segment_size: Some(size), ..base };
    for (request, reason) in [
        (request(1 << 20, 1000), "block size of 1000"),
        (request(12288, 4096), "too few for 8 segments"),
        (request(0, 4096), "too few for 8 segments"),
        (segment_size(2048), "not a power of two from 4096"),
        (segment_size(0), "not a power of two"),
        (segment_size(24 << 10), "not a power of two"),
        (segment_size(1 << 50), "not a power of two"),
        (segment_size(1 << 20), "too few for 8 segments"),
        (segment_size(128 << 10), "too few for 8 segments"),
        (LayoutRequest { largest_object: Some(u64::MAX), ..base }, "too large for any segment"),
        (LayoutRequest { largest_object: Some(1 << 40), ..base }, "too large for any segment"),
        (LayoutRequest { largest_object: Some(1 << 20), ..base }, "too few for 8 segments"),
        (
            LayoutRequest { largest_object: Some(15000), ..segment_size(16 << 10) },
            "do not fit into segments of 16384",
        ),
        (
            LayoutRequest { segment_size: Some(4096), ..request(1 << 40, 512) },
            "choose a larger segment size",
        ),
    ] {
        let found = Layout::plan(&request).unwrap_err();
        assert!(found.contains(reason), "{found}");
    }
}

#[test]
fn what_follows_from_a_layout_is_as_documented() {
    let layout = layout(4096);
    assert_eq!(layout.entries_per_table_block(), 84);
    assert_eq!([0, 1, 84, 85].map(|entries| layout.table_blocks(entries)), [0, 1, 1, 2]);
    assert_eq!(layout.usable_blocks(85), 61);
    assert_eq!(layout.largest_payload(), 61 * 4096);
    assert_eq!(layout.names_limit(), 4016);
    assert_eq!(layout.max_sequences(), u64::from(layout.segment_count) * 66);
    assert_eq!(layout.block_offset(2, 3), layout.segments_offset + (2 * 64 + 3) * 4096);
    assert_eq!(layout.max_body_len(), u64::from(layout.segment_count) * 40);
    assert_eq!(tombstones_per_slot(4096), 251);
    let huge = Layout { segment_blocks: MAX_SEGMENT_BLOCKS, ..layout };
    assert_eq!(huge.largest_payload(), u32::MAX);
}
