//! Charts as SVG: bars by groups and lines, on logarithmic scales, each bar and line with its name and figure beside it.
//! Colours follow the reader's light or dark mode.

use crate::Result;
use std::fmt::Write as _;
use std::path::Path;

/// Bars that are compared with each other.
pub struct Group {
    pub title: String,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub name: String,
    /// `None`: more than the scale shows.
    pub value: Option<f64>,
    /// What stands at its end.
    pub label: String,
}

pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 860.0;
const NAMES: f64 = 210.0;
const BAR: f64 = 15.0;
const ROW: f64 = 20.0;

/// natlet's colour, then colours that stay apart for the colour-blind (Okabe and Ito's), each for a light and a dark ground.
const COLOURS: [[&str; 2]; 6] = [
    ["#0072b2", "#4db3ee"],
    ["#b84a00", "#f0883e"],
    ["#007a55", "#2fc796"],
    ["#a3447c", "#e08fc0"],
    ["#8a6100", "#e0ae2e"],
    ["#5a5a5a", "#a8a8a8"],
];

fn open(height: f64, title: &str, about: &str) -> String {
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         role=\"img\" aria-label=\"{0}\">\n<title>{0}</title>\n<style>\n\
         text {{ font: 13px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328; }}\n\
         .title {{ font-size: 18px; font-weight: 600; }}\n.group {{ font-weight: 600; }}\n.soft {{ fill: #59636e; }}\n\
         .ground {{ fill: #ffffff; }}\n.grid {{ stroke: #d8dee4; stroke-width: 1; }}\n.bar {{ fill: #b7bfc8; }}\n\
         .natlet {{ fill: {1}; }}\n.line {{ fill: none; stroke-width: 2.5; stroke-linejoin: round; }}\n",
        escape(title),
        COLOURS[0][0]
    );
    for (i, [light, _]) in COLOURS.iter().enumerate() {
        let _ = writeln!(text, ".s{i} {{ stroke: {light}; }} .f{i} {{ fill: {light}; }}");
    }
    text.push_str("@media (prefers-color-scheme: dark) {\ntext { fill: #e6edf3; } .soft { fill: #9da7b1; } .ground { fill: #0d1117; }\n");
    let _ =
        writeln!(text, ".grid {{ stroke: #30363d; }} .bar {{ fill: #565f69; }} .natlet {{ fill: {}; }}", COLOURS[0][1]);
    for (i, [_, dark]) in COLOURS.iter().enumerate() {
        let _ = writeln!(text, ".s{i} {{ stroke: {dark}; }} .f{i} {{ fill: {dark}; }}");
    }
    let _ = write!(
        text,
        "}}\n</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"20\" y=\"32\">{}</text>\n<text class=\"soft\" x=\"20\" y=\"52\">{}</text>\n",
        escape(title),
        escape(about)
    );
    text
}

/// Horizontal bars on one logarithmic scale; `unit` names its numbers.
pub fn bars(path: &Path, title: &str, about: &str, unit: &str, groups: &[Group]) -> Result<()> {
    let values = || groups.iter().flat_map(|g| &g.bars).filter_map(|b| b.value);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let scale = Scale::new(least / 1.5, most.max(least) * 1.3, NAMES + 20.0, WIDTH - 150.0);
    let rows: f64 = groups.iter().map(|g| g.bars.len() as f64 * ROW + 38.0).sum();
    let (top, bottom) = (66.0, 66.0 + rows);
    let mut text = open(bottom + 34.0, title, about);
    for tick in scale.ticks() {
        let x = scale.at(tick);
        let _ = writeln!(text, "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>");
        let label = format!("{} {unit}", number(tick));
        let _ = writeln!(
            text,
            "<text class=\"soft\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
            bottom + 20.0
        );
    }
    let mut y = top + 18.0;
    for group in groups {
        let _ = writeln!(text, "<text class=\"group\" x=\"20\" y=\"{:.1}\">{}</text>", y, escape(&group.title));
        y += 10.0;
        for bar in &group.bars {
            let end = bar.value.map_or(WIDTH - 150.0, |v| scale.at(v));
            let class = if bar.name.starts_with("natlet") { "natlet" } else { "bar" };
            let (base, start) = (y + 12.0, NAMES + 20.0);
            let _ = writeln!(
                text,
                "<text text-anchor=\"end\" x=\"{:.1}\" y=\"{base:.1}\">{}</text>",
                start - 8.0,
                escape(&bar.name)
            );
            let _ = writeln!(
                text,
                "<rect class=\"{class}\" x=\"{start:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
                (end - start).max(1.0)
            );
            let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{base:.1}\">{}</text>", end + 7.0, escape(&bar.label));
            y += ROW;
        }
        y += 28.0;
    }
    save(path, text)
}

/// Lines on logarithmic scales, each with its name at its end.
pub fn lines(path: &Path, title: &str, about: &str, x_name: &str, series: &[Series]) -> Result<()> {
    let all = || series.iter().flat_map(|s| &s.points);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let least = all().map(of).fold(f64::INFINITY, f64::min);
        (least, all().map(of).fold(0.0, f64::max))
    };
    let ((left, right), (low, high)) = (bounds(|p| p.0), bounds(|p| p.1));
    let across = Scale::new(left, right, 70.0, WIDTH - 210.0);
    let up = Scale::new((low / 1.2).min(0.9), high * 1.2, 400.0, 76.0);
    let mut text = open(460.0, title, about);
    for tick in up.ticks() {
        let y = up.at(tick);
        let _ =
            writeln!(text, "<line class=\"grid\" x1=\"70\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>", WIDTH - 210.0);
        let _ = writeln!(
            text,
            "<text class=\"soft\" text-anchor=\"end\" x=\"60\" y=\"{:.1}\">{}×</text>",
            y + 4.0,
            number(tick)
        );
    }
    let mut at: Vec<f64> = all().map(|p| p.0).collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    for x in at {
        let _ = writeln!(
            text,
            "<text class=\"soft\" text-anchor=\"middle\" x=\"{:.1}\" y=\"422\">{}</text>",
            across.at(x),
            number(x)
        );
    }
    let middle = (70.0 + WIDTH - 210.0) / 2.0;
    let _ = writeln!(
        text,
        "<text class=\"soft\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"446\">{}</text>",
        escape(x_name)
    );
    // Names that would lie on each other are moved apart, from the top down.
    let mut ends: Vec<(f64, usize)> =
        series.iter().enumerate().filter_map(|(i, s)| Some((up.at(s.points.last()?.1) + 4.0, i))).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    for i in 1..ends.len() {
        ends[i].0 = ends[i].0.max(ends[i - 1].0 + 17.0);
    }
    for (i, line) in series.iter().enumerate() {
        let colour = colour(series, i);
        let points: Vec<String> =
            line.points.iter().map(|p| format!("{:.1},{:.1}", across.at(p.0), up.at(p.1))).collect();
        let _ = writeln!(text, "<polyline class=\"line s{colour}\" points=\"{}\"/>", points.join(" "));
        for point in &points {
            let (x, y) = point.split_once(',').unwrap_or_default();
            let _ = writeln!(text, "<circle class=\"f{colour}\" cx=\"{x}\" cy=\"{y}\" r=\"4\"/>");
        }
    }
    for (y, i) in ends {
        let Some(&(x, value)) = series[i].points.last() else { continue };
        let label = format!("{} {}×", series[i].name, number(value));
        let (x, label) = (across.at(x) + 12.0, escape(&label));
        let _ = writeln!(text, "<text class=\"f{}\" x=\"{x:.1}\" y=\"{y:.1}\">{label}</text>", colour(series, i));
    }
    save(path, text)
}

/// natlet has the first colour, what stays at 1 and is only compared with the last.
fn colour(series: &[Series], i: usize) -> usize {
    let is_base = series[i].points.iter().all(|p| p.1 == 1.0);
    match series[..i].iter().filter(|s| !s.name.starts_with("natlet")).count() {
        _ if series[i].name.starts_with("natlet") => 0,
        _ if is_base => COLOURS.len() - 1,
        before => 1 + before % (COLOURS.len() - 2),
    }
}

fn save(path: &Path, mut text: String) -> Result<()> {
    text.push_str("</svg>\n");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(path, text)?)
}

/// A logarithmic scale between two pixels.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self { low, high: high.max(low * 1.01), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value / self.low).ln() / (self.high / self.low).ln() * (self.to - self.from)
    }

    /// Powers of ten within; of a short scale 1, 2 and 5 times these.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high / self.low > 300.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        let all = powers.flat_map(|p| steps.iter().map(move |s| s * 10_f64.powi(p)));
        all.filter(|t| (self.low..=self.high).contains(t)).collect()
    }
}

/// As few digits as say it, thousands apart.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => crate::table::thousands(v.round() as u32),
        v if v >= 100.0 || v.fract().abs() < 1e-9 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}").trim_end_matches(".0").to_owned(),
        v if v >= 1.0 => format!("{v:.2}"),
        v if v >= 0.1 => format!("{v:.2}").trim_end_matches('0').to_owned(),
        v => format!("{v:.3}").trim_end_matches('0').to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
