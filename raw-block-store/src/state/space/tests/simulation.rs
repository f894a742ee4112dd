//! A store whose ops are tasks of steps, in any order; between two steps the power may fail.

use std::collections::{BTreeMap, BTreeSet};

use super::tasks::{Progress, Task};
use super::*;
use crate::state::pins::PinId;

/// A version of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    pub(super) object: Located,
    pub(super) demand: Demand,
    pub(super) used: bool,
}

/// What happened to a key since a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// What the checkpoint names.
    Named(Option<Version>),
    Put(Version),
    Moved(Version),
    Deleted,
}

type Events = BTreeMap<u64, Vec<Event>>;

pub(super) struct Simulation {
    pub(super) space: Space,
    pub(super) rng: fastrand::Rng,
    pub(super) index: BTreeMap<u64, Version>,
    /// Events since the committed checkpoint was chosen, and since the one in flight was.
    old: Events,
    new: Events,
    pub(super) tasks: Vec<Task>,
    /// Whether a reclaim runs, how many ended, and whether the last one made progress.
    pub(super) reclaiming: bool,
    pub(super) reclaims: u64,
    pub(super) progress: bool,
    pub(super) checkpointing: bool,
    pub(super) last_checkpoint: u64,
    pub(super) pins: Vec<PinId>,
    /// Probability of a failed write.
    pub(super) fails: f64,
    pub(super) sharing: u32,
    pub(super) kept_blocks: u32,
    pub(super) put_blocks: u64,
    pub(super) evicted: u64,
    pub(super) moved: u64,
}

impl Simulation {
    pub(super) fn new(
        seed: u64,
        shape: (u32, u32),
        eviction: EvictionPolicy,
        sharing: u32,
    ) -> Self {
        Self {
            space: space(shape.0, shape.1, eviction),
            rng: fastrand::Rng::with_seed(seed),
            index: BTreeMap::new(),
            old: Events::new(),
            new: Events::new(),
            tasks: Vec::new(),
            reclaiming: false,
            reclaims: 0,
            progress: true,
            checkpointing: false,
            last_checkpoint: 1,
            pins: Vec::new(),
            fails: 0.0,
            sharing,
            kept_blocks: 0,
            put_blocks: 0,
            evicted: 0,
            moved: 0,
        }
    }

    pub(super) fn write_fails(&mut self) -> bool {
        self.rng.f64() < self.fails
    }

    /// One step of a task, of any if none is given.
    pub(super) fn step(&mut self, at: usize) {
        let mut task = self.tasks.swap_remove(at);
        match task.step(self) {
            Progress::Runs => self.tasks.push(task),
            Progress::Ended => {}
        }
    }

    /// Lets everything end.
    pub(super) fn run(&mut self) {
        for _ in 0..200_000 {
            if self.tasks.is_empty() {
                return;
            }
            let at = self.rng.usize(..self.tasks.len());
            self.step(at);
        }
        panic!("nothing goes on: {:?}\n{:?}", self.tasks, self.space.usage());
    }

    /// Runs one op to its end; returns whether it succeeded.
    pub(super) fn put(&mut self, batch: &[(u64, u32)]) -> bool {
        let before: Vec<_> = batch.iter().map(|(key, _)| self.sequence(*key)).collect();
        self.tasks.push(Task::put(self, batch));
        self.run();
        batch.iter().zip(before).all(|((key, _), before)| self.sequence(*key) > before)
    }

    pub(super) fn delete(&mut self, key: u64) {
        self.tasks.push(Task::delete(key));
        self.run();
    }

    fn sequence(&self, key: u64) -> Option<u64> {
        self.index.get(&key).map(|version| version.object.sequence())
    }

    // ---------------- the index
    pub(super) fn show(&mut self, key: u64, version: Version) -> Result<Option<Located>, ()> {
        if self.sequence(key).is_some_and(|newer| newer > version.object.sequence()) {
            return Err(());
        }
        self.note(key, Event::Put(version));
        Ok(self.index.insert(key, version).map(|old| old.object))
    }

    pub(super) fn remove(&mut self, key: u64, sequence: u64) -> Option<Located> {
        self.index.get(&key).filter(|version| version.object.sequence() < sequence)?;
        self.note(key, Event::Deleted);
        self.index.remove(&key).map(|version| version.object)
    }

    pub(super) fn move_to(&mut self, key: u64, from: &Located, to: Located) -> bool {
        let Some(version) = self.index.get_mut(&key).filter(|of| of.object == *from) else {
            return false;
        };
        version.object = to;
        version.used = false;
        let version = *version;
        self.note_from(key, from, Event::Moved(version));
        self.moved += 1;
        true
    }

    fn note(&mut self, key: u64, event: Event) {
        let named = self.index.get(&key).copied();
        self.new.entry(key).or_insert_with(|| vec![Event::Named(named)]).push(event);
    }

    fn note_from(&mut self, key: u64, from: &Located, event: Event) {
        let named = self.index.get(&key).map(|version| Version { object: *from, ..*version });
        self.new.entry(key).or_insert_with(|| vec![Event::Named(named)]).push(event);
    }

    /// The live objects of a segment.
    pub(super) fn live_in(&self, segment: u32) -> Vec<(u64, Version)> {
        let versions = self.index.iter().map(|(&key, &version)| (key, version));
        versions.filter(|(_, version)| version.object.place.segment == segment).collect()
    }

    // ---------------- checkpoints
    pub(super) fn chosen(&mut self) {
        self.old = self.events();
        self.new.clear();
    }

    pub(super) fn abandoned(&mut self) {
        self.old = self.events();
        self.new.clear();
    }

    /// The checkpoint that was chosen last is committed. It names everything that the index showed
    /// then.
    pub(super) fn committed(&mut self, released: &[u32]) {
        self.old.clear();
        for &segment in released {
            self.evict(segment);
        }
        // The named version of a key may have been released with its segment.
        let gone: BTreeSet<u32> = released.iter().copied().collect();
        for events in self.new.values_mut() {
            if let Event::Named(named) = &mut events[0]
                && named.is_some_and(|version| gone.contains(&version.object.place.segment))
            {
                *named = None;
            }
        }
    }

    /// Removes the objects of a released segment from the index, and moves the pinned ones.
    pub(super) fn evict(&mut self, segment: u32) {
        let (pinned, evicted): (Vec<_>, Vec<_>) = self
            .live_in(segment)
            .into_iter()
            .partition(|(_, version)| self.space.is_pinned(version.object.place));
        self.evicted += evicted.len() as u64;
        for (key, version) in evicted {
            self.index.remove(&key);
            self.new.remove(&key);
            self.old.remove(&key);
            self.space.drop_objects(&[version.object]);
        }
        if self.move_at_once(segment, &pinned) {
            self.space.emptied(segment);
        } else {
            self.space.left_pinned(segment);
        }
    }

    fn move_at_once(&mut self, segment: u32, objects: &[(u64, Version)]) -> bool {
        let demands = objects.iter().map(|(_, version)| MoveDemand {
            demand: version.demand,
            sequence: version.object.sequence(),
        });
        if objects.is_empty() {
            return true;
        }
        let Ok(plan) = self.space.plan_moves(segment, &demands.collect::<Vec<_>>()) else {
            return false;
        };
        write_headers(&mut self.space, &plan.allocation);
        self.publish_moves(plan, objects);
        true
    }

    pub(super) fn publish_moves(&mut self, plan: MovePlan, objects: &[(u64, Version)]) {
        let (mut outcomes, mut moved) = (Vec::new(), Vec::new());
        for slot in &plan.allocation.slots {
            for copy in plan.allocation.objects_of(slot) {
                let (key, version) = objects[copy.index as usize];
                let to = located(slot.segment, copy, key);
                let shown = self.move_to(key, &version.object, to);
                outcomes.push(if shown { Outcome::Shown } else { Outcome::Superseded });
                if shown {
                    moved.push((version.object, to));
                }
            }
        }
        self.space.end_moves(plan, &outcomes, &moved);
    }

    fn events(&self) -> Events {
        let mut events = self.old.clone();
        for (&key, later) in &self.new {
            match events.get_mut(&key) {
                Some(earlier) => earlier.extend(&later[1..]),
                None => drop(events.insert(key, later.clone())),
            }
        }
        events
    }

    // ---------------- the end of the power
    /// The power fails. What no committed checkpoint covers is there with this probability.
    pub(super) fn crash(&mut self, chance: f64) {
        for (key, events) in self.events() {
            let now = self.survivor(&events, chance);
            match now {
                Some(version) => drop(self.index.insert(key, version)),
                None => drop(self.index.remove(&key)),
            }
        }
        // Objects that only a pin kept from being evicted.
        let space = &self.space;
        self.index.retain(|_, version| {
            let place = version.object.place;
            let is_evicted = space.segments[place.segment as usize].state == SegmentState::Draining;
            assert!(!is_evicted || space.evicts() && space.is_pinned(place));
            !is_evicted
        });
        self.old.clear();
        self.new.clear();
        self.tasks.clear();
        self.pins.clear();
        (self.reclaiming, self.checkpointing) = (false, false);
        self.space = Space::restore(self.space.shape, self.space.eviction, self.found());
        let space = &mut self.space;
        checkpoint(space, CheckpointPurpose::Whole);
        self.last_checkpoint = space.committed().number;
        self.check();
    }

    fn survivor(&mut self, events: &[Event], chance: f64) -> Option<Version> {
        // Versions, each with its copies.
        let mut groups: Vec<Vec<Option<Version>>> = Vec::new();
        for event in events {
            match *event {
                Event::Moved(copy) => groups.last_mut().unwrap().push(Some(copy)),
                Event::Named(version) => groups.push(vec![version]),
                Event::Put(version) => groups.push(vec![Some(version)]),
                Event::Deleted => groups.push(vec![None]),
            }
        }
        for (n, group) in groups.iter().enumerate().rev() {
            if n == 0 && group[0].is_some() {
                return group[0];
            }
            let there: Vec<_> =
                group.iter().enumerate().filter(|_| self.rng.f64() < chance).collect();
            if let Some(&(_, version)) = self.rng.choice(&there) {
                return *version;
            }
            if n == 0 {
                // A key that was not there, whose copies cannot be there either.
                return None;
            }
        }
        None
    }

    fn found(&self) -> SpaceImage {
        let space = &self.space;
        let segments = space.segments.iter().map(|segment| SegmentImage {
            generation: segment.generation,
            used: matches!(segment.state, SegmentState::Open | SegmentState::Full),
            open: false,
            stream: segment.stream,
            entries: segment.fill.entries,
            next_block: segment.fill.next_block,
            highest: segment.highest,
            table: 0,
            bad: segment.bad,
            live: Live::default(),
        });
        let mut segments: Vec<SegmentImage> = segments.collect();
        for version in self.index.values() {
            let segment = &mut segments[version.object.place.segment as usize];
            assert!(segment.used, "an object lies in a segment that is free");
            segment.count_live(&version.object, &space.shape);
        }
        let jump = u64::from(space.shape.segments) * u64::from(space.shape.segment_blocks + 1);
        SpaceImage {
            segments,
            tombstones: Vec::new(),
            committed: space.committed,
            next_sequence: space.next_sequence + jump,
        }
    }

    pub(super) fn check(&self) {
        check(&self.space);
        let shown = self.index.values().map(|of| (of.object.place.segment, &of.demand));
        let flying = self.tasks.iter().flat_map(Task::in_flight);
        recount(&self.space, shown.chain(flying));
        let places: BTreeSet<Place> = self.index.values().map(|of| of.object.place).collect();
        assert_eq!(places.len(), self.index.len(), "two objects have the same place");
        for version in self.index.values() {
            let segment = &self.space.segments[version.object.place.segment as usize];
            assert!(!matches!(segment.state, SegmentState::Free | SegmentState::Bad));
            assert!(version.object.place.number < segment.fill.entries);
        }
    }
}
