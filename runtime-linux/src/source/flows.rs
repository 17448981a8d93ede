//! Flows with what is to become of them: a unit test of one's own service table, for `natlet trace --flows`.
//!
//! ```toml
//! [[flow]]
//! name = "clients reach the shop"     # optional
//! from = "203.0.113.9"                # source, with or without a port
//! to = "198.51.100.1:443"
//! proto = "tcp"                       # tcp (default), udp or sctp
//! [flow.expect]
//! verdict = "dnat"                    # dnat, reject, drop or accept. Required
//! service = "shop/web:https"          # what is left out may be anything
//! frontend = "load-balancer"          # cluster-ip, node-port, load-balancer or external-ip
//! endpoints = ["10.0.0.1:443"]        # exactly these, in any order
//! masquerade = false                  # all endpoints are masqueraded, or none; or the list of those that are
//!
//! [[flow]]
//! from = "203.0.113.9"
//! to = "198.51.100.1:444"
//! expect = "accept"                   # the verdict alone
//! ```

use super::address::{self, socket_text};
use super::diagnostic::{Diagnostic, Place, Problems, Sink};
use super::document::{Node, Value, Walker};
use super::{input, services_toml, text_file};
use natlet_core::Verdict;
use natlet_core::table::{FrontendKind, Protocol};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// A flow and what is expected of it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// What it is called, or nothing.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// Source.
    pub from: IpAddr,
    /// Destination.
    pub to: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// What is expected.
    pub expect: Expectation,
}

/// What is expected of a flow; `None` is anything.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The verdict.
    pub verdict: Verdict,
    /// `namespace/name:port`.
    pub service: Option<String>,
    /// The frontend that it meets.
    pub frontend: Option<FrontendKind>,
    /// All endpoints that it can be sent to.
    pub endpoints: Option<BTreeSet<SocketAddr>>,
    /// Which of them see the node's address in place of the client's.
    pub masquerade: Option<Masquerading>,
}

/// Which endpoints are reached with the source rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Masquerading {
    /// All of them.
    All,
    /// None of them.
    None,
    /// These and no others.
    These(BTreeSet<SocketAddr>),
}

/// Reads a file of flows; `-` is standard input, a directory every file in it.
pub fn load(path: PathBuf) -> Result<Vec<Flow>, Problems> {
    let mut problems = Vec::new();
    let inputs = input::read_all(&[path], &mut problems);
    let mut sink = Sink { problems, ..Sink::default() };
    let mut flows = Vec::new();
    for input in inputs {
        let Some(file) = text_file(input.name, input.bytes, &mut sink) else { continue };
        let Some(document) = services_toml::parse(&file, &mut sink) else { continue };
        let before = (flows.len(), sink.problems.len());
        let mut walker = Walker { file: &file, sink: &mut sink, quoted_text: true };
        walker.only_keys(&document, "the file", &["flow"]);
        for node in walker.seq_at(&document, "flow") {
            flows.extend(flow(node, &mut walker));
        }
        if before == (flows.len(), sink.problems.len()) {
            sink.push(
                Diagnostic::error(format!("{} has no flow", file.name()))
                    .help("write [[flow]] with from, to and expect, such as expect = \"reject\""),
            );
        }
    }
    match Problems::new(sink.problems) {
        Some(problems) => Err(problems),
        None => Ok(flows),
    }
}

const PROTOCOLS: [(&str, Protocol); 3] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
const VERDICTS: [(&str, Verdict); 4] =
    [("dnat", Verdict::Dnat), ("reject", Verdict::Reject), ("drop", Verdict::Drop), ("accept", Verdict::Accept)];
const FRONTENDS: [(&str, FrontendKind); 4] = [
    ("cluster-ip", FrontendKind::ClusterIp),
    ("node-port", FrontendKind::NodePort),
    ("load-balancer", FrontendKind::LoadBalancer),
    ("external-ip", FrontendKind::ExternalIp),
];

fn flow(node: &Node<'_>, walker: &mut Walker<'_>) -> Option<Flow> {
    let node = walker.map(node, "a flow")?;
    walker.only_keys(node, "a flow", &["name", "from", "to", "proto", "expect"]);
    let name = walker.text_at(node, "name").unwrap_or("").to_owned();
    let from = required(node, "from", walker).and_then(|n| source(n, walker));
    let to = required(node, "to", walker).and_then(|n| socket(n, "to", walker).map(|to| (to, n.span)));
    let protocol = walker.word_at(node, "proto", &PROTOCOLS);
    let expect = required(node, "expect", walker).and_then(|n| expectation(n, walker));
    let (from, (to, span), expect) = (from?, to?, expect?);
    if from.is_ipv4() != to.is_ipv4() {
        let help = "give both in IPv4 or both in IPv6: nothing translates between them";
        walker.problem(span, "from and to are of different families", "", help);
        return None;
    }
    Some(Flow { name, place: walker.place(node.span), from, to, protocol, expect })
}

fn required<'n>(node: &'n Node<'n>, key: &str, walker: &mut Walker<'_>) -> Option<&'n Node<'n>> {
    let found = node.get(key);
    if found.is_none() {
        walker.problem(node.span, format!("a flow has no {key}"), "", format!("add {key}"));
    }
    found
}

/// An address, or an address and a port, which decides nothing.
fn source(node: &Node<'_>, walker: &mut Walker<'_>) -> Option<IpAddr> {
    let text = walker.text(node, "from")?;
    let bare = text.trim().strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let parsed = address::parse_socket(text).map(|(ip, _)| ip).or_else(|_| address::parse(bare));
    walker.found(parsed, node, "from", text)
}

fn socket(node: &Node<'_>, what: &str, walker: &mut Walker<'_>) -> Option<SocketAddr> {
    let text = walker.text(node, what)?;
    walker.found(address::parse_socket(text), node, what, text).map(|(ip, port)| SocketAddr::new(ip, port))
}

fn expectation(node: &Node<'_>, walker: &mut Walker<'_>) -> Option<Expectation> {
    if let Value::Scalar { .. } = node.value {
        let verdict = walker.word(node, "verdict", &VERDICTS)?;
        return Some(Expectation { verdict, service: None, frontend: None, endpoints: None, masquerade: None });
    }
    let node = walker.map(node, "expect")?;
    walker.only_keys(node, "expect", &["verdict", "service", "frontend", "endpoints", "masquerade"]);
    let Some(verdict) = node.get("verdict") else {
        let help = "add verdict = \"dnat\", \"reject\", \"drop\" or \"accept\"";
        walker.problem(node.span, "expect has no verdict", "", help);
        return None;
    };
    let verdict = walker.word(verdict, "verdict", &VERDICTS)?;
    let frontend = match node.get("frontend") {
        Some(frontend) => Some(walker.word(frontend, "frontend", &FRONTENDS)?),
        None => None,
    };
    if verdict != Verdict::Dnat {
        for key in ["endpoints", "masquerade"] {
            if let Some(value) = node.get(key) {
                let help = format!("remove {key}, or expect the verdict dnat");
                walker.problem(value.span, format!("{verdict} goes with no {key}"), "", help);
            }
        }
    }
    let endpoints = node.get("endpoints").map(|n| sockets(n, "endpoints", walker));
    let masquerade = node.get("masquerade").map(|n| masquerading(n, endpoints.as_ref(), walker));
    let service = walker.text_at(node, "service").map(str::to_owned);
    Some(Expectation { verdict, service, frontend, endpoints, masquerade })
}

fn sockets(node: &Node<'_>, what: &str, walker: &mut Walker<'_>) -> BTreeSet<SocketAddr> {
    let items = walker.one_or_many(node, what);
    items.iter().filter_map(|item| socket(item, what, walker)).collect()
}

fn masquerading(node: &Node<'_>, endpoints: Option<&BTreeSet<SocketAddr>>, walker: &mut Walker<'_>) -> Masquerading {
    match &node.value {
        Value::Scalar { text, quoted: false } if text == "true" => return Masquerading::All,
        Value::Scalar { text, quoted: false } if text == "false" => return Masquerading::None,
        _ => {}
    }
    let these = sockets(node, "masquerade", walker);
    if let Some(other) = endpoints.and_then(|all| these.iter().find(|e| !all.contains(e))) {
        let text = socket_text(other.ip(), other.port());
        let title = format!("{text} is to be masqueraded but is none of the expected endpoints");
        walker.problem(node.span, title, "", "name it in endpoints too, or not here");
    }
    Masquerading::These(these)
}
