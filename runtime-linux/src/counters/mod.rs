//! What services carry, from the kernel's own counters: new connections from the elements that they were looked up in, live
//! flows and their bytes from conntrack. No rule is there for it.
//!
//! A frontend's element counts the packets that found it, and nat chains see only a connection's first packet. So its count
//! is that of new connections, those included that were refused; a first packet that is sent again for want of an answer
//! counts again. The name of a frontend's service is the element's comment.

mod meter;
pub mod words;

pub use meter::Meter;

use crate::kernel::About;
use crate::lower::FRONTENDS;
use crate::nft::model::{Field, width};
use crate::nft::read::Loaded;
use crate::nft::wire::userdata::comment_text;
use crate::view::ServicePort;
use natlet_core::{FrontendKind, Protocol};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::IpAddr;

/// What all services carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// A program is loaded.
    pub loaded: bool,
    /// Its content id.
    pub content_id: Option<String>,
    /// Frontends count connections (`--counters`).
    pub counting: bool,
    /// Flows count bytes (`net.netfilter.nf_conntrack_acct`).
    pub accounting: bool,
    /// Seconds that the rates are averaged over; none at the first look.
    pub seconds: Option<f64>,
    /// Services, by name and protocol.
    pub services: Vec<Row>,
}

/// What a service carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `namespace/name:port`; a frontend where names are stripped.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// New connections since its frontends were loaded.
    pub connections: u64,
    /// New connections a second.
    pub connections_per_second: Option<f64>,
    /// Connections that have not ended.
    pub flows: u64,
    /// Bytes of the flows that conntrack knows, both directions; none without accounting.
    pub bytes: Option<u64>,
    /// Bytes a second.
    pub bytes_per_second: Option<f64>,
}

/// What connections are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Frontend {
    /// None for a NodePort.
    address: Option<IpAddr>,
    v6: bool,
    protocol: Protocol,
    port: u16,
}

/// A frontend with its service's name and its count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    frontend: Frontend,
    name: String,
    connections: u64,
}

impl std::fmt::Display for Frontend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(address) => std::net::SocketAddr::new(address, self.port).fmt(f),
            None => write!(f, "node port {}", self.port),
        }
    }
}

/// What loaded tables say, frontend by frontend. One that outside traffic looks up in a map of its own comes twice.
fn counted(loaded: &Loaded) -> Vec<Counted> {
    let mut out = Vec::new();
    for table in &loaded.tables {
        for set in table.sets.iter().map(|s| &s.set).filter(|s| FRONTENDS.contains(&s.name.as_str())) {
            for element in set.elements.iter() {
                let Some(frontend) = frontend(&set.key, element.key) else { continue };
                let name = if element.comment.is_empty() { frontend.to_string() } else { element.comment.to_owned() };
                out.push(Counted { frontend, name, connections: element.count.packets });
            }
        }
    }
    out
}

/// A key's fields: an address or none, protocol, port.
fn frontend(fields: &[Field], key: &[u8]) -> Option<Frontend> {
    let (address, rest) = key.split_at_checked(key.len().checked_sub(width(&[Field::L4Proto, Field::Dport]))?)?;
    let address = match *address {
        [] => None,
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(address).ok()?)),
    };
    let [protocol, _, _, _, high, low, _, _] = *rest else { return None };
    Some(Frontend {
        address,
        v6: fields.contains(&Field::Ip6Daddr),
        protocol: Protocol::from_number(protocol)?,
        port: u16::from_be_bytes([high, low]),
    })
}

/// Whether the frontends of loaded tables count.
fn counting(loaded: &Loaded) -> bool {
    let mut maps = loaded.tables.iter().flat_map(|t| &t.sets).filter(|s| FRONTENDS.contains(&s.set.name.as_str()));
    maps.all(|s| s.shape.counter)
}

fn content_id(loaded: &Loaded) -> Option<String> {
    About::of(loaded).map(|about| about.content_id)
}

impl Report {
    /// What each service carries, by name and protocol.
    pub fn index(&self) -> Index<'_> {
        Index(self.services.iter().map(|row| ((row.name.as_str(), row.protocol.as_str()), row)).collect())
    }
}

/// The rows of a report, to be found for a service.
#[derive(Debug)]
pub struct Index<'a>(HashMap<(&'a str, &'a str), &'a Row>);

impl Index<'_> {
    /// What a service carries: one row, or where names are stripped one of each frontend.
    pub fn of(&self, port: &ServicePort<'_>) -> Row {
        let protocol = port.protocol.name();
        let name = comment_text(&port.name);
        if let Some(row) = self.0.get(&(name.as_ref(), protocol)) {
            return (*row).clone();
        }
        let mut sum = Row { name: port.name.clone(), protocol: protocol.into(), ..Row::default() };
        for f in &port.frontends {
            let address = Some(f.address).filter(|_| f.kind != FrontendKind::NodePort);
            let name = Frontend { address, v6: f.address.is_ipv6(), protocol: port.protocol, port: f.port }.to_string();
            if let Some(row) = self.0.get(&(name.as_str(), protocol)) {
                sum.connections += row.connections;
                sum.flows += row.flows;
                sum.connections_per_second = add(sum.connections_per_second, row.connections_per_second);
                sum.bytes = add(sum.bytes, row.bytes);
                sum.bytes_per_second = add(sum.bytes_per_second, row.bytes_per_second);
            }
        }
        sum
    }
}

fn add<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use crate::lower::lower;
    use crate::nft::model::{Count, Set};
    use crate::nft::read::{LoadedSet, LoadedTable, Shape};
    use crate::source::{ServiceBuf, TableBuf};
    use crate::view::service_ports;
    use natlet_core::table::Frontend as TableFrontend;

    fn image() -> Image {
        let mut table = TableBuf::default();
        let frontend = |kind, address: &str, port| TableFrontend { kind, address: address.parse().unwrap(), port };
        table.push(&ServiceBuf {
            name: "shop/web:http".into(),
            frontends: vec![
                frontend(FrontendKind::ClusterIp, "10.96.0.7", 80),
                frontend(FrontendKind::ClusterIp, "2001:db8::7", 80),
                frontend(FrontendKind::NodePort, "0.0.0.0", 30080),
            ],
            ..ServiceBuf::default()
        });
        Image::compile(&table.as_table()).unwrap()
    }

    /// As the kernel holds it, after this many packets to each frontend.
    fn loaded(image: &Image, packets: u64) -> Loaded {
        let set = |mut set: Set| {
            let mut elements = set.empty_elements();
            for e in set.elements.iter() {
                elements.push(e.key, e.data, e.comment);
                elements.set_count(Count { packets, bytes: packets * 60 });
            }
            set.elements = elements;
            LoadedSet { shape: Shape::of(&set), set, odd: false, said: None }
        };
        let tables = lower(&image.program(), "").tables.into_iter().map(|t| LoadedTable {
            owner: None,
            family: t.family,
            name: t.name,
            flags: 0,
            comment: t.comment,
            sets: t.sets.into_iter().map(set).collect(),
            chains: Vec::new(),
        });
        Loaded { generation: 1, tables: tables.collect() }
    }

    #[test]
    fn every_frontend_is_told_with_its_service() {
        let loaded = loaded(&image(), 7);
        let mut told: Vec<String> = counted(&loaded).iter().map(|c| format!("{} {}", c.name, c.frontend)).collect();
        told.sort();
        assert_eq!(told, ["10.96.0.7:80", "[2001:db8::7]:80", "node port 30080"].map(|f| format!("shop/web:http {f}")));
        assert!(counted(&loaded).iter().all(|c| c.connections == 7));
        assert!(counting(&loaded));
    }

    #[test]
    fn a_service_without_a_name_is_the_sum_of_its_frontends() {
        let named = image();
        let mut bytes = named.as_bytes().to_vec();
        let length = natlet_core::strip_names(&named.program(), &mut bytes).unwrap();
        bytes.truncate(length);
        for image in [named, Image::from_bytes(bytes).unwrap()] {
            let rows = counted(&loaded(&image, 7)).into_iter().fold(Vec::<Row>::new(), |mut rows, c| {
                match rows.iter_mut().find(|r| r.name == c.name) {
                    Some(row) => row.connections += c.connections,
                    None => rows.push(Row {
                        name: c.name,
                        protocol: c.frontend.protocol.name().into(),
                        connections: c.connections,
                        bytes: Some(1),
                        ..Row::default()
                    }),
                }
                rows
            });
            let report = Report { services: rows, ..Report::default() };
            let total: u64 = service_ports(&image.program()).iter().map(|p| report.index().of(p).connections).sum();
            assert_eq!(total, 21, "{report:?}");
        }
    }
}
