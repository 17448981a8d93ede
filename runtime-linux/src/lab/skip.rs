//! A skip must prove itself: where everything is expected to be there, as in CI, a skip is a failure.

use std::path::Path;

/// Why a test cannot run here. Print it; it must not pass for a success in silence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("skipped: {0}")]
pub struct Skip(pub String);

/// Asks for a program in `PATH`. With `NATLET_NO_SKIP=1` in the environment, which CI sets, a missing one is a failure.
///
/// # Panics
/// When the program is missing and `NATLET_NO_SKIP=1`.
pub fn need(tool: &str) -> Result<(), Skip> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|directory| is_file(&directory.join(tool))) {
        return Ok(());
    }
    let reason = format!("`{tool}` is not in PATH");
    assert!(std::env::var_os("NATLET_NO_SKIP").is_none_or(|v| v != "1"), "{reason}, and NATLET_NO_SKIP=1");
    Err(Skip(reason))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file())
}
