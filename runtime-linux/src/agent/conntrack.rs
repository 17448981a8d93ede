//! Connection-tracking entries that would keep sending clients to endpoints that are gone.
//!
//! The rule is kube-proxy's: after a sync in which the endpoints of a UDP service changed, every UDP entry whose original
//! destination is a frontend of a service with serving endpoints, and whose reply comes from none of them, is removed.
//! That removes untranslated entries too, which a client made that sent before there were endpoints. Entries of services
//! without any serving endpoint stay. TCP and SCTP entries stay unless asked for, and then only those of removed endpoints.

use crate::conntrack::{Conntrack, Flow};
use crate::netlink::LoadError;
use natlet_core::table::{FrontendKind, Protocol, ServiceTable};
use natlet_core::{FrontendKind as Kind, Program};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// A service in one family: `v6` and its name.
type Key = (bool, Protocol, String);

/// What conntrack entries of a service look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Service {
    frontends: Vec<Front>,
    /// Serving endpoints, sorted, each once: ready ones and those that serve while they terminate; no policy counts.
    serving: Vec<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Front {
    At(SocketAddr),
    NodePort(u16),
}

/// Whose entries are removed once they are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// Those of UDP services.
    Udp,
    /// Those of all services.
    All,
}

impl Cleaned {
    fn covers(self, protocol: Protocol) -> bool {
        self == Self::All || protocol == Protocol::Udp
    }
}

/// Services whose entries are cleaned, with what serves them. Most services are TCP's, and most agents clean none of those:
/// they are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services(BTreeMap<Key, Service>);

impl Services {
    /// Of a table. What a service serves with is not narrowed to what this node uses.
    pub fn of_table(table: &ServiceTable<'_>, cleaned: Cleaned) -> Self {
        let mut services = Self::default();
        for service in table.services.iter().filter(|s| cleaned.covers(s.protocol)) {
            let frontends = service.frontends.of(table.frontends).unwrap_or_default();
            let endpoints = service.endpoints.of(table.endpoints).unwrap_or_default();
            for v6 in [false, true] {
                let mut entry = Service::default();
                let own = frontends.iter().filter(|f| f.address.is_ipv6() == v6);
                entry.frontends.extend(own.map(|f| front(f.kind, f.address, f.port)));
                let serving = endpoints.iter().filter(|e| e.address.is_ipv6() == v6 && (e.ready || e.fallback));
                entry.serving.extend(serving.map(|e| SocketAddr::new(e.address, e.port)));
                services.insert((v6, service.protocol, table.name(service).to_owned()), entry);
            }
        }
        services
    }

    /// Of a compiled program, which knows only the endpoints that this node may use.
    pub fn of_program(program: &Program<'_>, cleaned: Cleaned) -> Self {
        let mut services: BTreeMap<u32, (Key, Service)> = BTreeMap::new();
        for f in program.frontends().filter(|f| cleaned.covers(f.protocol)) {
            let offset = f.record.offset();
            let (_, entry) = services.entry(offset).or_insert_with(|| {
                let name = format!("service-{offset}");
                let serving = f.record.endpoints().iter().map(|e| e.address).collect();
                ((f.record.is_v6(), f.protocol, name), Service { frontends: Vec::new(), serving })
            });
            entry.frontends.push(front(f.kind, f.address, f.port));
        }
        for (record, name) in program.services() {
            // offsets move from program to program; names do not
            if let (Some((key, _)), Some(name)) = (services.get_mut(&record.offset()), name) {
                name.name.clone_into(&mut key.2);
            }
        }
        let mut out = Self::default();
        for (key, entry) in services.into_values() {
            out.insert(key, entry);
        }
        out
    }

    fn insert(&mut self, key: Key, mut entry: Service) {
        entry.serving.sort_unstable();
        entry.serving.dedup();
        if !entry.frontends.is_empty() {
            self.0.insert(key, entry);
        }
    }

    /// Whether the endpoints of any UDP service differ.
    pub fn udp_endpoints_changed(&self, before: &Self) -> bool {
        let empty = Service::default();
        let differs = |a: &Self, b: &Self| {
            let mut udp = a.0.iter().filter(|((_, protocol, _), _)| *protocol == Protocol::Udp);
            udp.any(|(key, service)| service.serving != b.0.get(key).unwrap_or(&empty).serving)
        };
        differs(self, before) || differs(before, self)
    }

    /// Which flows are stale now.
    pub fn stale_udp(&self) -> StaleUdp<'_> {
        let mut frontends = HashMap::new();
        for ((v6, protocol, _), service) in &self.0 {
            if *protocol == Protocol::Udp && !service.serving.is_empty() {
                frontends.extend(service.frontends.iter().map(|f| ((*v6, *f), service.serving.as_slice())));
            }
        }
        StaleUdp(frontends)
    }

    /// The TCP and SCTP endpoints that served a frontend before and no longer do.
    pub fn removed_since(&self, before: &Self) -> Removed {
        let mut removed: HashMap<(bool, Protocol, Front), Vec<SocketAddr>> = HashMap::new();
        for (key @ (v6, protocol, _), old) in before.0.iter().filter(|((_, p, _), _)| *p != Protocol::Udp) {
            let serving = self.0.get(key).map_or(&[][..], |s| &s.serving);
            let gone: Vec<SocketAddr> =
                old.serving.iter().filter(|e| serving.binary_search(e).is_err()).copied().collect();
            if !gone.is_empty() {
                removed.extend(old.frontends.iter().map(|f| ((*v6, *protocol, *f), gone.clone())));
            }
        }
        Removed(removed)
    }
}

fn front(kind: FrontendKind, address: IpAddr, port: u16) -> Front {
    if kind == Kind::NodePort { Front::NodePort(port) } else { Front::At(SocketAddr::new(address, port)) }
}

/// Tells stale UDP flows.
#[derive(Debug)]
pub struct StaleUdp<'a>(HashMap<(bool, Front), &'a [SocketAddr]>);

impl StaleUdp<'_> {
    /// Whether an entry is to go. A NodePort counts at any address, as in kube-proxy.
    pub fn is_stale(&self, flow: &Flow) -> bool {
        let v6 = flow.destination.is_ipv6();
        let service = self.0.get(&(v6, Front::At(flow.destination)));
        let service = service.or_else(|| self.0.get(&(v6, Front::NodePort(flow.destination.port()))));
        flow.protocol == Protocol::Udp && service.is_some_and(|s| s.binary_search(&flow.answered_by).is_err())
    }
}

/// Tells flows to removed endpoints.
#[derive(Debug)]
pub struct Removed(HashMap<(bool, Protocol, Front), Vec<SocketAddr>>);

impl Removed {
    /// Whether nothing was removed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an entry leads to a removed endpoint of the service that its client meant.
    pub fn holds(&self, flow: &Flow) -> bool {
        let v6 = flow.destination.is_ipv6();
        let fronts = [Front::At(flow.destination), Front::NodePort(flow.destination.port())];
        fronts.into_iter().any(|front| {
            self.0.get(&(v6, flow.protocol, front)).is_some_and(|gone| gone.binary_search(&flow.answered_by).is_ok())
        })
    }
}

/// Removes what is stale after a change of services from `before` to `now`; how many entries went. Nothing is read where
/// nothing can be stale.
pub fn clean(conntrack: &mut Conntrack, before: &Services, now: &Services, cleaned: Cleaned) -> Result<u64, LoadError> {
    let udp = now.udp_endpoints_changed(before);
    let reset = cleaned == Cleaned::All;
    let removed = now.removed_since(before);
    if !udp && (!reset || removed.is_empty()) {
        return Ok(0);
    }
    let stale = now.stale_udp();
    conntrack.remove(|flow| (udp && stale.is_stale(flow)) || (reset && removed.holds(flow)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{ServiceBuf, TableBuf};
    use natlet_core::table::{Endpoint, Frontend};

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn services(list: &[(&str, Protocol, &[&str])]) -> Services {
        let mut table = TableBuf::default();
        for (i, (name, protocol, endpoints)) in (0u8..).zip(list) {
            let frontend = |kind, address: &str, port| Frontend { kind, address: address.parse().unwrap(), port };
            table.push(&ServiceBuf {
                name: (*name).into(),
                protocol: *protocol,
                frontends: vec![
                    frontend(FrontendKind::ClusterIp, &format!("10.96.0.{i}"), 53),
                    frontend(FrontendKind::NodePort, "0.0.0.0", 30000 + u16::from(i)),
                ],
                endpoints: endpoints.iter().map(|e| Endpoint::new(at(e).ip(), at(e).port())).collect(),
                ..ServiceBuf::default()
            });
        }
        Services::of_table(&table.as_table(), Cleaned::All)
    }

    fn flow(protocol: Protocol, destination: &str, answered_by: &str) -> Flow {
        Flow { protocol, destination: at(destination), answered_by: at(answered_by) }
    }

    const UDP: Protocol = Protocol::Udp;
    const TCP: Protocol = Protocol::Tcp;

    #[test]
    fn udp_flows_to_endpoints_that_serve_are_kept() {
        let now = services(&[("a/dns", UDP, &["10.0.0.1:53"]), ("a/none", UDP, &[]), ("a/web", TCP, &["10.0.0.1:80"])]);
        let stale = now.stale_udp();
        for (destination, answered_by, expected) in [
            ("10.96.0.0:53", "10.0.0.1:53", false),
            ("10.96.0.0:53", "10.0.0.2:53", true),
            ("10.96.0.0:53", "10.0.0.1:54", true),
            ("10.96.0.0:53", "10.96.0.0:53", true), // never translated
            ("192.0.2.9:30000", "10.0.0.1:53", false),
            ("192.0.2.9:30000", "10.0.0.2:53", true),
            ("10.96.0.1:53", "10.0.0.9:53", false), // nothing serves: it stays
            ("10.96.0.2:53", "10.0.0.9:53", false), // a TCP service's
            ("192.0.2.9:53", "192.0.2.9:53", false),
        ] {
            assert_eq!(stale.is_stale(&flow(UDP, destination, answered_by)), expected, "{destination} {answered_by}");
        }
        assert!(!stale.is_stale(&flow(TCP, "10.96.0.0:53", "10.0.0.2:53")));
    }

    #[test]
    fn only_changed_udp_endpoints_make_a_look_worthwhile() {
        let before = services(&[("a/dns", UDP, &["10.0.0.1:53", "10.0.0.2:53"]), ("a/web", TCP, &["10.0.0.1:80"])]);
        let other_order =
            services(&[("a/dns", UDP, &["10.0.0.2:53", "10.0.0.1:53"]), ("a/web", TCP, &["10.0.0.9:80"])]);
        assert!(!other_order.udp_endpoints_changed(&before));
        for changed in [services(&[("a/dns", UDP, &["10.0.0.1:53"])]), services(&[])] {
            assert!(changed.udp_endpoints_changed(&before) && before.udp_endpoints_changed(&changed));
        }
    }

    #[test]
    fn flows_of_removed_tcp_endpoints_are_told() {
        let before = services(&[("a/web", TCP, &["10.0.0.1:80", "10.0.0.2:80"])]);
        let now = services(&[("a/web", TCP, &["10.0.0.1:80"])]);
        let removed = now.removed_since(&before);
        assert!(removed.holds(&flow(TCP, "10.96.0.0:53", "10.0.0.2:80")));
        assert!(removed.holds(&flow(TCP, "192.0.2.1:30000", "10.0.0.2:80")));
        assert!(!removed.holds(&flow(TCP, "10.96.0.0:53", "10.0.0.1:80")));
        assert!(!removed.holds(&flow(TCP, "10.96.0.9:53", "10.0.0.2:80")), "not through the service");
        assert!(before.removed_since(&now).is_empty());
    }
}
