//! The plot of a bench: a panel for each load, a bar for each mode and path, as a share of loopback.
//!
//! SVG, written by hand: text and rectangles, no script, no font of its own. Every bar has its numbers as a title.

use super::{Bench, Kind, LabBench, Measured, Path};
use crate::bench::render::prefixed;

/// Sizes in pixels.
const PANEL: f64 = 200.0;
const BAR: f64 = 26.0;
const LEFT: f64 = 60.0;
const GAP: f64 = 16.0;
const TOP: f64 = 64.0;
const LABELS: f64 = 84.0;
/// The two paths: colours that differ in lightness too.
const COLOURS: [(Path, &str); 2] = [(Path::SameNode, "#1b5e9b"), (Path::CrossNode, "#e08a1e")];

/// The plot as SVG.
pub fn plot(bench: &Bench) -> String {
    let width = LEFT + GAP + bench.labs.len().max(3) as f64 * (2.0 * BAR + GAP);
    let height = TOP + Kind::ALL.len() as f64 * (PANEL + LABELS);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>podlab bench: rates between pods as a share of loopback</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (i, (path, colour)) in COLOURS.iter().enumerate() {
        let y = 14.0 + 20.0 * i as f64;
        svg += &format!(
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>\n",
            LEFT + 18.0,
            y + 11.0,
            path.word()
        );
    }
    for (i, kind) in Kind::ALL.into_iter().enumerate() {
        svg += &panel(bench, kind, TOP + i as f64 * (PANEL + LABELS), width);
    }
    svg += "</svg>\n";
    svg
}

fn results(lab: &LabBench, kind: Kind, path: Path) -> Option<&Measured> {
    lab.results.iter().find(|result| result.kind == kind && result.path == path)
}

fn panel(bench: &Bench, kind: Kind, top: f64, width: f64) -> String {
    let all = bench.labs.iter().flat_map(|lab| &lab.results).filter(|result| result.kind == kind);
    let most = all.map(|result| result.ratio.most).fold(0.0, f64::max);
    let (step, full) = scale(most);
    let y = |ratio: f64| top + 24.0 + (PANEL - 24.0) * (1.0 - ratio / full);
    let mut svg =
        format!("<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\n", top + 12.0, kind.word());
    let mut line = 0.0;
    while line <= full + step / 2.0 {
        let (at, percent) = (y(line), line * 100.0);
        svg += &format!(
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{width}\" y2=\"{at:.1}\" stroke=\"#cccccc\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{percent:.0} %</text>\n",
            LEFT - 6.0,
            at + 4.0
        );
        line += step;
    }
    for (i, lab) in bench.labs.iter().enumerate() {
        let left = LEFT + GAP + i as f64 * (2.0 * BAR + GAP);
        for (j, (path, colour)) in COLOURS.iter().enumerate() {
            let Some(result) = results(lab, kind, *path) else { continue };
            let (x, ratio) = (left + j as f64 * BAR, result.ratio);
            let (high, low, middle) = (y(ratio.most), y(ratio.least), x + BAR / 2.0 - 1.0);
            svg += &format!(
                "<g><title>{} {} {}: {:.1} % of loopback ({:.1} to {:.1} %), {} {}</title>\
                 <rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                 <path d=\"M{middle:.1} {high:.1}V{low:.1}\" stroke=\"#000000\"/></g>\n",
                lab.mode,
                kind.word(),
                path.word(),
                ratio.median * 100.0,
                ratio.least * 100.0,
                ratio.most * 100.0,
                prefixed(result.rate),
                result.unit,
                y(ratio.median),
                BAR - 2.0,
                y(0.0) - y(ratio.median),
            );
        }
        let (x, below) = (left + BAR, y(0.0) + 14.0);
        svg += &format!(
            "<text x=\"{x:.1}\" y=\"{below:.1}\" text-anchor=\"end\" transform=\"rotate(-35 {x:.1} {below:.1})\">{}</text>\n",
            lab.mode
        );
    }
    svg
}

/// The distance of lines, and the top: the first multiple of 1, 2 or 5 that leaves five lines at most.
fn scale(most: f64) -> (f64, f64) {
    let steps = (-3..2).flat_map(|ten| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(ten)));
    let step = steps.into_iter().find(|step| most / step <= 5.0).unwrap_or(most / 5.0);
    (step, step * (most / step).ceil().max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Ratio, SCHEMA};
    use crate::probe::load::Count;

    #[test]
    fn every_bar_stands_on_the_line_and_is_as_high_as_its_ratio() {
        let result = |path, median| Measured {
            kind: Kind::Requests,
            path,
            server: "kubia-2".into(),
            rate: 12_340.0,
            unit: "requests/s".into(),
            ratio: Ratio { median, least: median / 2.0, most: median },
            sent: Count::default(),
            received: Count::default(),
            uplink_packets: 0,
        };
        let results = vec![result(Path::SameNode, 0.5), result(Path::CrossNode, 0.25)];
        let lab = LabBench { lab: "a".into(), mode: "vxlan".into(), client: "kubia-1".into(), results };
        let bench =
            Bench { schema: SCHEMA.into(), seconds: 1.0, rounds: 5, labs: vec![lab], skipped: Vec::new() };
        let svg = plot(&bench);
        // 176 pixels are 50 %, of five lines of 10 %.
        assert!(svg.contains("height=\"176.0\" fill=\"#1b5e9b\""), "{svg}");
        assert!(svg.contains("height=\"88.0\" fill=\"#e08a1e\""), "{svg}");
        assert!(
            svg.contains("vxlan tcp-rr cross-node: 25.0 % of loopback (12.5 to 25.0 %), 12.34 k requests/s")
        );
        assert_eq!(svg.matches("<g>").count(), 2);
    }

    #[test]
    fn a_scale_has_round_numbers() {
        assert_eq!(scale(0.83), (0.2, 1.0));
        assert_eq!(scale(0.5), (0.1, 0.5));
        assert_eq!(scale(1.3), (0.5, 1.5));
    }
}
