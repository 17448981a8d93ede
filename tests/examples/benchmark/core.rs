//! The core's own benchmarks, which `tests/benchmark.sh` runs: reads what divan and callgrind printed.

use crate::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// A benchmark's place in divan's tree, and its median: a time, and where items were counted their rate.
struct Timed {
    path: Vec<String>,
    median: String,
}

/// What `cargo bench -p natlet-core-bench` printed.
pub struct Times(Vec<Timed>);

impl Times {
    pub fn read(file: &Path) -> Result<Self> {
        let all = read_tree(&std::fs::read_to_string(file)?);
        if all.is_empty() { Err(format!("{}: no benchmarks in it", file.display()).into()) } else { Ok(Self(all)) }
    }

    /// A table for each benchmark.
    pub fn tables(&self) -> String {
        let mut out = String::new();
        for timed in self.0.chunk_by(|a, b| a.path.first() == b.path.first()) {
            write_table(&mut out, timed[0].path.first().map_or("", String::as_str), timed);
        }
        out
    }

    /// Nanoseconds an item, of a benchmark's place in the tree.
    pub fn each(&self, path: &[&str]) -> Option<f64> {
        let timed = self.0.iter().find(|t| t.path == path)?;
        let (_, rate) = timed.median.split_once(", ")?;
        let (number, unit) = rate.split_once(' ')?;
        let nanoseconds = match unit {
            "item/s" => 1e9,
            "Kitem/s" => 1e6,
            "Mitem/s" => 1e3,
            "Gitem/s" => 1.0,
            _ => return None,
        };
        Some(nanoseconds / number.parse::<f64>().ok()?)
    }
}

/// divan's tree: `├─ name  fastest │ slowest │ median │ …`, three characters of indentation a level.
fn read_tree(text: &str) -> Vec<Timed> {
    let mut path: Vec<String> = Vec::new();
    let mut found: Vec<Timed> = Vec::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('│').collect();
        let Some(at) = line.find("├─ ").or_else(|| line.find("╰─ ")) else {
            let median = columns.iter().rev().nth(3).map_or("", |c| c.trim());
            if let Some(timed) = found.last_mut().filter(|_| median.ends_with("item/s")) {
                let Timed { median: time, .. } = timed;
                *time = format!("{time}, {median}");
            }
            // A benchmark binary's own line, over its columns' names
            if line.contains("fastest") && line.contains("median") {
                path = line.split_whitespace().take(1).map(str::to_owned).collect();
            }
            continue;
        };
        let depth = line[..at].chars().count() / 3 + 1;
        let own = &line[at + "├─ ".len()..];
        let first = own.split('│').next().unwrap_or(own).trim_end();
        let (name, fastest) = first.split_once("  ").unwrap_or((first, ""));
        path.truncate(depth);
        path.push(name.trim().to_owned());
        let median = columns.iter().rev().nth(3).map_or("", |c| c.trim());
        if !fastest.trim().is_empty() && !median.is_empty() {
            found.push(Timed { path: path.clone(), median: median.to_owned() });
        }
    }
    found
}

/// One table a group; where the last step of a path is a number (a size), those of one name are columns of one row.
fn write_table(out: &mut String, bench: &str, timed: &[Timed]) {
    let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '_') && !text.is_empty();
    let mut rows: Vec<(String, BTreeMap<u64, &str>)> = Vec::new();
    for t in timed {
        let (last, before) = t.path.split_last().map_or(("", &[][..]), |(l, b)| (l.as_str(), b));
        let (name, column) = match last.replace('_', "").parse::<u64>() {
            Ok(size) if is_number(last) => (before.get(1..).unwrap_or_default().join(", "), size),
            _ => (t.path.get(1..).unwrap_or_default().join(", "), 0),
        };
        match rows.iter_mut().find(|r| r.0 == name) {
            Some(row) => drop(row.1.insert(column, &t.median)),
            None => rows.push((name, BTreeMap::from([(column, t.median.as_str())]))),
        }
    }
    let mut columns: Vec<u64> = rows.iter().flat_map(|r| r.1.keys().copied()).collect();
    columns.sort_unstable();
    columns.dedup();
    let head = columns.iter().map(|c| if *c == 0 { "median".to_owned() } else { crate::table::thousands(*c as u32) });
    let _ = writeln!(
        out,
        "\n| {bench} | {} |\n| --- |{}",
        head.collect::<Vec<_>>().join(" | "),
        " ---: |".repeat(columns.len())
    );
    for (name, cells) in rows {
        let cells: Vec<&str> = columns.iter().map(|c| cells.get(c).copied().unwrap_or("")).collect();
        let _ = writeln!(out, "| {name} | {} |", cells.join(" | "));
    }
}

/// What `core/bench/instructions.sh` printed: operations and their instructions.
pub struct Instructions(Vec<(String, f64)>);

impl Instructions {
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)?;
        let lines = text.lines().skip(1).filter_map(|line| line.trim_end().rsplit_once(' '));
        Ok(Self(lines.filter_map(|(name, n)| Some((name.trim_end().to_owned(), n.parse().ok()?))).collect()))
    }

    pub fn table(&self) -> String {
        let mut out = "| operation | instructions |\n| --- | ---: |\n".to_owned();
        for (operation, number) in &self.0 {
            let _ = writeln!(out, "| {operation} | {number:.1} |");
        }
        out
    }

    pub fn of(&self, operation: &str) -> Option<f64> {
        self.0.iter().find(|o| o.0 == operation).map(|o| o.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read() {
        let text = "\
Timer precision: 20 ns
lookup           fastest       │ slowest       │ median        │ mean          │ samples │ iters
├─ hits                        │               │               │               │         │
│  ├─ natlet                   │               │               │               │         │
│  │  ├─ 1000    1.2 ns        │ 2 ns          │ 1.3 ns        │ 1.4 ns        │ 100     │ 800
│  │  │          1 Mitem/s     │ 2 Mitem/s     │ 3 Mitem/s     │ 4 Mitem/s     │         │
│  │  ╰─ 10000   2.2 ns        │ 3 ns          │ 2.3 ns        │ 2.4 ns        │ 100     │ 800
╰─ open          9 ns          │ 9 ns          │ 9.5 ns        │ 9 ns          │ 100     │ 100
";
        let found = read_tree(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].path, ["lookup", "hits", "natlet", "10000"]);
        assert_eq!(found[0].path, ["lookup", "hits", "natlet", "1000"]);
        assert_eq!(
            found.iter().map(|t| t.median.as_str()).collect::<Vec<_>>(),
            ["1.3 ns, 3 Mitem/s", "2.3 ns", "9.5 ns"]
        );
        let times = Times(found);
        let each = |size| times.each(&["lookup", "hits", "natlet", size]);
        assert_eq!((each("1000"), each("10000")), (Some(1e3 / 3.0), None));
        let out = times.tables();
        assert!(out.contains("| hits, natlet |  | 1.3 ns, 3 Mitem/s | 2.3 ns |"), "{out}");
        assert!(out.contains("| open | 9.5 ns |"), "{out}");
    }
}
