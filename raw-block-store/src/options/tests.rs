use proptest::prelude::*;

use super::*;

/// Numbers of every size, and those beside powers of two.
fn extreme() -> impl Strategy<Value = u64> {
    let beside =
        (0_u32..64, -2_i64..=2).prop_map(|(bits, by)| (1_u64 << bits).wrapping_add_signed(by));
    prop_oneof![0_u64..1000, beside, any::<u64>(), Just(u64::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn any_options_on_any_device_are_refused_or_make_a_store_that_fits(
        capacity in extreme(),
        alignment in 0_u32..18,
        payload_len in prop_oneof![extreme(), 0_u64..10_000_000],
        block_size in proptest::option::of(prop_oneof![(0_u32..32).prop_map(|bits| 1 << bits), any::<u32>()]),
        slot_count in proptest::option::of(extreme()),
        delete_log_blocks in proptest::option::of(extreme()),
    ) {
        let Ok(mut geometry) = Geometry::new(capacity, 512) else { return Ok(()) };
        geometry.transfer_alignment = 1 << alignment;
        let options = FormatOptions {
            payload_len,
            block_size,
            slot_count,
            delete_log_blocks,
            label: String::new(),
            force: false,
        };
        let mut store = match options.lay_out(&geometry, "a device") {
            Ok(store) => store,
            Err(Error::Unsuitable { .. }) => return Ok(()),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert!(store.slot_count.get() >= 1 && store.slot_count.get() <= MAX_SLOT_COUNT);
        prop_assert!(slot_count.is_none_or(|slots| store.slot_count == slots));
        prop_assert!(store.slot_size.get() >= payload_len + u64::from(store.block_size.get()));
        // What the format itself wants is checked by its writer: regions in order, apart, and on the device.
        store.set_state(crate::format::SuperblockState::Clean { checkpoint: 1, verified: true });
        store.generation = 1.into();
        let mut cell = [0; SUPERBLOCK_CELL_LEN];
        prop_assert_eq!(store.encode(&mut cell), Ok(()));
        let last = store.slot_offset(store.slot_count.get() - 1).map(u128::from);
        let end = last.map(|last| last + u128::from(store.slot_size.get()));
        prop_assert!(end.is_some_and(|end| end <= u128::from(store.last_superblock_offset.get())));
        prop_assert!(store.last_superblock_offset.get() <= capacity - SUPERBLOCK_CELL_LEN as u64);
        // As many as fit are made where no number is given: with one more it is refused.
        if slot_count.is_none() && store.slot_count.get() < MAX_SLOT_COUNT {
            let one_more = FormatOptions { slot_count: Some(store.slot_count.get() + 1), ..options };
            prop_assert!(one_more.lay_out(&geometry, "a device").is_err());
        }
    }
}
