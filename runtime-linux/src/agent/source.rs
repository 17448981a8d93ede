//! Step one, read and compile: from files or the API server to a program.

use super::conntrack::{Cleaned, Services};
use super::status::{HealthCheck, Status};
use super::watch::Watch;
use super::{AgentError, health};
use crate::image::{Image, describe};
use crate::source::cluster::{NotYet, Pods};
use crate::source::outline::{Outline, Touched};
use crate::source::{self, Loaded, NodeFlags, Problems, TableBuf};
use natlet_core::CompileError;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Files that change together are read together.
const FILES_SETTLE: Duration = Duration::from_millis(50);
/// The same of objects of the API server, which come one by one.
#[cfg(feature = "kubernetes")]
const OBJECTS_SETTLE: Duration = Duration::from_millis(10);
/// Services that are left out because they have no program, before the table is refused.
const LEFT_OUT: usize = 100;

/// Where the table comes from. One place only: what two say of the same address would depend on who spoke last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Files and directories.
    Files(Vec<PathBuf>),
    /// A Kubernetes API server.
    ApiServer(ApiServer),
}

impl Origin {
    /// What people call it: the paths, or the API server.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Files(paths) => paths.iter().map(|path| path.display().to_string()).collect(),
            Self::ApiServer(server) => {
                vec![format!("API server {}", server.url.as_deref().unwrap_or("")).trim().into()]
            }
        }
    }
}

/// Which API server, and how to read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// Where it is and who this is; without it the pod's service account says so.
    pub kubeconfig: Option<PathBuf>,
    /// Where it is, whatever else says so.
    pub url: Option<String>,
    /// How pods are told from other sources.
    pub pods: Pods,
}

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
    /// The API server did not say everything yet.
    #[error("{0}")]
    NotYet(NotYet),
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

impl Reading {
    fn of(image: Image, table: &TableBuf, cleaned: Cleaned, warnings: Vec<String>) -> Self {
        let table = table.as_table();
        let (services, health_checks) = (Services::of_table(&table, cleaned), health::of_table(&table));
        Self { image, services, health_checks, warnings }
    }
}

/// Files, watched.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    watch: Watch,
    /// The table that was read last, unless it was refused, and what tells how it changes.
    last: Option<(TableBuf, Outline)>,
}

/// The sources, and how their changes are noticed.
#[derive(Debug)]
pub enum Source {
    /// Files.
    Files(Box<Files>),
    /// The API server, followed, and the remarks that were made last.
    #[cfg(feature = "kubernetes")]
    ApiServer(super::kubernetes::Feed, Vec<String>),
}

impl Source {
    /// Starts to notice changes.
    pub fn open(origin: &Origin, node: &NodeFlags, status: &Arc<Status>) -> Result<Self, AgentError> {
        match origin {
            Origin::Files(paths) => {
                let watch = Watch::new(paths).map_err(AgentError::Watch)?;
                Ok(Self::Files(Box::new(Files { paths: paths.clone(), watch, last: None })))
            }
            #[cfg(feature = "kubernetes")]
            Origin::ApiServer(api) => {
                let node = node.node_name.as_deref().unwrap_or_default();
                Ok(Self::ApiServer(super::kubernetes::start(api, node, status)?, Vec::new()))
            }
            #[cfg(not(feature = "kubernetes"))]
            Origin::ApiServer(_) => {
                let _ = (node, status);
                Err(AgentError::NoKubernetes)
            }
        }
    }

    /// Takes all news that waits. Whether there was any.
    pub fn drain(&mut self, now: Instant) -> bool {
        match self {
            Self::Files(files) => files.watch.drain(now),
            #[cfg(feature = "kubernetes")]
            Self::ApiServer(feed, _) => feed.drain(),
        }
    }

    /// How long to wait after news for what belongs to it.
    pub fn settle(&self) -> Duration {
        match self {
            Self::Files(..) => FILES_SETTLE,
            #[cfg(feature = "kubernetes")]
            Self::ApiServer(..) => OBJECTS_SETTLE,
        }
    }

    /// A file that somebody is writing; the sources are not to be read yet.
    pub fn half_written(&self, now: Instant) -> Option<PathBuf> {
        match self {
            Self::Files(files) => files.watch.half_written(now),
            #[cfg(feature = "kubernetes")]
            Self::ApiServer(..) => None,
        }
    }

    /// What was read before counts no more: everything is read again.
    pub fn forget(&mut self) {
        match self {
            Self::Files(files) => files.last = None,
            #[cfg(feature = "kubernetes")]
            Self::ApiServer(..) => {}
        }
    }

    /// Reads and compiles.
    ///
    /// # Errors
    /// Says what is at fault; the caller keeps what is in force.
    pub fn read(&mut self, node: &NodeFlags, cleaned: Cleaned) -> Result<Reading, SourceError> {
        match self {
            Self::Files(files) => files.read(node, cleaned),
            #[cfg(feature = "kubernetes")]
            Self::ApiServer(feed, told) => {
                let (table, remarks) = feed.table(node).map_err(SourceError::NotYet)?;
                let mut reading = of_objects(table, cleaned, remarks)?;
                // every event is a reading, and what is wrong with an object stays wrong: it is told once
                let before = std::mem::replace(told, reading.warnings.clone());
                reading.warnings.retain(|warning| !before.contains(warning));
                Ok(reading)
            }
        }
    }

    /// What was read last is in force.
    pub fn in_force(&mut self) {
        match self {
            Self::Files(..) => {}
            #[cfg(feature = "kubernetes")]
            Self::ApiServer(feed, _) => feed.in_force(),
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Files(files) => files.watch.as_fd(),
            #[cfg(feature = "kubernetes")]
            Self::ApiServer(feed, _) => feed.as_fd(),
        }
    }
}

impl Files {
    /// From files to a program: from what has changed, where that is enough.
    fn read(&mut self, node: &NodeFlags, cleaned: Cleaned) -> Result<Reading, SourceError> {
        self.watch.rescan();
        let touched = self.watch.touched();
        match self.read_changed(&touched, cleaned) {
            Some(reading) => Ok(reading),
            None => self.read_all(node, cleaned),
        }
    }

    fn read_changed(&mut self, touched: &Touched, cleaned: Cleaned) -> Option<Reading> {
        let (table, outline) = self.last.as_mut()?;
        let changed = outline.changed(table, &self.paths, touched)?;
        let image = Image::compile(&changed.table.as_table()).ok()?;
        *table = outline.follow(changed);
        Some(Reading::of(image, table, cleaned, Vec::new()))
    }

    fn read_all(&mut self, node: &NodeFlags, cleaned: Cleaned) -> Result<Reading, SourceError> {
        self.last = None;
        for path in &self.paths {
            if let Ok(meta) = fs::metadata(path) {
                if !meta.is_dir() && !meta.is_file() {
                    return Err(SourceError::Special(path.clone()));
                }
                if meta.is_file() && meta.len() == 0 {
                    return Err(SourceError::Empty(path.clone()));
                }
            }
        }
        let (loaded, outline) = source::load_outlined(&self.paths, node).map_err(SourceError::Problems)?;
        match loaded {
            Loaded::Table { table, report } => {
                let image = compile(&table).map_err(|(_, why)| SourceError::Program(why))?;
                let warnings = report.warnings.iter().map(ToString::to_string).collect();
                let reading = Reading::of(image, &table, cleaned, warnings);
                self.last = outline.map(|outline| (table, outline));
                Ok(reading)
            }
            Loaded::Program { bytes, path } => {
                let image = Image::from_bytes(bytes).map_err(|e| SourceError::Program(format!("{path}: {e}")))?;
                let program = image.program();
                let (services, health_checks) = (Services::of_program(&program, cleaned), health::of_program(&program));
                Ok(Reading { image, services, health_checks, warnings: Vec::new() })
            }
        }
    }
}

/// From the objects of an API server to a program. A Service that has none (one with 70,000 endpoints, say) may be anybody's
/// in the cluster: it is left out, and the others are not kept waiting.
#[cfg_attr(not(feature = "kubernetes"), expect(dead_code, reason = "the API server is left out of this build"))]
fn of_objects(mut table: TableBuf, cleaned: Cleaned, mut warnings: Vec<String>) -> Result<Reading, SourceError> {
    for _ in 0..LEFT_OUT {
        match compile(&table) {
            Ok(image) => return Ok(Reading::of(image, &table, cleaned, warnings)),
            Err((Some(service), why)) => {
                warnings.push(format!("left out: {why}"));
                table = table.without(service);
            }
            Err((None, why)) => return Err(SourceError::Program(why)),
        }
    }
    Err(SourceError::Program(format!("more than {LEFT_OUT} services have no program: {}", warnings.join("; "))))
}

/// Compiles a table; else the service at fault, and why.
fn compile(table: &TableBuf) -> Result<Image, (Option<u32>, String)> {
    let table = table.as_table();
    Image::compile(&table).map_err(|error| {
        let service = match error {
            CompileError::Name { service }
            | CompileError::Frontend { service, .. }
            | CompileError::Endpoint { service, .. }
            | CompileError::TooMany { service } => Some(service),
            _ => None,
        };
        (service, describe(&error, &table))
    })
}
