//! Step one, read and compile: from files to a program. Nothing is kept between two calls.

use crate::image::{Image, describe};
use crate::source::{self, Loaded, NodeFlags, Problems};
use std::fs;
use std::path::PathBuf;

use super::conntrack::Services;
use super::health;
use super::status::HealthCheck;

/// Why the sources are no table. What is in force stays.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file is there, and holds nothing: a writer that truncates first, or a full disk. An empty table says `[node]`.
    #[error("{} is empty; a table without services holds at least a comment", .0.display())]
    Empty(PathBuf),
    /// A path is a pipe, a device or a socket, which could keep the agent waiting.
    #[error("{} is neither a file nor a directory", .0.display())]
    Special(PathBuf),
    /// The content is no table.
    #[error("{}", .0.render(false).trim_end())]
    Problems(Problems),
    /// The table does not compile, or a program is damaged.
    #[error("{0}")]
    Program(String),
}

/// What the sources say.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The program.
    pub image: Image,
    /// Services with the endpoints that serve, for conntrack.
    pub services: Services,
    /// Ports that load balancers ask.
    pub health_checks: Vec<HealthCheck>,
    /// Remarks on what was left out, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads and compiles.
///
/// # Errors
/// Says which file is at fault; the caller keeps what is in force.
pub fn read(paths: &[PathBuf], node: &NodeFlags) -> Result<Reading, SourceError> {
    for path in paths {
        if let Ok(meta) = fs::metadata(path) {
            if !meta.is_dir() && !meta.is_file() {
                return Err(SourceError::Special(path.clone()));
            }
            if meta.is_file() && meta.len() == 0 {
                return Err(SourceError::Empty(path.clone()));
            }
        }
    }
    match source::load(paths, node).map_err(SourceError::Problems)? {
        Loaded::Table { table, report } => {
            let table = table.as_table();
            let image = Image::compile(&table).map_err(|e| SourceError::Program(describe(&e, &table)))?;
            let warnings = report.warnings.iter().map(ToString::to_string).collect();
            let (services, health_checks) = (Services::of_table(&table), health::of_table(&table));
            Ok(Reading { image, services, health_checks, warnings })
        }
        Loaded::Program { bytes, path } => {
            let image = Image::from_bytes(bytes).map_err(|e| SourceError::Program(format!("{path}: {e}")))?;
            let program = image.program();
            let (services, health_checks) = (Services::of_program(&program), health::of_program(&program));
            Ok(Reading { image, services, health_checks, warnings: Vec::new() })
        }
    }
}
