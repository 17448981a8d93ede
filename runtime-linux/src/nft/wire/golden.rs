//! Our bytes against those that `nft` sent for the same objects (`testdata/`), and against an independent decoder.

mod affinity;

use std::fmt::Write;

use super::super::fixture;
use super::super::model::{Count, Elements, Expression, Family, Field, Ownership, Register, Rule, Set, SetData, Table};
use super::attribute::{Writer, attributes};
use super::{Batch, expression, messages};

/// `what: bytes` of a capture.
fn capture(text: &str) -> Vec<(String, Vec<u8>)> {
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .map(|line| {
            let (what, hex) = line.split_once(": ").unwrap();
            let hex: String = hex.split_whitespace().collect();
            let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
            (what.into(), bytes)
        })
        .collect()
}

/// What `nft` writes and natlet leaves out: set ids beside set names (needed for anonymous sets only), the operation of a
/// bitwise expression when it is 0 (the default), the byte swap of a one-byte protocol, and the closed range below the first one of a set.
fn without_extras(what: &str, bytes: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.bytes.extend_from_slice(&bytes[..4]);
    copy(&mut w, &bytes[4..], &mut |path| match what.split(' ').next() {
        Some("elements") => path != [4] && !(what == "elements pods" && path == [3, 1]),
        _ => true,
    });
    w.bytes
}

/// Copies attributes but those whose path of kinds is refused.
fn copy(w: &mut Writer, bytes: &[u8], keep: &mut dyn FnMut(&[u16]) -> bool) {
    fn walk(w: &mut Writer, bytes: &[u8], path: &mut Vec<u16>, keep: &mut dyn FnMut(&[u16]) -> bool) {
        let name = super::attribute::find(bytes, 1).map(|a| a.text()).unwrap_or_default();
        for a in attributes(bytes) {
            path.push(a.kind);
            let swap = path == &[4, 1] && super::attribute::find(a.value, 1).is_some_and(|n| n.text() == "byteorder");
            if !swap && keep(path) {
                if a.nested {
                    let open = w.open(a.kind);
                    let inner = if path.starts_with(&[4, 1, 2]) && path.len() == 3 {
                        strip(&name, a.value)
                    } else {
                        a.value.to_vec()
                    };
                    walk(w, &inner, path, keep);
                    w.close(open);
                } else {
                    w.put(a.kind, a.value);
                }
            }
            path.pop();
        }
    }
    walk(w, bytes, &mut Vec::new(), keep);
}

fn strip(expression: &str, data: &[u8]) -> Vec<u8> {
    let extra = |kind| matches!((expression, kind), ("lookup", 4) | ("bitwise", 6) | ("dynset", 2));
    let mut w = Writer::default();
    for a in attributes(data).filter(|a| !extra(a.kind)) {
        w.put(if a.nested { a.kind | 0x8000 } else { a.kind }, a.value);
    }
    w.bytes
}

fn side_by_side(ours: &[u8], theirs: &[u8]) -> String {
    let words = |bytes: &[u8]| bytes.chunks(4).map(|w| data_encoding::HEXLOWER.encode(w)).collect::<Vec<_>>();
    let (ours, theirs) = (words(ours), words(theirs));
    let empty = String::new();
    let mut out = String::new();
    for i in 0..ours.len().max(theirs.len()) {
        let (a, b) = (ours.get(i).unwrap_or(&empty), theirs.get(i).unwrap_or(&empty));
        let mark = if a == b { "" } else { "  <--" };
        writeln!(out, "{:5} {a:8} {b:8}{mark}", i * 4).unwrap();
    }
    out
}

fn same(what: &str, ours: &[u8], theirs: &[u8]) {
    let theirs = without_extras(what, theirs);
    assert!(ours == theirs, "{what}: ours, nft's\n{}", side_by_side(ours, &theirs));
}

fn named<'c>(capture: &'c [(String, Vec<u8>)], what: &str) -> &'c [u8] {
    &capture.iter().find(|c| c.0 == what).unwrap_or_else(|| panic!("no {what} in the capture")).1
}

fn last(batch: &Batch) -> &[u8] {
    messages(batch.bytes()).last().unwrap().payload
}

fn check_table(table: &Table, text: &str) {
    let capture = capture(text);
    let place = table.place();
    let mut batch = Batch::new(None);
    let compared = std::cell::Cell::new(0);
    let check = |batch: &Batch, what: &str| {
        same(what, last(batch), named(&capture, what));
        compared.set(compared.get() + 1);
    };
    check(&batch, "begin");
    batch.new_table(table, Ownership::Anyone);
    check(&batch, "table natlet");
    for (id, set) in (1..).zip(&table.sets) {
        batch.new_set(place, set, id);
        check(&batch, &format!("set {}", set.name));
        if !set.elements.is_empty() {
            batch.add_elements(place, set, &mut set.elements.iter().peekable(), usize::MAX);
            // The range below the first one took number 1 in nft's list: give ours the same numbers.
            if set.name == "pods" {
                let ours = renumbered(last(&batch));
                same("elements pods", &ours, named(&capture, "elements pods"));
                compared.set(compared.get() + 1);
            } else {
                check(&batch, &format!("elements {}", set.name));
            }
        }
    }
    for chain in &table.chains {
        batch.new_chain(place, &chain.name);
        check(&batch, &format!("chain {}", chain.name));
    }
    for base in &table.base_chains {
        batch.new_base_chain(place, base);
        check(&batch, &format!("chain {}", base.chain.name));
    }
    for chain in table.chains.iter().chain(table.base_chains.iter().map(|b| &b.chain)) {
        for (number, rule) in (1..).zip(&chain.rules) {
            batch.new_rule(place, &chain.name, number, rule);
            check(&batch, &format!("rule {} {number}", chain.name));
        }
    }
    batch.end();
    check(&batch, "end");
    assert_eq!(compared.get(), capture.len(), "every message of nft's is compared");
}

fn renumbered(body: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.bytes.extend_from_slice(&body[..4]);
    for a in attributes(&body[4..]) {
        if a.kind == 3 {
            w.nest(3, |w| attributes(a.value).for_each(|e| w.put((e.kind + 1) | 0x8000, e.value)));
        } else {
            w.put(a.kind, a.value);
        }
    }
    w.bytes
}

#[test]
fn same_bytes_as_nft_for_ip() {
    check_table(&fixture::table(Family::Ip), include_str!("../testdata/ip.txt"));
}

#[test]
fn same_bytes_as_nft_for_ip6() {
    check_table(&fixture::table(Family::Ip6), include_str!("../testdata/ip6.txt"));
}

#[test]
fn same_bytes_as_nft_for_affinity() {
    let capture = capture(include_str!("../testdata/rules.txt"));
    let at = Register::word;
    let payload = |dreg, base, offset, len| Expression::Payload { dreg, base, offset, len };
    let hash = vec![
        payload(at(0), 1, 16, 4),
        Expression::Meta { dreg: at(1), key: 16 },
        payload(at(2), 2, 2, 2),
        payload(Register(3), 1, 12, 4),
        Expression::Jhash { sreg: Register(3), dreg: at(3), len: 4, modulus: 2, seed: 0x1234 },
        Expression::Lookup { set: "endpoints".into(), sreg: at(0), dreg: Some(at(0)), inverted: false },
        Expression::Dnat { family: Family::Ip, address: at(0), port: at(1) },
    ];
    let learn = vec![
        payload(at(0), 1, 12, 4),
        payload(at(1), 1, 16, 4),
        Expression::Meta { dreg: at(2), key: 16 },
        payload(at(3), 2, 2, 2),
        payload(at(4), 1, 16, 4),
        payload(at(5), 2, 2, 2),
        Expression::Update { set: "affinity".into(), key: at(0), data: Some(at(4)), timeout: 3 * 60 * 60 * 1000 },
    ];
    let table = fixture::table(Family::Ip);
    for (chain, expressions) in [("hash", hash), ("learn", learn)] {
        let mut batch = Batch::new(None);
        batch.new_rule(table.place(), chain, 1, &Rule { expressions, comment: String::new() });
        same(&format!("rule {chain} 1"), last(&batch), named(&capture, &format!("rule {chain} 1")));
    }
}

/// Another implementation reads what we wrote.
#[test]
fn the_crate_decodes_it() {
    use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
    use netlink_packet_netfilter::NetfilterMessage;
    for family in [Family::Ip, Family::Ip6] {
        let table = fixture::table(family);
        let mut batch = Batch::new(None);
        batch.new_table(&table, Ownership::Anyone);
        for (id, set) in (1..).zip(&table.sets) {
            batch.new_set(table.place(), set, id);
            batch.add_elements(table.place(), set, &mut set.elements.iter().peekable(), usize::MAX);
        }
        for base in &table.base_chains {
            batch.new_base_chain(table.place(), base);
            for (number, rule) in (1..).zip(&base.chain.rules) {
                batch.new_rule(table.place(), &base.chain.name, number, rule);
            }
        }
        batch.end();
        let (mut rest, mut seq) = (batch.bytes(), super::FIRST_SEQ);
        while !rest.is_empty() {
            let len = NetlinkBuffer::new_checked(rest).unwrap().length() as usize;
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(&rest[..len]).unwrap();
            assert_eq!(message.header.sequence_number, seq);
            let NetlinkPayload::InnerMessage(inner) = &message.payload else { panic!("no netfilter message") };
            let mut again = vec![0; netlink_packet_core::Emitable::buffer_len(inner)];
            netlink_packet_core::Emitable::emit(inner, &mut again);
            // The crate numbers list elements its own way (all 1) and writes verdict data without its nested flag.
            assert_eq!(again.len(), len - 16, "seq {seq}: {}", batch.subject(seq, None).unwrap());
            (rest, seq) = (&rest[len..], seq + 1);
        }
        assert_eq!(seq, batch.last_seq() + 1);
    }
}

#[test]
fn long_lists_are_split_and_errors_find_their_element() {
    let mut set = Set {
        name: "masquerade-always".into(),
        key: vec![Field::Ip4Daddr, Field::L4Proto, Field::Dport],
        data: SetData::None,
        interval: false,
        size: None,
        memory: None,
        counter: false,
        comment: String::new(),
        elements: Elements::new(12, 0),
    };
    for i in 0..10_000u32 {
        set.elements.push(&[&i.to_be_bytes()[..], &[17, 0, 0, 0, 0, 53, 0, 0]].concat(), &[], &"c".repeat(200));
    }
    let table = fixture::table(Family::Ip);
    let mut batch = Batch::new(None);
    batch.add_elements(table.place(), &set, &mut set.elements.iter().peekable(), usize::MAX);
    batch.end();
    assert!(batch.too_long().is_none());
    let (mut found, mut at) = (0u32, 0);
    for m in messages(batch.bytes()) {
        let start = at;
        at += 16 + m.payload.len();
        assert!(m.payload.len() <= 65_535);
        let Some(list) = super::attribute::find(m.attributes, 3).filter(|_| m.kind().is_some()) else { continue };
        for e in attributes(list.value) {
            let offset = e.value.as_ptr() as usize - batch.bytes().as_ptr() as usize - start;
            let expect = format!("element {} . udp . 53 of set masquerade-always", std::net::Ipv4Addr::from(found));
            assert_eq!(batch.subject(m.seq, u32::try_from(offset).ok()).unwrap(), expect);
            found += 1;
        }
    }
    assert_eq!(found, 10_000);
}

/// NFTA_SET_EXPR of `map services { …; counter; }`, as nft 1.0.6 sends it (`nft --debug=mnl -f`, Linux 6.18), and an element's
/// NFTA_SET_ELEM_EXPR as the kernel tells it.
#[test]
fn a_counter_is_one_attribute_of_its_map() {
    let mut table = fixture::table(Family::Ip);
    let Some(set) = table.sets.iter_mut().find(|s| s.name == "services") else { panic!("the fixture has services") };
    let plain = sent(|batch| batch.new_set(fixture::table(Family::Ip).place(), set, 1));
    set.counter = true;
    let counting = sent(|batch| batch.new_set(fixture::table(Family::Ip).place(), set, 1));
    let attribute = [&[20, 0, 17, 0x80, 12, 0, 1, 0][..], b"counter\0", &[4, 0, 2, 0x80]].concat();
    assert_eq!(counting, [&plain[..], &attribute].concat());

    let count = Count { packets: 7, bytes: 420 };
    let mut w = Writer::default();
    expression::counter(&mut w, Some(count));
    let values = [&[12, 0, 1, 0][..], &420_u64.to_be_bytes(), &[12, 0, 2, 0], &7_u64.to_be_bytes()].concat();
    assert_eq!(w.bytes, [&[12, 0, 1, 0][..], b"counter\0", &[28, 0, 2, 0x80], &values].concat());
    assert_eq!(expression::read_counter(&w.bytes), Some(count));
}

/// The attributes of the one message that this writes.
fn sent(write: impl FnOnce(&mut Batch)) -> Vec<u8> {
    let mut batch = Batch::new(None);
    write(&mut batch);
    messages(batch.bytes()).nth(1).unwrap().attributes.to_vec()
}
