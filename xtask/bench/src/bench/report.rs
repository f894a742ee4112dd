//! Computes the rows of the report from the samples of all rounds.

use serde::Serialize;

use super::cases::{Case, Layer, Operation, Places};

use super::options::{EngineName, JUDGED_ROUNDS};
use super::plan::Plan;
use super::sample::Sample;

/// The maximum difference of two runs of fio for a ratio to be judged.
const CONTROL: std::ops::RangeInclusive<f64> = 0.95..=1.05;

/// The figures of one case: medians of the rounds. Counts of bytes are sums.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) layer: Layer,
    pub(super) engine: EngineName,
    #[serde(rename = "op")]
    pub(super) operation: Operation,
    pub(super) places: Places,
    pub(super) value_bytes: u64,
    /// Bytes on the device for one key.
    pub(super) io_bytes: u64,
    pub(super) batch: usize,
    pub(super) threads: usize,
    pub(super) rounds: usize,
    pub(super) keys_per_s: f64,
    pub(super) mb_per_s: f64,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) p999_us: Option<f64>,
    pub(super) cpu_us_per_key: f64,
    pub(super) submits_per_batch: Option<f64>,
    pub(super) direct_bytes: Option<u64>,
    pub(super) staged_bytes: Option<u64>,
    /// Keys per second, relative to those of fio.
    pub(super) ratio_to_fio: Option<f64>,
    /// CPU per key, relative to that of fio.
    pub(super) cpu_ratio_to_fio: Option<f64>,
    /// fio relative to fio: the noise of the machine.
    pub(super) control_ratio: Option<f64>,
    /// Whether the ratios to fio are meaningful. Null without a ratio.
    pub(super) judged: Option<bool>,
    /// Whether every value that was read was compared with what was put.
    pub(super) verified: bool,
    /// Keys per second, relative to those of the same work one key at a time.
    #[serde(skip)]
    pub(super) ratio_to_serial: Option<f64>,
}

#[cfg(test)]
impl Row {
    /// A row of values of 4 KiB, for tests.
    pub(super) fn example(
        layer: Layer,
        engine: EngineName,
        operation: Operation,
        batch: usize,
    ) -> Self {
        Self {
            layer,
            engine,
            operation,
            places: if batch > 1 { Places::Neighbouring } else { Places::Apart },
            value_bytes: 4096,
            io_bytes: 8192,
            batch,
            threads: 1,
            rounds: 9,
            keys_per_s: 1e8 / 4096.0,
            mb_per_s: 100.0,
            p50_us: (layer != Layer::Fio).then_some(100.0),
            p99_us: None,
            p999_us: None,
            cpu_us_per_key: 1.0,
            submits_per_batch: None,
            direct_bytes: None,
            staged_bytes: None,
            ratio_to_fio: None,
            cpu_ratio_to_fio: None,
            control_ratio: None,
            judged: None,
            verified: false,
            ratio_to_serial: None,
        }
    }
}

/// The rows of a run. `samples` are those of each case, in the order of the rounds.
pub(super) fn rows(plan: &Plan, samples: &[Vec<Sample>]) -> Vec<Row> {
    let shown = plan.cases.iter().enumerate().filter(|(_, case)| !case.is_control);
    shown.map(|(index, case)| row(plan, case, &samples[index], samples)).collect()
}

fn row(plan: &Plan, case: &Case, own: &[Sample], samples: &[Vec<Sample>]) -> Row {
    let rate = |sample: &Sample| sample.keys_per_s;
    let reference =
        if case.layer == Layer::Fio { Some(case) } else { case.fio.map(|i| &plan.cases[i]) };
    let control_ratio = reference.and_then(|fio| {
        let first = plan.cases.iter().position(|other| other.control == fio.control)?;
        median_ratio(&samples[first], &samples[fio.control?], rate)
    });
    let to_fio = |figure: fn(&Sample) -> f64| median_ratio(own, &samples[case.fio?], figure);
    let judged = |ratio| own.len() >= JUDGED_ROUNDS && CONTROL.contains(&ratio);
    let over_rounds = |figure: &dyn Fn(&Sample) -> Option<f64>| {
        Some(median(own.iter().filter_map(figure).collect())).filter(|figure| figure.is_finite())
    };
    let latency = |i: usize| over_rounds(&|sample| Some(sample.latency_us?[i])).map(rounded);
    let keys_per_s = median(own.iter().map(rate).collect());
    Row {
        layer: case.layer,
        engine: case.engine,
        operation: case.operation,
        places: case.places,
        value_bytes: case.shape.value,
        io_bytes: whole(median(own.iter().map(|sample| sample.io_bytes).collect())),
        batch: case.shape.batch,
        threads: case.shape.threads,
        rounds: own.len(),
        keys_per_s: rounded(keys_per_s),
        mb_per_s: rounded(keys_per_s * case.shape.value as f64 / 1e6),
        p50_us: latency(0),
        p99_us: latency(1),
        p999_us: latency(2),
        cpu_us_per_key: rounded(median(own.iter().map(|sample| sample.cpu_us_per_key).collect())),
        submits_per_batch: over_rounds(&|sample| sample.submits_per_batch).map(rounded),
        direct_bytes: own.iter().map(|sample| sample.direct_bytes).sum(),
        staged_bytes: own.iter().map(|sample| sample.staged_bytes).sum(),
        ratio_to_fio: to_fio(|sample| sample.keys_per_s).map(rounded),
        cpu_ratio_to_fio: to_fio(|sample| sample.cpu_us_per_key).map(rounded),
        control_ratio: control_ratio.map(rounded),
        judged: control_ratio.map(judged),
        verified: case.layer == Layer::Store && case.operation == Operation::Get,
        ratio_to_serial: serial_of(plan, case)
            .and_then(|serial| median_ratio(own, &samples[serial], rate)),
    }
}

/// The case that does the work of a store's case one key at a time.
fn serial_of(plan: &Plan, case: &Case) -> Option<usize> {
    plan.cases.iter().position(|other| {
        case.layer == Layer::Store
            && other.layer == Layer::Serial
            && (other.engine, other.operation) == (case.engine, case.operation)
            && other.shape == case.shape
    })
}

/// The median, or NaN without figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => f64::midpoint(figures[middle - 1], figures[middle]),
        _ => figures[middle],
    }
}

/// The median of the ratios within each round.
fn median_ratio(own: &[Sample], other: &[Sample], figure: impl Fn(&Sample) -> f64) -> Option<f64> {
    let ratios = own.iter().zip(other).map(|(own, other)| figure(own) / figure(other));
    Some(median(ratios.filter(|ratio| ratio.is_finite()).collect())).filter(|r| r.is_finite())
}

/// Three decimals: more would be noise.
fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of bytes")]
fn whole(figure: f64) -> u64 {
    figure.round() as u64
}

#[cfg(test)]
mod tests {
    use super::super::cases::Shape;
    use super::*;

    fn samples(rates: &[f64]) -> Vec<Sample> {
        rates.iter().map(|&keys_per_s| Sample { keys_per_s, ..Sample::default() }).collect()
    }

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9)
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middle_figures() {
        assert!(close(Some(median(vec![3.0, 1.0, 2.0])), 2.0));
        assert!(close(Some(median(vec![4.0, 1.0, 2.0, 3.0])), 2.5));
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_ratio_is_taken_within_each_round_and_not_of_two_medians() {
        let (own, other) = (samples(&[1.0, 100.0, 9.0]), samples(&[2.0, 100.0, 1.0]));
        assert!(close(median_ratio(&own, &other, |sample| sample.keys_per_s), 1.0));
        assert_eq!(median_ratio(&own, &samples(&[0.0; 3]), |sample| sample.keys_per_s), None);
        assert_eq!(median_ratio(&[], &[], |sample| sample.keys_per_s), None);
    }

    /// One case at half the rate of fio, whose second run reaches `control` of the first.
    fn rows_with(control: f64, rounds: usize) -> Vec<Row> {
        let shape = Shape { value: 4096, batch: 32, threads: 1, metadata: 0 };
        let case = |layer| Case {
            layer,
            engine: EngineName::Uring,
            operation: Operation::Read,
            places: Places::Apart,
            shape,
            fio: None,
            control: None,
            is_control: false,
        };
        let cases = vec![case(Layer::Fio), case(Layer::Fio), case(Layer::Raw)];
        let mut plan = Plan { cases, groups: Vec::new() };
        plan.cases[0].is_control = true;
        plan.cases[1].control = Some(0);
        plan.cases[2].fio = Some(1);
        let rates = [1000.0 / control, 1000.0, 500.0];
        rows(&plan, &rates.map(|rate| samples(&vec![rate; rounds])))
    }

    #[test]
    fn a_ratio_is_judged_when_fio_agrees_with_itself_often_enough() {
        for (control, rounds, judged) in [
            (1.0, 9, true),
            (0.96, 9, true),
            (1.04, 12, true),
            (0.94, 9, false),
            (1.06, 9, false),
            (1.0, 8, false),
        ] {
            let rows = rows_with(control, rounds);
            assert_eq!(rows.len(), 2, "the control has no row");
            assert!(close(rows[1].ratio_to_fio, 0.5));
            assert!(rows[0].ratio_to_fio.is_none());
            for row in rows {
                assert!(close(row.control_ratio, control));
                assert_eq!(row.judged, Some(judged), "{control} {rounds}");
            }
        }
    }

    #[test]
    fn a_row_is_written_with_the_documented_names() {
        let row = serde_json::to_value(&rows_with(1.0, 9)[1]).unwrap();
        for (name, value) in [("layer", "raw"), ("engine", "uring"), ("op", "read")] {
            assert_eq!(row[name], value);
        }
        for name in [
            "value_bytes",
            "io_bytes",
            "batch",
            "threads",
            "rounds",
            "keys_per_s",
            "mb_per_s",
            "p50_us",
            "p99_us",
            "p999_us",
            "cpu_us_per_key",
            "submits_per_batch",
            "direct_bytes",
            "staged_bytes",
            "ratio_to_fio",
        ] {
            assert!(row.get(name).is_some(), "{name}");
        }
    }
}
