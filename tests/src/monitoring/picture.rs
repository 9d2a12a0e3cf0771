//! Panels drawn from a Prometheus' answers, for the docs: what a dashboard looks like with data in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::grafana::{Dashboard, Panel, Query, Unit};
use super::prometheus::Prometheus;

const WIDTH: usize = 1200;
const HEAD: usize = 34;
const HEIGHT: usize = 190;
const MARGIN: usize = 10;
/// Lines below a panel's drawing that name its series.
const LEGEND_LINES: usize = 4;
const COLOURS: [&str; 8] = [
    "#2c6fbb", "#d9822b", "#3b8a3e", "#b03a48", "#7a5195", "#8a6d3b", "#1b9e9e", "#777777",
];

/// One line of a panel.
#[derive(Debug)]
pub struct Line {
    /// What the legend calls it.
    pub name: String,
    /// Time and value, both as Prometheus says them.
    pub points: Vec<(f64, f64)>,
}

/// Where a panel stands on the picture.
#[derive(Debug, Clone, Copy)]
struct Place {
    x: usize,
    y: usize,
    width: usize,
}

/// A dashboard over the last `seconds`, as SVG.
///
/// # Errors
/// When Prometheus does not answer.
pub async fn picture(
    dashboard: &Dashboard,
    prometheus: &Prometheus,
    seconds: u64,
) -> anyhow::Result<String> {
    let mut body = String::new();
    let mut y = HEAD;
    for row in dashboard.rows {
        text(&mut body, (MARGIN, y + 16), 15, "#222", row.title);
        y += HEAD - MARGIN;
        let width = (WIDTH - MARGIN) / row.panels.len();
        for (column, panel) in row.panels.iter().enumerate() {
            let lines = lines(panel, prometheus, seconds).await?;
            let x = MARGIN + column * width;
            let place = Place { x, y, width };
            draw(&mut body, panel, &lines, place);
        }
        y += HEIGHT + MARGIN;
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" viewBox=\"0 0 {WIDTH} {y}\" \
         font-family=\"sans-serif\">\n<rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#f4f5f7\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"19\" fill=\"#111\">{}</text>\n{body}</svg>\n",
        dashboard.title
    ))
}

/// The lines of a panel, those with the highest last values first.
///
/// # Errors
/// When Prometheus does not answer.
pub async fn lines(
    panel: &Panel,
    prometheus: &Prometheus,
    seconds: u64,
) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for query in panel.queries {
        let expr = query.over_all("30s");
        for (labels, points) in prometheus.range(&expr, seconds).await? {
            let points: Vec<_> = points.into_iter().filter(|it| it.1.is_finite()).collect();
            if !points.is_empty() {
                let name = name(query, &labels);
                lines.push(Line { name, points });
            }
        }
    }
    lines.sort_by(|one, other| peak(other).total_cmp(&peak(one)));
    Ok(lines)
}

fn name(query: &Query, labels: &BTreeMap<String, String>) -> String {
    let mut name = query.legend.to_owned();
    for (label, value) in labels {
        name = name.replace(&format!("{{{{{label}}}}}"), value);
    }
    name
}

fn peak(line: &Line) -> f64 {
    line.points.iter().map(|it| it.1).fold(0.0, f64::max)
}

fn draw(body: &mut String, panel: &Panel, lines: &[Line], place: Place) {
    let Place { x, y, width } = place;
    let width = width - MARGIN;
    let _ = writeln!(
        body,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" rx=\"4\" fill=\"#fff\" stroke=\"#d8dbe0\"/>"
    );
    text(body, (x + 8, y + 18), 12, "#333", panel.title);
    if panel.stat {
        numbers(body, panel, lines, place);
    } else {
        curves(body, panel, lines, Place { x, y, width });
    }
}

fn numbers(body: &mut String, panel: &Panel, lines: &[Line], place: Place) {
    let shown = lines
        .iter()
        .filter_map(|line| Some((line, line.points.last()?.1)));
    for (line, (series, value)) in shown.take(6).enumerate() {
        let y = place.y + 48 + line * 23;
        text(
            body,
            (place.x + 12, y),
            20,
            COLOURS[0],
            &said(panel.unit, value),
        );
        text(body, (place.x + 92, y), 11, "#555", &series.name);
    }
}

fn curves(body: &mut String, panel: &Panel, lines: &[Line], place: Place) {
    let Place { x, y, width } = place;
    let legend = LEGEND_LINES * 13;
    let (left, top) = (x + 52, y + 28);
    let (wide, high) = (width - 62, HEIGHT - 40 - legend);
    let highest = lines.iter().map(peak).fold(0.0, f64::max);
    let highest = if highest > 0.0 { highest } else { 1.0 };
    let times = || lines.iter().flat_map(|line| &line.points).map(|it| it.0);
    let (first, last) = (
        times().fold(f64::MAX, f64::min),
        times().fold(0.0, f64::max),
    );
    text(
        body,
        (x + 6, top + 8),
        9,
        "#777",
        &said(panel.unit, highest),
    );
    text(body, (x + 6, top + high), 9, "#777", &said(panel.unit, 0.0));
    let _ = writeln!(
        body,
        "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#ccc\"/>",
        bottom = top + high,
        right = left + wide
    );
    for (line, colour) in lines.iter().zip(COLOURS) {
        let points = line
            .points
            .iter()
            .fold(String::new(), |mut points, (time, value)| {
                let across = (time - first) / (last - first).max(1.0) * as_float(wide);
                let up = value / highest * as_float(high);
                let _ = write!(
                    points,
                    "{:.1},{:.1} ",
                    as_float(left) + across,
                    as_float(top + high) - up
                );
                points
            });
        let _ = writeln!(
            body,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        );
    }
    for (number, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let column = number / LEGEND_LINES * (width / 2);
        let place = (
            x + 10 + column,
            y + HEIGHT - legend + number % LEGEND_LINES * 13,
        );
        text(body, place, 10, colour, &line.name);
    }
}

fn text(body: &mut String, (x, y): (usize, usize), size: usize, colour: &str, what: &str) {
    let _ = writeln!(
        body,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{colour}\">{}</text>",
        what.replace('&', "&amp;").replace('<', "&lt;")
    );
}

fn said(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Count => format!("{}", (value * 10.0).round() / 10.0),
        Unit::PerSecond => format!("{value:.2}/s"),
        Unit::Seconds if value < 1.0 => format!("{:.0} ms", value * 1000.0),
        Unit::Seconds => format!("{value:.1} s"),
        Unit::Bytes => format!("{:.0} KiB", value / 1024.0),
        Unit::BytesPerSecond => format!("{:.1} KiB/s", value / 1024.0),
        Unit::Share => format!("{:.1} %", value * 100.0),
    }
}

/// A number of dots, all of them small.
fn as_float(dots: usize) -> f64 {
    u32::try_from(dots).map_or(0.0, f64::from)
}
