use zerocopy::IntoBytes;

use super::*;

fn superblock() -> Superblock {
    let layout = layout(4096);
    let mut superblock = Superblock::new(&layout, &[9; 16], 24 * 64 * 4096);
    superblock.set_label("cache 1").unwrap();
    superblock
}

fn cell(superblock: &Superblock) -> [u8; 4096] {
    let mut cell = [0xEE; 4096];
    superblock.encode(&mut cell).unwrap();
    cell
}

#[test]
fn a_superblock_is_read_back_with_its_layout() {
    let mut superblock = superblock();
    for state in [SuperblockState::Clean { checkpoint: 12 }, SuperblockState::Open { oldest: 11 }] {
        superblock.set_state(state);
        let cell = cell(&superblock);
        let read = Superblock::read(&cell).unwrap();
        assert_eq!(read.as_bytes()[12..], superblock.as_bytes()[12..]);
        assert_eq!((read.state(), read.label()), (state, "cache 1"));
        assert_eq!(Layout::of(read), layout(4096));
        assert_eq!(read.home(1023).unwrap().identity, MEMBER);
        assert_eq!(read.listed().count(), 1);
    }
}

#[test]
fn every_flipped_bit_of_a_superblock_is_found() {
    let mut cell = cell(&superblock());
    // A flip in each byte, a different bit of each: all flips would take long.
    assert!(Superblock::read(&cell).is_ok());
    for byte in 0..4096 {
        cell[byte] ^= 1 << (byte % 8);
        assert!(Superblock::read(&cell).is_err(), "byte {byte}");
        cell[byte] ^= 1 << (byte % 8);
    }
}

#[test]
fn superblock_fields_out_of_bounds_are_refused() {
    let forgeries: &[(usize, &[u8], &str)] = &[
        (56, &[0; 8], "the generation is 0"),
        (64, &[2], "the state is neither"),
        (64, &[0], "the state is neither"),
        (68, &[1], "the block size is not"),
        (168, &[65], "the blocks of a segment"),
        (168, &[4], "the blocks of a segment"),
        (172, &[7], "the number of segments"),
        (175, &[2], "the number of segments"),
        (172, &[30], "the regions reach beyond"),
        (120, &[0; 8], "the device is too short"),
        (128, &[0; 8], "the regions overlap"),
        (128, &[1], "a region does not consist"),
        (152, &[0; 8], "the checkpoint containers are too short"),
        (160, &[0; 8], "the regions overlap"),
        (160, &[1], "a region does not consist"),
        (176, &[1], "the last superblock is not"),
        (190, &[0xFF], "the label is not padded"),
        (248, &[0; 8], "the version of the member table"),
        (256, &[0], "the member is not in its own"),
        (274, &[0], "a row of the member table"),
        (274, &[2], "a row of the member table"),
        (276, &[0], "a member has no share"),
        (1024, &[1], "a bucket has its home on no member"),
        (2047, &[255], "a bucket has its home on no member"),
        (2048, &[1], "reserved bytes are not zero"),
        (4095, &[1], "reserved bytes are not zero"),
    ];
    for (at, bytes, rule) in forgeries {
        let mut cell = cell(&superblock());
        forge(&mut cell, *at, bytes);
        let found = inconsistent(Superblock::read(&cell));
        assert!(found.starts_with(rule), "byte {at}: {found}");
    }
    let mut cell = cell(&superblock());
    forge(&mut cell, 48, &[4]);
    assert_eq!(Superblock::read(&cell), Err(Damage::UnknownFeatures { bits: 4 }));
}

#[test]
fn two_members_with_one_identity_or_number_are_refused() {
    let mut superblock = superblock();
    superblock.members[31] =
        Member { identity: [7; 16], number: 3.into(), ..superblock.members[0] };
    superblock.homes[5] = 31;
    cell(&superblock);
    superblock.members[31].number = 0.into();
    assert!(superblock.encode(&mut [0; 4096]).is_err());
    superblock.members[31] = Member { number: 3.into(), ..superblock.members[0] };
    assert!(superblock.encode(&mut [0; 4096]).is_err());
}

#[test]
fn the_newest_valid_copy_counts() {
    let mut superblock = superblock();
    let old = cell(&superblock);
    superblock.generation = 2.into();
    let new = cell(&superblock);
    superblock.preamble.uuid = OTHER_MEMBER;
    superblock.members[0].identity = OTHER_MEMBER;
    superblock.generation = 3.into();
    let foreign = cell(&superblock);
    let found = Superblock::newest([&old, &new, &foreign]);
    assert_eq!(found.newest.unwrap().generation, 2);
    assert_eq!(found.copies[2], Err(Damage::ForeignStore));
    let mut torn = new;
    torn[4000] ^= 1;
    let found = Superblock::newest([&torn, &old, &[]]);
    assert_eq!(found.newest.unwrap().generation, 1);
    assert!(found.copies[0].is_err() && found.copies[2].is_err());
}
