//! Random batches on the device and on a plain array of bytes.

mod plan;

use std::array;
use std::env;
use std::iter;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq};
use proptest::test_runner::{TestCaseError, TestRunner};

use super::Subject;
use super::bytes::{aligned, pattern};
use crate::{
    AlignedBuf, Buffer, Dispatcher, Error, ErrorKind, Finished, OwnedTransfer, ReadAt, WriteAt,
};
use plan::{Batch, Call, Case, Memory, Place, Plan, Total, WINDOW, cases};

/// Cases without `PROPTEST_CASES`.
const CASES: u32 = 64;
/// What fills memory before a read.
const UNTOUCHED: u8 = 0xEE;

/// A transfer with its place, its lengths and its memory.
struct Transfer {
    offset: u64,
    total_len: u64,
    payload: Vec<u8>,
    /// Where the payload is, or comes to.
    memory: AlignedBuf,
    /// What becomes of the memory in an owned transfer.
    kind: Memory,
    parts: Vec<Range<usize>>,
    payload_len: usize,
}

impl Transfer {
    /// What the rules alone say about it.
    fn verdict(&self, subject: &Subject) -> Option<ErrorKind> {
        let unit = subject.alignment() as u64;
        let end = u128::from(self.offset) + u128::from(self.total_len);
        let too_long =
            self.payload_len > self.payload.len() || self.payload_len as u64 > self.total_len;
        if too_long || self.total_len == 0 {
            Some(ErrorKind::InvalidInput)
        } else if !self.offset.is_multiple_of(unit) || !self.total_len.is_multiple_of(unit) {
            Some(ErrorKind::Misaligned)
        } else if end > u128::from(subject.geometry().capacity) {
            Some(ErrorKind::OutOfRange)
        } else {
            None
        }
    }

    /// The memory as the segments of an owned transfer.
    fn segments(&self) -> Vec<Buffer> {
        match self.kind {
            Memory::Aligned => vec![aligned(&self.memory).into()],
            Memory::Vector => vec![self.memory.to_vec().into()],
            Memory::Two(len) => {
                let (front, rest) = self.memory.split_at(len.min(self.memory.len()));
                vec![front.to_vec().into(), aligned(rest).into()]
            }
        }
    }

    fn found(&self) -> Vec<u8> {
        let parts: Vec<_> = self.parts.iter().map(|part| &self.memory[part.clone()]).collect();
        parts.concat()
    }

    /// Whether the memory around the payload is unchanged by the transfer.
    fn surroundings_are_untouched(&self) -> bool {
        let mut around = self.memory.to_vec();
        for part in &self.parts {
            around[part.clone()].fill(UNTOUCHED);
        }
        around == vec![UNTOUCHED; around.len()]
    }
}

/// The array that models the device.
struct Model<'a> {
    subject: &'a Subject,
    device: Dispatcher,
    bytes: Vec<u8>,
    /// Makes every payload another one.
    seed: u64,
}

impl Model<'_> {
    /// Where the window begins on the device.
    fn base(&self) -> u64 {
        self.subject.at(self.subject.blocks() - WINDOW)
    }

    /// The window's bytes that a transfer touches.
    fn range(&self, transfer: &Transfer) -> Range<usize> {
        let first = (transfer.offset - self.base()) as usize;
        first..first + transfer.total_len as usize
    }

    fn transfers(&mut self, batch: &Batch) -> Vec<Transfer> {
        let mut next = self.base();
        let mut transfers = Vec::new();
        for plan in &batch.transfers {
            let transfer = self.transfer(batch, plan, next);
            next = transfer.offset.saturating_add(transfer.total_len);
            transfers.push(transfer);
        }
        transfers
    }

    fn transfer(&mut self, batch: &Batch, plan: &Plan, next: u64) -> Transfer {
        let block = self.subject.block();
        let offset = match plan.place {
            Place::Block(number) => self.base() + self.subject.at(number),
            Place::Next => next,
            Place::Huge(blocks) => (u64::MAX - blocks * block as u64).wrapping_add(1),
        };
        let stride = block.max(self.subject.geometry().memory_alignment as usize);
        let (parts, memory_len, payload_len) = match batch.call {
            Call::Borrowed(count) => {
                let mut at = 0;
                let mut parts = Vec::new();
                for &(len, shift) in &plan.segments[..count] {
                    parts.push(at + shift..at + shift + len);
                    at = (at + shift + len + 1).next_multiple_of(stride);
                }
                (parts, at, None)
            }
            _ => {
                let payload_len = plan.segments[0].0;
                let memory_len = payload_len.saturating_add_signed(plan.slack);
                let part = 0..payload_len.min(memory_len);
                (vec![part], memory_len, Some(payload_len))
            }
        };
        self.seed += 1;
        let payload = pattern(self.seed, parts.iter().map(Range::len).sum());
        let payload_len = payload_len.unwrap_or(payload.len());
        let total_len = match plan.total {
            Total::Payload => payload_len,
            Total::Padded(more) => payload_len.next_multiple_of(block) + more * block,
            Total::Short => payload_len.saturating_sub(1),
            Total::Zero => 0,
        };
        let mut memory = aligned(&vec![UNTOUCHED; memory_len]);
        if batch.write {
            let mut rest = &payload[..];
            for part in &parts {
                let (first, others) = rest.split_at(part.len());
                memory[part.clone()].copy_from_slice(first);
                rest = others;
            }
        }
        Transfer {
            offset: offset.saturating_add(plan.offset_shift as u64),
            total_len: total_len as u64,
            payload,
            memory,
            kind: plan.memory,
            parts,
            payload_len,
        }
    }

    fn run(&mut self, batch: &Batch) -> Result<(), TestCaseError> {
        let mut transfers = self.transfers(batch);
        let results = match batch.call {
            Call::Borrowed(0) => run_borrowed::<0>(&self.device, batch.write, &mut transfers),
            Call::Borrowed(1) => run_borrowed::<1>(&self.device, batch.write, &mut transfers),
            Call::Borrowed(2) => run_borrowed::<2>(&self.device, batch.write, &mut transfers),
            Call::Borrowed(_) => run_borrowed::<3>(&self.device, batch.write, &mut transfers),
            call => run_owned(&self.device, batch.write, call, &mut transfers),
        };
        prop_assert_eq!(results.len(), transfers.len());
        let results: Vec<_> =
            results.into_iter().map(|result| result.err().map(|error| error.kind())).collect();
        for (transfer, result) in transfers.iter().zip(&results) {
            let verdict = transfer.verdict(self.subject);
            let overlap = verdict.is_none() && batch.write && *result == Some(ErrorKind::Overlap);
            prop_assert!(overlap || *result == verdict, "{result:?} and not {verdict:?}");
        }
        if batch.write {
            self.check_overlaps(&transfers, &results)?;
        }
        for (number, transfer) in transfers.iter().enumerate() {
            let served = results[number].is_none();
            let payload_len = transfer.payload.len();
            if batch.write && served {
                let range = self.range(transfer);
                self.bytes[range.clone()].fill(0);
                self.bytes[range][..payload_len].copy_from_slice(&transfer.payload);
            } else if served {
                let expected = &self.bytes[self.range(transfer)][..payload_len];
                prop_assert!(transfer.found() == expected, "read {number} found other bytes");
            } else if batch.write {
                prop_assert!(transfer.found() == transfer.payload, "write {number} was changed");
            }
            prop_assert!(
                transfer.surroundings_are_untouched(),
                "memory around the payload of {number}"
            );
        }
        Ok(())
    }

    /// Writes that were served do not overlap; each that was refused overlaps one that was served.
    fn check_overlaps(
        &self,
        transfers: &[Transfer],
        results: &[Option<ErrorKind>],
    ) -> Result<(), TestCaseError> {
        let with = |wanted: Option<ErrorKind>| {
            let all = transfers.iter().zip(results);
            all.filter(move |(_, result)| **result == wanted)
                .map(|(transfer, _)| self.range(transfer))
        };
        let mut served: Vec<_> = with(None).collect();
        served.sort_unstable_by_key(|range| range.start);
        prop_assert!(
            served.is_sorted_by(|a, b| a.end <= b.start),
            "overlapping writes were served"
        );
        for refused in with(Some(ErrorKind::Overlap)) {
            let reason = served.iter().any(|s| s.start < refused.end && refused.start < s.end);
            prop_assert!(reason, "{refused:?} overlaps nothing that was written");
        }
        Ok(())
    }
}

fn run_borrowed<const N: usize>(
    device: &Dispatcher,
    write: bool,
    transfers: &mut [Transfer],
) -> Vec<Result<(), Error>> {
    let ranges = |transfer: &Transfer| -> [Range<usize>; N] {
        array::from_fn(|number| transfer.parts[number].clone())
    };
    let results = if write {
        let batch: Vec<WriteAt<'_, N>> = transfers
            .iter()
            .map(|transfer| {
                let segments = ranges(transfer).map(|part| &transfer.memory[part]);
                WriteAt::gather(transfer.offset, segments).padded_to(transfer.total_len)
            })
            .collect();
        device.write_buffers(&batch)
    } else {
        let mut batch: Vec<ReadAt<'_, N>> = transfers
            .iter_mut()
            .map(|transfer| {
                let parts = ranges(transfer);
                let segments = transfer.memory.get_disjoint_mut(parts).unwrap();
                ReadAt::scatter(transfer.offset, segments).padded_to(transfer.total_len)
            })
            .collect();
        device.read_buffers(&mut batch)
    };
    results.into_iter().collect()
}

fn run_owned(
    device: &Dispatcher,
    write: bool,
    call: Call,
    transfers: &mut [Transfer],
) -> Vec<Result<(), Error>> {
    let batch = transfers
        .iter_mut()
        .map(|transfer| {
            OwnedTransfer::vectored(transfer.offset, transfer.segments())
                .with_payload_len(transfer.payload_len)
                .padded_to(transfer.total_len)
        })
        .collect();
    let started = if write { device.batched_write(batch) } else { device.batched_read(batch) };
    let mut ticket = started.unwrap();
    let all = match call {
        Call::TryWait => loop {
            match ticket.try_wait() {
                Some(all) => break all,
                None => thread::yield_now(),
            }
        },
        Call::WaitDeadline => loop {
            let soon = Instant::now() + Duration::from_micros(50);
            if let Some(all) = ticket.wait_deadline(soon) {
                break all;
            }
        },
        _ => ticket.wait(),
    };
    let give_back = |(transfer, finished): (&mut Transfer, Finished)| {
        let Finished { buffer, more, result } = finished;
        let segments: Vec<&[u8]> = iter::once(&buffer).chain(&more).map(|it| &it[..]).collect();
        transfer.memory.copy_from_slice(&segments.concat());
        result
    };
    transfers.iter_mut().zip(all).map(give_back).collect()
}

pub(crate) fn any_batches_do_on_the_device_what_they_do_to_an_array(subject: &Subject) {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let run = |case: Case| {
        let device = subject.dispatcher_with(case.queue_depth, 2);
        let mut model = Model { subject, device, bytes: Vec::new(), seed: 0 };
        // One block in front of the window belongs to it, and no transfer touches it.
        let guard = subject.block();
        let start = model.base() - guard as u64;
        let before = pattern(1, guard + WINDOW * guard);
        model.device.write_buffers(&[WriteAt::new(start, &before)]).all().unwrap();
        model.bytes = before[guard..].to_vec();
        for batch in &case.batches {
            model.run(batch)?;
        }
        let mut after = vec![0; before.len()];
        model.device.read_buffers(&mut [ReadAt::new(start, &mut after)]).all().unwrap();
        prop_assert!(after[..guard] == before[..guard], "bytes in front of the window changed");
        prop_assert!(after[guard..] == model.bytes, "the device holds something else");
        Ok(())
    };
    if let Err(error) = TestRunner::new(config).run(&cases(subject.block()), run) {
        panic!("{error}");
    }
}
