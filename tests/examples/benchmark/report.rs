//! Results: the tables of `tests/BENCHMARKS.md` and the charts beside it.

use crate::Result;
use crate::chart::{self, Series};
use crate::process::Took;
use crate::table::{Size, thousands};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
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

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    flows: Vec<(&'static str, u32, Duration)>,
    traffic: Vec<(&'static str, f64, f64)>,
}

impl Report {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn flow(&mut self, name: &'static str, services: u32, median: Duration) {
        self.flows.push((name, services, median));
    }

    pub fn traffic(&mut self, name: &'static str, gigabits: f64, requests: f64) {
        self.traffic.push((name, gigabits, requests));
    }

    /// Puts what was measured into `BENCHMARKS.md` of `folder` and into charts beside it; leaves the rest of both alone.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("BENCHMARKS.md");
        let mut page = std::fs::read_to_string(&path)?;
        for (section, title) in [("load", "Time to load a table"), ("change", "Time to change one endpoint")] {
            let medians = self.medians(section);
            if medians.is_empty() {
                continue;
            }
            fill(&mut page, section, &processes(&medians))?;
            let wall = |took: &Took| took.wall.as_secs_f64();
            chart::lines(
                &folder.join(format!("charts/{section}.svg")),
                title,
                "endpoints",
                "seconds",
                &series(&medians, wall),
            )?;
            if section == "load" {
                let memory = |took: &Took| took.memory as f64 / 1e3;
                let path = folder.join("charts/memory.svg");
                chart::lines(
                    &path,
                    "Peak memory of the loading process",
                    "endpoints",
                    "MB",
                    &series(&medians, memory),
                )?;
            }
        }
        if !self.flows.is_empty() {
            fill(&mut page, "flows", &self.flow_table())?;
            let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
            for (name, services, cost) in self.flows.iter().filter(|f| f.1 > 0 && f.0 != "one DNAT rule") {
                lines.entry(name).or_default().push((f64::from(*services), cost.as_secs_f64() * 1e6));
            }
            let lines: Vec<Series> =
                lines.into_iter().map(|(name, points)| Series { name: name.into(), points }).collect();
            chart::lines(&folder.join("charts/flows.svg"), "Cost of a new flow", "services", "microseconds", &lines)?;
        }
        if !self.traffic.is_empty() {
            fill(&mut page, "traffic", &self.traffic_table())?;
        }
        fill(&mut page, "machine", &machine()?)?;
        std::fs::write(path, page)?;
        Ok(())
    }

    /// The middle measurement, by wall time, of each peer at each size, in the order they were first made.
    fn medians(&self, section: &str) -> Vec<(&'static str, Size, Option<Took>)> {
        let mut medians: Vec<(&'static str, Size, Option<Took>)> = Vec::new();
        for row in self.rows.iter().filter(|r| r.section == section) {
            if medians.iter().any(|(name, size, _)| (*name, *size) == (row.name, row.size)) {
                continue;
            }
            let same = self.rows.iter().filter(|r| (r.section, r.name, r.size) == (section, row.name, row.size));
            let mut all: Vec<Took> = same.filter_map(|r| r.took).collect();
            all.sort_unstable_by_key(|t| t.wall);
            medians.push((row.name, row.size, all.get(all.len() / 2).copied()));
        }
        medians
    }

    fn flow_table(&self) -> String {
        let base = self.flows.iter().find(|f| f.0 == "conntrack, no NAT").map_or(f64::NAN, |f| f.2.as_secs_f64());
        let mut text =
            "| peer | services | us a new flow | of conntrack without NAT |\n| --- | ---: | ---: | ---: |\n".to_owned();
        for (name, services, cost) in &self.flows {
            let micros = cost.as_secs_f64() * 1e6;
            let ratio = cost.as_secs_f64() / base;
            let _ = writeln!(text, "| {name} | {} | {micros:.2} | {ratio:.2} |", thousands(*services));
        }
        text
    }

    fn traffic_table(&self) -> String {
        let base = self.traffic.first().map_or((f64::NAN, f64::NAN), |t| (t.1, t.2));
        let mut text = "| peer | Gbit/s of one stream | of forwarding only | requests/s | of forwarding only |\n| --- | ---: | ---: | ---: | ---: |\n".to_owned();
        for (name, gigabits, requests) in &self.traffic {
            let _ = writeln!(
                text,
                "| {name} | {gigabits:.2} | {:.2} | {requests:.0} | {:.2} |",
                gigabits / base.0,
                requests / base.1
            );
        }
        text
    }
}

fn processes(medians: &[(&'static str, Size, Option<Took>)]) -> String {
    let mut text = "| table | peer | wall s | user s | kernel s | peak MB | of natlet's wall |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |\n".to_owned();
    for (name, size, took) in medians {
        let base = medians.iter().find(|m| m.1 == *size).and_then(|m| m.2).map_or(f64::NAN, |t| t.wall.as_secs_f64());
        let _ = match took {
            Some(t) => writeln!(
                text,
                "| {size} | {name} | {:.3} | {:.3} | {:.3} | {:.0} | {:.1} |",
                t.wall.as_secs_f64(),
                t.user.as_secs_f64(),
                t.kernel.as_secs_f64(),
                t.memory as f64 / 1e3,
                t.wall.as_secs_f64() / base
            ),
            None => writeln!(text, "| {size} | {name} | over 60 | | | | |"),
        };
    }
    text
}

fn series(medians: &[(&'static str, Size, Option<Took>)], value: impl Fn(&Took) -> f64) -> Vec<Series> {
    let mut lines: Vec<Series> = Vec::new();
    for (name, size, took) in medians {
        let Some(took) = took else { continue };
        let point = (f64::from(size.endpoints), value(took));
        match lines.iter_mut().find(|l| l.name == *name) {
            Some(line) => line.points.push(point),
            None => lines.push(Series { name: (*name).into(), points: vec![point] }),
        }
    }
    lines
}

/// Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->`.
fn fill(page: &mut String, name: &str, text: &str) -> Result<()> {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let missing = || format!("BENCHMARKS.md lacks {start}…{end}");
    let from = page.find(&start).ok_or_else(missing)? + start.len();
    let to = page[from..].find(&end).ok_or_else(missing)? + from;
    page.replace_range(from..to, text);
    Ok(())
}

/// What it was measured on.
fn machine() -> Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown CPU", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let version = |tool: &str| -> String {
        let output = std::process::Command::new(tool).arg("--version").output();
        output.map_or_else(
            |_| format!("no {tool}"),
            |o| String::from_utf8_lossy(&o.stdout).lines().next().unwrap_or_default().to_owned(),
        )
    };
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or_default();
    Ok(format!(
        "{model}, {cores} cores, Linux {}; {}; {}; load average at the end {load}.\n",
        kernel.trim(),
        version("nft"),
        version("iptables-nft")
    ))
}
