//! An allocator that detects writes to freed memory, including those of the kernel.
//!
//! AddressSanitizer detects accesses of the program to freed memory, but not those of the kernel.
//! This allocator keeps freed memory of a page or more, and fills it with a pattern. If the pattern
//! is damaged later, something wrote to the memory after it was freed: a read that was still in
//! flight, for example.
//!
//! Memory of a `BufferPool` is mapped and not allocated, so this allocator does not see it.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::io::{self, Write};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Direct transfers cannot use smaller allocations without a copy, so these go to the system's
/// allocator.
const SMALLEST: usize = 4096;
/// Above these limits, the allocations that were freed first are checked for the last time and
/// released.
const MOST_BYTES: usize = 512 << 20;
const MOST_PIECES: usize = 1 << 16;

const PATTERN: u8 = 0xDB;
static PAGE: [u8; SMALLEST] = [PATTERN; SMALLEST];

static TABLE: Mutex<Table> = Mutex::new(Table::EMPTY);

/// The allocator. Name it as `#[global_allocator]`.
pub(crate) struct Quarantine;

// SAFETY: all calls are passed on to the system's allocator. Some memory is freed later, each
// allocation once.
unsafe impl GlobalAlloc for Quarantine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if layout.size() < SMALLEST {
            // SAFETY: the caller keeps the contract of `dealloc`, and `start` came from `System`.
            return unsafe { System.dealloc(start, layout) };
        }
        // SAFETY: the caller has freed these bytes, and they are not handed out again yet.
        unsafe { start.write_bytes(PATTERN, layout.size()) };
        let mut table = table();
        while table.is_full(layout.size()) {
            if let Some(damage) = table.give_back_oldest() {
                // Neither a panic nor an allocation is possible here.
                let _ = writeln!(io::stderr(), "{damage}");
                process::abort();
            }
        }
        table.keep(Piece { start: start as usize, layout });
    }
}

/// Panics if memory was written to after it was freed.
#[track_caller]
pub(crate) fn check() {
    if let Some(damage) = damage() {
        panic!("{damage}");
    }
}

/// The first freed memory that was written to, if there is any.
pub(crate) fn damage() -> Option<Damage> {
    table().pieces().find_map(Piece::damage)
}

/// Releases all kept memory. Returns the first damage, if there is any; then it leaks the memory
/// instead, because more writes may follow.
pub(crate) fn empty() -> Option<Damage> {
    let mut table = table();
    let mut damage = table.pieces().find_map(Piece::damage);
    if damage.is_some() {
        table.lose_all();
    }
    while table.count > 0 {
        let late = table.give_back_oldest();
        damage = damage.or(late);
    }
    damage
}

/// Leaks all kept memory: after a failure the kernel may still write to it.
pub(crate) fn leak() {
    table().lose_all();
}

/// Whether the byte at this address was freed and is kept.
pub(crate) fn keeps(address: usize) -> bool {
    let contains =
        |piece: &Piece| (piece.start..piece.start + piece.layout.size()).contains(&address);
    table().pieces().any(contains)
}

/// Freed memory that was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Its first address.
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// Its first byte that differs.
    pub(crate) offset: usize,
    pub(crate) found: u8,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, len, offset, found } = self;
        write!(
            f,
            "written to after it was freed: {len} bytes at {start:#x}, where byte {offset} is \
             {found:#04x} and not {PATTERN:#04x}"
        )
    }
}

/// Memory that was freed and not released.
#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    layout: Layout,
}

impl Piece {
    fn damage(&self) -> Option<Damage> {
        let len = self.layout.size();
        let differs = |page: &usize| {
            let part = SMALLEST.min(len - page);
            // SAFETY: the memory stays allocated until it is released, and `part` bytes of it begin
            // here. No reference is made, because the kernel may be writing.
            unsafe { libc::memcmp(self.at(*page).cast(), PAGE.as_ptr().cast(), part) != 0 }
        };
        let page = (0..len).step_by(SMALLEST).find(differs)?;
        // SAFETY: as above, for a single byte.
        let byte = |offset: usize| unsafe { self.at(offset).read_volatile() };
        let offset = (page..len).find(|&offset| byte(offset) != PATTERN)?;
        Some(Damage { start: self.start, len, offset, found: byte(offset) })
    }

    fn at(&self, offset: usize) -> *const u8 {
        std::ptr::with_exposed_provenance(self.start + offset)
    }
}

/// Memory that was freed and not released, oldest first, in a ring buffer: the table must not
/// allocate.
struct Table {
    pieces: [Option<Piece>; MOST_PIECES],
    first: usize,
    count: usize,
    bytes: usize,
}

impl Table {
    const EMPTY: Self = Self { pieces: [None; MOST_PIECES], first: 0, count: 0, bytes: 0 };

    fn is_full(&self, more: usize) -> bool {
        self.count == MOST_PIECES || self.count > 0 && self.bytes + more > MOST_BYTES
    }

    fn keep(&mut self, piece: Piece) {
        self.pieces[(self.first + self.count) % MOST_PIECES] = Some(piece);
        self.count += 1;
        self.bytes += piece.layout.size();
    }

    fn give_back_oldest(&mut self) -> Option<Damage> {
        let piece = self.pieces[self.first].take()?;
        self.first = (self.first + 1) % MOST_PIECES;
        self.count -= 1;
        self.bytes -= piece.layout.size();
        let damage = piece.damage();
        // SAFETY: the memory came from `System` with this layout, its owner has freed it, and it
        // has just left the table.
        unsafe { System.dealloc(piece.at(0).cast_mut(), piece.layout) };
        damage
    }

    fn lose_all(&mut self) {
        (self.count, self.bytes) = (0, 0);
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.pieces[..].iter().cycle().skip(self.first).take(self.count).flatten()
    }
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}
