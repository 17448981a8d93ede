//! The tables of `tests/BENCHMARKS.md`.

use crate::Result;
use crate::report::{Flow, Inside, Loss, Median};
use crate::table::thousands;
use std::fmt::Write as _;

/// What processes took, beside natlet's.
pub fn processes(medians: &[Median]) -> String {
    let mut text = "| table | peer | wall s | user s | kernel s | peak MB | of natlet's wall |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |\n".to_owned();
    for Median { name, size, took } in medians {
        let first = medians.iter().find(|m| m.size == *size).and_then(|m| m.took);
        let base = first.map_or(f64::NAN, |t| t.wall.as_secs_f64());
        let _ = match took {
            Some(t) => writeln!(
                text,
                "| {size} | {name} | {:.3} | {:.3} | {:.3} | {:.0} | {} |",
                t.wall.as_secs_f64(),
                t.user.as_secs_f64(),
                t.kernel.as_secs_f64(),
                t.memory as f64 / 1e3,
                ratio(t.wall.as_secs_f64() / base)
            ),
            None => writeln!(text, "| {size} | {name} | over 60 | | | | over {:.0} |", 60.0 / base),
        };
    }
    text
}

/// With as many digits as matter.
pub fn ratio(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Percentiles of changes inside processes that stay.
pub fn inside(all: &[Inside]) -> String {
    let mut text =
        "| table | step | p50 us | p90 us | p99 us | most us |\n| --- | --- | ---: | ---: | ---: | ---: |\n".to_owned();
    for Inside { example, size, steps } in all {
        for step in steps {
            let what = match (*example, step.name.as_str()) {
                ("change_time", "load") => "library: program to acknowledgement",
                ("change_time", "prepare") => "of it the difference and its transactions",
                ("change_time", "send") => "of it the kernel: an endpoint moves",
                ("change_time", "switch") => "the kernel: an endpoint comes or goes",
                ("toml", "whole") => "agent: from a services.toml to the kernel",
                ("directory", "whole") => "agent: from one of 200 files to the kernel",
                ("program", "whole") => "agent: from a compiled program to the kernel",
                ("toml" | "directory", "changed") => "of it what has changed is read",
                ("toml" | "directory", "compile") => "of it the table is compiled",
                ("toml" | "directory", "read") => "(where everything is read in its place)",
                ("program", "compile") => "of it the program is checked",
                ("toml" | "directory" | "program", "load") => "of it the program is put in force",
                _ => continue,
            };
            let _ = writeln!(
                text,
                "| {size} | {what} | {:.1} | {:.1} | {:.1} | {:.0} |",
                step.p50, step.p90, step.p99, step.max
            );
        }
    }
    text
}

pub fn flows(flows: &[Flow]) -> String {
    let mut text =
        "| new flow | peer | services | us | of conntrack without NAT |\n| --- | --- | ---: | ---: | ---: |\n"
            .to_owned();
    for flow in flows {
        let micros = flow.cost.as_secs_f64() * 1e6;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {micros:.2} | {:.2} |",
            flow.protocol,
            flow.name,
            thousands(flow.services),
            flow.ratio
        );
    }
    text
}

pub fn loss(loss: &Loss) -> String {
    let Loss { changes, flows, flows_a_second, lost, past, wrong } = loss;
    let count = |n: &f64| thousands(*n as u32);
    format!(
        "| service changes | new flows | a second | lost | past the guard | to a wrong endpoint |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: |\n| {} | {} | {} | {} | {} | {} |\n",
        count(changes),
        count(flows),
        count(flows_a_second),
        count(lost),
        count(past),
        count(wrong)
    )
}

pub fn traffic(all: &[(&'static str, f64, f64)]) -> String {
    let base = all.first().map_or((f64::NAN, f64::NAN), |t| (t.1, t.2));
    let mut text = "| peer | Gbit/s of one stream | of forwarding only | requests/s | of forwarding only |\n| --- | ---: | ---: | ---: | ---: |\n".to_owned();
    for (name, gigabits, requests) in all {
        let _ = writeln!(
            text,
            "| {name} | {gigabits:.2} | {:.2} | {} | {:.2} |",
            gigabits / base.0,
            thousands(*requests as u32),
            requests / base.1
        );
    }
    text
}

/// What it was measured on.
pub fn machine() -> Result<String> {
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
        "{model}, {cores} cores, Linux {}; {}; {}; load average at the end of the last run {load}.\n",
        kernel.trim(),
        version("nft"),
        version("iptables-nft")
    ))
}
