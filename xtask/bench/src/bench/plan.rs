//! The cases of a run, and their order.

use anyhow::{Result, bail};

use super::cases::{Case, FioJob, Job, Layer, Operation, Places, Shape, Task};
use super::options::{EngineName, LayerName, Options};
use super::units::size;
use super::{engine, serial, store};

/// The cases, and groups of tasks. The tasks of a group are compared with each other, so they run
/// close together. Each round begins with another group, and in each group with another task.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) cases: Vec<Case>,
    pub(super) groups: Vec<Vec<Task>>,
}

impl Plan {
    /// Plans all cases of `options` on `engines`, on a device with this alignment of which `span`
    /// bytes are used.
    pub(super) fn new(
        options: &Options,
        engines: &[EngineName],
        alignment: u64,
        span: u64,
    ) -> Result<Self> {
        let mut plan = Self::default();
        let smallest = engines.iter().map(|&engine| engine::span(engine, span)).min();
        let threads = options.threads as usize;
        for value in options.value_sizes() {
            for batch in options.batches() {
                let (batch, metadata) = (batch as usize, options.metadata as usize);
                let shape = Shape { value, batch, threads, metadata };
                check_capacity(shape, smallest.unwrap_or(span))?;
                if options.layers.contains(&LayerName::Raw) {
                    plan.add_transfers(shape, engines, options.fio.then_some((alignment, span)));
                }
                plan.add_keys(shape, engines, &options.layers, options.fio.then_some(span))?;
            }
        }
        Ok(plan)
    }

    fn add_transfers(&mut self, shape: Shape, engines: &[EngineName], fio: Option<(u64, u64)>) {
        let works = [(Operation::Write, Places::Apart), (Operation::Read, Places::Apart)];
        let jobs = fio.map(|(alignment, span)| {
            let io_bytes = shape.value.next_multiple_of(alignment);
            [span; 2].map(|span| FioJob { writes: false, io_bytes, run: 1, span })
        });
        let (mut group, references, controls) = self.fio_tasks(shape, &works, jobs.as_ref());
        for &engine in engines {
            let cases = self.add_cases(Layer::Raw, engine, shape, &works, &references);
            group.push(Task { job: Job::Raw(engine), shape, cases });
        }
        group.extend(controls);
        self.groups.push(group);
    }

    fn add_keys(
        &mut self,
        shape: Shape,
        engines: &[EngineName],
        layers: &[LayerName],
        fio_span: Option<u64>,
    ) -> Result<()> {
        let stored = layers.contains(&LayerName::Store);
        let works = key_works(shape);
        let put_bytes = store::put_bytes(shape.value, shape.batch)?;
        let jobs = fio_span.filter(|_| stored).map(|span| {
            let io_bytes = store::get_bytes(shape.value);
            let read = store::working_set(shape, span) * io_bytes;
            let job = |io_bytes, run, span| FioJob { writes: false, io_bytes, run, span };
            [
                job(put_bytes, shape.batch, span),
                job(io_bytes, shape.batch, read),
                job(io_bytes, 1, read),
            ]
        });
        let (mut group, references, controls) = self.fio_tasks(shape, &works, jobs.as_ref());
        for &engine in engines {
            if layers.contains(&LayerName::Serial) {
                let cases = self.add_cases(Layer::Serial, engine, shape, &works[..2], &[]);
                group.push(Task { job: Job::Serial(engine), shape, cases });
            }
            if stored {
                let cases = self.add_cases(Layer::Store, engine, shape, &works, &references);
                group.push(Task { job: Job::Store { engine, put_bytes }, shape, cases });
            }
        }
        group.extend(controls);
        self.groups.push(group);
        Ok(())
    }

    /// The first and the second run of fio of a group, with the cases of the first.
    fn fio_tasks<const N: usize>(
        &mut self,
        shape: Shape,
        works: &[(Operation, Places)],
        jobs: Option<&[FioJob; N]>,
    ) -> (Vec<Task>, Vec<usize>, Vec<Task>) {
        let (mut first, mut references, mut second) = (Vec::new(), Vec::new(), Vec::new());
        for (&(operation, places), job) in works.iter().zip(jobs.into_iter().flatten()) {
            let writes = matches!(operation, Operation::Write | Operation::Put);
            let operation = if writes { Operation::Write } else { Operation::Read };
            let work = [(operation, places)];
            let control = self.add_cases(Layer::Fio, EngineName::Uring, shape, &work, &[]);
            let cases = self.add_cases(Layer::Fio, EngineName::Uring, shape, &work, &[]);
            self.cases[control[0]].is_control = true;
            self.cases[cases[0]].control = Some(control[0]);
            references.push(cases[0]);
            let job = Job::Fio(FioJob { writes, ..*job });
            first.push(Task { job, shape, cases });
            second.push(Task { job, shape, cases: control });
        }
        (first, references, second)
    }

    fn add_cases(
        &mut self,
        layer: Layer,
        engine: EngineName,
        shape: Shape,
        works: &[(Operation, Places)],
        references: &[usize],
    ) -> Vec<usize> {
        let first = self.cases.len();
        for (index, &(operation, places)) in works.iter().enumerate() {
            // fio transfers to and from a device, so memory is not compared with it.
            let fio = references.get(index).copied().filter(|_| engine != EngineName::Memory);
            self.cases.push(Case {
                layer,
                engine,
                operation,
                places,
                shape,
                fio,
                control: None,
                is_control: false,
            });
        }
        (first..self.cases.len()).collect()
    }

    /// Whether the cases of the task are compared with fio, or are those of fio.
    pub(super) fn is_compared(&self, task: &Task) -> bool {
        task.cases.iter().any(|&case| {
            let case = &self.cases[case];
            case.layer == Layer::Fio || case.fio.is_some()
        })
    }

    /// The jobs of fio, and their shapes.
    pub(super) fn fio_jobs(&self) -> impl Iterator<Item = (FioJob, Shape)> {
        self.groups.iter().flatten().filter_map(|task| match task.job {
            Job::Fio(job) => Some((job, task.shape)),
            _ => None,
        })
    }

    /// The tasks in the order of round `round`.
    pub(super) fn round(&self, round: usize) -> impl Iterator<Item = &Task> {
        rotated(&self.groups, round).flat_map(move |group| rotated(group, round))
    }
}

/// The operations on keys. A batch of one key has no neighbours.
fn key_works(shape: Shape) -> Vec<(Operation, Places)> {
    if shape.batch == 1 {
        return vec![(Operation::Put, Places::Apart), (Operation::Get, Places::Apart)];
    }
    vec![
        (Operation::Put, Places::Neighbouring),
        (Operation::Get, Places::Neighbouring),
        (Operation::Get, Places::Apart),
    ]
}

/// The smallest device must hold some batches of every thread.
fn check_capacity(shape: Shape, span: u64) -> Result<()> {
    let Shape { value, batch, threads, .. } = shape;
    let wanted = serial::io_bytes(value) * (batch * threads) as u64 * 8;
    if wanted > span {
        bail!(
            "{threads} x {batch} values of {} need {} of device, and {} are used: take smaller values, \
             batches, or fewer threads{}",
            size(value),
            size(wanted),
            size(span),
            if span < 1 << 30 { ", or omit --quick" } else { "" }
        );
    }
    Ok(())
}

fn rotated<T>(list: &[T], by: usize) -> impl Iterator<Item = &T> {
    let start = by % list.len().max(1);
    list[start..].iter().chain(&list[..start])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        options: Options,
    }

    fn plan(arguments: &[&str]) -> Plan {
        let arguments = ["bench"].iter().chain(arguments);
        let options = Wrapper::parse_from(arguments).options;
        Plan::new(&options, &options.engines(false), 512, options.span()).unwrap()
    }

    #[test]
    fn quick_covers_both_sizes_and_batches_on_every_engine() {
        let plan = plan(&["--quick"]);
        for engine in [EngineName::Memory, EngineName::Posix, EngineName::Uring] {
            for value in [4096, 256 << 10] {
                for batch in [1, 32] {
                    let shape = Shape { value, batch, threads: 1, metadata: 0 };
                    for (layer, operation) in [
                        (Layer::Raw, Operation::Write),
                        (Layer::Raw, Operation::Read),
                        (Layer::Serial, Operation::Put),
                        (Layer::Serial, Operation::Get),
                        (Layer::Store, Operation::Put),
                        (Layer::Store, Operation::Get),
                    ] {
                        assert!(plan.cases.iter().any(|case| case.engine == engine
                            && case.shape == shape
                            && case.layer == layer
                            && case.operation == operation));
                    }
                }
            }
        }
    }

    #[test]
    fn every_round_runs_every_case_once_and_starts_with_another() {
        let plan = plan(&["--quick", "--fio"]);
        let mut firsts = Vec::new();
        for round in 0..3 {
            let mut cases: Vec<_> = plan.round(round).flat_map(|task| task.cases.clone()).collect();
            firsts.push(cases[0]);
            cases.sort_unstable();
            assert!(cases.into_iter().eq(0..plan.cases.len()));
        }
        assert!(firsts[0] != firsts[1] && firsts[1] != firsts[2]);
    }

    #[test]
    fn with_fio_every_device_case_has_a_reference_with_a_control() {
        let plan = plan(&["--quick", "--fio"]);
        for case in &plan.cases {
            let compared = matches!(case.layer, Layer::Raw | Layer::Store)
                && case.engine != EngineName::Memory;
            assert_eq!(case.fio.is_some(), compared, "{case:?}");
            if let Some(fio) = case.fio {
                let fio = plan.cases[fio];
                assert_eq!((fio.layer, fio.shape), (Layer::Fio, case.shape));
                assert_eq!(fio.places, case.places);
                assert!(plan.cases[fio.control.unwrap()].is_control);
            }
        }
    }

    #[test]
    fn only_the_layers_that_were_asked_for_run() {
        for (name, layer) in
            [("raw", Layer::Raw), ("serial", Layer::Serial), ("store", Layer::Store)]
        {
            let plan = plan(&["--quick", "--layers", name]);
            assert!(!plan.cases.is_empty() && plan.cases.iter().all(|case| case.layer == layer));
        }
        let plan = plan(&["--quick", "--fio", "--layers", "serial"]);
        assert!(plan.cases.iter().all(|case| case.layer == Layer::Serial));
    }

    #[test]
    fn batches_larger_than_the_device_are_refused_with_advice() {
        let shape = Shape { value: 16 << 20, batch: 64, threads: 4, metadata: 0 };
        let error = check_capacity(shape, 256 << 20).unwrap_err().to_string();
        assert!(error.contains("--quick"), "{error}");
    }
}
