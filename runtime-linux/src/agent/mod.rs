//! The agent: keeps a service table in force on a node.
//!
//! ```text
//!  files ── watch ─────┬▶ source (read, compile) ──▶ wanted ──▶ kernel::Loader (difference, apply) ──▶ status, state
//!  API ── kubernetes ──┘
//!  nf_tables ── drift ─────────────────────────────┘                        └─▶ conntrack (stale flows)
//! ```
//!
//! Where a few services of large files change, only these are read ([`source::outline`](crate::source::outline)).
//!
//! One thread waits in `poll` for inotify, nf_tables' notifications, signals and the clock. While nobody else is heard to
//! change natlet's tables, a change of the sources is sent as the difference of two programs; otherwise, and every so often
//! all the same, the tables are read back and compared. A second thread answers HTTP and shares nothing with the first but
//! counters, a small record and the program in force. A third reads the kernel's counters when the second is asked for them.
//!
//! From Linux 6.9 the tables belong to the agent's netlink socket ([`Ownership::Socket`]), so that there is nothing to
//! repair while it lives. The socket is opened first, writes everything, and stays open to the end; what an earlier agent
//! left is adopted as it is. `--no-owner` is for hosts whose administrators save and reload the whole ruleset with `nft`:
//! a reload that holds an owned table is refused whole, and `nft` before 1.1 prints the flags of a table whose owner has
//! gone in a way that it does not read.
//!
//! What goes wrong, and what stays in force:
//!
//! | fault | the agent | in force | `/healthz` |
//! | --- | --- | --- | --- |
//! | no CAP_NET_ADMIN, no nf_tables | ends with status 1 and the remedy | what was | |
//! | another agent has the tables or the state directory | ends with status 1 and says which process | what was | |
//! | the kernel refuses a change | tries again after 0.5 s to 30 s | what was | 503, with the reason |
//! | a source is no table, or cannot be read | says where; reads it again when it changes, and after 1 s to 60 s | what was | 200, with the refusal |
//! | the state directory is read-only or full | warns, counts, tries again with the next sync | what is wanted | 200 |
//! | others change the tables (`--no-owner`, older kernels) | undoes it within some milliseconds; if they go on, after 0.1 s to 10 s, with an error and `natlet_contested` | | 200 |
//! | the clock steps | nothing: only what is printed is wall-clock time | what is wanted | 200 |
//! | no file descriptors, closed outputs | goes on with what it has | what is wanted | 200 |
//! | SIGTERM, kill -9, a crash | leaves the rules | what was | |

pub mod conntrack;
pub mod counts;
pub mod drift;
pub mod health;
pub mod history;
pub mod http;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod memory;
mod page;
mod process;
mod reconcile;
pub mod source;
pub mod state;
pub mod status;
pub mod watch;

use crate::kernel::Counting;
use crate::netlink::LoadError;
use crate::nft::model::Ownership;
use crate::source::NodeFlags;
use conntrack::Cleaned;
use nix::errno::Errno;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// What the agent is told to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the table comes from.
    pub origin: source::Origin,
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
    /// Whether frontends count connections.
    pub counting: Counting,
    /// Whose the tables are to be, where the kernel can do it.
    pub ownership: Ownership,
    /// Remove the rules at the end.
    pub cleanup_on_exit: bool,
    /// Settings that hold until the end, by name, so that a change of them can be told.
    pub fixed: Vec<(&'static str, String)>,
    /// How SIGHUP learns new options, where they can change.
    pub reread: Option<Reread>,
}

impl Options {
    /// Whose conntrack entries are removed once they are stale.
    fn cleaned(&self) -> Cleaned {
        if self.reset_removed { Cleaned::All } else { Cleaned::Udp }
    }

    /// Takes over what can change while the agent runs; names of what changed and cannot.
    fn adopt(&mut self, new: Self) -> Vec<&'static str> {
        let changed = |(old, new): &(&(&'static str, String), &(&'static str, String))| old != new;
        let fixed = self.fixed.iter().zip(&new.fixed).filter(changed).map(|(old, _)| old.0).collect();
        let Self { state_dir, listen, fixed: kept, reread, .. } = std::mem::replace(self, new);
        (self.state_dir, self.listen, self.fixed, self.reread) = (state_dir, listen, kept, reread);
        fixed
    }
}

/// Where new options come from; an error is why there are none.
#[derive(Clone)]
pub struct Reread(Arc<dyn Fn() -> Result<Options, String> + Send + Sync>);

impl Reread {
    /// From a function that reads them.
    pub fn new(read: impl Fn() -> Result<Options, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    fn read(&self) -> Result<Options, String> {
        (self.0)()
    }
}

impl std::fmt::Debug for Reread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reread")
    }
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The kernel's tables cannot be read, or not removed at the end.
    #[error("{0}")]
    Kernel(#[from] LoadError),
    /// Another agent has the state directory.
    #[error(
        "another natlet run keeps its state in {}: end it first, or give this one a --state-dir of its own",
        .0.display()
    )]
    Busy(PathBuf),
    /// No inotify.
    #[error("cannot watch files: {0}; raise sysctl fs.inotify.max_user_instances")]
    Watch(Errno),
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The API server is asked for, and left out of this build.
    #[error(
        "this natlet was built without the Kubernetes API; build it with: cargo build --release -p natlet --features kubernetes"
    )]
    NoKubernetes,
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
    memory::map_large_buffers();
    let signals = process::signals().map_err(AgentError::Signals)?;
    // Made before the right to make it is given up; a read-only disk is told when it is written to.
    let _ = std::fs::create_dir_all(&options.state_dir);
    if let Err(e) = process::drop_capabilities() {
        warn!("{e}");
    }
    let status = Arc::new(status::Status::new().map_err(AgentError::Wait)?);
    info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "natlet starts");
    if let Some(address) = options.listen
        && let Err(e) = counts::start(Arc::clone(&status)).and_then(|()| http::start(address, Arc::clone(&status)))
    {
        warn!(error = %e, "no thread for HTTP: health and metrics are not served");
    }
    reconcile::Agent::start(options, signals, status)?.run()
}
