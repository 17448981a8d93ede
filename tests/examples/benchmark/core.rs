//! The core's own benchmarks, which `tests/benchmark.sh` runs: reads what divan and callgrind printed, and makes tables of it.

use crate::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// A benchmark's place in divan's tree, and its median.
struct Timed {
    path: Vec<String>,
    median: String,
}

/// Tables of what `cargo bench -p natlet-core-bench` printed.
pub fn times(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let mut out = String::new();
    let mut rest = read_tree(&text).into_iter().peekable();
    while let Some(first) = rest.next() {
        let bench = first.path.first().cloned().unwrap_or_default();
        let mut timed = vec![first];
        while let Some(next) = rest.next_if(|t| t.path.first() == Some(&bench)) {
            timed.push(next);
        }
        write_table(&mut out, &bench, &timed);
    }
    if out.is_empty() { Err(format!("{}: no benchmarks in it", file.display()).into()) } else { Ok(out) }
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

/// A table of what `core/bench/instructions.sh` printed: an operation and a number a line.
pub fn instructions(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let mut out = "| operation | instructions |\n| --- | ---: |\n".to_owned();
    for line in text.lines().skip(1) {
        if let Some((operation, number)) = line.trim_end().rsplit_once(' ') {
            let _ = writeln!(out, "| {} | {number} |", operation.trim_end());
        }
    }
    Ok(out)
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
        let mut out = String::new();
        write_table(&mut out, "lookup", &found);
        assert!(out.contains("| hits, natlet |  | 1.3 ns, 3 Mitem/s | 2.3 ns |"), "{out}");
        assert!(out.contains("| open | 9.5 ns |"), "{out}");
    }
}
