use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};

use super::*;
use crate::ops::test_store::{BLOCK, delete, locate, open, put, store, store_of};
use crate::{EvictionPolicy, OpenOptions};

fn scrub(store: &Store) -> ScrubReport {
    let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
    assert!(report.complete);
    report
}

/// Where a block of an object's segment begins.
fn offset(store: &Store, object: &Located, block: u32) -> u64 {
    store.state.layout.block_offset(object.place.segment, block)
}

/// Changes a byte on the device.
fn damage(device: &SimulatedDevice, offset: u64) {
    let byte = device.peek(offset, 1)[0];
    device.poke(offset, &[!byte]);
}

/// Where everything is that a scrub finds.
fn places(report: &ScrubReport) -> Vec<(Option<u32>, u64)> {
    report.findings.iter().map(|of| (of.segment, of.offset)).collect()
}

#[test]
fn a_healthy_store_is_read_from_its_beginning_to_its_end() {
    let (_, store) = store(60, EvictionPolicy::None);
    for (key, len) in [0, 1, 100, 511, 512, 513, 5000, 20_000].into_iter().enumerate() {
        put(&store, [u32::try_from(key).unwrap()], len);
    }
    put(&store, 10..300, 700);
    put(&store, 20..40, 0);
    delete(&store, [3, 21]);
    let (mut done, mut of) = (0, 0);
    let report = store
        .scrub(|progress| {
            assert!(progress.bytes_done >= done);
            (done, of) = (progress.bytes_done, progress.bytes);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(report.objects, store.stats().objects);
    assert!(report.complete && report.findings.is_empty(), "{report:?}");
    assert!(report.bytes > store.stats().payload_bytes);
    assert_eq!((done, of), (of, u64::from(store.state.layout.segment_count) * 64 * BLOCK));
}

#[test]
fn a_damaged_payload_is_found_where_it_is_and_marked_once() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    let object = locate(&store, 42);
    let at = offset(&store, &object, object.entry.block.get());
    damage(&device, at + 699);
    for _ in 0..2 {
        let report = scrub(&store);
        assert_eq!(places(&report), [(Some(object.place.segment), at)]);
        assert_eq!(report.findings[0].key.as_deref(), Some(&42_u32.to_le_bytes()[..]));
        assert!(matches!(report.findings[0].error, Error::Damaged { offset, .. } if offset == at));
        assert_eq!(report.objects, 100);
        assert!(!store.contains(&42_u32.to_le_bytes()).unwrap());
        assert!(matches!(store.get(&42_u32.to_le_bytes()), Err(Error::Damaged { .. })));
        assert_eq!(store.stats().failed_checks, 1);
    }
    put(&store, [42], 700);
    assert!(scrub(&store).findings.is_empty());
}

#[test]
fn a_damaged_object_of_a_cache_is_gone() {
    let (device, store) = store(16, EvictionPolicy::Lru);
    put(&store, 0..100, 700);
    let object = locate(&store, 42);
    damage(&device, offset(&store, &object, object.entry.block.get()));
    assert_eq!(scrub(&store).findings.len(), 1);
    assert!(store.get(&42_u32.to_le_bytes()).unwrap().is_none());
    assert!(scrub(&store).findings.is_empty());
}

#[test]
fn the_end_of_a_payload_of_several_pieces_is_verified() {
    let (device, store) = store_of(9, 4 << 20, EvictionPolicy::None);
    put(&store, [0], 100);
    put(&store, [1], (3 << 20) + 77);
    put(&store, 2..5, 600);
    assert!(scrub(&store).findings.is_empty());
    let object = locate(&store, 1);
    let at = offset(&store, &object, object.entry.block.get());
    damage(&device, at + (3 << 20) + 76);
    let report = scrub(&store);
    assert_eq!(places(&report), [(Some(object.place.segment), at)]);
    assert_eq!(report.objects, 5);
}

#[test]
fn what_reads_well_the_second_time_is_no_finding() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    let object = locate(&store, 42);
    let at = offset(&store, &object, object.entry.block.get());
    device.inject(DeviceFault::flip_bit(None).within(at..at + BLOCK).nth(1));
    assert!(scrub(&store).findings.is_empty());
    // EIO
    device.inject(DeviceFault::fail(OpKind::Read, 5).within(at..at + BLOCK).nth(1));
    assert!(scrub(&store).findings.is_empty());
    assert!(store.contains(&42_u32.to_le_bytes()).unwrap());
}

#[test]
fn an_unreadable_block_is_found_and_hides_no_neighbour() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    let object = locate(&store, 42);
    let at = offset(&store, &object, object.entry.block.get());
    device.inject(DeviceFault::bad_medium(OpKind::Read).within(at..at + BLOCK).permanent());
    let report = scrub(&store);
    assert_eq!(places(&report), [(Some(object.place.segment), at)]);
    assert!(matches!(report.findings[0].error, Error::Device { .. }));
    assert_eq!(report.objects, 100);
    assert!(store.contains(&42_u32.to_le_bytes()).unwrap(), "it may be read another time");
}

#[test]
fn headers_tombstones_superblocks_and_checkpoints_are_verified() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..20, 700);
    delete(&store, [3]);
    let layout = store.state.layout;
    let object = locate(&store, 10);
    let segment = object.place.segment;
    let header = offset(&store, &object, object.entry.header_block());
    let mut tombstone = None;
    for segment in 0..layout.segment_count {
        store.state.index.for_each_live(segment, |_, entry| {
            if entry.is_tombstone() {
                tombstone = Some((segment, layout.block_offset(segment, entry.block.get())));
            }
        });
    }
    let (of_tombstone, tombstone) = tombstone.unwrap();
    let checkpoint = layout.container_offset[containers(&store).committed_container()] + BLOCK;
    let cases = [
        (None, layout.last_superblock_offset, layout.last_superblock_offset + 100),
        (None, checkpoint, checkpoint + 60),
        (Some(segment), layout.segment_offset(segment), layout.segment_offset(segment) + 40),
        (Some(of_tombstone), tombstone, tombstone + 90),
    ];
    for (segment, at, byte) in cases {
        damage(&device, byte);
        assert_eq!(places(&scrub(&store)), [(segment, at)]);
        damage(&device, byte);
        assert!(scrub(&store).findings.is_empty());
    }
    damage(&device, header + 100);
    let report = scrub(&store);
    assert!(places(&report).iter().all(|place| *place == (Some(segment), header)));
    assert!(report.findings.len() > 1, "its objects share it");
    assert_eq!(report.objects, 19);
    assert!(!store.contains(&10_u32.to_le_bytes()).unwrap());
}

fn containers(store: &Store) -> crate::state::containers::Containers {
    *store.state.checkpointing.lock().unwrap()
}

#[test]
fn a_scrub_goes_on_while_everything_is_replaced() {
    let (_, store) = store(24, EvictionPolicy::Fifo);
    put(&store, 0..400, 700);
    let mut next = 1000;
    let report = store
        .scrub(|_| {
            put(&store, next..next + 100, 600);
            next += 100;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    assert!(store.stats().evictions > 400);
    assert_eq!(store.stats().failed_checks, 0);
}

#[test]
fn a_scrub_ends_when_its_callback_breaks() {
    let (_, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    let report = store.scrub(|_| ControlFlow::Break(())).unwrap();
    assert!(!report.complete && report.objects < 100);
}

#[test]
fn a_scrub_verifies_what_a_recovery_found() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..50, 700);
    put(&store, 50..60, 20);
    drop(store);
    let store = open(&device.process_kill(), EvictionPolicy::None);
    let is_unverified = |store: &Store| {
        (0..store.state.layout.segment_count).any(|of| store.state.index.any_unverified(of))
    };
    assert!(is_unverified(&store));
    assert_eq!(scrub(&store).objects, 60);
    assert!(!is_unverified(&store));
}

#[test]
fn findings_show_no_more_than_the_beginning_of_a_key() {
    let (device, store) = store(16, EvictionPolicy::None);
    let key = [0x1b; 100];
    store.put(&key, &[1; 600]).unwrap();
    let object = store.state.index.find(&store.hash(&key)).unwrap();
    damage(&device, offset(&store, &object, object.entry.block.get()));
    let text = format!("{:?}", scrub(&store).findings);
    assert!(text.contains("(100 bytes)") && !text.contains('\u{1b}'), "{text}");
    assert!(text.len() < 400, "{text}");
}

#[test]
fn what_is_found_beyond_the_limit_of_a_report_is_counted() {
    let (device, store) = store(60, EvictionPolicy::None);
    let objects = u32::try_from(ScrubReport::MAX_FINDINGS).unwrap() + 30;
    put(&store, 0..objects, 600);
    (0..objects).for_each(|key| {
        let object = locate(&store, key);
        damage(&device, offset(&store, &object, object.entry.block.get()));
    });
    let report = scrub(&store);
    assert_eq!((report.findings.len(), report.more_findings), (ScrubReport::MAX_FINDINGS, 30));
}

#[test]
fn the_header_of_a_segment_that_a_power_cut_tore_is_no_damage() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    let segment = locate(&store, 42).place.segment;
    let header = store.state.layout.segment_offset(segment);
    drop(store);
    let device = device.process_kill();
    damage(&device, header + 40);
    let store = open(&device, EvictionPolicy::None);
    assert!(store.contains(&42_u32.to_le_bytes()).unwrap());
    assert!(scrub(&store).findings.is_empty(), "{:?}", scrub(&store));
    drop(store);
    let store = open(&device.power_on(), EvictionPolicy::None);
    assert!(scrub(&store).findings.is_empty());
}

/// The second power cut comes at any moment of the recovery from the first.
#[test]
fn a_torn_segment_header_is_no_damage_after_another_power_cut() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    store.flush().unwrap();
    let segments = [0, 99].map(|key| locate(&store, key).place.segment);
    let headers = segments.map(|segment| store.state.layout.segment_offset(segment));
    assert_ne!(segments[0], segments[1]);
    drop(store);
    let device = device.process_kill();
    headers.iter().for_each(|header| damage(&device, header + 40));
    let options = OpenOptions::default().background(false);
    let cuts = (0..).take_while(|&cuts| {
        let device = device.fork(cuts);
        device.cut_after(cuts);
        drop(Store::open_with(device.backend(), &options));
        let is_cut = device.is_off();
        let store = open(&device.power_on(), EvictionPolicy::None);
        let report = scrub(&store);
        assert!(report.findings.is_empty(), "{cuts}: {report:?}");
        is_cut
    });
    assert!(cuts.count() > 5);
}

#[test]
fn a_lost_header_of_a_segment_being_filled_is_no_damage() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    store.checkpoint().unwrap();
    let header = store.state.layout.segment_offset(locate(&store, 99).place.segment);
    drop(store);
    let device = device.process_kill();
    damage(&device, header + 40);
    let store = open(&device, EvictionPolicy::None);
    assert!(store.contains(&99_u32.to_le_bytes()).unwrap());
    assert!(scrub(&store).findings.is_empty(), "{:?}", scrub(&store));
}
