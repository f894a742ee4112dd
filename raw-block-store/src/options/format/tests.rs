use proptest::prelude::*;

use super::*;

/// Numbers of every size, and those next to powers of two.
fn extreme() -> impl Strategy<Value = u64> {
    let near =
        (0_u32..64, -2_i64..=2).prop_map(|(bits, by)| (1_u64 << bits).wrapping_add_signed(by));
    prop_oneof![0_u64..1000, near, any::<u64>(), Just(u64::MAX)]
}

fn layout(capacity: u64, options: &FormatOptions) -> Result<Layout, Error> {
    options.lay_out(&Geometry::new(capacity, 512).unwrap(), "a device")
}

fn refusal(capacity: u64, options: &FormatOptions) -> String {
    layout(capacity, options).unwrap_err().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn any_options_are_refused_or_make_a_store_that_fits(
        capacity in extreme(),
        alignment in 0_u32..18,
        segment_size in proptest::option::of(extreme()),
        largest_object in proptest::option::of(extreme()),
        block_size in proptest::option::of(
            prop_oneof![(0_u32..32).prop_map(|bits| 1 << bits), any::<u32>()]
        ),
    ) {
        let Ok(mut geometry) = Geometry::new(capacity, 512) else { return Ok(()) };
        geometry.transfer_alignment = 1 << alignment;
        let options =
            FormatOptions::default().segment_size(segment_size).largest_object(largest_object).block_size(block_size);
        let layout = match options.lay_out(&geometry, "a device") {
            Ok(layout) => layout,
            Err(Error::Unsuitable { .. }) => return Ok(()),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert!(block_size.is_none_or(|size| size == layout.block_size));
        prop_assert!(segment_size.is_none_or(|size| size == layout.segment_size()));
        prop_assert!(layout.segment_count >= 8);
        prop_assert!(largest_object.is_none_or(|len| len <= layout.largest_payload().into()));
        let end = layout.segment_offset(layout.segment_count);
        prop_assert!(end <= layout.last_superblock_offset);
        prop_assert!(layout.last_superblock_offset <= capacity - SUPERBLOCK_CELL_LEN as u64);
    }
}

#[test]
fn the_size_of_segments_follows_the_device() {
    let by_default = FormatOptions::default();
    let size = |capacity| layout(capacity, &by_default).unwrap().segment_size();
    assert_eq!(size(1 << 40), 1 << 30);
    assert_eq!(size(1 << 36), 256 << 20);
    assert_eq!(size(4 << 30), 64 << 20);
    assert_eq!(size(1 << 30), 32 << 20);
}

#[test]
fn the_largest_object_takes_an_eighth_of_a_segment_at_most() {
    let options = FormatOptions::default().largest_object(200 << 20);
    assert_eq!(layout(1 << 40, &options).unwrap().segment_size(), 2 << 30);
    let small = FormatOptions::default().largest_object(1000);
    assert_eq!(layout(1 << 40, &small).unwrap().segment_size(), 1 << 30);
}

#[test]
fn impossible_options_are_refused_with_the_reason() {
    let with = |segment_size, largest_object, block_size| {
        FormatOptions::default()
            .segment_size(segment_size)
            .largest_object(largest_object)
            .block_size(block_size)
    };
    let capacity = 64 << 20;
    assert!(refusal(capacity, &with(Some(3 << 20), None, None)).contains("power of two"));
    assert!(refusal(capacity, &with(None, None, Some(1000))).contains("power of two"));
    assert!(refusal(capacity, &with(Some(8 << 20), None, None)).contains("8 segments"));
    let too_large = with(Some(1 << 20), Some(1 << 20), None);
    assert!(refusal(capacity, &too_large).contains("do not fit into segments"));
}
