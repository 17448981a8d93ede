//! Line charts as SVG, both axes logarithmic; each line carries its name at its end.

use crate::Result;
use plotters::prelude::*;
use std::path::Path;

pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Colours that stay apart for the colour-blind (Okabe and Ito's), natlet's first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

pub fn lines(path: &Path, title: &str, x: &str, y: &str, series: &[Series]) -> Result<()> {
    let all = || series.iter().flat_map(|s| &s.points);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let least = all().map(of).fold(f64::INFINITY, f64::min);
        let most = all().map(of).fold(0.0, f64::max);
        (least / 1.3, most * 1.5)
    };
    let ((left, right), (low, high)) = (bounds(|p| p.0), bounds(|p| p.1));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let root = SVGBackend::new(path, (860, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .margin_right(210)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d((left..right).log_scale(), (low..high).log_scale())?;
    let number = |v: &f64| if *v >= 1.0 { format!("{v:.0}") } else { format!("{v}") };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .label_style(("sans-serif", 14))
        .draw()?;
    // Names that would lie on each other are moved apart, from the top down.
    let place = |v: f64| chart.backend_coord(&(right, v)).1;
    let mut ends: Vec<(i32, usize)> =
        series.iter().enumerate().filter_map(|(i, s)| Some((place(s.points.last()?.1), i))).collect();
    ends.sort_unstable();
    for i in 1..ends.len() {
        ends[i].0 = ends[i].0.max(ends[i - 1].0 + 18);
    }
    for (i, line) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let width = if line.name.starts_with("natlet") { 3 } else { 2 };
        chart.draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(width)))?;
        chart.draw_series(line.points.iter().map(|p| Circle::new(*p, width + 1, colour.filled())))?;
    }
    let edge = chart.backend_coord(&(right, high)).0 + 8;
    for (at, i) in ends {
        let style = ("sans-serif", 14).into_font().color(&COLOURS[i % COLOURS.len()]);
        root.draw(&Text::new(series[i].name.clone(), (edge, at - 7), style))?;
    }
    root.present()?;
    Ok(())
}
