//! The forms of session affinity against the bytes that `nft` sent for them.

use super::super::super::model::{
    Elements, Expression as E, Family, Field, Register, Rule, Set, SetData, Table, Verdict, width,
};
use super::super::Batch;
use super::{capture, last, named, same};

fn map(name: &str, key: Vec<Field>, data: Field, memory: Option<&str>) -> Set {
    let data = vec![data];
    Set {
        name: name.into(),
        elements: Elements::new(width(&key), width(&data)),
        key,
        data: SetData::Value(data),
        interval: false,
        size: Some(if memory.is_some() { 1 << 17 } else { 512 }),
        memory: memory.map(Into::into),
        counter: false,
        comment: String::new(),
    }
}

fn check(family: Family, text: &str) {
    let capture = capture(text);
    let (daddr, words, addresses) = match family {
        Family::Ip => (Field::Ip4Daddr, 1, [12, 16]),
        Family::Ip6 => (Field::Ip6Daddr, 4, [8, 24]),
    };
    let table = Table {
        family,
        name: "natlet".into(),
        comment: String::new(),
        sets: Vec::new(),
        chains: Vec::new(),
        base_chains: Vec::new(),
    };
    let sets = [
        map("affinity-ids", vec![daddr, Field::L4Proto, Field::Dport], Field::Priority, None),
        map(
            "affinity",
            vec![Field::Priority, if family == Family::Ip { Field::Ip4Saddr } else { Field::Slot }],
            daddr,
            Some("affinity-draws"),
        ),
        map("affinity-siblings", vec![Field::Priority, daddr], Field::Priority, None),
    ];
    for (id, set) in [(1, &sets[0]), (2, &sets[1]), (3, &sets[2])] {
        let mut batch = Batch::new(None);
        batch.new_set(table.place(), set, id);
        same(&format!("set {}", set.name), last(&batch), named(&capture, &format!("set {}", set.name)));
    }

    let at = Register::word;
    let address = |i: usize, word| E::Payload { dreg: at(word), base: 1, offset: addresses[i], len: words * 4 };
    let priority = || E::Meta { dreg: at(0), key: 2 };
    let set_priority = || E::MetaSet { sreg: at(0), key: 2 };
    let look_up = |set: &str| E::Lookup { set: set.into(), sreg: at(0), dreg: Some(at(0)), inverted: false };
    // where nft puts the source while it hashes it: behind the key
    let client = |source: u32| match family {
        Family::Ip => vec![address(0, 1)],
        Family::Ip6 => vec![
            address(0, source),
            E::Jhash { sreg: at(source), dreg: at(1), len: 16, modulus: u32::MAX, seed: 0x6e61_746c },
        ],
    };
    let entry = || [vec![priority()], client(4), vec![address(1, 4)]].concat();
    let (set, key, data) = (|| "affinity".to_owned(), at(0), Some(at(4)));
    let timeout = 3 * 60 * 60 * 1000;
    let sibling = vec![priority(), address(1, 1), look_up("affinity-siblings"), set_priority()];
    let endpoint = vec![priority(), E::Meta { dreg: at(1), key: 16 }, address(1, 2), look_up("affinity-endpoints")];
    let frontend = vec![
        address(1, 0),
        E::Meta { dreg: at(words), key: 16 },
        E::Payload { dreg: at(words + 1), base: 2, offset: 2, len: 2 },
        look_up("affinity-ids"),
        set_priority(),
        priority(),
    ];
    let rules = [
        ("remember 1", [entry(), vec![E::Update { set: set(), key, data, timeout }]].concat()),
        ("remember 2", [sibling, entry(), vec![E::Add { set: set(), key, data, timeout }]].concat()),
        ("remember 3", [endpoint, vec![E::Dnat { family, address: at(0), port: at(words) }]].concat()),
        (
            "remember 4",
            [entry(), vec![E::Delete { set: set(), key, data }, E::Counter, E::Verdict(Verdict::Drop)]].concat(),
        ),
        (
            "known 1",
            [
                frontend,
                client(6),
                vec![
                    look_up("affinity"),
                    E::PayloadSet { sreg: at(0), base: 1, offset: addresses[1], len: words * 4 },
                    E::Verdict(Verdict::Goto("remember".into())),
                ],
            ]
            .concat(),
        ),
    ];
    for (name, expressions) in rules {
        let mut batch = Batch::new(None);
        let chain = name.split(' ').next().unwrap_or_default();
        batch.new_rule(table.place(), chain, 1, &Rule { expressions, comment: String::new() });
        same(&format!("rule {name}"), last(&batch), named(&capture, &format!("rule {name}")));
    }
}

#[test]
fn same_bytes_as_nft_for_ip() {
    check(Family::Ip, include_str!("../../testdata/affinity.txt"));
}

#[test]
fn same_bytes_as_nft_for_ip6() {
    check(Family::Ip6, include_str!("../../testdata/affinity6.txt"));
}
