//! Transfers that stay in flight while the clients of a store go on.

use std::sync::Mutex;

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::DeviceFault;
use raw_block_core::sync;

use super::faults;
use super::focus::Focus;
use super::model::Context;

/// Transfers that are held, and for how long.
pub(super) struct Holds {
    /// How many times another thread may go first before the transfers go on.
    turns: u32,
    /// Whether the power is cut then, or the process killed, instead.
    ends: Option<Ending>,
}

/// How a device ends while transfers are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Cut,
    Kill,
}

impl Holds {
    /// Makes some of the next transfers stay in flight, if the focus of a scenario asks for that.
    pub(super) fn inject(
        context: &Context<'_>,
        ends: Ending,
        random: &mut fastrand::Rng,
    ) -> Option<Self> {
        let turns = [100, 300, 1000][random.usize(..3)];
        let (kind, what) = match context.focus {
            Focus::Slow => (OpKind::Write, "write"),
            Focus::Readers => (OpKind::Read, "read"),
            Focus::Filling => {
                hold_headers(context, random.u32(..context.layout.shape.segments));
                return Some(Self { turns: 4000, ends: Some(ends) });
            }
            _ => return None,
        };
        let ends = (context.focus == Focus::Slow && random.u8(..4) == 0).then_some(ends);
        if context.focus == Focus::Slow && random.u8(..4) == 0 {
            hold_headers(context, random.u32(..3));
            return Some(Self { turns, ends });
        }
        for _ in 0..random.usize(1..3) {
            let nth = random.u64(1..12);
            context.note(' ', || format!("{what} number {nth} from here takes long"));
            context
                .device
                .inject(DeviceFault::hold(kind).within(context.layout.segments.clone()).nth(nth));
        }
        Some(Self { turns, ends })
    }

    /// Lets the transfers go on after a while. It waits for nothing but its turn: clients may wait for a transfer.
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
        context.note(' ', || "what took long goes on".into());
        context.device.clear_faults();
        faults::inject_bad_ranges(context);
    }
}

/// Makes the headers of all segments from this one on stay in flight.
fn hold_headers(context: &Context<'_>, first: u32) {
    context.note(' ', || format!("the headers of segments from {first} on take long"));
    for segment in first..context.layout.shape.segments {
        let header = context.layout.blocks_of_segment(segment, 0..1);
        context.device.inject(DeviceFault::hold(OpKind::Write).within(header));
    }
}
