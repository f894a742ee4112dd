//! What controllers and namespaces report, and the limits that follow.

use raw_block_core::ErrorKind;

use crate::identify::{Controller, Namespace, Page, command_set};
use crate::limits::Limits;
use crate::sysfs::QueueLimits;

pub(super) fn page(bytes: &[(usize, &[u8])]) -> Page {
    let mut page = [0; 4096];
    for (at, bytes) in bytes {
        page[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    page
}

/// A namespace of 1000 blocks in format 0, of 2^`exponent` bytes.
pub(super) fn namespace(exponent: u8, more: &[(usize, &[u8])]) -> Page {
    let mut page = page(&[(0, &[0xE8, 3]), (130, &[exponent])]);
    for (at, bytes) in more {
        page[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    page
}

pub(super) fn controller(mdts: u8) -> Controller {
    Controller::parse(&page(&[(77, &[mdts])]), None)
}

pub(super) const KERNEL: QueueLimits = QueueLimits {
    max_hw_bytes: 512 << 10,
    max_segments: 127,
    gap_mask: 4095,
    memory_alignment: 4,
    discards: true,
    writes_zeroes: true,
    polls: true,
};

#[test]
fn a_controller_is_read_from_its_structure() {
    let page = page(&[
        (4, b"serial              "),
        (24, b"a model                                 "),
        (64, b"1.2\0\0\0\0\0"),
        (77, &[5]),
        (80, &[1, 2, 0, 0]),
        (98, &[1 << 3]),
        (128, &[1, 0, 2, 0, 3, 1]),
        (520, &[0b1100]),
        (525, &[1]),
        (528, &[7]),
    ]);
    let specific = self::page(&[(1, &[3, 0, 64]), (4, &[0, 1]), (8, &[0, 2])]);
    let controller = Controller::parse(&page, Some(&specific));
    assert_eq!(controller.serial, "serial");
    assert_eq!((controller.model.as_str(), controller.firmware.as_str()), ("a model", "1.2"));
    assert_eq!(controller.version, (0, 2, 1));
    assert_eq!(controller.max_transfer(), Some(128 << 10));
    assert!(controller.deallocate && controller.write_zeroes && controller.data_placement);
    assert!(controller.volatile_write_cache);
    assert_eq!(controller.retry_delays, [1, 2, 259]);
    assert_eq!(controller.atomic_write_blocks, 8, "AWUPF counts from 0");
    assert_eq!(controller.max_write_zeroes, Some(32 << 10));
    assert_eq!(controller.max_deallocate_ranges, Some(64));
    assert_eq!(
        (controller.max_deallocate_range, controller.max_deallocate),
        (Some(256), Some(512))
    );
    let plain = Controller::parse(&self::page(&[]), None);
    assert_eq!((plain.max_transfer(), plain.max_write_zeroes), (None, None));
    assert_eq!((plain.max_deallocate_ranges, plain.max_deallocate), (None, None));
    assert!(!plain.volatile_write_cache && !plain.data_placement);
}

#[test]
fn a_namespace_is_read_from_its_structure() {
    let more: [(usize, &[u8]); 5] =
        [(24, &[0b1_0010]), (36, &[3]), (46, &[32]), (64, &[7, 0, 15, 0]), (104, &[9; 16])];
    let namespace = Namespace::parse(4, &namespace(12, &more)).unwrap();
    assert_eq!((namespace.id, namespace.blocks, namespace.block), (4, 1000, 4096));
    assert_eq!(namespace.optimal_boundary, 32, "NOIOB does not count from 0");
    assert_eq!((namespace.preferred_write, namespace.preferred_alignment), (Some(8), Some(16)));
    assert_eq!(namespace.atomic_write_blocks, Some(4));
    assert_eq!(namespace.nguid, [9; 16]);
}

#[test]
fn there_are_more_than_16_formats() {
    // Format 37: bits 3:0 are 5, the upper bits are 2.
    let page = namespace(9, &[(26, &[0b100_0101]), (128 + 4 * 37, &[0, 0, 12])]);
    assert_eq!(Namespace::parse(1, &page).unwrap().block, 4096);
    let page = namespace(9, &[(26, &[5]), (128 + 4 * 5, &[0, 0, 12])]);
    assert_eq!(Namespace::parse(1, &page).unwrap().block, 4096);
}

#[test]
fn unsupported_formats_are_refused_with_the_reason() {
    let refused = |page: &Page, kind, word: &str| {
        let error = Namespace::parse(3, page).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(word), "{error}");
    };
    refused(&namespace(9, &[(128, &[8])]), ErrorKind::Unsupported, "8 bytes of metadata");
    for exponent in [0, 8, 32, 255] {
        refused(&namespace(exponent, &[]), ErrorKind::Unsupported, "no valid size of a block");
    }
    refused(&namespace(9, &[(0, &[0, 0])]), ErrorKind::Unsupported, "no blocks");
}

#[test]
fn a_protected_namespace_opens_read_only_and_not_for_writing() {
    let parse = |bits| Namespace::parse(3, &namespace(9, &[(99, &[bits])])).unwrap();
    assert!(parse(0b11).write_protected && !parse(0b10).write_protected);
    parse(0).check_writable(false).unwrap();
    // Protected on the device; read-only on this host, as by `blockdev --setro`.
    for (bits, block_device_is_read_only, words) in
        [(1, false, ["write-protected", "nvme"]), (0, true, ["read-only", "blockdev --setrw"])]
    {
        let error = parse(bits).check_writable(block_device_is_read_only).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        for word in ["open_read_only"].iter().chain(&words) {
            assert!(error.to_string().contains(word), "no {word:?} in: {error}");
        }
    }
}

#[test]
fn the_command_set_is_found_among_the_descriptors() {
    let nguid: (usize, &[u8]) = (0, &[2, 16, 0, 0]);
    let set = |value| command_set(&page(&[nguid, (20, &[4, 1, 0, 0, value])]));
    assert_eq!((set(0), set(2)), (Some(0), Some(2)));
    assert_eq!(command_set(&page(&[nguid])), None);
    assert_eq!(command_set(&page(&[(0, &[2, 255, 0, 0])])), None);
    assert_eq!(command_set(&[1; 4096]), None, "a list without end");
}

#[test]
fn the_longest_command_is_the_smallest_of_all_limits() {
    let namespace = Namespace::parse(1, &namespace(9, &[])).unwrap();
    let most = |mdts, kernel: Option<QueueLimits>, user| {
        Limits::new(&controller(mdts), &namespace, kernel.as_ref(), user).unwrap().transfer
    };
    assert_eq!(most(4, Some(KERNEL), None), 64 << 10, "MDTS");
    assert_eq!(most(0, Some(KERNEL), None), 256 << 10, "the segments, to a power of two");
    let wide = QueueLimits { max_hw_bytes: 1 << 40, max_segments: 1 << 20, ..KERNEL };
    assert_eq!(most(0, Some(wide), None), 1 << 20, "the limit of this crate");
    assert_eq!(most(200, Some(wide), None), 1 << 20, "an MDTS that overflows");
    let narrow = QueueLimits { max_hw_bytes: 32 << 10, ..KERNEL };
    assert_eq!(most(7, Some(narrow), None), 32 << 10, "the kernel");
    assert_eq!(most(7, Some(KERNEL), Some(20_000)), 16 << 10, "the user");
    assert_eq!(most(0, None, None), 128 << 10, "without sysfs");
    let refused = Limits::new(&controller(0), &namespace, Some(&KERNEL), Some(511)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[test]
fn commands_without_data_have_their_own_limits() {
    let namespace = Namespace::parse(1, &namespace(9, &[])).unwrap();
    let specific = page(&[(1, &[5]), (4, &[16])]);
    let told = Controller::parse(&page(&[(77, &[3])]), Some(&specific));
    let limits = Limits::new(&told, &namespace, Some(&KERNEL), None).unwrap();
    assert_eq!((limits.transfer, limits.write_zeroes), (32 << 10, 128 << 10));
    assert_eq!((limits.range, limits.deallocate), (16 * 512, 256 * 16 * 512));
    let limits = Limits::new(&controller(3), &namespace, Some(&KERNEL), None).unwrap();
    assert_eq!(limits.write_zeroes, 32 << 10, "as careful as the kernel");
    assert_eq!(limits.range, u64::from(u32::MAX) * 512, "the largest value of the field");
    assert_eq!(limits.deallocate, 256 * limits.range, "and as many as a command can have");
}
