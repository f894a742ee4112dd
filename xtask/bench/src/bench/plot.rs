//! The report as a picture: throughput and latency against batch size, in an SVG file that follows
//! the light or dark theme of the viewer.

use std::fmt::Write;

use super::cases::{Layer, Operation, Places};
use super::options::EngineName;
use super::report::Row;
use super::table::engines;
use super::units::size;

/// Pixels: the place of a panel in the grid, and the area of its curves.
const PANEL: (f64, f64) = (262.0, 212.0);
const AREA: (f64, f64, f64, f64) = (52.0, 34.0, 196.0, 138.0);
const MARGIN: (f64, f64) = (12.0, 96.0);

/// Every colour has a contrast of 3:1 or more, and every curve has its own mark.
const STYLE: &str = "\
:root { color-scheme: light dark }
svg { --back: #ffffff; --text: #1f2328; --soft: #59636e; --grid: #d8dee4;
  --uring: #0a58ca; --posix: #1a7f37; --memory: #6e40c9; --serial: #bc4c00; --fio: #59636e;
  --nvme: #bf3989 }
@media (prefers-color-scheme: dark) { svg { --back: #0d1117; --text: #f0f6fc; --soft: #9198a1;
  --grid: #30363d; --uring: #58a6ff; --posix: #3fb950; --memory: #bc8cff; --serial: #f0883e;
  --fio: #9198a1; --nvme: #f778ba } }
text { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: var(--text) }
.title { font-size: 17px; font-weight: 600 } .panel { font-weight: 600 } .soft { fill: var(--soft) }
.end { text-anchor: end } .middle { text-anchor: middle }
.back { fill: var(--back) } .grid { stroke: var(--grid); fill: none }
.curve { fill: none; stroke-width: 2 } .mark { stroke-width: 2; fill: var(--back) }
.nvme { stroke: var(--nvme); stroke-dasharray: 12 3 }
.uring { stroke: var(--uring) } .posix { stroke: var(--posix); stroke-dasharray: 7 3 }
.memory { stroke: var(--memory); stroke-dasharray: 1 3 } .serial { stroke: var(--serial) }
.fio { stroke: var(--fio); stroke-dasharray: 3 3 } .mark { stroke-dasharray: none }";

/// The figure that is drawn against the batch size.
#[derive(Clone, Copy, PartialEq)]
enum Measure {
    Throughput,
    Latency,
}

/// One curve: its class, its name, and its rows.
struct Curve {
    class: &'static str,
    name: String,
    layer: Layer,
    engine: EngineName,
}

/// Draws a run. `environment` has one or two lines.
pub(super) fn svg(rows: &[Row], environment: &[String]) -> String {
    let layer =
        if rows.iter().any(|row| row.layer == Layer::Store) { Layer::Store } else { Layer::Raw };
    let works = match layer {
        Layer::Store => [Operation::Put, Operation::Get],
        _ => [Operation::Write, Operation::Read],
    };
    let curves = curves(rows, layer);
    let (values, batches) = axes(rows, layer);
    let width = 2.0 * MARGIN.0 + 4.0 * PANEL.0;
    let height = MARGIN.1 + values.len() as f64 * PANEL.1 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>Throughput and latency against batch size</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n"
    );
    text(&mut svg, 16.0, 26.0, "title", "Throughput and latency against batch size");
    for (line, y) in environment.iter().zip([46.0, 62.0]) {
        text(&mut svg, 16.0, y, "soft", line);
    }
    legend(&mut svg, &curves);
    for (&value, row) in values.iter().zip(0_i32..) {
        let columns = [Measure::Throughput, Measure::Latency]
            .into_iter()
            .flat_map(|measure| works.map(|operation| (measure, operation)));
        for ((measure, operation), column) in columns.zip(0_i32..) {
            let x = MARGIN.0 + f64::from(column) * PANEL.0;
            let y = MARGIN.1 + f64::from(row) * PANEL.1;
            let points: Vec<_> = curves
                .iter()
                .map(|curve| (curve, points(rows, curve, layer, operation, value, measure)))
                .collect();
            let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
            panel(&mut svg, &title(measure, operation, value), &batches, &points);
            svg += "</g>\n";
        }
    }
    svg += "</svg>\n";
    svg
}

fn curves(rows: &[Row], layer: Layer) -> Vec<Curve> {
    let engines = engines(rows);
    let devices: Vec<_> = engines.iter().copied().filter(|&e| e != EngineName::Memory).collect();
    // Memory has another scale: it is drawn alone, or not at all.
    let shown = if devices.is_empty() { engines } else { devices };
    let of_layer = if layer == Layer::Store { "store on " } else { "raw, " };
    let mut curves: Vec<_> = shown
        .iter()
        .map(|&engine| Curve {
            class: engine.name(),
            name: format!("{of_layer}{}", engine.name()),
            layer,
            engine,
        })
        .collect();
    if let Some(&engine) = shown.last() {
        let more = [
            ("serial", Layer::Serial, format!("one key at a time on {}", engine.name())),
            ("fio", Layer::Fio, "fio, same transfers (latency: mean)".to_owned()),
        ];
        for (class, layer, name) in more {
            if rows.iter().any(|row| row.layer == layer) {
                curves.push(Curve { class, name, layer, engine });
            }
        }
    }
    curves
}

/// The value sizes and batch sizes of a run.
fn axes(rows: &[Row], layer: Layer) -> (Vec<u64>, Vec<usize>) {
    let of_layer = || rows.iter().filter(|row| row.layer == layer);
    let mut values: Vec<_> = of_layer().map(|row| row.value_bytes).collect();
    let mut batches: Vec<_> = of_layer().map(|row| row.batch).collect();
    values.sort_unstable();
    values.dedup();
    batches.sort_unstable();
    batches.dedup();
    (values, batches)
}

fn title(measure: Measure, operation: Operation, value: u64) -> String {
    match measure {
        Measure::Throughput => format!("{} {}, MB/s", operation.name(), size(value)),
        Measure::Latency => format!("{} {}, p50 of a batch, us", operation.name(), size(value)),
    }
}

/// Batch sizes and figures of a curve.
fn points(
    rows: &[Row],
    curve: &Curve,
    layer: Layer,
    operation: Operation,
    value: u64,
    measure: Measure,
) -> Vec<(usize, f64)> {
    let (_, batches) = axes(rows, layer);
    let of_batch = |batch| {
        // Neighbours where there are any: a batch is usually read as it was put.
        let with = |of: Layer, engine, operation, io_bytes: Option<u64>, places| {
            rows.iter().find(|row| {
                (row.layer, row.engine, row.operation) == (of, engine, operation)
                    && (row.value_bytes, row.batch, row.places) == (value, batch, places)
                    && io_bytes.is_none_or(|bytes| bytes == row.io_bytes)
            })
        };
        let places = [Places::Neighbouring, Places::Apart];
        let row = if curve.layer == Layer::Fio {
            let direction = match operation {
                Operation::Put | Operation::Write => Operation::Write,
                Operation::Get | Operation::Read => Operation::Read,
            };
            places.into_iter().find_map(|places| {
                let like = with(layer, curve.engine, operation, None, places)?;
                with(Layer::Fio, EngineName::Uring, direction, Some(like.io_bytes), places)
            })?
        } else {
            places.into_iter().find_map(|p| with(curve.layer, curve.engine, operation, None, p))?
        };
        let figure = match measure {
            Measure::Throughput => row.mb_per_s,
            Measure::Latency => {
                row.p50_us.unwrap_or((batch * row.threads) as f64 / row.keys_per_s * 1e6)
            }
        };
        Some((batch, figure)).filter(|_| figure > 0.0)
    };
    batches.iter().copied().filter_map(of_batch).collect()
}

fn legend(svg: &mut String, curves: &[Curve]) {
    let mut x = 16.0;
    for curve in curves {
        let _ = writeln!(svg, "<path class=\"curve {}\" d=\"M{x} 80h28\"/>", curve.class);
        mark(svg, curve.class, x + 14.0, 80.0);
        text(svg, x + 34.0, 84.0, "", &curve.name);
        x += 60.0 + 6.6 * curve.name.len() as f64;
    }
}

fn panel(svg: &mut String, title: &str, batches: &[usize], curves: &[(&Curve, Vec<(usize, f64)>)]) {
    let (left, top, width, height) = AREA;
    text(svg, left, top - 12.0, "panel", title);
    let figures = || curves.iter().flat_map(|(_, points)| points.iter().map(|&(_, y)| y));
    let (low, high) = figures().fold((f64::MAX, 0.0_f64), |(l, h), y| (l.min(y), h.max(y)));
    if high == 0.0 {
        return text(svg, left, top + 20.0, "soft", "not measured");
    }
    let ticks = ticks(low, high);
    let (bottom, span) = (ticks[0].ln(), (ticks[ticks.len() - 1] / ticks[0]).ln());
    let y_of = |figure: f64| top + height * (1.0 - (figure.ln() - bottom) / span);
    let x_of = |batch: usize| {
        let index = batches.iter().position(|&other| other == batch).unwrap_or(0);
        left + width * (index as f64 + 0.5) / batches.len() as f64
    };
    for &tick in &ticks {
        let y = y_of(tick);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{left} {y:.1}h{width}\"/>");
        text(svg, left - 6.0, y + 4.0, "soft end", &short(tick));
    }
    for &batch in batches {
        text(svg, x_of(batch), top + height + 18.0, "soft middle", &batch.to_string());
    }
    text(svg, left + width / 2.0, top + height + 33.0, "soft middle", "keys in a batch");
    for (curve, points) in curves {
        let place = |&(batch, figure): &(usize, f64)| (x_of(batch), y_of(figure));
        let path: Vec<_> =
            points.iter().map(place).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        if !path.is_empty() {
            let path = path.join("L");
            let _ = writeln!(svg, "<path class=\"curve {}\" d=\"M{path}\"/>", curve.class);
        }
        for (x, y) in points.iter().map(place) {
            mark(svg, curve.class, x, y);
        }
    }
}

/// Returns 1, 2 or 5 times powers of ten, from one at or below `low` to one at or above `high`: two
/// to six of them.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let mut all = Vec::new();
    for exponent in -3..12 {
        for step in [1.0, 2.0, 5.0] {
            all.push(step * 10_f64.powi(exponent));
        }
    }
    let first = all.iter().rposition(|&tick| tick <= low).unwrap_or(0);
    let last = all.iter().position(|&tick| tick >= high).unwrap_or(all.len() - 1);
    let last = last.max(first + 1);
    let stride = (last - first).div_ceil(5);
    let count = (last - first).div_ceil(stride);
    (0..=count).filter_map(|index| all.get(first + index * stride).copied()).collect()
}

fn short(figure: f64) -> String {
    match figure {
        figure if figure >= 1e6 => format!("{}M", figure / 1e6),
        figure if figure >= 1e3 => format!("{}k", figure / 1e3),
        figure => format!("{figure}"),
    }
}

/// The mark of a curve at a point. Each curve has its own shape.
fn mark(svg: &mut String, class: &str, x: f64, y: f64) {
    let shape = match class {
        "posix" => "m-4 -4h8v8h-8z",
        "serial" => "m0 -5l5 9h-10z",
        "fio" => "m0 -5l5 5l-5 5l-5 -5z",
        _ => "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    };
    let _ = writeln!(svg, "<path class=\"{class} mark\" d=\"M{x:.1} {y:.1}{shape}\"/>");
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_enclose_the_figures_and_are_few() {
        for (low, high) in [(1.0, 1.0), (3.0, 7.0), (40.0, 2500.0), (0.4, 3e6), (999.0, 1001.0)] {
            let ticks = ticks(low, high);
            assert!(ticks[0] <= low && *ticks.last().unwrap() >= high, "{low} {high}: {ticks:?}");
            assert!((2..=6).contains(&ticks.len()) && ticks.is_sorted(), "{low} {high}: {ticks:?}");
        }
    }

    #[test]
    fn every_curve_of_a_run_is_in_the_picture() {
        let mut rows = Vec::new();
        for batch in [1, 8, 32] {
            for (store, transfer) in
                [(Operation::Put, Operation::Write), (Operation::Get, Operation::Read)]
            {
                for engine in [EngineName::Posix, EngineName::Uring] {
                    rows.push(Row::example(Layer::Store, engine, store, batch));
                    rows.push(Row::example(Layer::Serial, engine, store, batch));
                }
                rows.push(Row::example(Layer::Fio, EngineName::Uring, transfer, batch));
            }
        }
        let svg = svg(&rows, &["Linux <6>".to_owned()]);
        for part in ["store on posix", "store on uring", "one key at a time on uring", "fio, same"]
        {
            assert!(svg.contains(part), "{part}");
        }
        // Four panels of three batches, and the legend.
        for class in ["posix", "uring", "serial", "fio"] {
            assert_eq!(svg.matches(&format!("class=\"{class} mark\"")).count(), 13, "{class}");
        }
        assert!(svg.contains("Linux &lt;6&gt;") && svg.contains("prefers-color-scheme: dark"));
    }
}
