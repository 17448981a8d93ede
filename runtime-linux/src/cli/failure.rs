//! What a command prints, and how it ends when it does not do what was asked.

use super::args::Output;
use crate::yaml;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// What goes to standard error, and with which exit status.
#[derive(Debug)]
pub enum Failure {
    /// Bad usage or input: exit status 2. The text is complete, drawn with its places.
    Input(String),
    /// The operation failed: exit status 1.
    Operation(String),
    /// Nothing failed; what was compared differs: exit status 1, and nothing more to say.
    Differs,
    /// Standard output was closed by its reader: nothing to say, as for other tools in a pipe.
    Closed,
}

impl Failure {
    /// An operation that failed: what was tried, and why it did not work.
    pub fn operation(what: &str, why: impl std::fmt::Display) -> Self {
        Self::Operation(format!("error: {what}: {why}"))
    }

    /// Bad input, as a sentence.
    pub fn input(text: impl std::fmt::Display) -> Self {
        Self::Input(format!("error: {text}"))
    }

    /// Prints the text and gives the exit status.
    pub fn report(self) -> ExitCode {
        let (text, status) = match self {
            Self::Input(text) => (text, 2),
            Self::Operation(text) => (text, 1),
            Self::Differs => return ExitCode::from(1),
            Self::Closed => return ExitCode::SUCCESS,
        };
        // nothing can be done where standard error is closed too
        let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
        ExitCode::from(status)
    }
}

/// A table without borders, flush left.
pub fn lines(table: &comfy_table::Table) -> String {
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        out.push('\n');
    }
    out
}

/// Writes a document for programs to standard output: as YAML where that is asked for, else as JSON.
pub fn print_document(document: &impl Serialize, output: Output) -> Result<(), Failure> {
    let text = if output == Output::Yaml {
        serde_json::to_value(document).map(|value| yaml::write(&value))
    } else {
        serde_json::to_string_pretty(document).map(|text| text + "\n")
    };
    print(&text.map_err(|e| Failure::operation("writing the document", e))?)
}

/// Writes to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::operation("writing to standard output", e),
    })
}

/// Writes a remark to standard error; commands go on without it.
pub fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

/// Whether standard error is a terminal, where colours are read.
pub fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
