//! From input files to a program in memory.

use super::args::Input;
use super::failure::{Failure, colour, remark};
use crate::image::Image;
use crate::source::{self, Loaded, Report};
use natlet_core::{CompileError, ServiceTable};

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
            let notes = report.render(colour());
            if !notes.is_empty() {
                remark(&notes);
            }
            let table = table.as_table();
            let image = Image::compile(&table).map_err(|e| Failure::input(describe(&e, &table)))?;
            Ok((image, Some(report)))
        }
        Loaded::Program { bytes, path } => {
            let image = Image::from_bytes(bytes).map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
            Ok((image, None))
        }
    }
}

/// A compiler's error with the names of what it is about.
fn describe(error: &CompileError, table: &ServiceTable<'_>) -> String {
    let name = |i: u32| table.services.get(i as usize).map_or("?", |s| table.name(s));
    let owner = |frontend: u32| {
        let has = |s: &natlet_core::Service| {
            (s.frontends.start..s.frontends.start.saturating_add(s.frontends.len)).contains(&frontend)
        };
        table.services.iter().find(|s| has(s)).map_or("?", |s| table.name(s))
    };
    match *error {
        CompileError::DuplicateService { first, .. } => {
            format!("service {} is there twice with the same protocol; give one of them another name", name(first))
        }
        CompileError::DuplicateFrontend { first, second } => {
            let address = table.frontends.get(first as usize).map_or(String::new(), |f| format!("{}:{}", f.address, f.port));
            format!(
                "services {} and {} both claim {address}; give one of them another address or port",
                owner(first),
                owner(second)
            )
        }
        CompileError::Span { service }
        | CompileError::Name { service }
        | CompileError::Frontend { service, .. }
        | CompileError::Endpoint { service, .. }
        | CompileError::TooMany { service } => format!("service {}: {error}", name(service)),
        _ => error.to_string(),
    }
}
