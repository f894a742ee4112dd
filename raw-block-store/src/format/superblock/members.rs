//! The member table: which devices belong to the set, and where each bucket of keys has its home.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Superblock;
use crate::format::MAX_SEQUENCE;
use crate::format::damage::ensure;

/// The most members of a set.
pub const MAX_MEMBERS: usize = 32;

/// Number of parts of the key space. Each has its home on one member.
pub const BUCKETS: usize = 1024;

/// The state of a member that belongs to the set.
const LISTED: u16 = 1;

/// A row of the member table. An unused row is zero.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Member {
    /// Identity of the member, drawn at random when it was formatted.
    pub identity: [u8; 16],
    /// Its number, for people. No two members have the same.
    pub number: U16,
    /// 0 the row is not used, 1 the member belongs to the set.
    pub state: U16,
    /// Its share of the buckets, relative to those of the others; not 0.
    pub share: U32,
}

const _: () = assert!(size_of::<Member>() == 24);
const _: () = assert!(offset_of!(Member, identity) == 0);
const _: () = assert!(offset_of!(Member, number) == 16);
const _: () = assert!(offset_of!(Member, state) == 18);
const _: () = assert!(offset_of!(Member, share) == 20);

impl Member {
    /// The first member of a set: number 0, with a share of 1.
    #[must_use]
    pub fn first(identity: &[u8; 16]) -> Self {
        Self { identity: *identity, number: U16::ZERO, state: LISTED.into(), share: U32::new(1) }
    }

    /// Whether the row is used.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.state == LISTED
    }
}

impl Superblock {
    /// The used rows, with their positions.
    pub fn listed(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter(|(_, member)| member.is_listed())
    }

    /// The home of a bucket.
    #[must_use]
    pub fn home(&self, bucket: usize) -> Option<&Member> {
        let row = *self.homes.get(bucket)?;
        self.members.get(usize::from(row)).filter(|member| member.is_listed())
    }

    /// The rules of the member table.
    pub(super) fn check_members(&self) -> Result<(), &'static str> {
        ensure(
            (1..=MAX_SEQUENCE).contains(&self.members_version.get()),
            "the version of the member table is 0 or too high",
        )?;
        let mut is_listed_itself = false;
        for (row, member) in self.members.iter().enumerate() {
            if !member.is_listed() {
                ensure(
                    *member == Member::new_zeroed(),
                    "a row of the member table is neither used nor zero",
                )?;
                continue;
            }
            ensure(member.share != U32::ZERO, "a member has no share")?;
            let is_twice = self.members[..row].iter().any(|other| {
                other.is_listed()
                    && (other.identity == member.identity || other.number == member.number)
            });
            ensure(!is_twice, "two members have the same identity or number")?;
            is_listed_itself |= member.identity == self.preamble.uuid;
        }
        ensure(is_listed_itself, "the member is not in its own member table")?;
        ensure(
            (0..BUCKETS).all(|bucket| self.home(bucket).is_some()),
            "a bucket has its home on no member",
        )
    }
}
