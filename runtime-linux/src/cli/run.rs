//! `natlet run`: the agent.

use super::args::{Cli, Command, Node, Switch, counting};
use super::config;
use super::failure::Failure;
use crate::agent::source::{ApiServer, Origin};
use crate::agent::{self, AgentError, Options, Reread};
use crate::nft::model::Ownership;
use crate::source::cluster::Pods;
use clap::{Args, Parser as _, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Kubernetes manifests, services.toml, iptables-save listings or a compiled program; a directory is all files in it
    #[arg(value_name = "FILE", required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub node: Node,
    #[command(flatten)]
    pub cluster: Cluster,
    /// Take flags that are not given here or in the environment from a TOML file: `state-dir = "/var/lib/natlet"` for
    /// --state-dir, and `files = ["/etc/natlet"]`
    #[arg(long, value_name = "FILE", env = "NATLET_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where the last good program is kept for the next boot
    #[arg(long, value_name = "DIR", env = "NATLET_STATE_DIR", default_value = "/var/lib/natlet")]
    pub state_dir: PathBuf,
    /// The shortest time between two changes: a burst of changes is few transactions
    #[arg(long, value_name = "TIME", env = "NATLET_MIN_SYNC_PERIOD", default_value = "1s", value_parser = humantime::parse_duration)]
    pub min_sync_period: Duration,
    /// The longest time without a comparison of the kernel's tables with what is wanted
    #[arg(long, value_name = "TIME", env = "NATLET_SYNC_PERIOD", default_value = "5m", value_parser = humantime::parse_duration)]
    pub sync_period: Duration,
    /// Remove conntrack entries of TCP and SCTP connections to removed endpoints too, so that clients notice at once
    #[arg(long, env = "NATLET_RESET_REMOVED")]
    pub reset_removed: bool,
    /// Remove the rules when the agent ends; without this they stay in force
    #[arg(long, env = "NATLET_CLEANUP_ON_EXIT")]
    pub cleanup_on_exit: bool,
    /// Whether frontends count connections, for `natlet top` and the status page; if not given, as loaded now, else on
    #[arg(long, value_enum, value_name = "WHEN", env = "NATLET_COUNTERS")]
    pub counters: Option<Switch>,
    /// Let others change natlet's tables, and repair what they change. Without this, from Linux 6.9, only the agent can change
    /// them, `nft flush ruleset` passes them over, and reloading a saved ruleset that holds them is refused
    #[arg(long, env = "NATLET_NO_OWNER")]
    pub no_owner: bool,
    /// Where the status page, /healthz, /livez and /metrics are served, `off` for nowhere (then healthCheckNodePorts are not served either)
    #[arg(long, value_name = "IP:PORT", env = "NATLET_LISTEN", default_value = "127.0.0.1:10249", value_parser = parse_listen)]
    pub listen: Listen,
    /// How to log, on standard error
    #[arg(long, value_enum, env = "NATLET_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What to log
    #[arg(long, value_enum, env = "NATLET_LOG_LEVEL", default_value = "info")]
    pub log_level: LogLevel,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The Kubernetes API (builds with the cargo feature `kubernetes`)")]
pub struct Cluster {
    /// Take the services of a Kubernetes API server in place of files; needs --node-name
    #[arg(long, env = "NATLET_KUBERNETES", requires = "node_name")]
    pub kubernetes: bool,
    /// Where the API server is and who this is; without it the service account of this pod
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Where the API server is, whatever else says so. A pod on the host's network needs it: the address that it is given
    /// is a ClusterIP, which natlet itself is to put in force
    #[arg(long, value_name = "URL", env = "NATLET_API_SERVER", requires = "kubernetes", value_parser = parse_url)]
    pub api_server: Option<String>,
    /// How pods are told from other sources
    #[arg(long, value_enum, value_name = "MODE", env = "NATLET_DETECT_LOCAL_MODE", default_value = "cluster-cidr")]
    pub detect_local_mode: LocalMode,
}

/// kube-proxy's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LocalMode {
    /// By --cluster-cidr, or the annotation of the Node
    ClusterCidr,
    /// By spec.podCIDRs of this Node, where the network plugin gives pods addresses from them
    NodeCidr,
}

fn parse_url(text: &str) -> Result<String, String> {
    let is_url = text.strip_prefix("https://").or(text.strip_prefix("http://")).is_some_and(|rest| !rest.is_empty());
    if is_url { Ok(text.to_owned()) } else { Err("give a URL such as https://192.0.2.10:6443".into()) }
}

/// An address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(Option<SocketAddr>);

fn parse_listen(text: &str) -> Result<Listen, String> {
    if text == "off" {
        return Ok(Listen(None));
    }
    let address = text.parse().map_err(|_| "give an address and a port, as 127.0.0.1:10249 or [::1]:10249, or off")?;
    Ok(Listen(Some(address)))
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object a line
    Json,
}

/// The least important of what is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed
    Error,
    /// What is doubtful
    Warn,
    /// What changed
    Info,
    /// What was considered
    Debug,
}

pub fn run(args: RunArgs) -> Result<(), Failure> {
    if args.files.iter().any(|f| f.as_os_str() == "-") {
        return Err(Failure::input("standard input cannot be watched; give files or directories"));
    }
    log(args.log_format, args.log_level);
    let reread = args.config.is_some().then(|| Reread::new(reread));
    agent::run(Options { reread, ..options(args)? }).map_err(|e| Failure::operation("running the agent", e))
}

/// The options once more, from the same command line and environment and what the settings file says now.
fn reread() -> Result<Options, String> {
    let why = |failure| match failure {
        Failure::Input(text) | Failure::Operation(text) => text,
        Failure::Differs | Failure::Closed => String::new(),
    };
    let arguments = config::arguments().map_err(why)?;
    match Cli::try_parse_from(arguments).map_err(|e| e.to_string())?.command {
        Command::Run(args) => options(args).map_err(why),
        _ => Err("the command line is no longer that of natlet run".into()),
    }
}

fn options(args: RunArgs) -> Result<Options, Failure> {
    let fixed = vec![
        ("state-dir", args.state_dir.display().to_string()),
        ("no-owner", args.no_owner.to_string()),
        ("listen", format!("{:?}", args.listen)),
        ("log-format", format!("{:?}", args.log_format)),
        ("log-level", format!("{:?}", args.log_level)),
    ];
    Ok(Options {
        origin: origin(args.cluster, args.files, !args.node.cluster_cidrs.is_empty())?,
        node: args.node.flags(),
        state_dir: args.state_dir,
        min_sync_period: args.min_sync_period,
        sync_period: args.sync_period.max(Duration::from_secs(1)),
        listen: args.listen.0,
        reset_removed: args.reset_removed,
        counting: counting(args.counters),
        ownership: if args.no_owner { Ownership::Anyone } else { Ownership::Socket },
        cleanup_on_exit: args.cleanup_on_exit,
        fixed,
        reread: None,
    })
}

/// Where the table comes from.
fn origin(cluster: Cluster, files: Vec<PathBuf>, with_cidrs: bool) -> Result<Origin, Failure> {
    let pods = match cluster.detect_local_mode {
        LocalMode::ClusterCidr => Pods::ClusterCidr,
        LocalMode::NodeCidr => Pods::NodeCidr,
    };
    if !cluster.kubernetes {
        return Ok(Origin::Files(files));
    }
    if cfg!(not(feature = "kubernetes")) {
        return Err(Failure::input(AgentError::NoKubernetes));
    }
    if pods == Pods::NodeCidr && with_cidrs {
        return Err(Failure::input(
            "--detect-local-mode node-cidr takes the CIDRs of pods from the Node; leave out --cluster-cidr",
        ));
    }
    Ok(Origin::ApiServer(ApiServer { kubeconfig: cluster.kubeconfig, url: cluster.api_server, pods }))
}

/// A closed standard error must not end the agent: what cannot be logged is lost.
fn log(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .log_internal_errors(false);
    // A logger that is there already (a library's user) stays.
    let _ = match format {
        LogFormat::Text => builder.try_init().is_ok(),
        LogFormat::Json => builder.json().flatten_event(true).try_init().is_ok(),
    };
}
