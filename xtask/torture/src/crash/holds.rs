//! Transfers that stay in flight while the clients of a store continue.

use std::sync::Mutex;

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::DeviceFault;
use raw_block_core::sync;

use super::faults;
use super::focus::Focus;
use super::model::Context;

/// Held transfers, and when they are released.
pub(super) struct Holds {
    /// How often this thread yields before it releases the transfers.
    turns: u32,
    /// How the device ends instead of a release.
    ends: Option<Ending>,
}

/// How a device ends while transfers are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Cut,
    Kill,
}

impl Holds {
    /// Holds some of the next transfers, if the focus of the scenario has slow transfers.
    pub(super) fn inject(
        context: &Context<'_>,
        ends: Ending,
        random: &mut fastrand::Rng,
    ) -> Option<Self> {
        let turns = [100, 300, 1000][random.usize(..3)];
        let (kind, what) = match context.focus {
            Focus::Slow => (OpKind::Write, "write"),
            Focus::Reserve if random.bool() => (OpKind::Write, "write"),
            Focus::Readers => (OpKind::Read, "read"),
            Focus::Filling => {
                hold_headers(context, random.u32(..context.layout.shape.segments));
                return Some(Self { turns: 4000, ends: Some(ends) });
            }
            _ => return None,
        };
        let may_end = matches!(context.focus, Focus::Slow | Focus::Reserve);
        let ends = (may_end && random.u8(..4) == 0).then_some(ends);
        if context.focus == Focus::Slow && random.u8(..4) == 0 {
            hold_headers(context, random.u32(..3));
            return Some(Self { turns, ends });
        }
        for _ in 0..random.usize(1..3) {
            let nth = random.u64(1..12);
            context.note(' ', || format!("{what} number {nth} from here is held"));
            context
                .device
                .inject(DeviceFault::hold(kind).within(context.layout.segments.clone()).nth(nth));
        }
        Some(Self { turns, ends })
    }

    /// Releases the transfers after some turns. It only yields and never waits: clients may wait
    /// for a held transfer.
    pub(super) fn release(self, context: &Context<'_>) {
        let turn = Mutex::new(());
        for _ in 0..self.turns {
            if context.device.is_off() {
                return;
            }
            drop(sync::lock(&turn));
        }
        match self.ends {
            Some(Ending::Cut) => drop(context.device.power_cut()),
            Some(Ending::Kill) => drop(context.device.process_kill()),
            None => {}
        }
        context.note(' ', || "the held transfers are released".into());
        context.device.clear_faults();
        faults::inject_bad_ranges(context);
    }
}

/// Holds the header writes of all segments from `first`.
fn hold_headers(context: &Context<'_>, first: u32) {
    context.note(' ', || format!("the headers of segments from {first} are held"));
    for segment in first..context.layout.shape.segments {
        let header = context.layout.blocks_of_segment(segment, 0..1);
        context.device.inject(DeviceFault::hold(OpKind::Write).within(header));
    }
}
