//! Loading whole tables, and changing one endpoint of a loaded one.

use crate::peers::{Files, changed_chains, changed_iptables, text};
use crate::process::{Took, run as process};
use crate::report::{Report, Row};
use crate::table::{Size, Table};
use crate::{Bench, Result};
use natlet::lab::Namespace;
use std::collections::BTreeSet;
use std::time::Duration;

/// What takes longer is measured once at a size: noise does not matter then.
const SLOW: Duration = Duration::from_secs(2);

/// One way to put a table in force: its name, the command, and the file at the command's standard input.
struct Way<'a> {
    name: &'static str,
    command: Vec<&'a str>,
    input: Option<&'a std::path::Path>,
}

fn way<'a>(name: &'static str, command: &[&'a str]) -> Way<'a> {
    Way { name, command: command.to_vec(), input: None }
}

pub fn run(bench: &Bench, report: &mut Report, change: bool) -> Result<()> {
    let sizes: &[Size] = if bench.quick { &Size::QUICK } else { &Size::ALL };
    let natlet = text(&bench.natlet);
    let mut late = BTreeSet::new();
    for &size in sizes {
        let [old, new] = [0, 200].map(|first| Table::new(size, "TCP", first));
        let files = Files::write(bench, "a", &old)?;
        let changed = Files::write(bench, "b", &new)?;
        let delta = bench.work.join("delta.chains");
        std::fs::write(&delta, changed_chains(&old, &new))?;
        let restore = bench.work.join("delta.iptables");
        std::fs::write(
            &restore,
            changed_iptables(&std::fs::read_to_string(&files.iptables)?, &std::fs::read_to_string(&changed.iptables)?),
        )?;
        drop((old, new));
        let iptables = |name, tool, file| Way { input: Some(file), ..way(name, &[tool]) };
        let loads = [
            way("natlet, program", &[natlet, "load", text(&files.program)]),
            way("natlet, manifests", &[natlet, "load", "--cluster-cidr", crate::table::PODS, text(&files.manifests)]),
            way("nft -f, natlet's rules", &["nft", "-f", text(&files.nft)]),
            iptables("iptables-nft-restore", "iptables-nft-restore", &files.iptables),
            iptables("iptables-legacy-restore", "iptables-legacy-restore", &files.iptables),
            way("nft -f, kube-proxy's chains", &["nft", "-f", text(&files.chains)]),
        ];
        let no_flush = |name, tool| Way { input: Some(&restore), ..way(name, &[tool, "--noflush"]) };
        let changes = [
            Some(way("natlet, program", &[natlet, "load", text(&changed.program)])),
            None,
            None,
            Some(no_flush("iptables-nft-restore", "iptables-nft-restore")),
            Some(no_flush("iptables-legacy-restore", "iptables-legacy-restore")),
            Some(way("nft -f, kube-proxy's chains", &["nft", "-f", text(&delta)])),
        ];
        let mut slow = BTreeSet::new();
        for round in 0..bench.rounds {
            for (load, change_of) in loads.iter().zip(&changes) {
                if slow.contains(load.name) {
                    continue;
                }
                // What was late once will be late again, and later at a larger size.
                if late.contains(load.name) {
                    report.push(Row::late("load", load.name, size));
                    continue;
                }
                let host = Namespace::new("node")?;
                let took = process(&host, &load.command, load.input)?;
                show("load", load.name, size, round, took);
                let Some(took) = took else {
                    late.insert(load.name);
                    report.push(Row::late("load", load.name, size));
                    continue;
                };
                report.push(Row::of("load", load.name, size, took));
                if took.wall > SLOW {
                    slow.insert(load.name);
                }
                if let Some(way) = change_of.as_ref().filter(|_| change) {
                    let took = process(&host, &way.command, way.input)?;
                    show("change", way.name, size, round, took);
                    report.push(
                        took.map_or_else(
                            || Row::late("change", way.name, size),
                            |t| Row::of("change", way.name, size, t),
                        ),
                    );
                }
            }
        }
    }
    Ok(())
}

fn show(what: &str, name: &str, size: Size, round: u32, took: Option<Took>) {
    let figures = took.map_or_else(
        || "not done within a minute".to_owned(),
        |t| {
            format!(
                "{:.3} s, user {:.3}, kernel {:.3}, {} kB",
                t.wall.as_secs_f64(),
                t.user.as_secs_f64(),
                t.kernel.as_secs_f64(),
                t.memory
            )
        },
    );
    eprintln!("{what} {size}, round {round}: {name}: {figures}");
}
