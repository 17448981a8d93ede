//! From chains back to service ports.

mod draw;
mod follow;

use super::super::address;
use super::super::diagnostic::{Diagnostic, Place, Sink};
use super::super::manifest::join::unspecified;
use super::super::table_buf::{Draft, ServiceBuf};
use super::parse::{Line, Listing, Part};
use super::rule::Rule;
use follow::{Way, is_jump, prefix};
use natlet_core::table::{Cidr, FrontendKind, Policy, Protocol, ServiceType};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// What all listings say.
#[derive(Debug, Default)]
pub(in super::super) struct Lifted {
    pub drafts: Vec<Draft>,
    /// From the rules that masquerade what does not come from it.
    pub cluster_cidrs: Vec<Cidr>,
    pub masquerade_all: bool,
}

/// natlet's own chain for several cluster CIDRs: it returns what comes from a pod.
const NOT_POD: &str = "KUBE-MARK-NOT-POD";
/// Chains that serve all services alike; nothing in them is about one.
const INFRASTRUCTURE: [&str; 12] = [
    "KUBE-MARK-MASQ",
    "KUBE-MARK-DROP",
    "KUBE-POSTROUTING",
    "KUBE-FORWARD",
    "KUBE-FIREWALL",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-KUBELET-CANARY",
    "KUBE-IPTABLES-HINT",
    "KUBE-HOSTPORTS",
    "KUBE-HP",
    "KUBE-NWPLCY",
];

/// Reads the service ports back. A service that two listings name, one in IPv4 and one in IPv6, is one service.
pub(in super::super) fn lift(listings: &[Listing], sink: &mut Sink) -> Lifted {
    let mut lifted = Lifted::default();
    let mut places: HashMap<(String, Protocol), usize> = HashMap::new();
    for part in listings.iter().flat_map(|listing| &listing.parts) {
        let drafts = Lifter::new(part, sink).run(&mut lifted);
        for draft in drafts {
            let key = (draft.service.name.clone(), draft.service.protocol);
            let twin = places.get(&key).and_then(|place| lifted.drafts.get_mut(*place));
            if let Some(twin) = twin.filter(|twin| is_other_family(&twin.service, &draft.service)) {
                merge(twin, draft);
            } else {
                places.insert(key, lifted.drafts.len());
                lifted.drafts.push(draft);
            }
        }
    }
    for draft in &mut lifted.drafts {
        order_frontends(draft);
    }
    lifted
}

/// Whether two readings are the IPv4 and the IPv6 side of one service port.
fn is_other_family(a: &ServiceBuf, b: &ServiceBuf) -> bool {
    let v4 = |s: &ServiceBuf| {
        (s.frontends.iter().any(|f| f.address.is_ipv4()), s.frontends.iter().any(|f| f.address.is_ipv6()))
    };
    matches!((v4(a), v4(b)), ((true, false), (false, true)) | ((false, true), (true, false)))
}

fn merge(into: &mut Draft, other: Draft) {
    into.service.frontends.extend(other.service.frontends);
    into.frontend_places.extend(other.frontend_places);
    into.service.endpoints.extend(other.service.endpoints);
    into.service.source_ranges.extend(other.service.source_ranges);
    if into.service.service_type == ServiceType::ClusterIp {
        into.service.service_type = other.service.service_type;
    }
}

fn order_frontends(draft: &mut Draft) {
    let frontends = std::mem::take(&mut draft.service.frontends);
    let mut pairs: Vec<_> = frontends.into_iter().zip(std::mem::take(&mut draft.frontend_places)).collect();
    pairs.sort_by_key(|(f, _)| (f.address.is_ipv6(), f.kind, f.address, f.port));
    (draft.service.frontends, draft.frontend_places) = pairs.into_iter().unzip();
}

/// A service port while its rules are gathered.
struct Gathered {
    draft: Draft,
    /// Chains that hold its endpoints.
    cluster_chain: Option<String>,
    local_chain: Option<String>,
}

struct Lifter<'a> {
    part: &'a Part,
    rules: BTreeMap<&'a str, Vec<(Rule<'a>, &'a Line)>>,
    v6: bool,
    sink: &'a mut Sink,
    services: BTreeMap<(String, Protocol), Gathered>,
}

impl<'a> Lifter<'a> {
    fn new(part: &'a Part, sink: &'a mut Sink) -> Self {
        let mut rules = BTreeMap::new();
        for (chain, lines) in &part.chains {
            if INFRASTRUCTURE.iter().any(|known| chain == known || chain.starts_with(&format!("{known}-"))) {
                continue;
            }
            if !is_service_chain(chain) {
                if let Some(line) = lines.first() {
                    sink.push(warning(
                        line,
                        format!("the chain {chain} is not one of kube-proxy's: its rules are left out"),
                    ));
                }
                continue;
            }
            let mut read = Vec::with_capacity(lines.len());
            // whatever the jump to the NodePorts asks for, it says nothing of a service
            for line in lines.iter().filter(|line| !line.place.text().trim_end().ends_with("-j KUBE-NODEPORTS")) {
                match Rule::read(line) {
                    Ok(rule) => read.push((rule, line)),
                    Err(why) => sink.push(warning(line, format!("a rule of {chain} is left out: {why}"))),
                }
            }
            rules.insert(chain.as_str(), read);
        }
        let v6 = part.v6.or_else(|| rules.values().flatten().find_map(|(rule, _)| rule.is_v6())).unwrap_or(false);
        Self { part, rules, v6, sink, services: BTreeMap::new() }
    }

    fn run(mut self, lifted: &mut Lifted) -> Vec<Draft> {
        for (rule, line) in self.rules_of("KUBE-SERVICES") {
            self.services_rule(&rule, line, lifted);
        }
        for (rule, line) in self.rules_of("KUBE-NODEPORTS") {
            self.node_port_rule(&rule, line);
        }
        for (rule, line) in self.rules_of("KUBE-EXTERNAL-SERVICES") {
            self.external_verdict(&rule, line);
        }
        for (rule, _) in self.rules_of(NOT_POD) {
            if let (Some("RETURN"), Some(cidr)) = (rule.target, rule.source) {
                add_cidr(lifted, cidr);
            }
        }
        self.cluster_cidrs(lifted);
        let gathered = std::mem::take(&mut self.services);
        gathered.into_values().map(|gathered| self.with_endpoints(gathered)).collect()
    }

    fn rules_of(&self, chain: &str) -> Vec<(Rule<'a>, &'a Line)> {
        self.rules.get(chain).cloned().unwrap_or_default()
    }

    /// A rule of KUBE-SERVICES: of the nat table a jump to the service's chains, of the filter table a verdict.
    fn services_rule(&mut self, rule: &Rule<'_>, line: &Line, lifted: &mut Lifted) {
        let target = rule.target.unwrap_or("");
        let comment = rule.comment.unwrap_or("");
        match target {
            "KUBE-NODEPORTS" | "ACCEPT" | "RETURN" | NOT_POD => {}
            "KUBE-MARK-MASQ" => match rule.not_source {
                Some(cidr) => add_cidr(lifted, cidr),
                None => lifted.masquerade_all |= comment.ends_with(" cluster IP"),
            },
            "REJECT" | "DROP" | "KUBE-MARK-DROP" => {
                let Some((key, ip, port)) = self.verdict_key(rule, line) else { return };
                let Some(ip) = ip else { return self.unreadable(line, "it has no destination address") };
                let service = self.gather(key, &line.place);
                service.draft.add_frontend(FrontendKind::ClusterIp, ip, port, line.place.clone());
                if target != "REJECT" {
                    service.draft.service.internal_policy = Policy::Local;
                }
            }
            chain if is_jump(chain) => {
                let (Some(ip), Some(protocol), Some(port)) = (rule.destination, rule.protocol, rule.port) else {
                    return self.unreadable(line, "it lacks an address, a protocol or a port");
                };
                let Some(way) = self.follow(chain, line) else { return };
                let name = self.name(comment, chain, line);
                let kind = kind_of(comment, chain);
                let internal = kind == FrontendKind::ClusterIp;
                let service = self.gather((name, protocol), &line.place);
                service.draft.add_frontend(kind, ip, port, line.place.clone());
                if internal && way.local_chain.is_some() && way.cluster_chain.is_none() {
                    service.draft.service.internal_policy = Policy::Local;
                }
                service.take(way, kind);
            }
            other => self.unreadable(line, &format!("it leads to {}", super::super::diagnostic::quote(other))),
        }
    }

    fn node_port_rule(&mut self, rule: &Rule<'_>, line: &Line) {
        let comment = rule.comment.unwrap_or("");
        match rule.target.unwrap_or("") {
            "KUBE-MARK-MASQ" | "RETURN" => {}
            "ACCEPT" => {
                let name = comment.trim_end_matches(" health check node port");
                let health = self.services.iter_mut().filter(|((other, _), _)| other == name);
                for (_, service) in health {
                    service.draft.service.health_check_node_port = rule.port.unwrap_or(0);
                }
            }
            chain if is_jump(chain) => {
                let (Some(protocol), Some(port)) = (rule.protocol, rule.port) else {
                    return self.unreadable(line, "it lacks a protocol or a port");
                };
                let Some(way) = self.follow(chain, line) else { return };
                let name = self.name(comment, chain, line);
                let address = unspecified(!self.v6);
                let service = self.gather((name, protocol), &line.place);
                service.draft.add_frontend(FrontendKind::NodePort, address, port, line.place.clone());
                service.take(way, FrontendKind::NodePort);
            }
            other => self.unreadable(line, &format!("it leads to {}", super::super::diagnostic::quote(other))),
        }
    }

    /// KUBE-EXTERNAL-SERVICES: REJECT without endpoints, DROP without local ones.
    fn external_verdict(&mut self, rule: &Rule<'_>, line: &Line) {
        let Some((key, ip, port)) = self.verdict_key(rule, line) else { return };
        let (kind, address) = match ip {
            Some(ip) => (FrontendKind::ExternalIp, ip),
            None => (FrontendKind::NodePort, unspecified(!self.v6)),
        };
        let local = rule.target != Some("REJECT");
        let service = self.gather(key, &line.place);
        service.draft.add_frontend(kind, address, port, line.place.clone());
        if local {
            service.draft.service.external_policy = Policy::Local;
        }
    }

    /// Service, address and port of a REJECT or DROP line: `ns/name:port has no endpoints`.
    fn verdict_key(&mut self, rule: &Rule<'_>, line: &Line) -> Option<((String, Protocol), Option<IpAddr>, u16)> {
        let name = rule.comment.unwrap_or("").split(' ').next().unwrap_or("");
        let (Some(protocol), Some(port), Ok(())) = (rule.protocol, rule.port, address::check_name(name)) else {
            self.unreadable(line, "it does not say which service it is about");
            return None;
        };
        Some(((name.to_owned(), protocol), rule.destination, port))
    }

    /// The service's name from a comment, or one made of its chain's if there is none.
    fn name(&mut self, comment: &str, chain: &str, line: &Line) -> String {
        let name = comment.split(' ').next().unwrap_or("");
        if address::check_name(name).is_ok() {
            return name.to_owned();
        }
        let hash = chain.rsplit('-').next().unwrap_or("").to_lowercase();
        self.sink.push(warning(line, format!("no comment names this service: it is called unnamed/{hash}")));
        format!("unnamed/{hash}")
    }

    fn gather(&mut self, key: (String, Protocol), place: &Place) -> &mut Gathered {
        self.services.entry(key).or_insert_with_key(|(name, protocol)| Gathered {
            draft: Draft {
                service: ServiceBuf { name: name.clone(), protocol: *protocol, ..ServiceBuf::default() },
                place: place.clone(),
                frontend_places: Vec::new(),
            },
            cluster_chain: None,
            local_chain: None,
        })
    }

    /// Masquerade rules inside the services' chains name the cluster's addresses.
    fn cluster_cidrs(&self, lifted: &mut Lifted) {
        for (chain, rules) in &self.rules {
            for (rule, _) in rules {
                let masquerades = rule.target == Some("KUBE-MARK-MASQ");
                match prefix(chain) {
                    "KUBE-SVC-" | "KUBE-SVL-" if masquerades => match rule.not_source {
                        Some(cidr) => add_cidr(lifted, cidr),
                        None => lifted.masquerade_all |= rule.destination.is_some(),
                    },
                    "KUBE-EXT-" | "KUBE-XLB-" if rule.target.is_some_and(|t| prefix(t) == "KUBE-SVC-") => {
                        if let Some(cidr) = rule.source {
                            add_cidr(lifted, cidr);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn unreadable(&mut self, line: &Line, why: &str) {
        self.sink.push(warning(line, format!("a rule is left out: {why}")));
    }
}

impl Gathered {
    fn take(&mut self, way: Way, kind: FrontendKind) {
        if way.external_local && kind.is_external() {
            self.draft.service.external_policy = Policy::Local;
        }
        if kind == FrontendKind::LoadBalancer {
            for range in way.ranges {
                if !self.draft.service.source_ranges.contains(&range) {
                    self.draft.service.source_ranges.push(range);
                }
            }
        }
        self.cluster_chain = self.cluster_chain.take().or(way.cluster_chain);
        self.local_chain = self.local_chain.take().or(way.local_chain);
    }
}

fn warning(line: &Line, title: impl Into<String>) -> Diagnostic {
    Diagnostic::warning(title).at(line.place.clone(), "")
}

fn add_cidr(lifted: &mut Lifted, cidr: Cidr) {
    if !lifted.cluster_cidrs.contains(&cidr) {
        lifted.cluster_cidrs.push(cidr);
    }
}

fn is_service_chain(chain: &str) -> bool {
    let fixed = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", NOT_POD];
    !prefix(chain).is_empty() || fixed.contains(&chain)
}

fn kind_of(comment: &str, chain: &str) -> FrontendKind {
    if comment.ends_with(" cluster IP") {
        FrontendKind::ClusterIp
    } else if comment.ends_with(" loadbalancer IP") {
        FrontendKind::LoadBalancer
    } else if comment.ends_with(" external IP") {
        FrontendKind::ExternalIp
    } else {
        match prefix(chain) {
            "KUBE-FW-" => FrontendKind::LoadBalancer,
            "KUBE-EXT-" | "KUBE-XLB-" => FrontendKind::ExternalIp,
            _ => FrontendKind::ClusterIp,
        }
    }
}
