//! What cannot be seen from outside a process: the examples that stand beside this one measure it, and are run here.

use crate::report::{Loss, Percentiles, Report};
use crate::table::{Size, thousands};
use crate::{Bench, Result};
use std::process::Command;

/// Runs an example that is built beside this one; what it printed.
fn example(name: &str, arguments: &[String]) -> Result<String> {
    let program = std::env::current_exe()?.with_file_name(name);
    let output = Command::new(&program).args(arguments).output().map_err(|e| format!("{}: {e}", program.display()))?;
    let text = String::from_utf8(output.stdout)?;
    eprint!("{text}");
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{name} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)).into())
}

/// The lines `NAME p50 A p90 B p99 C max D us` of a text.
fn percentiles(text: &str) -> Vec<Percentiles> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = |name: &str| words.iter().position(|w| *w == name).and_then(|i| words.get(i + 1)?.parse().ok());
        Some(Percentiles {
            name: words.first()?.to_string(),
            p50: at("p50")?,
            p90: at("p90")?,
            p99: at("p99")?,
            max: at("max")?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// One endpoint changed, over and over, by a process that stays; and by the agent, from the change of its file.
pub fn changes(bench: &Bench, report: &mut Report) -> Result<()> {
    let sizes: &[[u32; 3]] = if bench.quick {
        &[[10, 2, 20]]
    } else {
        &[[1_000, 5, 2000], [10_000, 10, 2000], [44_125, 1, 1000], [5_006, 50, 1000]]
    };
    for &[services, endpoints, changes] in sizes {
        let text = example("change_time", &[services, endpoints, changes].map(|n| n.to_string()))?;
        report.inside("change_time", Size::new(services, services * endpoints), percentiles(&text));
    }
    let files: &[[u32; 3]] = if bench.quick { &[[10, 2, 3]] } else { &[[1_000, 5, 40], [10_000, 10, 20]] };
    for &[services, endpoints, changes] in files {
        for kind in ["toml", "directory", "program"] {
            let numbers = [services, endpoints, changes].map(|n| n.to_string());
            let text = example("file_change", &[&numbers[..], &[kind.to_owned()]].concat())?;
            report.inside(kind, Size::new(services, services * endpoints), percentiles(&text));
        }
    }
    Ok(())
}

/// New flows lost while services change.
pub fn loss(bench: &Bench, report: &mut Report) -> Result<()> {
    let seconds = if bench.quick { 1 } else { 30 };
    let text = example("update_loss", &[seconds.to_string()])?;
    let after = |word: &str| -> Result<f64> {
        let found = text.split_once(word).and_then(|(_, rest)| rest.split_whitespace().next());
        let number = found.map(|n| n.trim_end_matches([',', ';'])).and_then(|n| n.parse().ok());
        number.ok_or_else(|| format!("update_loss did not say {word}: {text}").into())
    };
    report.loss(Loss {
        changes: after("changes:")?,
        flows: after("flows:")?,
        flows_a_second: after("a second:")?,
        lost: after("lost:")?,
        past: after("past the guard:")?,
        wrong: after("to a wrong endpoint:")?,
    });
    eprintln!("loss: {} changes", thousands(after("changes:")? as u32));
    Ok(())
}
