use super::*;
use zerocopy::IntoBytes;

fn cell(superblock: &Superblock) -> [u8; 4096] {
    let mut cell = [0xEE; 4096];
    superblock.encode(&mut cell).unwrap();
    cell
}

/// The store at another generation.
fn generation(generation: u64) -> Superblock {
    let mut superblock = store(4096);
    superblock.generation = generation.into();
    superblock
}

fn generations(copies: &SuperblockCopies<'_>) -> [Option<u64>; 3] {
    copies.copies.each_ref().map(|copy| copy.as_ref().ok().map(|copy| copy.generation.get()))
}

#[test]
fn a_superblock_comes_back_as_it_was_written() {
    for block_size in [512, 1024, 4096, 65536] {
        let cell = cell(&store(block_size));
        let read = Superblock::read(&cell).unwrap();
        let mut expected = store(block_size);
        expected.preamble.checksum = read.preamble.checksum;
        assert_eq!(*read, expected);
        assert_eq!(read.label(), "cache 1");
        assert_eq!(read.state(), SuperblockState::Open);
        assert!(cell[512..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_valid_superblock_is_copied_without_a_change() {
    let first = cell(&store(4096));
    let again = cell(Superblock::read(&first).unwrap());
    assert_eq!(first, again);
}

#[test]
fn the_bytes_are_those_of_the_documentation() {
    let mut superblock = store(4096);
    superblock.set_state(SuperblockState::Clean { checkpoint: 9, verified: true });
    let at = |block: u64| (block * 4096).to_le_bytes();
    let expected = image(
        512,
        &[
            (0, b"RAWBLKSB"),
            (12, &1_u32.to_le_bytes()),
            (16, &UUID),
            (56, &7_u64.to_le_bytes()),
            (64, &0_u32.to_le_bytes()),
            (68, &4096_u32.to_le_bytes()),
            (72, &9_u64.to_le_bytes()),
            (80, &1_700_000_000_123_456_789_u64.to_le_bytes()),
            (88, b"the key of keys!"),
            (104, &at(8)),
            (112, &40_u64.to_le_bytes()),
            (120, &((331 * 4096) + 512_u64).to_le_bytes()),
            (128, &at(2)),
            (136, &at(4)),
            (144, &at(2)),
            (152, &at(6)),
            (160, &at(4)),
            (168, &at(10)),
            (176, &at(330)),
            (184, b"cache 1"),
        ],
    );
    assert_eq!(&cell(&superblock)[..512], expected);
}

#[test]
fn every_flipped_bit_is_found() {
    every_flip_is_found(&mut cell(&store(4096)), 512, |cell| Superblock::read(cell).map(drop));
}

#[test]
fn unknown_features_are_refused_exposed_or_ignored_by_their_kind() {
    let good = cell(&store(4096));

    let mut incompatible = good;
    forge(&mut incompatible[..512], 48, &[0, 4]);
    assert_eq!(Superblock::read(&incompatible), Err(Damage::UnknownFeatures { bits: 0x400 }));

    let mut read_only = good;
    forge(&mut read_only[..512], 40, &[2]);
    let read = Superblock::read(&read_only).unwrap();
    assert_eq!(read.unknown_read_only_features(), 2);

    let mut compatible = good;
    forge(&mut compatible[..512], 32, &[1]);
    let read = Superblock::read(&compatible).unwrap();
    assert_eq!(read.unknown_read_only_features(), 0);
}

#[test]
fn only_an_unknown_compatible_feature_may_use_reserved_bytes_and_keeps_them() {
    let mut unexplained = cell(&store(4096));
    forge(&mut unexplained[..512], 248, &[1]);
    assert_eq!(
        Superblock::read(&unexplained),
        Err(Damage::Inconsistent("reserved bytes are not zero"))
    );
    let mut explained = unexplained;
    forge(&mut explained[..512], 32, &[1]);
    let read = Superblock::read(&explained).unwrap();
    assert_eq!(cell(read), explained);
}

#[test]
fn fields_out_of_bounds_are_neither_read_nor_written() {
    const REGION: &str = "a region does not consist of whole blocks";
    const ORDER: &str = "the regions overlap or are out of order";
    const BEYOND: &str = "the regions reach beyond the device";
    const STATE: &str = "the state is neither open nor clean with a checkpoint";
    const BLOCK: &str = "the block size is not a power of two from 512 to 65536";
    const SLOT: &str = "the slot size is not a number of whole blocks up to 4 GiB";
    const LABEL: &str = "the label is not padded UTF-8";
    let block = |n: u64| (n * 4096).to_le_bytes();
    let number = u64::to_le_bytes;
    let cases: &[(usize, &[u8], &'static str)] = &[
        (56, &[0], "the generation is 0"),
        (64, &[0], STATE),
        (64, &[2], STATE),
        (72, &[1], STATE),
        (68, &[0; 4], BLOCK),
        (68, &256_u32.to_le_bytes(), BLOCK),
        (68, &4095_u32.to_le_bytes(), BLOCK),
        (68, &131_072_u32.to_le_bytes(), BLOCK),
        (104, &number(0), SLOT),
        (104, &number(4097), SLOT),
        (104, &number((1 << 32) + 4096), SLOT),
        (112, &number(0), "the slot count is not from 1 to 2^32"),
        (112, &number((1 << 32) + 1), "the slot count is not from 1 to 2^32"),
        (120, &number(0), "the device is too short"),
        (120, &number(12287), "the device is too short"),
        (176, &block(329), "the last superblock is not at the end of the device"),
        (120, &block(332), "the last superblock is not at the end of the device"),
        (144, &block(1), "the checkpoint containers are too short for the slots"),
        (160, &block(0), "the delete log has no block"),
        (128, &number(8192 + 512), REGION),
        (128, &block(1), ORDER),
        (136, &block(3), ORDER),
        (136, &number(4 * 4096 - 512), ORDER),
        (144, &block(3), ORDER),
        (144, &number(2 * 4096 + 512), REGION),
        (152, &block(5), ORDER),
        (160, &block(5), ORDER),
        (160, &number(4 * 4096 - 512), REGION),
        (168, &number(10 * 4096 + 512), REGION),
        (168, &block(9), ORDER),
        (168, &block(11), BEYOND),
        (112, &number(41), BEYOND),
        (104, &number(1 << 32), BEYOND),
        (168, &number(u64::MAX - 4095), BEYOND),
        (160, &number(u64::MAX - 4095), BEYOND),
        (144, &number(u64::MAX), REGION),
        (144, &number(u64::MAX - 4095), BEYOND),
        (184, &[0xFF], LABEL),
        (192, b"x", LABEL),
        (247, b"x", LABEL),
        (248, &[1], "reserved bytes are not zero"),
        (511, &[1], "reserved bytes are not zero"),
    ];
    for (at, bytes, rule) in cases {
        let mut cell = cell(&store(4096));
        forge(&mut cell[..512], *at, bytes);
        assert_eq!(Superblock::read(&cell), Err(Damage::Inconsistent(rule)), "{bytes:?} at {at}");
        let mut unsound = store(4096);
        unsound.as_mut_bytes()[*at..at + bytes.len()].copy_from_slice(bytes);
        let mut untouched = [0xEE; 4096];
        assert_eq!(unsound.encode(&mut untouched), Err(EncodeError::Invalid(rule)));
        assert_eq!(untouched, [0xEE; 4096]);
    }
    assert!(store(4096).encode(&mut [0; 512]).is_err());
}

#[test]
fn the_state_names_the_checkpoint_of_a_clean_store() {
    let mut superblock = store(4096);
    let clean = |verified| SuperblockState::Clean { checkpoint: 12, verified };
    for state in [clean(true), clean(false), SuperblockState::Open] {
        superblock.set_state(state);
        assert_eq!(Superblock::read(&cell(&superblock)).unwrap().state(), state);
    }
    superblock.set_state(SuperblockState::Clean { checkpoint: 0, verified: true });
    assert_eq!(superblock.state(), SuperblockState::Open);
    assert!(superblock.encode(&mut [0; 4096]).is_err());
}

#[test]
fn labels_of_up_to_64_bytes_come_back() {
    let mut superblock = store(4096);
    for label in ["", "x", "Ünïcödé", &"y".repeat(64)] {
        superblock.set_label(label).unwrap();
        assert_eq!(Superblock::read(&cell(&superblock)).unwrap().label(), label);
    }
    let before = superblock;
    assert!(superblock.set_label(&"y".repeat(65)).is_err());
    assert!(superblock.set_label("a\0b").is_err());
    assert_eq!(superblock, before);
}

#[test]
fn slots_follow_one_another() {
    let store = store(4096);
    assert_eq!(store.slot_offset(0), Some(10 * 4096));
    assert_eq!(store.slot_offset(39), Some((10 + 39 * 8) * 4096));
    assert_eq!(store.slot_offset(40), None);
    assert_eq!(store.slot_offset(u64::MAX), None);
}

#[test]
fn copies_lie_in_the_first_two_cells_and_in_the_last_whole_one() {
    assert_eq!(superblock_offsets(0), None);
    assert_eq!(superblock_offsets(3 * 4096 - 1), None);
    assert_eq!(superblock_offsets(3 * 4096), Some([0, 4096, 8192]));
    assert_eq!(superblock_offsets(4 * 4096 - 512), Some([0, 4096, 8192]));
    let last = u64::MAX - 4095 - 4096;
    assert_eq!(superblock_offsets(u64::MAX), Some([0, 4096, last]));
}

#[test]
fn the_newest_valid_copy_wins_wherever_it_lies() {
    let (old, new) = (cell(&generation(7)), cell(&generation(8)));
    for cells in [[&new, &old, &old], [&old, &new, &old], [&old, &old, &new]] {
        let copies = Superblock::newest(cells.map(|cell| &cell[..]));
        assert_eq!(copies.newest.unwrap().generation, 8);
        assert!(copies.copies.iter().all(Result::is_ok));
    }

    let mut torn = new;
    torn[300] ^= 1;
    let copies = Superblock::newest([&torn, &old, &[]]);
    assert_eq!(copies.newest.unwrap().generation, 7);
    assert_eq!(generations(&copies), [None, Some(7), None]);
    assert!(matches!(copies.copies[0], Err(Damage::Checksum { .. })));
    assert!(matches!(copies.copies[2], Err(Damage::Inconsistent(_))));

    let copies = Superblock::newest([&torn, &[0; 4096], &[]]);
    assert_eq!(copies.newest, None);
}

#[test]
fn a_copy_of_another_store_is_not_believed_however_new_it_is() {
    let mut other = generation(99);
    other.preamble.uuid = OTHER_UUID;
    let (ours, other) = (cell(&generation(7)), cell(&other));
    let copies = Superblock::newest([&[0; 4096], &ours, &other]);
    assert_eq!(generations(&copies), [None, Some(7), None]);
    assert_eq!(copies.copies[2], Err(Damage::ForeignStore));
    assert_eq!(copies.newest.unwrap().preamble.uuid, UUID);
}

#[test]
fn of_two_copies_that_differ_in_one_generation_the_first_is_believed() {
    let mut differing = generation(7);
    differing.set_label("another").unwrap();
    let (first, second) = (cell(&generation(7)), cell(&differing));
    let copies = Superblock::newest([&first, &second, &first]);
    assert_eq!(copies.newest.unwrap().label(), "cache 1");
    assert_eq!(generations(&copies), [Some(7), None, Some(7)]);
}

#[test]
fn beside_a_copy_that_newer_software_wrote_no_older_one_is_believed() {
    let old = cell(&generation(7));
    let (mut version, mut feature) = (cell(&generation(8)), cell(&generation(8)));
    forge(&mut version[..512], 12, &[2]);
    forge(&mut feature[..512], 48, &[1]);
    for newer in [&version, &feature] {
        let copies = Superblock::newest([&old, newer, &old]);
        assert_eq!(copies.newest, None);
        assert_eq!(generations(&copies), [Some(7), None, Some(7)]);
    }
}
