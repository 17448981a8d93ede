//! Measures natlet beside what else could do its work, in namespaces of this machine's kernel: `tests/benchmark.sh` builds it
//! and runs it, `tests/BENCHMARKS.md` explains the method and holds the results.
//!
//! ```text
//!  table ──▶ files for each peer ──▶ load, change (a process in a namespace, by getrusage)
//!                                ──▶ flows, traffic (a client, a node, backends)      ──▶ results ──▶ tables and charts
//! ```
#![allow(clippy::pedantic, missing_docs, reason = "a tool of this repository")]

mod chart;
mod flows;
mod load;
mod peers;
mod process;
mod report;
mod table;
mod traffic;

use natlet::lab;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What to measure, and where things are.
pub struct Bench {
    /// The release build of the command.
    pub natlet: PathBuf,
    /// Files of this run; removed at its end.
    pub work: PathBuf,
    /// Small tables and few rounds: to see that all works, not to learn anything.
    pub quick: bool,
    /// Rounds of loads and changes.
    pub rounds: u32,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == process::MEASURE) {
        return process::measured(&arguments[1..]);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benchmark: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `benchmark [--quick] [--rounds=N] [load] [change] [flows] [traffic]`: all four without a name.
fn run(arguments: &[String]) -> Result<()> {
    let quick = arguments.iter().any(|a| a == "--quick");
    let rounds = arguments.iter().find_map(|a| a.strip_prefix("--rounds=")).map(str::parse).transpose()?;
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|a| !a.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|n| !["load", "change", "flows", "traffic"].contains(n)) {
        return Err(format!("{unknown}: there are load, change, flows and traffic").into());
    }
    let wanted = |name| named.is_empty() || named.contains(&name);
    lab::enter()?; // before the first thread
    let natlet = std::env::current_exe()?.with_file_name("").join("../natlet");
    if !natlet.exists() {
        return Err(format!("{} is missing: run tests/benchmark.sh, which builds it", natlet.display()).into());
    }
    let work = std::env::temp_dir().join(format!("natlet-benchmark-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let bench = Bench { natlet, work, quick, rounds: rounds.unwrap_or(if quick { 1 } else { 3 }) };
    let mut report = report::Report::new();
    let result = (|| {
        if wanted("load") || wanted("change") {
            load::run(&bench, &mut report, wanted("change"))?;
        }
        if wanted("flows") {
            flows::run(&bench, &mut report)?;
        }
        if wanted("traffic") {
            traffic::run(&bench, &mut report)?;
        }
        if quick { Ok(()) } else { report.write(Path::new("tests")) }
    })();
    std::fs::remove_dir_all(&bench.work)?;
    result
}
