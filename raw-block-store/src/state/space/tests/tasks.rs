//! The ops of a simulated store: each is a task of steps.

use super::simulation::{Simulation, Version};
use super::*;

pub(super) enum Progress {
    Runs,
    Ended,
}

#[derive(Debug)]
pub(super) enum Task {
    Put(Put),
    Delete(Delete),
    Reclaim(Reclaim),
    Checkpoint(Option<CheckpointPlan>),
}

/// A slot in flight, its objects, and how many attempts there were.
type Flying = (Slot, Vec<AllocatedObject>, u32);

#[derive(Debug)]
pub(super) struct Put {
    keys: Vec<(u64, Demand)>,
    batch: Batch,
    flying: Vec<Flying>,
    /// The reclaim that it waits for, and how many it waited for.
    waits_for: Option<u64>,
    rounds: u32,
}

#[derive(Debug)]
pub(super) struct Delete {
    key: u64,
    flying: Option<Flying>,
    asked: Option<u64>,
    waits_for: Option<u64>,
    /// Reclaims that it waited for while no write failed, those that it ran itself twice, in
    /// halves.
    waited: u32,
}

#[derive(Debug)]
pub(super) struct Reclaim {
    victims: usize,
    progress: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Victims,
    Moving {
        victim: u32,
        plan: MovePlan,
        objects: Vec<(u64, Version)>,
        left: usize,
    },
    /// Waits for the changes that are in flight, below this sequence.
    Settling(u64),
    Checkpoint(Option<CheckpointPlan>),
}

impl Task {
    pub(super) fn put(of: &Simulation, batch: &[(u64, u32)]) -> Self {
        let keys: Vec<(u64, Demand)> =
            batch.iter().map(|&(key, blocks)| (key, demand(blocks, of.sharing))).collect();
        let mut batch = Batch::default();
        batch.fill(&of.space.shape, keys.iter().map(|&(_, demand)| demand));
        Self::Put(Put { keys, batch, flying: Vec::new(), waits_for: None, rounds: 0 })
    }

    pub(super) fn delete(key: u64) -> Self {
        Self::Delete(Delete { key, flying: None, asked: None, waits_for: None, waited: 0 })
    }

    pub(super) fn checkpoint() -> Self {
        Self::Checkpoint(None)
    }

    /// The objects that are allocated and not published, by segment.
    pub(super) fn in_flight(&self) -> Vec<(u32, &Demand)> {
        let of = |(slot, objects, _): &'_ Flying| (slot.segment, objects.len());
        match self {
            Self::Put(put) => put
                .flying
                .iter()
                .flat_map(|flying| {
                    let (segment, _) = of(flying);
                    flying.1.iter().map(move |object| (segment, &object.demand))
                })
                .collect(),
            Self::Reclaim(Reclaim { stage: Stage::Moving { plan, .. }, .. }) => plan
                .allocation
                .slots
                .iter()
                .flat_map(|slot| {
                    let objects = plan.allocation.objects_of(slot);
                    objects.iter().map(|object| (slot.segment, &object.demand))
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn step(&mut self, of: &mut Simulation) -> Progress {
        match self {
            Self::Put(put) => put.step(of),
            Self::Delete(delete) => delete.step(of),
            Self::Reclaim(reclaim) => reclaim.step(of),
            Self::Checkpoint(chosen) => {
                let ended = step_checkpoint(of, chosen, CheckpointPurpose::Period);
                if ended.is_some() { Progress::Ended } else { Progress::Runs }
            }
        }
    }
}

/// The slots of an allocation, as they are in flight. Some headers of segments fail.
fn fly(of: &mut Simulation, out: &Allocation, attempt: u32) -> Vec<Flying> {
    for opened in out.slots.iter().filter_map(|slot| slot.opened) {
        let written = !of.write_fails();
        of.space.header_written(&opened, written);
    }
    let flying = |slot: &Slot| (slot.clone(), out.objects_of(slot).to_vec(), attempt);
    out.slots.iter().map(flying).collect()
}

/// Waits for the reclaim that runs, or begins one. Returns the number that `reclaims` has
/// afterwards.
fn reclaim(of: &mut Simulation) -> u64 {
    if !of.reclaiming || Mutant::SeveralReclaims.is_on() {
        of.reclaiming = true;
        let reclaim = Reclaim { victims: 0, progress: false, stage: Stage::Victims };
        of.tasks.push(Task::Reclaim(reclaim));
    }
    of.reclaims + 1
}

impl Put {
    fn step(&mut self, of: &mut Simulation) -> Progress {
        if let Some(flying) = self.flying.pop() {
            self.complete(of, flying);
            return Progress::Runs;
        }
        if let Some(reclaim) = self.waits_for {
            if of.reclaims < reclaim {
                return Progress::Runs;
            }
            self.waits_for = None;
            self.rounds += 1;
            if !of.progress || self.rounds > 16 {
                return Progress::Ended;
            }
        }
        let mut out = Allocation::default();
        let result = of.space.allocate(&mut self.batch, &mut out);
        of.put_blocks += out.slots.iter().map(|slot| u64::from(slot.blocks)).sum::<u64>();
        self.flying = fly(of, &out, 1);
        match result {
            Ok(()) if self.flying.is_empty() => return Progress::Ended,
            Err(Shortage::Full) if self.flying.is_empty() => return Progress::Ended,
            Err(Shortage::Reclaim) => self.waits_for = Some(reclaim(of)),
            _ => {}
        }
        Progress::Runs
    }

    fn complete(&mut self, of: &mut Simulation, (slot, objects, attempt): Flying) {
        let header_failed = of.space.header_of(&slot) == HeaderState::Failed;
        let (mut outcomes, mut dropped, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let slot_failed = header_failed || of.write_fails();
        for object in &objects {
            let (key, demand) = self.keys[object.index as usize];
            if slot_failed || of.fails > 0.0 && of.rng.f64() < of.fails / 4.0 {
                let AllocatedObject { index, demand, sequence, .. } = *object;
                again.push(Retry { index, demand, sequence });
                outcomes.push(Outcome::Failed);
                continue;
            }
            let object = located(slot.segment, object, key);
            outcomes.push(match of.show(key, Version { object, demand, used: false }) {
                Ok(old) => {
                    dropped.extend(old);
                    Outcome::Shown
                }
                Err(()) => Outcome::Superseded,
            });
        }
        of.space.published(&slot, &objects, outcomes, &dropped);
        free(&mut of.space);
        if again.is_empty() {
            return;
        }
        let mut out = Allocation::default();
        if attempt < 3 {
            let _ = of.space.allocate_again(&slot, &mut again, &mut out);
        }
        of.space.give_up(&slot, u32::try_from(again.len()).unwrap());
        self.flying.extend(fly(of, &out, attempt + 1));
    }
}

impl Delete {
    fn step(&mut self, of: &mut Simulation) -> Progress {
        if let Some((slot, objects, attempt)) = self.flying.take() {
            return self.complete(of, &slot, &objects, attempt);
        }
        let Some(asked) = self.asked else {
            let mut out = Allocation::default();
            match of.space.allocate_tombstones(&mut out) {
                Ok(()) => self.flying = fly(of, &out, 1).pop(),
                Err(Shortage::Wait) => {}
                Err(_) => self.asked = Some(of.space.ask_for_tombstones()),
            }
            return Progress::Runs;
        };
        if let Some(granted) = of.space.take_granted(asked) {
            self.flying = fly(of, &granted, 1).pop();
            self.asked = None;
            return Progress::Runs;
        }
        match self.waits_for {
            Some(reclaim) if of.reclaims < reclaim => {}
            Some(_) => {
                self.waits_for = None;
                let mut out = Allocation::default();
                if Mutant::WaitingDeletesNotServedFirst.is_on()
                    && of.space.allocate_tombstones(&mut out).is_ok()
                {
                    of.space.stop_asking(asked);
                    self.flying = fly(of, &out, 1).pop();
                    self.asked = None;
                    return Progress::Runs;
                }
                assert!(self.waited <= 2, "a delete found no space after its reclaims");
            }
            None => {
                if of.fails == 0.0 {
                    self.waited += if of.reclaiming { 1 } else { 2 };
                }
                self.waits_for = Some(reclaim(of));
            }
        }
        Progress::Runs
    }

    fn complete(
        &mut self,
        of: &mut Simulation,
        slot: &Slot,
        objects: &[AllocatedObject],
        attempt: u32,
    ) -> Progress {
        if of.space.header_of(slot) == HeaderState::Failed || of.write_fails() {
            of.space.published(slot, objects, [Outcome::Failed], &[]);
            let AllocatedObject { index, demand, sequence, .. } = objects[0];
            let (mut again, mut out) =
                (vec![Retry { index, demand, sequence }], Allocation::default());
            if attempt < 3 {
                let _ = of.space.allocate_again(slot, &mut again, &mut out);
            }
            if out.slots.is_empty() {
                of.space.give_up(slot, 1);
                return Progress::Ended;
            }
            self.flying = fly(of, &out, attempt + 1).pop();
            return Progress::Runs;
        }
        let dropped = of.remove(self.key, objects[0].sequence);
        of.space.published(slot, objects, [Outcome::Shown], dropped.as_slice());
        free(&mut of.space);
        Progress::Ended
    }
}

impl Reclaim {
    fn step(&mut self, of: &mut Simulation) -> Progress {
        match &mut self.stage {
            Stage::Victims => {
                while let Some(segment) = of.space.take_to_empty() {
                    of.evict(segment);
                    self.progress |= !free(&mut of.space).is_empty();
                }
                self.stage = self.next_victim(of);
            }
            Stage::Moving { left, .. } if *left > 0 && !of.write_fails() => *left -= 1,
            Stage::Moving { .. } => self.end_moves(of),
            Stage::Settling(sequence) => {
                if of.space.oldest_in_flight() >= *sequence {
                    self.stage = Stage::Checkpoint(None);
                }
            }
            Stage::Checkpoint(chosen) => {
                match step_checkpoint(of, chosen, CheckpointPurpose::Space) {
                    None => {}
                    Some(false) => self.stage = Stage::Checkpoint(None),
                    Some(true) => {
                        of.space.end_reclaim(self.progress, of.space.version());
                        of.progress = self.progress;
                        of.reclaims += 1;
                        of.reclaiming = false;
                        return Progress::Ended;
                    }
                }
            }
        }
        Progress::Runs
    }

    fn end_of_victims(&mut self, of: &Simulation) -> Stage {
        self.progress |= self.victims > 0 || of.space.is_anything_uncovered();
        Stage::Settling(of.space.next_sequence())
    }

    fn next_victim(&mut self, of: &mut Simulation) -> Stage {
        if !of.space.wants_victims(self.victims) {
            return self.end_of_victims(of);
        }
        let Some(victim) = of.space.take_victim() else { return self.end_of_victims(of) };
        let mut objects = of.live_in(victim.segment);
        assert_eq!(objects.is_empty(), victim.kind == VictimKind::Dead);
        if victim.kind == VictimKind::Evict {
            choose(of, &mut objects);
        }
        loop {
            if objects.is_empty() {
                self.victims += 1;
                return Stage::Victims;
            }
            let demands: Vec<MoveDemand> = objects
                .iter()
                .map(|(_, version)| MoveDemand {
                    demand: version.demand,
                    sequence: version.object.sequence(),
                })
                .collect();
            match of.space.plan_moves(victim.segment, &demands) {
                Ok(plan) => {
                    for opened in plan.allocation.slots.iter().filter_map(|slot| slot.opened) {
                        let written = !of.write_fails();
                        of.space.header_written(&opened, written);
                    }
                    let left = plan.allocation.slots.len();
                    return Stage::Moving { victim: victim.segment, plan, objects, left };
                }
                Err(NoPlan::NoSpace)
                    if victim.kind == VictimKind::Compact
                        && of.space.evicts()
                        && self.victims == 0 =>
                {
                    let before = objects.len();
                    choose(of, &mut objects);
                    if objects.len() == before {
                        objects.clear();
                    }
                }
                Err(NoPlan::NoSpace) if victim.kind == VictimKind::Evict => objects.clear(),
                Err(NoPlan::NoSpace) => {
                    of.space.spare_victim(victim.segment);
                    return self.end_of_victims(of);
                }
                Err(NoPlan::TooLittle | NoPlan::Copying) => {
                    of.space.spare_victim(victim.segment);
                    return Stage::Victims;
                }
            }
        }
    }

    fn end_moves(&mut self, of: &mut Simulation) {
        let stage = std::mem::replace(&mut self.stage, Stage::Victims);
        let Stage::Moving { victim, plan, objects, left } = stage else { return };
        let written = |slot: &Slot| of.space.header_of(slot) == HeaderState::Written;
        if left == 0 && plan.allocation.slots.iter().all(written) {
            of.publish_moves(plan, &objects);
            self.victims += 1;
            return;
        }
        // One slot failed, so nothing is moved. Its segment is sealed.
        let failed = plan.allocation.slots[left.saturating_sub(1)].objects.clone();
        let outcomes: Vec<Outcome> = (0..plan.allocation.objects.len())
            .map(|at| if failed.contains(&at) { Outcome::Failed } else { Outcome::Superseded })
            .collect();
        of.space.end_moves(plan, &outcomes, &[]);
        if of.space.evicts() {
            self.victims += 1;
        } else {
            of.space.spare_victim(victim);
            self.stage = self.end_of_victims(of);
        }
    }
}

/// What a policy keeps: pinned objects, and used ones up to a limit.
fn choose(of: &Simulation, objects: &mut Vec<(u64, Version)>) {
    let mut left = of.kept_blocks;
    objects.retain(|(_, version)| {
        let blocks = of.space.shape.blocks_alone(version.demand);
        let kept = version.used && blocks <= left;
        left -= if kept { blocks } else { 0 };
        kept || of.space.is_pinned(version.object.place)
    });
}

/// One step of a checkpoint: whether it is committed, once it has ended.
fn step_checkpoint(
    of: &mut Simulation,
    chosen: &mut Option<CheckpointPlan>,
    purpose: CheckpointPurpose,
) -> Option<bool> {
    let Some(chosen) = chosen.take() else {
        if !of.checkpointing {
            *chosen = of.space.plan_checkpoint(purpose);
            if chosen.is_some() {
                of.checkpointing = true;
                of.chosen();
                of.space.end_copy();
            }
        }
        return None;
    };
    of.checkpointing = false;
    if of.write_fails() {
        of.space.abandon_checkpoint(&chosen);
        of.abandoned();
        return Some(false);
    }
    of.last_checkpoint += 1;
    of.space.commit_checkpoint(&chosen, of.last_checkpoint);
    of.committed(&chosen.released);
    free(&mut of.space);
    Some(true)
}
