//! Measures natlet beside what else could do its work, in namespaces of this machine's kernel: `tests/benchmark.sh` builds it
//! and runs it, `tests/BENCHMARKS.md` explains the method and holds the results.
//!
//! ```text
//!  table ──▶ files for each peer ──▶ load, change (a process in a namespace, by getrusage)
//!                                ──▶ flows, traffic (a client, a node, backends)      ──▶ results ──▶ tables, goals, charts
//!  change_time, file_change, update_loss (examples beside this one), the core's benchmarks (as files) ──▶ results
//! ```
#![allow(clippy::pedantic, missing_docs, reason = "a tool of this repository")]

mod chart;
mod core;
mod flows;
mod goals;
mod inside;
mod load;
mod peers;
mod process;
mod report;
mod table;
mod tables;
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
    /// Of the new flows: the numbers of services to measure, and parts of the names of peers; without them all.
    pub services: Option<Vec<u32>>,
    pub peers: Vec<String>,
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

const PARTS: [&str; 6] = ["load", "change", "flows", "loss", "traffic", "core"];

/// `benchmark [--quick] [--rounds=N] [--services=N,…] [--peers=NAME,…] [--core-times=FILE] [--core-instructions=FILE] [PART...]`:
/// all parts without a name.
fn run(arguments: &[String]) -> Result<()> {
    let quick = arguments.iter().any(|a| a == "--quick");
    let option = |name: &str| arguments.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('='));
    let rounds = option("--rounds").map(str::parse).transpose()?;
    let services = option("--services").map(|l| l.split(',').map(str::parse).collect()).transpose()?;
    let peers = option("--peers").map_or(Vec::new(), |l| l.split(',').map(str::to_owned).collect());
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|a| !a.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|n| !PARTS.contains(n)) {
        return Err(format!("{unknown}: there are {}", PARTS.join(", ")).into());
    }
    let wanted = |name| named.is_empty() || named.contains(&name);
    lab::enter()?; // before the first thread
    let natlet = std::env::current_exe()?.with_file_name("").join("../natlet");
    if !natlet.exists() {
        return Err(format!("{} is missing: run tests/benchmark.sh, which builds it", natlet.display()).into());
    }
    let work = std::env::temp_dir().join(format!("natlet-benchmark-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let rounds = rounds.unwrap_or(if quick { 1 } else { 3 });
    let bench = Bench { natlet, work, quick, rounds, services, peers };
    let mut report = report::Report::default();
    report.core_times = option("--core-times").map(PathBuf::from);
    report.core_instructions = option("--core-instructions").map(PathBuf::from);
    let result = (|| {
        if wanted("load") || wanted("change") {
            load::run(&bench, &mut report, wanted("change"))?;
        }
        if wanted("change") {
            inside::changes(&bench, &mut report)?;
        }
        if wanted("flows") {
            flows::run(&bench, &mut report)?;
        }
        if wanted("loss") {
            inside::loss(&bench, &mut report)?;
        }
        if wanted("traffic") {
            traffic::run(&bench, &mut report)?;
        }
        report.write(if quick { Path::new("target/benchmark/tests") } else { Path::new("tests") })
    })();
    std::fs::remove_dir_all(&bench.work)?;
    result
}
