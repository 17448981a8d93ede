//! From input files to a service table.
//!
//! [`load`] reads Kubernetes manifests ([YAML and JSON](self::manifest)), natlet's own [`services.toml`](self::services_toml),
//! [`iptables-save` listings](self::iptables) and compiled programs. The kind of each input is told by its content, and
//! several inputs make one table. Nothing is read halfway: either there is a table, with a [`Report`] of what was left
//! out, or there are [`Problems`], all of them at once and each with its place and the way out.
//!
//! ```
//! use natlet::source::{Input, Loaded, NodeFlags, load_inputs};
//!
//! let text = r#"
//!     [[service]]
//!     name = "shop/web"
//!     port = 80
//!     cluster-ip = "10.96.0.7"
//!     endpoints = ["10.0.0.1:8080", "10.0.0.2:8080"]
//! "#;
//! let input = Input { name: "services.toml".into(), bytes: text.into(), found: false };
//! let Loaded::Table { table, .. } = load_inputs(vec![input], &NodeFlags::default())? else { unreachable!() };
//! assert_eq!(table.as_table().endpoints.len(), 2);
//! # Ok::<(), natlet::source::Problems>(())
//! ```

mod address;
pub mod cluster;
mod detect;
pub mod diagnostic;
mod document;
pub mod flows;
mod input;
pub mod iptables;
mod json;
pub mod manifest;
mod node_flags;
pub mod outline;
mod pieces;
pub mod services_toml;
pub mod settings;
mod stretch;
mod table_buf;
mod this_node;
mod tree;
mod yaml;

pub use diagnostic::{Diagnostic, Place, Problems, Severity, render_all};
pub use input::Input;
pub use node_flags::{NodeFlags, parse_address, parse_cidr};
pub use table_buf::{NodeBuf, ServiceBuf, TableBuf};

use detect::Kind;
use diagnostic::{Sink, SourceFile};
use document::Walker;
use outline::Outline;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use this_node::ThisNode;

/// What the inputs hold.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a run")]
pub enum Loaded {
    /// A service table.
    Table {
        /// The table.
        table: TableBuf,
        /// What was read and what was left out.
        report: Report,
    },
    /// A compiled program, not checked yet.
    Program {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Where it was read, as messages call it.
        path: String,
    },
}

/// What was read and what was left out.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Kubernetes objects read, by kind.
    pub objects: BTreeMap<String, usize>,
    /// Kubernetes objects of kinds that have no part in NAT, by kind.
    pub skipped: BTreeMap<String, usize>,
    /// Services and slices that kube-proxy ignores too, by reason.
    pub ignored: BTreeMap<String, usize>,
    /// Lines around a listing that are none of iptables-save's.
    pub skipped_lines: usize,
    /// What is doubtful or was left out for a reason worth knowing.
    pub warnings: Vec<Diagnostic>,
}

/// Reads files (`-` is standard input, a directory every file in it) into a table, or returns a compiled program.
pub fn load(paths: &[PathBuf], node: &NodeFlags) -> Result<Loaded, Problems> {
    load_inputs(inputs(paths)?, node)
}

/// As [`load`], with what tells later which services have changed, if that can be told: of a program it cannot.
pub fn load_outlined(paths: &[PathBuf], node: &NodeFlags) -> Result<(Loaded, Option<Outline>), Problems> {
    let mut outline = None;
    let loaded = read_inputs(inputs(paths)?, node, Some(&mut outline))?;
    Ok((loaded, outline))
}

fn inputs(paths: &[PathBuf]) -> Result<Vec<Input>, Problems> {
    let mut problems = Vec::new();
    let inputs = input::read_all(paths, &mut problems);
    Problems::new(problems).map_or(Ok(inputs), Err)
}

/// [`load`] for inputs that are in memory already.
pub fn load_inputs(inputs: Vec<Input>, node: &NodeFlags) -> Result<Loaded, Problems> {
    read_inputs(inputs, node, None)
}

fn read_inputs(
    inputs: Vec<Input>,
    node: &NodeFlags,
    outline: Option<&mut Option<Outline>>,
) -> Result<Loaded, Problems> {
    if let Some(program) = inputs.iter().position(|input| input.bytes.starts_with(detect::PROGRAM_MAGIC)) {
        return program_alone(inputs, program, node);
    }
    let mut sink = Sink::default();
    let mut files = Vec::with_capacity(inputs.len());
    for input in inputs {
        files.extend(text_file(input.name, input.bytes, &mut sink).map(|file| (file, input.found)));
    }
    let mut reading = Reading { sink, ..Reading::default() };
    for (file, found) in &files {
        reading.read(file, *found);
    }
    match outline {
        None => reading.finish(node, None),
        Some(outline) => {
            *outline = Outline::new(&files, &reading);
            reading.finish(node, outline.as_mut())
        }
    }
}

/// A program is a whole: it takes neither other inputs nor a node's settings.
fn program_alone(mut inputs: Vec<Input>, index: usize, flags: &NodeFlags) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let program = inputs.swap_remove(index);
    if !inputs.is_empty() {
        problems.push(
            Diagnostic::error(format!(
                "{} is a compiled program and cannot be combined with other inputs",
                program.name
            ))
            .help("give the program alone, or compile all the sources together"),
        );
    }
    let flags = flags.given();
    if !flags.is_empty() {
        problems.push(
            Diagnostic::error(format!(
                "{} is a compiled program: it already carries its node's settings",
                program.name
            ))
            .help(format!("leave out {}, or compile again with it", flags.join(", "))),
        );
    }
    match Problems::new(problems) {
        Some(problems) => Err(problems),
        None => Ok(Loaded::Program { bytes: program.bytes, path: program.name }),
    }
}

/// Everything read so far.
#[derive(Default)]
struct Reading {
    sink: Sink,
    report: Report,
    objects: manifest::Objects,
    tables: Vec<services_toml::Tables>,
    listings: Vec<iptables::Listing>,
}

impl Reading {
    /// Reads one file; `found` if it came from a directory.
    fn read(&mut self, file: &Arc<SourceFile>, found: bool) {
        match detect::kind(file.text()) {
            Kind::Listing => {
                let listing = iptables::parse(file);
                self.report.skipped_lines += listing.skipped;
                self.listings.push(listing);
            }
            Kind::Manifest => manifest::read(file, &mut self.sink, &mut self.objects, &mut self.report),
            Kind::Toml => {
                if let Some(document) = services_toml::parse(file, &mut self.sink) {
                    let mut walker = Walker { file, sink: &mut self.sink, quoted_text: true };
                    self.tables.push(services_toml::read(&document, &mut walker));
                }
            }
            Kind::Empty => self.sink.push(Diagnostic::warning(format!("{} is empty", file.name()))),
            Kind::Unknown if found => {
                self.sink.push(Diagnostic::warning(format!("{} is no input of natlet's and is left out", file.name())));
            }
            Kind::Unknown => self.sink.push(
                Diagnostic::error(format!("{} is no input that natlet knows", file.name())).help(
                    "give Kubernetes manifests (YAML or JSON), a services.toml, an iptables-save listing or a compiled program",
                ),
            ),
        }
    }

    /// Joins what was read: first who this node is, then the services as seen from it. An outline is told who the node is.
    fn finish(mut self, flags: &NodeFlags, outline: Option<&mut Outline>) -> Result<Loaded, Problems> {
        let settings = self.toml_node();
        let objects = self.objects.view();
        let node = ThisNode::new(flags, settings, &objects.nodes, &mut self.sink);
        let mut drafts = manifest::join::join(&objects, node.here(), &mut self.sink);
        let here = (node.here().name.map(str::to_owned), node.here().zone.map(str::to_owned));
        let mut node = node.into_buf();
        let tables = std::mem::take(&mut self.tables);
        drafts.extend(tables.into_iter().flat_map(|table| table.services).map(|service| service.resolve(&node.name)));
        let lifted = iptables::lift(&self.listings, &mut self.sink);
        drafts.extend(lifted.drafts);
        if node.cluster_cidrs.is_empty() {
            node.cluster_cidrs = lifted.cluster_cidrs;
        }
        node.masquerade_all |= lifted.masquerade_all;
        self.missing_slices();
        if let Some(outline) = outline {
            (outline.node, outline.here) = (node.clone(), here);
        }
        let table = table_buf::assemble(drafts, node, &mut self.sink);
        self.report.warnings = self.sink.warnings;
        match Problems::new(self.sink.problems) {
            Some(problems) => Err(problems),
            None => Ok(Loaded::Table { table, report: self.report }),
        }
    }

    /// The `[node]` of the one TOML file that has it.
    fn toml_node(&mut self) -> NodeBuf {
        let mut nodes = self.tables.iter_mut().filter_map(|table| table.node.take());
        let Some((node, first)) = nodes.next() else { return NodeBuf::default() };
        for (_, place) in nodes {
            self.sink.push(
                Diagnostic::error("[node] is given twice")
                    .at(place, "again here")
                    .at(first.clone(), "first here")
                    .help("say in one file what the node is"),
            );
        }
        node
    }

    /// `kubectl get svc,endpoints` prints Endpoints, which are deprecated and not read.
    fn missing_slices(&mut self) {
        if self.report.skipped.contains_key("Endpoints")
            && self.objects.slices.is_empty()
            && !self.objects.services.is_empty()
        {
            self.sink.push(
                Diagnostic::warning("the input has Endpoints, which are not read, and no EndpointSlices")
                    .help("print them too: kubectl get services,endpointslices,nodes -A -o yaml"),
            );
        }
    }
}

/// The bytes as text, a byte order mark taken off.
fn text_file(name: String, bytes: Vec<u8>, sink: &mut Sink) -> Option<Arc<SourceFile>> {
    let help = "give text in UTF-8, or a program that natlet compiled";
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => {
            sink.push(Diagnostic::error(format!("{name} is not text: it holds a NUL byte")).help(help));
            None
        }
        Ok(text) => {
            let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
            Some(Arc::new(SourceFile::new(name, text)))
        }
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let file = Arc::new(SourceFile::new(name, text));
            let title = format!("{} is not UTF-8", file.name());
            sink.push(Diagnostic::error(title).at(Place::new(&file, valid..valid + 3), "").help(help));
            None
        }
    }
}

#[cfg(test)]
mod tests;
