use super::meaning::{is_per_frontend, setting};
use super::{Difference, ServiceChange, ServiceKind};
use crate::image::Image;
use crate::lower::lower;
use crate::nft::diff::plan;
use crate::nft::model::{Chain, Elements, Ruleset};
use crate::nft::read::{Loaded, LoadedBase, LoadedChain, LoadedRule, LoadedSet, LoadedTable, Shape};
use crate::nft::wire::attribute::Writer;
use crate::nft::wire::expression;
use crate::source::{self, Input, NodeFlags, load_inputs};

const TABLE: &str = r#"
[node]
ip = ["192.0.2.1", "2001:db8::1"]
cluster-cidr = ["10.0.0.0/8"]
service-cidr = ["172.16.0.0/16"]
node-port-address = ["192.0.2.0/24"]

[[service]]
name = "shop/web:https"
port = 443
cluster-ip = ["172.16.0.1", "2001:db8:2::1"]
load-balancer = "198.51.100.1"
node-port = 31512
external-policy = "local"
source-ranges = ["203.0.113.0/24"]
endpoints = ["10.0.0.1:443", { address = "10.0.0.2:443", weight = 2, local = true }, "[2001:db8:1::1]:443"]

[[service]]
name = "shop/dns"
protocol = "udp"
port = 53
cluster-ip = "172.16.0.2"
external-ip = "198.51.100.2"
node-port = 30053
endpoints = ["10.0.0.5:53", "10.0.0.6:53"]
"#;

fn wanted(text: &str) -> Ruleset {
    let input = Input { name: "table".into(), bytes: text.into(), found: false };
    let source::Loaded::Table { table, .. } = load_inputs(vec![input], &NodeFlags::default()).unwrap() else {
        panic!("TOML is no program")
    };
    lower(&Image::compile(&table.as_table()).unwrap().program(), "about")
}

/// What the kernel would hold after loading a ruleset.
fn loaded(ruleset: &Ruleset) -> Loaded {
    let table = |table: &crate::nft::model::Table| {
        let chain = |chain: &Chain, base| LoadedChain { name: chain.name.clone(), base, rules: rules(table, chain) };
        let set = |set: &crate::nft::model::Set| LoadedSet {
            set: set.clone(),
            shape: Shape::of(set),
            said: None,
            odd: false,
        };
        let mut chains: Vec<LoadedChain> = table.chains.iter().map(|c| chain(c, None)).collect();
        chains.extend(table.base_chains.iter().map(|b| {
            let base =
                LoadedBase { kind: b.kind.name().into(), hook: b.hook.number(), priority: b.priority, policy: 1 };
            chain(&b.chain, Some(base))
        }));
        LoadedTable {
            family: table.family,
            name: table.name.clone(),
            flags: 0,
            owner: None,
            comment: table.comment.clone(),
            sets: table.sets.iter().map(set).collect(),
            chains,
        }
    };
    Loaded { generation: 1, tables: ruleset.tables.iter().map(table).collect() }
}

fn rules(table: &crate::nft::model::Table, chain: &Chain) -> Vec<LoadedRule> {
    let rule = |(handle, rule): (u64, &crate::nft::model::Rule)| {
        let mut w = Writer::default();
        expression::expressions(&mut w, table.family, rule);
        LoadedRule { handle, expressions: w.bytes, comment: rule.comment.clone() }
    };
    (1..).zip(&chain.rules).map(rule).collect()
}

fn difference(loaded: &Loaded, wanted: &Ruleset) -> Difference {
    Difference::of(loaded, wanted, &plan(loaded, wanted))
}

/// What changes from one table to another, each a `services.toml`.
fn between(old: &str, new: &str) -> Difference {
    difference(&loaded(&wanted(old)), &wanted(new))
}

fn only(difference: &Difference) -> &ServiceChange {
    let [change] = difference.services.as_slice() else { panic!("one service: {difference:#?}") };
    change
}

/// Takes the elements whose key contains a text out of a set.
fn delete(loaded: &mut Loaded, set: &str, key: &str) {
    for table in loaded.tables.iter_mut().take(1) {
        for loaded in table.sets.iter_mut().filter(|s| s.set.name == set) {
            let set = &mut loaded.set;
            let mut kept = Elements::new(set.elements.key_len(), set.elements.data_len());
            for e in set.elements.iter().filter(|e| !crate::nft::text::key(set, e.key, e.data).contains(key)) {
                kept.push(e.key, e.data, e.comment);
            }
            assert_ne!(kept.len(), set.elements.len(), "{key} is in {}", set.name);
            set.elements = kept;
        }
    }
}

#[test]
fn nothing_differs_from_itself() {
    assert!(between(TABLE, TABLE).is_empty());
}

#[test]
fn every_set_of_the_lowering_is_understood() {
    // a set that this module does not know would be told element by element, as if somebody else had written it
    for set in wanted(TABLE).tables.iter().flat_map(|t| &t.sets) {
        let derived = ["program", "cluster-ips", "hairpin"].contains(&set.name.as_str());
        assert!(derived || setting(&set.name).is_some() || is_per_frontend(&set.name), "{}", set.name);
    }
}

#[test]
fn an_empty_kernel_gets_every_service() {
    let difference = difference(&Loaded::default(), &wanted(TABLE));
    let kinds: Vec<_> = difference.services.iter().map(|s| (s.name.as_str(), s.kind)).collect();
    assert_eq!(kinds, [("shop/dns", ServiceKind::New), ("shop/web:https", ServiceKind::New)]);
    assert_eq!(difference.services[0].endpoints_added, ["10.0.0.5:53", "10.0.0.6:53"]);
    assert_eq!(difference.other, ["table ip natlet is created", "table ip6 natlet is created"]);
}

#[test]
fn endpoints_come_and_go_by_service() {
    let difference = between(TABLE, &TABLE.replace("\"10.0.0.1:443\"", "\"10.0.0.9:443\""));
    let change = only(&difference);
    assert_eq!((change.name.as_str(), change.kind), ("shop/web:https", ServiceKind::Changed));
    assert_eq!(change.endpoints_added, ["10.0.0.9:443"]);
    assert_eq!(change.endpoints_removed, ["10.0.0.1:443"]);
    assert!(change.details.is_empty() && difference.other.is_empty(), "{difference:#?}");
}

#[test]
fn frontends_come_and_go_by_service() {
    let difference = between(TABLE, &TABLE.replace("30053", "30054").replace("198.51.100.2", "198.51.100.3"));
    let change = only(&difference);
    assert_eq!(change.frontends_added, ["node port 30054/udp", "198.51.100.3:53/udp"]);
    assert_eq!(change.frontends_removed, ["node port 30053/udp", "198.51.100.2:53/udp"]);
    assert!(difference.other.is_empty(), "{difference:#?}");
}

#[test]
fn services_come_and_go() {
    let difference = between(TABLE, &TABLE.replace("shop/dns", "shop/names"));
    let kinds: Vec<_> = difference.services.iter().map(|s| (s.name.as_str(), s.kind)).collect();
    assert_eq!(kinds, [("shop/dns", ServiceKind::Gone), ("shop/names", ServiceKind::New)]);
}

#[test]
fn policies_weights_and_ranges_are_told() {
    let new = TABLE.replace("external-policy = \"local\"\n", "").replace("weight = 2", "weight = 3");
    let difference = between(TABLE, &new.replace("203.0.113.0/24", "203.0.113.0/25"));
    let details = only(&difference).details.join("\n");
    for expected in [
        "masquerading: always (external policy Cluster) instead of only from this node (external policy Local)",
        "endpoint 10.0.0.2:443: weight 3 instead of 2",
        "open to 203.0.113.0/25 instead of 203.0.113.0/24",
        "traffic from outside goes by policy Cluster instead of Local",
    ] {
        assert!(details.contains(expected), "{expected:?} is not in\n{details}");
    }
    let difference =
        between(TABLE, &TABLE.replace("protocol = \"udp\"", "protocol = \"udp\"\nchoice = \"source-hash\""));
    assert_eq!(only(&difference).details, ["endpoints are drawn by hash instead of random"]);
}

#[test]
fn affinity_is_told_by_service() {
    let with = TABLE.replace("port = 443\n", "port = 443\naffinity = 90\n");
    let difference = between(TABLE, &with);
    assert_eq!(only(&difference).details, ["endpoints are drawn by random with affinity of 90 s instead of random"]);
    for (from, to, expected) in [
        ("\"10.0.0.1:443\", ", "", "- endpoint 10.0.0.1:443"),
        ("weight = 2", "weight = 3", "endpoint 10.0.0.2:443: weight 3 instead of 2"),
        ("affinity = 90", "affinity = 91", "affinity of 91 s instead of random with affinity of 90 s"),
    ] {
        let difference = between(&with, &with.replace(from, to));
        let text = format!("{difference:?}");
        let change = only(&difference);
        let (plain, minus) = (expected.trim_start_matches("- endpoint "), expected.starts_with("- "));
        let told = if minus { format!("{:?}", change.endpoints_removed) } else { change.details.join("\n") };
        assert!(told.contains(plain) && difference.other.is_empty(), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn a_service_that_loses_its_endpoints_is_said_to_reject() {
    let difference = between(TABLE, &TABLE.replace("endpoints = [\"10.0.0.5:53\", \"10.0.0.6:53\"]", ""));
    let change = only(&difference);
    assert_eq!(change.endpoints_removed, ["10.0.0.5:53", "10.0.0.6:53"]);
    assert_eq!(change.details, ["connections are rejected: no endpoint instead of translated"]);
}

#[test]
fn settings_of_the_node_are_told() {
    let difference = between(TABLE, &TABLE.replace("10.0.0.0/8", "10.0.0.0/9"));
    assert!(difference.services.is_empty(), "{difference:#?}");
    let [setting] = difference.settings.as_slice() else { panic!("one setting: {difference:#?}") };
    assert_eq!(setting.setting, "cluster-cidr");
    assert_eq!((&setting.added[..], &setting.removed[..]), (&["10.0.0.0/9".into()][..], &["10.0.0.0/8".into()][..]));
    let difference = between(TABLE, &TABLE.replace("[node]\n", "[node]\nmasquerade-all = true\n"));
    let chains = [
        "the rules of chain postrouting (ip) are written anew",
        "the rules of chain postrouting (ip6) are written anew",
    ];
    assert_eq!(difference.other, chains);
}

#[test]
fn what_others_did_is_told() {
    let wanted = wanted(TABLE);
    let mut tampered = loaded(&wanted);
    delete(&mut tampered, "hairpin", "10.0.0.1");
    delete(&mut tampered, "endpoints", "172.16.0.2 . udp . 53 . 1");
    delete(&mut tampered, "masquerade-node", "198.51.100.1");
    let ip = &mut tampered.tables[0];
    ip.chains.push(LoadedChain { name: "evil".into(), base: None, rules: Vec::new() });
    ip.chains.iter_mut().find(|c| c.name == "output").unwrap().rules.pop();
    let foreign = ip.sets.iter_mut().find(|s| s.set.name == "masquerade-always").unwrap();
    foreign.set.elements.push(&[203, 0, 113, 7, 6, 0, 0, 0, 0, 80, 0, 0], &[], "");
    let difference = difference(&tampered, &wanted);
    let services: Vec<_> = difference.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(services, ["shop/dns", "shop/web:https"]);
    assert_eq!(difference.services[0].endpoints_added, ["10.0.0.6:53 (at 172.16.0.2:53/udp)"]);
    assert!(difference.services[1].details[0].starts_with("masquerading: only from this node"), "{difference:#?}");
    assert_eq!(
        difference.other,
        [
            "set hairpin (ip) lacks 10.0.0.1 . 10.0.0.1",
            "set masquerade-always (ip) has too much 203.0.113.7 . tcp . 80",
            "the rules of chain output (ip) are written anew",
            "chain evil (ip) is removed",
        ]
    );
}

#[test]
fn an_element_of_an_untouched_service_is_told() {
    let wanted = wanted(TABLE);
    let mut tampered = loaded(&wanted);
    delete(&mut tampered, "hairpin", "10.0.0.1");
    let difference = difference(&tampered, &wanted);
    assert!(difference.services.is_empty());
    assert_eq!(difference.other, ["set hairpin (ip) lacks 10.0.0.1 . 10.0.0.1"]);
}
