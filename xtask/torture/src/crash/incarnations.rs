//! The incarnations of one store in a scenario, all drawn from one seed.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context as _, Result, bail};
use raw_block_core::simulated::{SimulatedDevice, run_interleaved};

use super::client::Client;
use super::faults;
use super::focus::Focus;
use super::history::End;
use super::holds::{Ending, Holds};
use super::last;
use super::model::{Context, Model, lock};
use super::objects::Sizes;
use super::scenario::ScenarioId;
use super::target::{self, EvictionPolicy, Layout, Store, Verification};
use super::templates::Templates;

/// Counts of a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Writes and flushes of the first incarnation.
    pub(super) effects: u64,
    /// Writes and flushes of the second incarnation until the store was open.
    pub(super) recovery_effects: u64,
    /// Power cuts.
    pub(super) cuts: u64,
}

/// One store, from incarnation to incarnation.
pub(super) struct Incarnations {
    pub(super) random: fastrand::Rng,
    pub(super) focus: Focus,
    pub(super) device: SimulatedDevice,
    pub(super) layout: Layout,
    pub(super) eviction: EvictionPolicy,
    pub(super) model: Mutex<Model>,
    sizes: Sizes,
    bad: Vec<Range<u64>>,
    troubled: AtomicBool,
    /// Whether clients take many steps.
    long: bool,
    /// Whether a planned cut kills the process instead.
    kills: bool,
    /// The number of writes and flushes after which the last incarnation was interrupted.
    interrupted: Option<u64>,
    /// Whether the next process begins before the writes of a killed one have completed.
    leaves_writes: bool,
    /// How the last incarnation ended.
    pub(super) ended: End,
    counts: Counts,
}

/// How an incarnation is to end, unless it is interrupted before.
#[derive(Clone, Copy, Debug)]
enum PlannedEnd {
    Cut,
    Kill,
    Drop,
    Close,
}

impl Incarnations {
    /// Draws the store and the parameters of a scenario.
    pub(super) fn draw(templates: &Templates, seed: u64, trace: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let focus = Focus::draw(&mut random);
        let (template, device) = templates.draw(focus, &mut random);
        let layout = template.layout.clone();
        let shape = layout.shape;
        let eviction = match focus {
            Focus::Moves if seed.is_multiple_of(4) => EvictionPolicy::S3Fifo,
            Focus::Moves | Focus::Reserve => EvictionPolicy::None,
            _ => target::POLICIES[random.usize(..target::POLICIES.len())],
        };
        let keys = match template.objects.len() {
            0 => focus.keys(&mut random),
            objects => objects,
        };
        let sizes = focus.sizes(&mut random, shape, layout.largest_payload);
        let bad = match random.u8(..10) {
            0 if focus == Focus::All => faults::bad_ranges(&layout, &mut random),
            _ => Vec::new(),
        };
        let evicts = eviction != EvictionPolicy::None;
        let model = Model::new(keys, &template.objects, evicts, trace);
        let this = Self {
            long: random.u8(..6) == 0,
            random,
            focus,
            device,
            layout,
            eviction,
            model: Mutex::new(model),
            sizes,
            bad,
            troubled: AtomicBool::new(false),
            kills: false,
            interrupted: None,
            leaves_writes: templates.leave_writes.load(Ordering::Relaxed),
            ended: End::Close,
            counts: Counts::default(),
        };
        this.note(|| format!("{shape:?}, {keys} keys, {eviction:?}, {sizes:?}, {focus:?}"));
        this
    }

    /// Returns the counts and the trace.
    pub(super) fn into_parts(self) -> (Counts, String) {
        let trace = self.model().take_trace();
        (self.counts, trace)
    }

    /// Runs the planned incarnations, and a last one without faults.
    pub(super) fn run_all(&mut self, id: ScenarioId) -> Result<()> {
        let count = self.focus.incarnations(&mut self.random);
        let count = count.max(1 + usize::from(id.again.is_some()));
        for incarnation in 0..count {
            let most = self.focus.cut_within(&mut self.random, self.long);
            let is_cut = self.random.bool() || self.focus.is_cut_often() && self.random.bool();
            let chance = is_cut.then(|| self.focus.cut(most, &mut self.random));
            // The interruption of an opening may repeat, or come one copy of the superblock
            // earlier.
            let (repeats, back) = match self.random.u8(..6) {
                0 | 1 if self.focus == Focus::Openings => (true, 0),
                2 | 3 if self.focus == Focus::Openings => (true, 2),
                _ => (false, 0),
            };
            let again = self.interrupted.map(|cut| cut.saturating_sub(back)).filter(|&cut| cut > 0);
            let chance = if repeats { again.or(chance) } else { chance };
            let cut = match incarnation {
                0 => id.cut,
                1 => id.again.or(chance),
                _ => chance,
            };
            // Some of the planned cuts kill the process and leave the power on.
            let kills = self.random.u8(..5) == 0
                || self.focus.is_killed_often() && self.random.u8(..3) == 0;
            self.kills = if repeats { self.kills } else { kills };
            self.interrupted = cut;
            match cut {
                None => {}
                Some(cut) if !self.kills => self.device.cut_after(cut),
                Some(cut) if self.leaves_writes => self.device.kill_after_leaving_writes(cut),
                Some(cut) => self.device.kill_after(cut),
            }
            let end = match self.random.u8(..6) {
                0 | 1 => PlannedEnd::Cut,
                2 => PlannedEnd::Kill,
                3 => PlannedEnd::Drop,
                _ => PlannedEnd::Close,
            };
            self.run_one(end, incarnation)?;
            if incarnation == 0 {
                self.counts.effects = self.device.ops_so_far();
            }
            self.next_incarnation(end);
        }
        self.last_incarnation()
    }

    /// Runs one incarnation of the store. Returns early when it is interrupted.
    fn run_one(&mut self, end: PlannedEnd, incarnation: usize) -> Result<()> {
        self.troubled.store(false, Ordering::SeqCst);
        let misreads = self.focus.misreads(&mut self.random);
        let lenient = [Verification::Header, Verification::None][self.random.usize(..2)];
        let unverified = !misreads && self.focus.verifies_little(&mut self.random);
        let verification = if unverified { lenient } else { Verification::Full };
        let bit_rot = self.corrupt_checkpoint();
        let looks = bit_rot.is_none() && self.random.u8(..8) == 0;
        let looked = if looks { self.look()? } else { None };
        faults::inject_bad_ranges(&self.context());
        if self.focus != Focus::Misreads && self.random.u8(..12) == 0 {
            let mut random = self.random.fork();
            faults::inject(&self.context(), ' ', &mut random);
        }
        let Some(store) = self.open_after_bit_rot(verification, bit_rot)? else { return Ok(()) };
        if incarnation == 1 {
            self.counts.recovery_effects = self.device.ops_so_far();
        }
        // `None`: the device is off, and the model does not know the state of the store.
        let Some(found) = self.check_all(&store)? else { return Ok(()) };
        if let Some(looked) = looked
            && looked != found
        {
            bail!("opened read-only it had {looked:?}, then {found:?}");
        }
        self.model().misreads = misreads;
        self.use_store(&store)?;
        if misreads {
            let mut model = self.model();
            model.misreads = false;
            let now = model.now();
            model.keys.iter_mut().for_each(|key| key.doubt(now));
        }
        self.device.clear_faults();
        if !self.device.is_off() {
            self.context().check_counts(&store, 0)?;
        }
        if matches!(end, PlannedEnd::Close) && !self.device.is_off() {
            self.close(&store)?;
        }
        Ok(())
    }

    fn close(&mut self, store: &Store) -> Result<()> {
        faults::inject_bad_ranges(&self.context());
        let began = self.model().now();
        let closed = store.close();
        self.note(|| format!("close: {closed:?}"));
        match closed {
            Ok(()) => {
                self.model().flushed(began);
                self.ended = End::Close;
            }
            Err(error) if self.context().must_succeed() => {
                bail!("close failed without a fault: {error}");
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Runs one or several clients.
    fn use_store(&mut self, store: &Store) -> Result<()> {
        let clients = self.focus.clients(&mut self.random);
        let faults = self.model().misreads || self.focus.faults(&mut self.random);
        let most = self.focus.steps(self.long);
        let mut holding = self.random.fork();
        let ends = if self.kills { Ending::Kill } else { Ending::Cut };
        let mut random: Vec<_> = (0..clients).map(|_| self.random.fork()).collect();
        let seed = self.random.u64(..);
        let context = self.context();
        let mut results: Vec<_> = (0..clients).map(|_| Ok(())).collect();
        let mut runs: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
        for ((mut random, result), name) in random.drain(..).zip(&mut results).zip('A'..) {
            let steps = self.focus.steps_of(most, &mut random);
            let mut client = Client::new(name, random, &context, store);
            client.alone = clients == 1;
            client.steps = steps;
            client.faults = faults;
            runs.push(Box::new(move || *result = client.run()));
        }
        if let Some(holds) = Holds::inject(&context, ends, &mut holding) {
            let context = &context;
            runs.push(Box::new(move || holds.release(context)));
        }
        run_interleaved(seed, runs);
        results.into_iter().collect()
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            device: &self.device,
            layout: &self.layout,
            model: &self.model,
            sizes: &self.sizes,
            troubled: &self.troubled,
            bad: &self.bad,
            evicts: self.eviction != EvictionPolicy::None,
            focus: self.focus,
        }
    }

    /// Ends an incarnation, and makes the device of the next one from what it left.
    fn next_incarnation(&mut self, end: PlannedEnd) {
        let end = match self.device.is_off() {
            true if self.kills => PlannedEnd::Kill,
            true => PlannedEnd::Cut,
            false => end,
        };
        self.counts.cuts += u64::from(self.device.is_off() || matches!(end, PlannedEnd::Cut));
        self.device = match end {
            PlannedEnd::Cut => {
                let report = self.device.power_cut();
                self.ended = End::PowerCut;
                self.note(|| format!("the power is cut: {report:?}"));
                self.device.power_on()
            }
            // A process that ends in order has nothing in flight.
            PlannedEnd::Kill | PlannedEnd::Drop | PlannedEnd::Close => {
                self.note(|| "the process ends".into());
                if self.leaves_writes {
                    self.device.process_kill_leaving_writes()
                } else {
                    self.device.process_kill()
                }
            }
        };
    }

    /// Runs an incarnation without faults, in which everything must succeed.
    fn last_incarnation(&mut self) -> Result<()> {
        const FAILS: &str = "the device has no faults any more";
        self.troubled.store(false, Ordering::SeqCst);
        let looked = self.look()?;
        let store = self.open(Verification::Full)?.context(FAILS)?;
        self.check_all(&store)?;
        let before = self.find_all(&store)?;
        if before != looked {
            bail!("opened read-only it had {looked:?}, then {before:?}");
        }
        drop(store);
        // The second recovery must find the result of the first.
        let store = self.open(Verification::Full)?.context(FAILS)?;
        if self.find_all(&store)? != before {
            bail!("two recoveries find different objects");
        }
        let fill = self.bad.is_empty() && self.focus.fills(&mut self.random);
        let mut random = self.random.fork();
        let left = last::use_up(&self.context(), &store, &mut random, fill)?;
        store.close().context(FAILS)?;
        drop(store);
        let store = self.open(Verification::Full)?.context(FAILS)?;
        last::check(&self.context(), &store, &left)
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        self.model().note(&self.device, what);
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }
}
