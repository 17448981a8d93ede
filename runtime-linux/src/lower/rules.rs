//! A family's chains and rules, which are the same for every program that needs the same features.

use super::building::Fields;
use super::{Features, Select};
use crate::nft::model::{BaseChain, Chain, ChainType, Expression as E, Family, Field, Hook, Register, Rule, Verdict};
use natlet_core::{Protocol, SOURCE_HASH_SEED};
use std::collections::BTreeSet;

/// Order of the source-range filter: before any DNAT.
const BEFORE_DSTNAT: i32 = -110;
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;

const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_PROTO_DST: u32 = 12;
const CT_DST_IP: u32 = 20;
const CT_DST_IP6: u32 = 22;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`, as nft's `ct state new`.
const STATE_NEW: u32 = 8;
/// `NF_CT_STATE_BIT` of established and related, as nft's `ct state established,related`.
const STATE_KNOWN: u32 = 2 | 4;
/// `IPS_DST_NAT` (linux/netfilter/nf_conntrack_common.h).
const STATUS_DNAT: u32 = 0x20;

/// All chains of a family: those without a hook first.
pub(super) fn chains(family: Family, features: &Features) -> (Vec<Chain>, Vec<BaseChain>) {
    let build = Build { family, features };
    let mut chains = vec![refuse()];
    if features.passed_over {
        chains.push(build.passed_over());
    }
    if features.has_masquerade_node() {
        chains.push(build.masquerade_node());
    }
    let timeouts: BTreeSet<u32> = features.selects.iter().filter_map(|s| s.affinity).collect();
    chains.extend(timeouts.into_iter().map(|timeout| build.remember(timeout, features.siblings)));
    chains.extend(features.selects.iter().map(|&s| build.select(s)));
    let mut base = Vec::new();
    let mut add = |name: &str, kind, hook, priority, rules| {
        base.push(BaseChain { chain: Chain { name: name.into(), rules }, kind, hook, priority });
    };
    if features.restricted {
        add("filter-prerouting", ChainType::Filter, Hook::Prerouting, BEFORE_DSTNAT, build.source_ranges());
        add("filter-output", ChainType::Filter, Hook::Output, BEFORE_DSTNAT, build.source_ranges());
    }
    if features.localhost_node_ports {
        add("loopback-guard", ChainType::Filter, Hook::Input, 0, vec![loopback_guard()]);
    }
    add("prerouting", ChainType::Nat, Hook::Prerouting, DSTNAT, build.translate(Hook::Prerouting));
    add("output", ChainType::Nat, Hook::Output, DSTNAT, build.translate(Hook::Output));
    add("postrouting", ChainType::Nat, Hook::Postrouting, SRCNAT, build.postrouting());
    (chains, base)
}

impl Features {
    fn has_masquerade_node(&self) -> bool {
        !self.masquerade_node.is_empty() || !self.masquerade_local_node_ports.is_empty()
    }
}

/// A reset for TCP: a local client's `connect` hears an ICMP error only at its first retransmission, a second later, since
/// the error comes while the socket is still busy sending. All else gets ICMP port unreachable.
fn refuse() -> Chain {
    let tcp = E::Cmp { sreg: FIRST, equal: true, data: vec![Protocol::Tcp.number()] };
    let rules = vec![rule(vec![load_l4proto(0), tcp, E::Reset]), rule(vec![E::Reject])];
    Chain { name: "refuse".into(), rules }
}

/// With route_localnet the kernel no longer keeps 127.0.0.0/8 to the host itself: this does (kube-proxy's KUBE-FIREWALL).
fn loopback_guard() -> Rule {
    let first_octet = |offset| E::Payload { dreg: FIRST, base: 1, offset, len: 1 };
    let loopback = |equal| E::Cmp { sreg: FIRST, equal, data: vec![127] };
    let none_of = |key, bits: u32| {
        [
            E::Ct { dreg: FIRST, key, direction: None },
            E::Bitwise { sreg: FIRST, dreg: FIRST, mask: bits.to_ne_bytes().into(), xor: vec![0; 4] },
            E::Cmp { sreg: FIRST, equal: true, data: vec![0; 4] },
        ]
    };
    let from_elsewhere = [first_octet(12), loopback(false), first_octet(16), loopback(true)];
    let unknown = [none_of(CT_STATE, STATE_KNOWN), none_of(CT_STATUS, STATUS_DNAT)].concat();
    let drop = [E::Counter, E::Verdict(Verdict::Drop)];
    commented([&from_elsewhere[..], &unknown, &drop].concat(), "loopback addresses from elsewhere")
}

pub(super) struct Build<'a> {
    pub(super) family: Family,
    features: &'a Features,
}

/// Words of an address, and so where the next field of a key lies.
pub(super) const fn words(family: Family) -> u32 {
    match family {
        Family::Ip => 1,
        Family::Ip6 => 4,
    }
}

pub(super) fn rule(expressions: Vec<E>) -> Rule {
    Rule { expressions, comment: String::new() }
}

pub(super) fn commented(expressions: Vec<E>, comment: &str) -> Rule {
    Rule { expressions, comment: comment.into() }
}

/// Chain of the exact frontends that translate nobody.
pub(super) const PASSED_OVER: &str = "passed-over";

pub(super) const FIRST: Register = Register::word(0);

/// Loads an address of the network header.
fn load_address(field: Field, word: u32) -> E {
    let (offset, len) = match field {
        Field::Ip4Saddr => (12, 4),
        Field::Ip4Daddr => (16, 4),
        Field::Ip6Saddr => (8, 16),
        _ => (24, 16),
    };
    E::Payload { dreg: Register::word(word), base: 1, offset, len }
}

pub(super) fn load_l4proto(word: u32) -> E {
    E::Meta { dreg: Register::word(word), key: META_L4PROTO }
}

fn load_dport(word: u32) -> E {
    E::Payload { dreg: Register::word(word), base: 2, offset: 2, len: 2 }
}

fn in_set(set: &str) -> E {
    E::Lookup { set: set.into(), sreg: FIRST, dreg: None, inverted: false }
}

fn not_in_set(set: &str) -> E {
    E::Lookup { set: set.into(), sreg: FIRST, dreg: None, inverted: true }
}

fn verdict_map(set: &str) -> E {
    E::Lookup { set: set.into(), sreg: FIRST, dreg: Some(Register(0)), inverted: false }
}

impl Build<'_> {
    pub(super) fn load_saddr(&self, word: u32) -> E {
        load_address(Fields::of(self.family).saddr, word)
    }

    pub(super) fn load_daddr(&self, word: u32) -> E {
        load_address(Fields::of(self.family).daddr, word)
    }

    /// `ip daddr . meta l4proto . th dport`.
    fn vip_key(&self) -> Vec<E> {
        let next = words(self.family);
        vec![self.load_daddr(0), load_l4proto(next), load_dport(next + 1)]
    }

    /// `ct original ip daddr`.
    fn load_original_daddr(&self) -> E {
        let key = if self.family == Family::Ip { CT_DST_IP } else { CT_DST_IP6 };
        E::Ct { dreg: FIRST, key, direction: Some(0) }
    }

    /// `ip saddr != @pods`, where pods are known.
    fn not_a_pod(&self) -> Vec<E> {
        if self.features.pods { vec![self.load_saddr(0), not_in_set("pods")] } else { Vec::new() }
    }

    /// `jhash ip saddr mod …` into a word. The source lies behind it while it is hashed, where nft would put it: IPv6 ones on
    /// a 16-byte boundary.
    pub(super) fn hash_source(&self, word: u32, modulus: u32) -> [E; 2] {
        let source = if self.family == Family::Ip { word + 1 } else { (word + 1).next_multiple_of(4) };
        let (sreg, dreg, len) = (Register::word(source), Register::word(word), words(self.family) * 4);
        [self.load_saddr(source), E::Jhash { sreg, dreg, len, modulus, seed: SOURCE_HASH_SEED }]
    }

    /// The chain that draws an endpoint. What it cannot translate it drops: the guard.
    fn select(&self, select: Select) -> Chain {
        let frontend = if select.node_port { vec![load_l4proto(0), load_dport(1)] } else { self.vip_key() };
        let slot = match select {
            Select { affinity: Some(_), .. } => 1,
            Select { node_port: true, .. } => 2,
            Select { node_port: false, .. } => words(self.family) + 2,
        };
        let draw = if select.hash {
            self.hash_source(slot, select.slots).to_vec()
        } else {
            vec![E::Random { dreg: Register::word(slot), modulus: select.slots }]
        };
        let mut rules = if let Some(timeout) = select.affinity {
            self.select_remembered(frontend, select.map(), draw, timeout)
        } else {
            let look_up = E::Lookup { set: select.map().into(), sreg: FIRST, dreg: Some(FIRST), inverted: false };
            let dnat = E::Dnat { family: self.family, address: FIRST, port: Register::word(words(self.family)) };
            vec![rule([frontend, draw, vec![look_up, dnat]].concat())]
        };
        let guard = vec![E::Counter, E::Verdict(Verdict::Drop)];
        rules.push(commented(guard, "guard: drawn while endpoints changed"));
        Chain { name: select.chain(), rules }
    }

    /// kube-proxy drops sources outside `loadBalancerSourceRanges` before any DNAT.
    fn source_ranges(&self) -> Vec<Rule> {
        let state = vec![
            E::Ct { dreg: FIRST, key: CT_STATE, direction: None },
            E::Bitwise { sreg: FIRST, dreg: FIRST, mask: STATE_NEW.to_ne_bytes().into(), xor: vec![0; 4] },
            E::Cmp { sreg: FIRST, equal: false, data: vec![0; 4] },
        ];
        let source = self.load_saddr(words(self.family) + 2);
        let not_allowed = [self.vip_key(), vec![source, not_in_set("allowed")]].concat();
        let restricted = [self.vip_key(), vec![in_set("restricted")]].concat();
        let drop = vec![E::Counter, E::Verdict(Verdict::Drop)];
        vec![commented([state, restricted, not_allowed, drop].concat(), "source ranges")]
    }

    /// The DNAT chains. Only traffic that arrives can be from outside: a locally generated packet under external policy
    /// Local uses the Cluster list.
    fn translate(&self, hook: Hook) -> Vec<Rule> {
        let arriving = hook == Hook::Prerouting;
        let f = self.features;
        let mut rules = Vec::new();
        if f.local_services && arriving {
            let look_up = [self.vip_key(), vec![verdict_map("local-services")]].concat();
            rules.push(rule([self.not_a_pod(), look_up].concat()));
        }
        rules.push(rule([self.vip_key(), vec![verdict_map("services")]].concat()));
        if f.local_node_ports && arriving {
            rules.push(self.node_port(self.not_a_pod(), "local-node-ports"));
        }
        if f.node_ports {
            rules.push(self.node_port(Vec::new(), "node-ports"));
        }
        if f.cluster_ips {
            let refuse = E::Verdict(Verdict::Goto("refuse".into()));
            let expressions = vec![self.load_daddr(0), in_set("cluster-ips"), refuse];
            rules.push(commented(expressions, "other ports of ClusterIPs"));
        }
        if f.service_cidrs {
            let drop = E::Verdict(Verdict::Drop);
            let expressions = vec![self.load_daddr(0), in_set("service-cidrs"), E::Counter, drop];
            rules.push(commented(expressions, "unallocated service addresses"));
        }
        rules
    }

    /// Looks a packet up in a map of NodePorts, if it is for an address that takes them and from such a source.
    fn node_port(&self, source: Vec<E>, map: &str) -> Rule {
        let look_up = vec![load_l4proto(0), load_dport(1), verdict_map(map)];
        rule([self.node_port_address(), source, look_up].concat())
    }

    /// An external address and port whose service has no endpoint: kube-proxy refuses it only after the NodePorts, so that
    /// another service's NodePort of the same number takes it where the address is the node's. Both hooks come here.
    fn passed_over(&self) -> Chain {
        let f = self.features;
        let mut rules = Vec::new();
        if f.local_node_ports {
            rules.push(self.node_port(vec![E::FibType { dreg: FIRST, source: true }], "node-ports"));
            rules.push(self.node_port(self.not_a_pod(), "local-node-ports"));
        }
        if f.node_ports {
            rules.push(self.node_port(Vec::new(), "node-ports"));
        }
        rules.push(rule(vec![E::Verdict(Verdict::Goto("refuse".into()))]));
        Chain { name: PASSED_OVER.into(), rules }
    }

    /// `fib daddr type local`, less loopback unless it is asked for, within the NodePort addresses.
    fn node_port_address(&self) -> Vec<E> {
        let mut expressions = vec![E::FibType { dreg: FIRST, source: false }];
        match self.family {
            Family::Ip if self.features.localhost_node_ports => {}
            Family::Ip => expressions.extend([
                E::Payload { dreg: FIRST, base: 1, offset: 16, len: 1 },
                E::Cmp { sreg: FIRST, equal: false, data: vec![127] },
            ]),
            Family::Ip6 => expressions.extend([
                self.load_daddr(0),
                E::Cmp { sreg: FIRST, equal: false, data: std::net::Ipv6Addr::LOCALHOST.octets().into() },
            ]),
        }
        if self.features.node_port_addresses {
            expressions.extend([self.load_daddr(0), in_set("node-port-addresses")]);
        }
        expressions
    }

    /// Masquerading, decided on what the connection was for before it was translated.
    fn postrouting(&self) -> Vec<Rule> {
        let f = self.features;
        let translated = vec![
            E::Ct { dreg: FIRST, key: CT_STATUS, direction: None },
            E::Bitwise { sreg: FIRST, dreg: FIRST, mask: STATUS_DNAT.to_ne_bytes().into(), xor: vec![0; 4] },
            E::Cmp { sreg: FIRST, equal: true, data: vec![0; 4] },
            E::Verdict(Verdict::Return),
        ];
        let mut rules = vec![commented(translated, "not translated")];
        // first what most connections from outside end at
        rules.extend(self.by_original_vip(&f.masquerade, "masquerade-always", &E::Masquerade));
        if f.hairpin {
            let next = words(self.family);
            let pair = vec![self.load_saddr(0), self.load_daddr(next), in_set("hairpin"), E::Masquerade];
            rules.push(commented(pair, "an endpoint that reaches itself"));
        }
        let to_node_chain = E::Verdict(Verdict::Goto("masquerade-node".into()));
        rules.extend(self.by_original_vip(&f.masquerade_node, "masquerade-node", &to_node_chain));
        if f.cluster_ips {
            let cluster_ip = vec![self.load_original_daddr(), in_set("cluster-ips")];
            if f.masquerade_all {
                rules.push(rule([cluster_ip.clone(), vec![E::Masquerade]].concat()));
            } else if f.pods {
                let masquerade = [self.not_a_pod(), cluster_ip.clone(), vec![E::Masquerade]].concat();
                rules.push(commented(masquerade, "ClusterIP traffic of no pod"));
            }
            if !(f.masquerade_node_ports.is_empty() && f.masquerade_local_node_ports.is_empty()) {
                rules.push(rule([cluster_ip, vec![E::Verdict(Verdict::Return)]].concat()));
            }
        }
        rules.extend(by_original_port(&f.masquerade_node_ports, "masquerade-node-ports", &E::Masquerade));
        rules.extend(by_original_port(&f.masquerade_local_node_ports, "masquerade-local-node-ports", &to_node_chain));
        rules
    }

    /// A rule per protocol on the original destination. nft 1.0.6 reloads `ct original proto-dst` inside a concatenation
    /// only where the rule has matched the protocol before.
    fn by_original_vip(&self, protocols: &BTreeSet<Protocol>, set: &str, then: &E) -> Vec<Rule> {
        let next = words(self.family);
        let key = [
            self.load_original_daddr(),
            load_l4proto(next),
            E::Ct { dreg: Register::word(next + 1), key: CT_PROTO_DST, direction: Some(0) },
        ];
        per_protocol(protocols, &key, set, then)
    }

    /// The node's own traffic to an external address under policy Local.
    fn masquerade_node(&self) -> Chain {
        let local = vec![E::FibType { dreg: FIRST, source: true }, E::Masquerade];
        Chain { name: "masquerade-node".into(), rules: vec![rule([self.not_a_pod(), local].concat())] }
    }
}

fn by_original_port(protocols: &BTreeSet<Protocol>, set: &str, then: &E) -> Vec<Rule> {
    let key = [load_l4proto(0), E::Ct { dreg: Register::word(1), key: CT_PROTO_DST, direction: Some(0) }];
    per_protocol(protocols, &key, set, then)
}

fn per_protocol(protocols: &BTreeSet<Protocol>, key: &[E], set: &str, then: &E) -> Vec<Rule> {
    protocols
        .iter()
        .map(|protocol| {
            let of_protocol = [load_l4proto(0), E::Cmp { sreg: FIRST, equal: true, data: vec![protocol.number()] }];
            rule([&of_protocol, key, &[in_set(set), then.clone()]].concat())
        })
        .collect()
}
