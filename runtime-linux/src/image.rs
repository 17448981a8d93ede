//! A program in memory of its own: compiled from a table, or read from a file.

use natlet_core::{CompileError, Program, ProgramError, ServiceTable, compile, max_len, scratch_len};
use std::sync::Arc;

/// Checked bytes of a program; clones share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(Arc<[u8]>);

impl Image {
    /// Compiles a table.
    ///
    /// # Errors
    /// The compiler's; services and frontends are named by their index in the table.
    pub fn compile(table: &ServiceTable<'_>) -> Result<Self, CompileError> {
        let mut scratch = vec![0; scratch_len(table)];
        let mut out = vec![0; max_len(table)];
        let len = compile(table, &mut scratch, &mut out)?;
        out.truncate(len);
        Ok(Self(out.into()))
    }

    /// Takes the bytes of a compiled program.
    ///
    /// # Errors
    /// Says why they are none.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ProgramError> {
        Program::new_checked(&bytes)?;
        Ok(Self(bytes.into()))
    }

    /// The program: a view, opened in constant time.
    ///
    /// # Panics
    /// Never: the bytes were checked, or come from the compiler.
    pub fn program(&self) -> Program<'_> {
        Program::reopen(&self.0).expect("the compiler's output and checked bytes are programs")
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A compiler's error with the names of what it is about.
pub fn describe(error: &CompileError, table: &ServiceTable<'_>) -> String {
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
            let address =
                table.frontends.get(first as usize).map_or(String::new(), |f| format!("{}:{}", f.address, f.port));
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
        | CompileError::TooMany { service } => {
            let text = error.to_string();
            let why = text.strip_prefix(&format!("service {service}: ")).unwrap_or(&text);
            format!("service {}: {why}", name(service))
        }
        _ => error.to_string(),
    }
}
