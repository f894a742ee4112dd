use super::*;

const FIELDS: SegmentFields =
    SegmentFields { segment: 3, generation: 77, stream: Stream::Kept, checkpoint: 9 };

fn block() -> [u8; 512] {
    let mut block = [0xEE; 512];
    SegmentHeader::encode(&mut block, &layout(512), &FIELDS).unwrap();
    block
}

#[test]
fn a_segment_header_is_read_back_as_it_was_written() {
    for stream in Stream::ALL {
        let mut block = [0xEE; 512];
        let fields = SegmentFields { stream, ..FIELDS };
        SegmentHeader::encode(&mut block, &layout(512), &fields).unwrap();
        let header = SegmentHeader::read(&block, &layout(512), 3).unwrap();
        assert_eq!((header.generation.get(), header.checkpoint.get()), (77, 9));
        assert_eq!(header.stream(), stream);
        assert!(block[128..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn every_flipped_bit_of_a_segment_header_is_found() {
    every_flip_is_found(&mut block(), 128, |block| {
        SegmentHeader::read(block, &layout(512), 3).map(drop)
    });
}

#[test]
fn a_segment_header_of_another_place_is_refused() {
    let other = SegmentHeader::read(&block(), &other_member(512), 3).map(drop);
    assert_eq!(other, Err(Damage::ForeignStore));
    let wrong = SegmentHeader::read(&block(), &layout(512), 4).map(drop);
    assert_eq!(wrong, Err(Damage::WrongPlace { found: 3, expected: 4 }));
}

#[test]
fn segment_header_fields_out_of_bounds_are_refused() {
    let layout = layout(512);
    for (at, bytes) in [
        (32, &[0; 8][..]),
        (39, &[0xFF]),
        (44, &[3]),
        (48, &[0]),
        (55, &[0xFF]),
        (56, &[1]),
        (127, &[1]),
    ] {
        let mut block = block();
        forge(&mut block[..128], at, bytes);
        inconsistent(SegmentHeader::read(&block, &layout, 3));
    }
    for fields in [
        SegmentFields { segment: layout.segment_count, ..FIELDS },
        SegmentFields { generation: 0, ..FIELDS },
        SegmentFields { checkpoint: 0, ..FIELDS },
    ] {
        assert!(SegmentHeader::encode(&mut [0; 512], &layout, &fields).is_err());
    }
}
