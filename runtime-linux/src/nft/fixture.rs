//! The ruleset that tests write, load and read back: every form the lowering uses. The same text, as `nft` reads it, heads
//! `testdata/ip.txt` and `testdata/ip6.txt`.

use super::model::{
    BaseChain, Chain, ChainType, Element, Elements, Expression, Family, Field, Hook, Register, Rule, Ruleset, Set,
    SetData, Table, Verdict,
};

/// Words a family has of its own.
struct Words {
    family: Family,
    daddr: Field,
    saddr: Field,
    len: u32,
    daddr_offset: u32,
    saddr_offset: u32,
    ct_dst: u32,
}

const IP: Words = Words {
    family: Family::Ip,
    daddr: Field::Ip4Daddr,
    saddr: Field::Ip4Saddr,
    len: 4,
    daddr_offset: 16,
    saddr_offset: 12,
    ct_dst: 20,
};
const IP6: Words = Words {
    family: Family::Ip6,
    daddr: Field::Ip6Daddr,
    saddr: Field::Ip6Saddr,
    len: 16,
    daddr_offset: 24,
    saddr_offset: 8,
    ct_dst: 22,
};

/// Both tables.
#[allow(dead_code, reason = "for the kernel tests")]
pub fn ruleset() -> Ruleset {
    Ruleset { tables: vec![table(Family::Ip), table(Family::Ip6)], ..Ruleset::default() }
}

/// The table of `testdata/ip.txt` or `testdata/ip6.txt`.
pub fn table(family: Family) -> Table {
    let w = if family == Family::Ip { &IP } else { &IP6 };
    Table {
        family,
        name: "natlet".into(),
        comment: "natlet".into(),
        sets: sets(w),
        chains: vec![
            chain("refuse", vec![vec![Expression::Reject]]),
            chain("select-2", vec![w.dnat("endpoints", true), counted_drop()]),
            chain("node-select-2", vec![w.dnat("node-port-endpoints", false), counted_drop()]),
        ],
        base_chains: base_chains(w),
    }
}

fn sets(w: &Words) -> Vec<Set> {
    let (vip, vip6, vip7) = (w.vip(0x65), w.vip(0x66), w.vip(0x67));
    let frontend = |address: &[u8], port: u16| [address, &[6, 0, 0, 0], &port.to_be_bytes(), &[0, 0]].concat();
    let full = vec![w.daddr, Field::L4Proto, Field::Dport];
    let node = vec![Field::L4Proto, Field::Dport];
    let value = SetData::Value(vec![w.daddr, Field::Dport]);
    let slots = |fields: &[Field]| [fields, &[Field::Slot]].concat();
    let verdict = |i: u16| i.to_le_bytes();
    let one = 1u32.to_ne_bytes();

    let mut endpoints = set("endpoints", slots(&full), value.clone(), Some(64));
    endpoints.elements.push(
        &[&frontend(&vip, 443)[..], &one].concat(),
        &[&w.pod()[..], &443u16.to_be_bytes(), &[0, 0]].concat(),
        "",
    );
    let mut services =
        set("services", full.clone(), SetData::Verdict(vec![goto("select-2"), goto("refuse"), Verdict::Drop]), None);
    services.comment = "service frontends".into();
    services.elements.push(&frontend(&vip, 443), &verdict(0), "ns/svc:https");
    services.elements.push(&frontend(&vip6, 443), &verdict(1), "");
    services.elements.push(&frontend(&vip7, 443), &verdict(2), "");
    let mut node_ports = set("node-ports", node.clone(), SetData::Verdict(vec![goto("node-select-2")]), Some(100));
    node_ports.elements.push(&frontend(&[], 30_512), &verdict(0), "");
    let mut cluster_ips = set("cluster-ips", vec![w.daddr], SetData::None, Some(64));
    cluster_ips.elements.push(&vip, &[], "x");
    let mut hairpin = set("hairpin", vec![w.saddr, w.daddr], SetData::None, None);
    hairpin.elements.push(&[w.pod(), w.pod()].concat(), &[], "");
    let mut pods = ranges("pods", vec![w.saddr]);
    for (first, last, comment) in w.pod_ranges() {
        pods.elements.push(&first, &last, comment);
    }
    let mut allowed = ranges("allowed", [&full[..], &[w.saddr]].concat());
    let (first, last) = w.source_range();
    allowed.elements.push(&[frontend(&vip, 443), first].concat(), &[frontend(&vip, 443), last].concat(), "c");
    let mut program = set("program", vec![Field::Mark], SetData::None, Some(4));
    program.elements.push(&one, &[], "natlet 0.1.0 id 1234");
    vec![
        endpoints,
        set("node-port-endpoints", slots(&node), value, Some(64)),
        services,
        node_ports,
        set("masquerade-always", full, SetData::None, Some(64)),
        cluster_ips,
        hairpin,
        pods,
        ranges("service-cidrs", vec![w.daddr]),
        allowed,
        program,
    ]
}

fn base_chains(w: &Words) -> Vec<BaseChain> {
    let at = Register::word;
    let mark = |sreg| Expression::Cmp { sreg, equal: true, data: 0x4000u32.to_ne_bytes().to_vec() };
    let test = |bits: u32, equal| {
        vec![
            Expression::Bitwise { sreg: at(0), dreg: at(0), mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] },
            Expression::Cmp { sreg: at(0), equal, data: vec![0; 4] },
        ]
    };
    let mut node_ports = vec![Expression::FibType { dreg: at(0), source: false }];
    node_ports.extend(w.not_loopback());
    node_ports.extend([l4proto(at(0)), dport(at(1)), look_up("node-ports", Some(Register(0)), false)]);
    let mut always = vec![l4proto(at(0)), Expression::Cmp { sreg: at(0), equal: true, data: vec![6] }];
    let words = w.len / 4;
    always.extend([
        w.original(at(0)),
        l4proto(at(words)),
        Expression::Ct { dreg: at(words + 1), key: 12, direction: Some(0) },
        look_up("masquerade-always", None, false),
        Expression::Masquerade,
    ]);
    let mut allowed = vec![Expression::Ct { dreg: at(0), key: 0, direction: None }];
    allowed.extend(test(8, false));
    allowed.extend(w.frontend());
    allowed.push(look_up("masquerade-always", None, false));
    allowed.extend(w.frontend());
    allowed.push(w.source(at(words + 2)));
    allowed.extend([look_up("allowed", None, true), Expression::Verdict(Verdict::Drop)]);
    let mark_is = |rest: Vec<Expression>| [vec![Expression::Meta { dreg: at(0), key: 3 }], rest].concat();
    let mut marked = rule(mark_is(vec![
        Expression::Bitwise { sreg: at(0), dreg: at(0), mask: 0x4000u32.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        mark(at(0)),
        Expression::Verdict(Verdict::Drop),
    ]));
    marked.comment = "marked".into();
    let set_mark = rule(mark_is(vec![
        Expression::Bitwise {
            sreg: at(0),
            dreg: at(0),
            mask: 0xffff_bfffu32.to_ne_bytes().to_vec(),
            xor: 0x4000u32.to_ne_bytes().to_vec(),
        },
        Expression::MetaSet { sreg: at(0), key: 3 },
    ]));
    let mut filter = chain("filter-prerouting", vec![allowed]);
    filter.rules.extend([marked, set_mark]);
    let status = [vec![Expression::Ct { dreg: at(0), key: 2, direction: None }], test(0x20, true)].concat();
    vec![
        BaseChain {
            chain: chain(
                "prerouting",
                vec![
                    [w.frontend(), vec![look_up("services", Some(Register(0)), false)]].concat(),
                    node_ports,
                    vec![
                        w.destination(at(0)),
                        look_up("cluster-ips", None, false),
                        Expression::Verdict(goto("refuse")),
                    ],
                    vec![
                        w.destination(at(0)),
                        look_up("service-cidrs", None, false),
                        Expression::Verdict(Verdict::Drop),
                    ],
                ],
            ),
            kind: ChainType::Nat,
            hook: Hook::Prerouting,
            priority: -100,
        },
        BaseChain {
            chain: chain(
                "postrouting",
                vec![
                    [status, vec![Expression::Verdict(Verdict::Return)]].concat(),
                    vec![
                        w.source(at(0)),
                        w.destination(at(words)),
                        look_up("hairpin", None, false),
                        Expression::Masquerade,
                    ],
                    always,
                    vec![
                        w.source(at(0)),
                        look_up("pods", None, true),
                        w.original(at(0)),
                        look_up("cluster-ips", None, false),
                        Expression::Masquerade,
                    ],
                    vec![w.original(at(0)), look_up("cluster-ips", None, false), Expression::Verdict(Verdict::Return)],
                    vec![Expression::FibType { dreg: at(0), source: true }, Expression::Masquerade],
                ],
            ),
            kind: ChainType::Nat,
            hook: Hook::Postrouting,
            priority: 100,
        },
        BaseChain { chain: filter, kind: ChainType::Filter, hook: Hook::Prerouting, priority: -110 },
    ]
}

impl Words {
    /// 192.168.5.N or fd00::N, as their last part is written.
    fn vip(&self, n: u8) -> Vec<u8> {
        match self.family {
            Family::Ip => vec![192, 168, 5, n - 0x24],
            Family::Ip6 => address6(0, u16::from(n)),
        }
    }

    fn pod(&self) -> Vec<u8> {
        match self.family {
            Family::Ip => vec![10, 82, 0, 10],
            Family::Ip6 => address6(1, 0x10),
        }
    }

    fn pod_ranges(&self) -> [(Vec<u8>, Vec<u8>, &'static str); 3] {
        let net4 = |a: [u8; 2]| (vec![a[0], a[1], 0, 0], vec![a[0], a[1], 255, 255]);
        let net6 = |n| {
            let first = address6(n, 0);
            (first.clone(), [&first[..8], &[255; 8]].concat())
        };
        let ((a, b), (c, d), last) = match self.family {
            Family::Ip => (net4([10, 82]), net4([10, 84]), (vec![255, 0, 0, 0], vec![255; 4])),
            Family::Ip6 => (net6(1), net6(2), ([&[255][..], &[0; 15]].concat(), vec![255; 16])),
        };
        [(a, b, "pod"), (c, d, ""), (last.0, last.1, "")]
    }

    fn source_range(&self) -> (Vec<u8>, Vec<u8>) {
        match self.family {
            Family::Ip => (vec![10, 0, 0, 0], vec![10, 255, 255, 255]),
            Family::Ip6 => {
                let first = address6(9, 0);
                (first.clone(), [&first[..4], &[255; 12]].concat())
            }
        }
    }

    fn destination(&self, dreg: Register) -> Expression {
        Expression::Payload { dreg, base: 1, offset: self.daddr_offset, len: self.len }
    }

    fn source(&self, dreg: Register) -> Expression {
        Expression::Payload { dreg, base: 1, offset: self.saddr_offset, len: self.len }
    }

    fn original(&self, dreg: Register) -> Expression {
        Expression::Ct { dreg, key: self.ct_dst, direction: Some(0) }
    }

    /// daddr . l4proto . dport from the first register on.
    fn frontend(&self) -> Vec<Expression> {
        let words = self.len / 4;
        vec![self.destination(Register::word(0)), l4proto(Register::word(words)), dport(Register::word(words + 1))]
    }

    fn not_loopback(&self) -> Vec<Expression> {
        let (len, data) = match self.family {
            Family::Ip => (1, vec![127]),
            Family::Ip6 => (16, u128::to_be_bytes(1).to_vec()),
        };
        let load = Expression::Payload { dreg: Register::word(0), base: 1, offset: self.daddr_offset, len };
        vec![load, Expression::Cmp { sreg: Register::word(0), equal: false, data }]
    }

    fn dnat(&self, map: &str, address: bool) -> Vec<Expression> {
        let at = Register::word;
        let mut out = if address { self.frontend() } else { vec![l4proto(at(0)), dport(at(1))] };
        let slot = if address { self.len / 4 + 2 } else { 2 };
        out.extend([
            Expression::Random { dreg: at(slot), modulus: 2 },
            look_up(map, Some(at(0)), false),
            Expression::Dnat { family: self.family, address: at(0), port: at(self.len / 4) },
        ]);
        out
    }
}

fn address6(net: u16, host: u16) -> Vec<u8> {
    std::net::Ipv6Addr::new(0xfd00 + net, 0, 0, 0, 0, 0, 0, host).octets().to_vec()
}

fn set(name: &str, key: Vec<Field>, data: SetData, size: Option<u32>) -> Set {
    let mut set = Set {
        name: name.into(),
        key,
        data,
        interval: false,
        size,
        memory: None,
        counter: false,
        comment: String::new(),
        elements: Elements::default(),
    };
    set.elements = set.empty_elements();
    set
}

fn ranges(name: &str, key: Vec<Field>) -> Set {
    let mut set = Set { interval: true, ..set(name, key, SetData::None, None) };
    set.elements = set.empty_elements();
    set
}

fn chain(name: &str, rules: Vec<Vec<Expression>>) -> Chain {
    Chain { name: name.into(), rules: rules.into_iter().map(rule).collect() }
}

fn rule(expressions: Vec<Expression>) -> Rule {
    Rule { expressions, comment: String::new() }
}

fn goto(chain: &str) -> Verdict {
    Verdict::Goto(chain.into())
}

fn counted_drop() -> Vec<Expression> {
    vec![Expression::Counter, Expression::Verdict(Verdict::Drop)]
}

fn l4proto(dreg: Register) -> Expression {
    Expression::Meta { dreg, key: 16 }
}

fn dport(dreg: Register) -> Expression {
    Expression::Payload { dreg, base: 2, offset: 2, len: 2 }
}

fn look_up(set: &str, dreg: Option<Register>, inverted: bool) -> Expression {
    Expression::Lookup { set: set.into(), sreg: Register::word(0), dreg, inverted }
}

/// Takes elements out of a set.
#[allow(dead_code, reason = "used by the kernel tests, not by the golden ones")]
pub fn without(set: &mut Set, gone: &dyn Fn(&Element<'_>) -> bool) {
    let mut rest = set.empty_elements();
    set.elements.iter().filter(|e| !gone(e)).for_each(|e| rest.push(e.key, e.data, e.comment));
    set.elements = rest;
}
