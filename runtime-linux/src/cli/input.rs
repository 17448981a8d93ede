//! From input files to a program in memory.

use super::args::Input;
use super::failure::{Failure, colour, remark};
use crate::image::{Image, describe};
use crate::source::{self, Diagnostic, Loaded, Report, render_all};
use std::collections::BTreeMap;

/// Reads and compiles the input. What was left out is said on standard error.
pub fn read(input: &Input) -> Result<Image, Failure> {
    read_with_report(input).map(|(image, _)| image)
}

/// As [`read`], with what was read; no report for a compiled program.
pub fn read_with_report(input: &Input) -> Result<(Image, Option<Report>), Failure> {
    let loaded = source::load(&input.files, &input.node.flags())
        .map_err(|problems| Failure::Input(problems.render(colour())))?;
    match loaded {
        Loaded::Table { table, report } => {
            say(&report);
            let table = table.as_table();
            let image = Image::compile(&table).map_err(|e| Failure::input(describe(&e, &table)))?;
            Ok((image, Some(report)))
        }
        Loaded::Program { bytes, path } => {
            let image = Image::from_bytes(bytes).map_err(|e| {
                let help = "compile it again with natlet compile, or give the sources that it was made from";
                Failure::Input(Diagnostic::error(format!("{path}: {e}")).help(help).render(colour()))
            })?;
            Ok((image, None))
        }
    }
}

/// Says on standard error what was left out.
fn say(report: &Report) {
    if !report.warnings.is_empty() {
        remark(&render_all(&report.warnings, colour()));
    }
    let counts = |what: &str, counts: &BTreeMap<String, usize>| {
        let list: Vec<String> = counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        if !list.is_empty() {
            remark(&format!("note: {what}: {}", list.join(", ")));
        }
    };
    counts("objects that have no part in NAT were skipped", &report.skipped);
    counts("objects were ignored, as kube-proxy ignores them", &report.ignored);
    if report.skipped_lines > 0 {
        let what = match report.skipped_lines {
            1 => "1 line that is no iptables-save line was skipped".to_owned(),
            many => format!("{many} lines that are no iptables-save lines were skipped"),
        };
        remark(&format!("note: {what}"));
    }
}
