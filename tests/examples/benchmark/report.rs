//! Results: the tables of `tests/BENCHMARKS.md` and the charts beside it.

use crate::Result;
use crate::chart::{self, Bar, Group, Series};
use crate::core::{Instructions, Times};
use crate::flows::DNAT_ALONE;
use crate::goals;
use crate::process::Took;
use crate::table::Size;
use crate::tables;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One measurement of a process.
pub struct Row {
    section: &'static str,
    name: &'static str,
    size: Size,
    took: Option<Took>,
}

impl Row {
    pub fn of(section: &'static str, name: &'static str, size: Size, took: Took) -> Self {
        Self { section, name, size, took: Some(took) }
    }

    /// Not done within the limit.
    pub fn late(section: &'static str, name: &'static str, size: Size) -> Self {
        Self { section, name, size, took: None }
    }
}

/// What a peer took at a size, of several rounds the one in the middle; `None`: not done within the limit.
pub struct Median {
    pub name: &'static str,
    pub size: Size,
    pub took: Option<Took>,
}

/// Times of many changes, in microseconds.
pub struct Percentiles {
    pub name: String,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

/// Times of changes inside processes that stay.
pub struct Inside {
    pub example: &'static str,
    pub size: Size,
    pub steps: Vec<Percentiles>,
}

/// New flows while services change.
pub struct Loss {
    pub changes: f64,
    pub flows: f64,
    pub flows_a_second: f64,
    pub lost: f64,
    pub past: f64,
    pub wrong: f64,
}

/// What a new flow costs through something with so many services.
pub struct Flow {
    pub name: &'static str,
    /// `UDP`: its first datagram; `TCP`: a connection.
    pub protocol: &'static str,
    pub services: u32,
    pub cost: Duration,
    /// Of what it costs where nothing is translated: the ratio in the round in the middle.
    pub ratio: f64,
}

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    inside: Vec<Inside>,
    flows: Vec<Flow>,
    loss: Option<Loss>,
    traffic: Vec<(&'static str, f64, f64)>,
    /// Files with what the core's benchmarks printed.
    pub core_times: Option<PathBuf>,
    pub core_instructions: Option<PathBuf>,
}

impl Report {
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn inside(&mut self, example: &'static str, size: Size, steps: Vec<Percentiles>) {
        self.inside.push(Inside { example, size, steps });
    }

    pub fn flow(&mut self, flow: Flow) {
        self.flows.push(flow);
    }

    pub fn loss(&mut self, loss: Loss) {
        self.loss = Some(loss);
    }

    pub fn traffic(&mut self, name: &'static str, gigabits: f64, requests: f64) {
        self.traffic.push((name, gigabits, requests));
    }

    /// Puts what was measured into `BENCHMARKS.md` of `folder` and into charts beside it; leaves the rest of both alone. The
    /// project's README gets its chart once there is one.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("BENCHMARKS.md");
        let mut page = std::fs::read_to_string(&path)?;
        let (loads, changes) = (self.medians("load"), self.medians("change"));
        let shown = |chart: &str, alt: &str| format!("![{alt}](charts/{chart}.svg)\n\n");
        if !loads.is_empty() {
            let wall = |took: &Took| took.wall.as_secs_f64();
            let memory = |took: &Took| took.memory as f64 / 1e3;
            let (time, room) = (folder.join("charts/load.svg"), folder.join("charts/memory.svg"));
            let about = "wall time of one process, logarithmic; each peer gets the same table";
            chart::bars(&time, "Time to put a table in force", about, "s", &groups(&loads, wall, "s"))?;
            let about = "resident memory of the loading process at its peak, logarithmic";
            chart::bars(&room, "Memory to put a table in force", about, "MB", &groups(&loads, memory, "MB"))?;
            let text = [
                shown("load", "Time to put a table in force, by peer and size of the table"),
                tables::processes(&loads),
                "\n".into(),
                goals::load(&loads),
                "\n".into(),
                shown("memory", "Peak memory of the process that puts a table in force, by peer and size"),
            ];
            fill(&mut page, "load", &text.concat())?;
            // README.md lies one folder above
            let readme = folder.join("../README.md");
            let mut text = std::fs::read_to_string(&readme)?;
            fill(&mut text, "chart", "![Time to put a table in force, by peer and size](tests/charts/load.svg)\n")?;
            std::fs::write(readme, text)?;
        }
        if !changes.is_empty() {
            let wall = |took: &Took| took.wall.as_secs_f64() * 1e3;
            let path = folder.join("charts/change.svg");
            let about = "wall time of one process from its start, logarithmic; the table is in force already";
            chart::bars(&path, "Time to change one endpoint", about, "ms", &groups(&changes, wall, "ms"))?;
            let text = [
                shown("change", "Time to change one endpoint, by peer and size of the table"),
                tables::processes(&changes),
                "\nIn processes that stay:\n\n".into(),
                tables::inside(&self.inside),
                "\n".into(),
                goals::change(&self.inside),
            ];
            fill(&mut page, "change", &text.concat())?;
        }
        if !self.flows.is_empty() {
            let about = "of a new flow through a node that tracks connections and translates nothing; logarithmic";
            let path = folder.join("charts/flows.svg");
            chart::lines(&path, "Cost of a new flow", about, "services", &self.flow_lines())?;
            let alt = "Cost of a new flow against one that is not translated, by peer and number of services";
            let text = [shown("flows", alt), tables::flows(&self.flows), "\n".into(), goals::flows(&self.flows)];
            fill(&mut page, "flows", &text.concat())?;
        }
        if let Some(loss) = &self.loss {
            fill(&mut page, "loss", &[tables::loss(loss), "\n".into(), goals::loss(loss)].concat())?;
        }
        if !self.traffic.is_empty() {
            fill(&mut page, "traffic", &tables::traffic(&self.traffic))?;
        }
        if let Some(file) = &self.core_instructions {
            let counted = Instructions::read(file)?;
            fill(&mut page, "instructions", &[counted.table(), "\n".into(), goals::instructions(&counted)].concat())?;
        }
        if let Some(file) = &self.core_times {
            let times = Times::read(file)?;
            fill(&mut page, "times", &[times.tables(), "\n".into(), goals::times(&times)].concat())?;
        }
        fill(&mut page, "machine", &tables::machine()?)?;
        std::fs::write(path, page)?;
        Ok(())
    }

    /// The middle measurement, by wall time, of each peer at each size, in the order they were first made.
    fn medians(&self, section: &str) -> Vec<Median> {
        let mut medians: Vec<Median> = Vec::new();
        for row in self.rows.iter().filter(|r| r.section == section) {
            if medians.iter().any(|m| (m.name, m.size) == (row.name, row.size)) {
                continue;
            }
            let same = self.rows.iter().filter(|r| (r.section, r.name, r.size) == (section, row.name, row.size));
            let mut all: Vec<Took> = same.filter_map(|r| r.took).collect();
            all.sort_unstable_by_key(|t| t.wall);
            medians.push(Median { name: row.name, size: row.size, took: all.get(all.len() / 2).copied() });
        }
        medians
    }

    fn flow_lines(&self) -> Vec<Series> {
        let mut lines: Vec<Series> = Vec::new();
        for flow in self
            .flows
            .iter()
            .filter(|f| f.protocol == "UDP" && !["one DNAT rule", "forwarding only", DNAT_ALONE].contains(&f.name))
        {
            let point = (f64::from(flow.services), flow.ratio);
            match lines.iter_mut().find(|l| l.name == flow.name) {
                Some(line) => line.points.push(point),
                None => lines.push(Series { name: flow.name.into(), points: vec![point] }),
            }
        }
        lines
    }
}

/// A group of bars for each size; what is slower than natlet says how many times.
fn groups(medians: &[Median], value: impl Fn(&Took) -> f64, unit: &str) -> Vec<Group> {
    let mut groups: Vec<(Size, Group)> = Vec::new();
    for median in medians {
        if groups.iter().all(|g| g.0 != median.size) {
            groups.push((median.size, Group { title: median.size.to_string(), bars: Vec::new() }));
        }
        let first = medians.iter().find(|m| m.size == median.size).and_then(|m| m.took.as_ref()).map(&value);
        let value = median.took.as_ref().map(&value);
        let label = match (value, first) {
            (None, _) => "not within a minute".to_owned(),
            (Some(v), Some(first)) if v > first * 1.05 => {
                format!("{} {unit}, {}×", chart::number(v), tables::ratio(v / first))
            }
            (Some(v), _) => format!("{} {unit}", chart::number(v)),
        };
        if let Some((_, group)) = groups.iter_mut().find(|g| g.0 == median.size) {
            group.bars.push(Bar { name: median.name.into(), value, label });
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->`.
fn fill(page: &mut String, name: &str, text: &str) -> Result<()> {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let missing = || format!("the page lacks {start}…{end}");
    let from = page.find(&start).ok_or_else(missing)? + start.len();
    let to = page[from..].find(&end).ok_or_else(missing)? + from;
    page.replace_range(from..to, text);
    Ok(())
}
