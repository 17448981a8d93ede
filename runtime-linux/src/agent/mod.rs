//! The agent: keeps a service table in force on a node.
//!
//! ```text
//!  files ── watch ──▶ source (read, compile) ──▶ wanted ──▶ kernel::Loader (difference, apply) ──▶ status, state
//!  nf_tables ── drift ─────────────────────────────┘                        └─▶ conntrack (stale flows)
//! ```
//!
//! One thread waits in `poll` for inotify, nf_tables' notifications, signals and the clock. While nobody else is heard to
//! change natlet's tables, a change of the sources is sent as the difference of two programs; otherwise, and every so often
//! all the same, the tables are read back and compared. A second thread answers HTTP and shares nothing with the first but
//! counters and a small record.

pub mod conntrack;
pub mod drift;
pub mod health;
pub mod http;
mod process;
mod reconcile;
pub mod source;
pub mod state;
pub mod status;
pub mod watch;

use crate::netlink::LoadError;
use crate::source::NodeFlags;
use nix::errno::Errno;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// What the agent is told to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sources: files and directories.
    pub files: Vec<PathBuf>,
    /// The node, as far as the command line says.
    pub node: NodeFlags,
    /// Where the last good program is kept.
    pub state_dir: PathBuf,
    /// The shortest time between two syncs for changes of the sources.
    pub min_sync_period: Duration,
    /// The longest time without a comparison of kernel and program.
    pub sync_period: Duration,
    /// Where health and metrics are served.
    pub listen: Option<SocketAddr>,
    /// Remove conntrack entries of TCP and SCTP connections to removed endpoints.
    pub reset_removed: bool,
    /// Remove the rules at the end.
    pub cleanup_on_exit: bool,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The kernel's tables cannot be read, or not removed at the end.
    #[error("{0}")]
    Kernel(#[from] LoadError),
    /// No inotify.
    #[error("cannot watch files: {0}; raise sysctl fs.inotify.max_user_instances")]
    Watch(Errno),
    /// No signals.
    #[error("cannot take signals: {0}")]
    Signals(Errno),
    /// Waiting failed.
    #[error("cannot wait for events: {0}")]
    Wait(Errno),
}

/// Runs the agent until SIGTERM.
///
/// # Errors
/// Only what makes its work impossible; everything else it lives with, and says so.
pub fn run(options: Options) -> Result<(), AgentError> {
    let signals = process::signals().map_err(AgentError::Signals)?;
    // Made before the right to make it is given up; a read-only disk is told when it is written to.
    let _ = std::fs::create_dir_all(&options.state_dir);
    if let Err(e) = process::drop_capabilities() {
        warn!("{e}");
    }
    let status = Arc::new(status::Status::new().map_err(AgentError::Wait)?);
    info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "natlet starts");
    if let Some(address) = options.listen
        && let Err(e) = http::start(address, Arc::clone(&status))
    {
        warn!(error = %e, "no thread for HTTP: health and metrics are not served");
    }
    reconcile::Agent::start(options, signals, status)?.run()
}
