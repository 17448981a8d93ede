//! `natlet top`: what services carry, live.

mod rows;
#[cfg(feature = "top")]
mod screen;

use super::args::Output;
use super::ask;
use super::failure::{Failure, lines, print, print_document, remark};
use crate::agent::http::DEFAULT_LISTEN;
use crate::counters::{Meter, Report};
use clap::Args;
use comfy_table::{Table, presets};
use nix::errno::Errno;
use rows::{COLUMNS, Order, cells, pick};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print once, after one interval, instead of a live screen
    #[arg(long)]
    pub once: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// What comes first
    #[arg(long, value_enum, default_value_t)]
    pub sort: Order,
    /// Only services whose name holds this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub filter: String,
    /// Ask the agent that answers here instead of the kernel
    #[arg(long, value_name = "IP:PORT", env = "NATLET_AGENT")]
    pub agent: Option<SocketAddr>,
    /// How to print with --once
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

pub fn run(args: &TopArgs) -> Result<(), Failure> {
    let interval = args.interval.max(Duration::from_millis(100));
    let (mut source, report) = Source::open(args.agent)?;
    if !report.loaded {
        return Err(Failure::operation("reading counters", "nothing is loaded; see natlet load and natlet run"));
    }
    if args.once {
        std::thread::sleep(interval);
        let report = source.look()?;
        return print_once(&report, args);
    }
    live(source, report, args, interval)
}

#[cfg(feature = "top")]
fn live(source: Source, report: Report, args: &TopArgs, interval: Duration) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::input("the live screen needs a terminal; for scripts there is natlet top --once"));
    }
    screen::run(source, report, args, interval).map_err(|e| Failure::operation("drawing the screen", e))
}

#[cfg(not(feature = "top"))]
fn live(_: Source, _: Report, _: &TopArgs, _: Duration) -> Result<(), Failure> {
    Err(Failure::input("this natlet is built without the live screen (feature top); there is natlet top --once"))
}

/// Where the numbers come from.
enum Source {
    Kernel(Box<Meter>),
    Agent(SocketAddr),
}

impl Source {
    /// The kernel, or the agent where the kernel may not be read, with a first look.
    fn open(agent: Option<SocketAddr>) -> Result<(Self, Report), Failure> {
        if let Some(address) = agent {
            let mut source = Self::Agent(address);
            let report = source.look()?;
            return Ok((source, report));
        }
        let kernel = Meter::open().and_then(|mut meter| {
            let report = meter.look()?;
            Ok((Self::Kernel(Box::new(meter)), report))
        });
        match kernel {
            Ok(opened) => Ok(opened),
            Err(e) if e.errno() == Some(Errno::EPERM as i32) => {
                let mut source = Self::Agent(DEFAULT_LISTEN);
                let report = source.look().map_err(|_| {
                    Failure::operation("reading counters", format!("{e}; nor does an agent answer at {DEFAULT_LISTEN}"))
                })?;
                Ok((source, report))
            }
            Err(e) => Err(Failure::operation("reading counters", e)),
        }
    }

    fn look(&mut self) -> Result<Report, Failure> {
        let failed = |e| Failure::operation("reading counters", e);
        match self {
            Self::Kernel(meter) => meter.look().map_err(|e| failed(e.to_string())),
            Self::Agent(address) => ask::agent(*address, "/counters")
                .and_then(|document| {
                    serde_json::from_value(document)
                        .map_err(|_| format!("what answers at {address} is no agent of natlet"))
                })
                .map_err(failed),
        }
    }
}

fn print_once(report: &Report, args: &TopArgs) -> Result<(), Failure> {
    let rows = pick(report, &args.filter, args.sort);
    match args.output {
        Output::Json | Output::Yaml => {
            let report = Report { services: rows.into_iter().cloned().collect(), ..report.clone() };
            print_document(&report, args.output)
        }
        Output::Table | Output::Wide => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            table.set_header(COLUMNS.map(|(name, _)| name));
            table.add_rows(rows.into_iter().map(cells));
            notes(report).for_each(|note| remark(&format!("note: {note}")));
            print(&lines(&table))
        }
    }
}

/// Why numbers are missing, and what to do.
fn notes(report: &Report) -> impl Iterator<Item = &'static str> {
    let counting = "connections are not counted: load with --counters on";
    let accounting = "bytes are not counted: sysctl net.netfilter.nf_conntrack_acct=1 (for flows that begin after it)";
    [(report.counting, counting), (report.accounting, accounting)]
        .into_iter()
        .filter(|(there, _)| !there)
        .map(|(_, note)| note)
}
