//! Updates without a network: what is taken, and every way to be refused.

use super::*;
use crate::config::Interface;
use ed25519_compact::{KeyPair, Seed};
use natlet_core::{Cidr, Endpoint, Frontend, FrontendKind, Service, ServiceTable, Span};
use std::boxed::Box;
use std::net::IpAddr;
use std::vec;
use std::vec::Vec;

fn keys() -> KeyPair {
    KeyPair::from_seed(Seed::new([7; 32]))
}

/// A table with one service, on the gateway 192.0.2.1, in its wire form.
fn wire(port: u16) -> Vec<u8> {
    let one = Span { start: 0, len: 1 };
    let own: [IpAddr; 1] = [[192, 0, 2, 1].into()];
    let table = ServiceTable {
        node: natlet_core::Node { addresses: &own, ..Default::default() },
        services: &[Service { name: one, frontends: one, endpoints: one, ..Service::default() }],
        frontends: &[Frontend { kind: FrontendKind::ClusterIp, address: [10, 96, 0, 1].into(), port: 80 }],
        endpoints: &[Endpoint::new([10, 0, 0, 1].into(), port)],
        text: "s",
        ..ServiceTable::default()
    };
    let mut out = vec![0; 512];
    table.to_wire(&mut out).unwrap().to_vec()
}

fn compiled(wire: &[u8]) -> Vec<u8> {
    let table = Table::from_wire(wire).unwrap();
    let (mut scratch, mut out) = (vec![0; 4096], vec![0; 4096]);
    let len = compile(&table.as_table(), &mut scratch, &mut out).unwrap();
    out.truncate(len);
    out
}

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 9)), 5000);

/// Both ends.
struct Bench {
    updates: Updates<'static>,
    spare: Vec<u8>,
    running: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let address = IpAddr::from([192, 0, 2, 1]);
        let interfaces = vec![Interface { address, subnet: Cidr::new(address, 24).unwrap() }];
        let config = Config {
            name: "board",
            interfaces: interfaces.leak(),
            routes: &[],
            control_port: 4242,
            update_key: *keys().pk,
        };
        let updates = Updates::new(Box::leak(Box::new(config)), Box::leak(Box::default()), 5);
        Self { updates, spare: vec![0; 2048], running: compiled(&wire(1)) }
    }

    fn ask(&mut self, request: &Request<'_>) -> (Reply<'static>, Option<usize>) {
        let mut room = [0; LONGEST];
        let datagram = postcard::to_slice(request, &mut room).unwrap();
        let running = Program::new_checked(&self.running).unwrap();
        let status = |_| -> Status<'static> { unreachable!() };
        let outcome = self.updates.handle(PEER, datagram, status, &running, &mut self.spare);
        (outcome.reply, outcome.install)
    }

    fn begin(&mut self, manifest: Manifest<'_>, tamper: impl FnOnce(&mut [u8])) -> Reply<'static> {
        let mut room = [0; 256];
        let mut signature = keys().sk.sign(manifest.signed_bytes(&mut room).unwrap(), None).to_vec();
        tamper(&mut signature);
        self.ask(&Request::Begin(Signed { manifest, signature: &signature })).0
    }

    fn send(&mut self, manifest: Manifest<'_>, bytes: &[u8]) -> (Reply<'static>, Option<usize>) {
        let counter = manifest.counter;
        let mut reply = self.begin(manifest, |_| ());
        loop {
            let Reply::Next { offset } = reply else { return (reply, None) };
            let rest = &bytes[offset as usize..];
            if rest.is_empty() {
                return self.ask(&Request::Commit { counter });
            }
            reply = self.ask(&Request::Data { counter, offset, bytes: &rest[..rest.len().min(20)] }).0;
        }
    }
}

fn manifest(bytes: &[u8], counter: u64, kind: Kind) -> Manifest<'static> {
    Manifest { board: "board", counter, kind, length: bytes.len() as u32, digest: Sha256::digest(bytes).into() }
}

#[test]
fn a_table_is_compiled_and_a_program_taken_as_it_is() {
    let mut bench = Bench::new();
    let (table, program) = (wire(2), compiled(&wire(2)));
    for (counter, kind, bytes) in [(6, Kind::Table, &table), (9, Kind::Program, &program)] {
        let (reply, install) = bench.send(manifest(bytes, counter, kind), bytes);
        let id = Program::new_checked(&program).unwrap().content_id().0;
        assert_eq!((reply, install), (Reply::Done { counter, content_id: id }, Some(program.len())));
        assert_eq!(bench.spare[..program.len()], program, "the same program as the host's compiler makes");
        assert_eq!(bench.updates.counter(), counter);
        bench.running = program.clone();
        // the answer got lost, and the sender asks again
        let again = bench.ask(&Request::Commit { counter });
        assert_eq!(again, (Reply::Done { counter, content_id: id }, None));
    }
}

#[test]
fn every_forgery_is_refused_and_nothing_moves() {
    let bytes = wire(2);
    let good = manifest(&bytes, 6, Kind::Table);
    let mut bench = Bench::new();
    for byte in [0, 31, 32, 63] {
        assert_eq!(bench.begin(good, |s| s[byte] ^= 1), Reply::Refused(Refusal::Signature), "byte {byte}");
    }
    let mut room = [0; 256];
    let signature = keys().sk.sign(good.signed_bytes(&mut room).unwrap(), None);
    for other in [
        Manifest { counter: 7, ..good },
        Manifest { kind: Kind::Program, ..good },
        Manifest { length: 1, ..good },
        Manifest { digest: [0; 32], ..good },
        Manifest { board: "other", ..good },
    ] {
        let begin = Request::Begin(Signed { manifest: other, signature: &*signature });
        assert_eq!(bench.ask(&begin).0, Reply::Refused(Refusal::Signature));
    }
    let short = Request::Begin(Signed { manifest: good, signature: &signature[..63] });
    assert_eq!(bench.ask(&short).0, Reply::Refused(Refusal::Signature));
    assert_eq!(bench.ask(&Request::Commit { counter: 6 }).0, Reply::Refused(Refusal::NotBegun));
    assert_eq!(bench.updates.counter(), 5);
}

#[test]
fn an_update_is_taken_once_and_by_its_board() {
    let bytes = wire(2);
    let mut bench = Bench::new();
    assert_eq!(bench.begin(manifest(&bytes, 5, Kind::Table), |_| ()), Reply::Refused(Refusal::Replayed { last: 5 }));
    let other = Manifest { board: "other", ..manifest(&bytes, 6, Kind::Table) };
    assert_eq!(bench.begin(other, |_| ()), Reply::Refused(Refusal::OtherBoard));
    assert!(bench.send(manifest(&bytes, 6, Kind::Table), &bytes).1.is_some());
    assert_eq!(bench.begin(manifest(&bytes, 6, Kind::Table), |_| ()), Reply::Refused(Refusal::Replayed { last: 6 }));
}

#[test]
fn other_bytes_than_the_signed_ones_are_refused() {
    let (bytes, other) = (wire(2), wire(3));
    assert_eq!(bytes.len(), other.len());
    let mut bench = Bench::new();
    assert_eq!(bench.send(manifest(&bytes, 6, Kind::Table), &other), (Reply::Refused(Refusal::Digest), None));
    // the counter is not used up
    assert!(bench.send(manifest(&bytes, 6, Kind::Table), &bytes).1.is_some());
}

#[test]
fn what_cannot_run_is_refused_with_its_reason() {
    let mut bench = Bench::new();
    let refusal = |reply: (Reply<'static>, Option<usize>)| match reply {
        (Reply::Refused(refusal), None) => std::format!("{refusal}"),
        other => panic!("{other:?}"),
    };
    let table = wire(0); // no port
    let why = refusal(bench.send(manifest(&table, 6, Kind::Table), &table));
    assert_eq!(why, "the table: service 0: endpoint 0 has no valid address or port");
    let cut = &wire(2)[..9];
    assert!(refusal(bench.send(manifest(cut, 6, Kind::Table), cut)).starts_with("the table: "));
    let mut program = compiled(&wire(2));
    program[20] ^= 1;
    assert!(refusal(bench.send(manifest(&program, 6, Kind::Program), &program)).starts_with("the program: "));
    let long = Manifest { length: 1 << 20, ..manifest(&[], 6, Kind::Table) };
    assert_eq!(bench.begin(long, |_| ()), Reply::Refused(Refusal::TooLong { room: 24 * 1024 }));
    let mut elsewhere = wire(2);
    let at = elsewhere.windows(4).position(|w| w == [192, 0, 2, 1]).unwrap();
    elsewhere[at + 3] = 2;
    let why = refusal(bench.send(manifest(&elsewhere, 6, Kind::Table), &elsewhere));
    assert_eq!(why, "the table's node has 192.0.2.2, which is not the gateway's");
}

#[test]
fn lost_and_repeated_datagrams_do_no_harm() {
    let bytes = wire(2);
    let mut bench = Bench::new();
    let m = manifest(&bytes, 6, Kind::Table);
    let data = |offset: usize, len: usize| Request::Data {
        counter: 6,
        offset: offset as u32,
        bytes: &bytes[offset..offset + len],
    };
    assert_eq!(bench.ask(&data(0, 10)).0, Reply::Refused(Refusal::NotBegun));
    assert_eq!(bench.begin(m, |_| ()), Reply::Next { offset: 0 });
    assert_eq!(bench.ask(&data(0, 10)).0, Reply::Next { offset: 10 });
    assert_eq!(bench.ask(&data(0, 10)).0, Reply::Next { offset: 10 }, "repeated");
    assert_eq!(bench.ask(&data(20, 10)).0, Reply::Next { offset: 10 }, "one is missing");
    assert_eq!(bench.ask(&Request::Commit { counter: 6 }).0, Reply::Refused(Refusal::Incomplete { received: 10 }));
    assert_eq!(bench.begin(m, |_| ()), Reply::Next { offset: 10 }, "begun again by the same sender");
    assert_eq!(bench.ask(&data(10, bytes.len() - 10)).0, Reply::Next { offset: bytes.len() as u32 });
    assert!(bench.ask(&Request::Commit { counter: 6 }).1.is_some());
    let mut cut = [0; 4];
    cut[0] = 9;
    let running = Program::new_checked(&bench.running).unwrap();
    let outcome = bench.updates.handle(PEER, &cut, |_| unreachable!(), &running, &mut bench.spare);
    assert_eq!(outcome.reply, Reply::Refused(Refusal::Malformed));
}
