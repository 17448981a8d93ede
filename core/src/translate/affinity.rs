//! Session affinity: which endpoint a client was sent to (`sessionAffinity: ClientIP`).

use super::cache::{Cache, Entry};
use super::keys::HashKeys;
use super::time::Instant;
use super::wire::address::{Address, V4, V6};
use crate::program::{Program, Record, RecordEndpoint};
use crate::table::Protocol;
use core::net::SocketAddr;

/// Memory for one IPv4 client of one service.
pub type AffinityV4 = Affinity<V4>;
/// Memory for one IPv6 client of one service.
pub type AffinityV6 = Affinity<V6>;

/// Memory for one client of one service. The key is (service port, source), so that all frontends share it.
#[derive(Clone, Copy, Debug)]
pub struct Affinity<A> {
    source: A,
    /// The frontend that was used: by it the service is found again in the next program.
    frontend: A,
    endpoint: A,
    /// The service in the program at hand.
    record: u32,
    seen: Instant,
    /// Milliseconds; 0 in an entry that is not in use.
    timeout: u32,
    frontend_port: u16,
    endpoint_port: u16,
    protocol: Protocol,
}

impl<A: Address> Affinity<A> {
    /// An entry that is not in use, to fill arrays with.
    pub const EMPTY: Self = Self {
        source: A::ZERO,
        frontend: A::ZERO,
        endpoint: A::ZERO,
        record: 0,
        seen: Instant::ZERO,
        timeout: 0,
        frontend_port: 0,
        endpoint_port: 0,
        protocol: Protocol::Tcp,
    };

    /// The entry of a client that uses a service by this frontend; it holds for `timeout` milliseconds.
    pub(crate) fn new(
        source: A,
        (frontend, frontend_port): (A, u16),
        protocol: Protocol,
        record: &Record<'_>,
        timeout: u32,
        now: Instant,
    ) -> Self {
        let record = record.offset();
        Self { source, frontend, record, seen: now, timeout, frontend_port, protocol, ..Self::EMPTY }
    }

    pub(crate) fn hash(&self, keys: &HashKeys) -> u32 {
        keys.other(self.source, A::ZERO, self.record)
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.endpoint.to_ip(), self.endpoint_port)
    }

    /// The same with an endpoint; `None` where that is of the other family.
    pub(crate) fn with_endpoint(self, endpoint: &RecordEndpoint) -> Option<Self> {
        Some(Self { endpoint: A::from_ip(endpoint.address.ip())?, endpoint_port: endpoint.address.port(), ..self })
    }
}

impl<A: Address> Entry for Affinity<A> {
    const EMPTY: Self = Self::EMPTY;

    fn life(&self) -> (Instant, u32) {
        (self.seen, self.timeout)
    }

    fn same_key(&self, other: &Self) -> bool {
        self.source == other.source && self.record == other.record
    }
}

/// Carries affinity over to a new program: entries find their service again by the frontend that made them; those whose
/// service lost the endpoint, or its affinity, are forgotten. Entries move to where the new program's numbers put them.
pub(crate) fn rebuild<A: Address>(
    cache: &mut Cache<'_, Affinity<A>>,
    program: &Program<'_>,
    keys: &HashKeys,
    now: Instant,
) {
    // First all are given their new number where they lie; then those that lie in the wrong set are moved. An entry that
    // is met twice is moved to where it is.
    cache.retain(now, |entry| {
        let frontend = find_frontend(program, entry.frontend, entry.frontend_port, entry.protocol);
        let Some(record) = frontend else { return false };
        let kept = record.affinity_timeout().is_some() && has_endpoint(&record, entry.endpoint());
        entry.record = record.offset();
        kept
    });
    cache.rehash(now, |entry| entry.hash(keys));
}

/// The service that a frontend leads to.
pub(crate) fn find_frontend<'p, A: Address>(
    program: &Program<'p>,
    address: A,
    port: u16,
    protocol: Protocol,
) -> Option<Record<'p>> {
    let address = address.to_ip();
    let found = program.find(address, protocol, port).filter(|f| !f.is_passed_over());
    found.or_else(|| program.find_node_port(address, protocol, port)).map(|f| f.record)
}

/// Whether a service still has an endpoint.
pub(crate) fn has_endpoint(record: &Record<'_>, endpoint: SocketAddr) -> bool {
    record.endpoints().iter().any(|e| e.address == endpoint)
}
