//! One walk over the services, which checks them and finds what the rest of the compilation needs to know beforehand.

use super::work::Sizes;
use crate::bytes::index;
use crate::error::CompileError;
use crate::table::{Frontend, FrontendKind, Service, ServiceTable};
use core::net::IpAddr;

/// What is known of a table whose services are sound.
pub(crate) struct Survey {
    pub sizes: Sizes,
    /// The services are in the order of their names and protocols, none twice.
    pub ascends: bool,
    /// The first octet of all IPv4 frontends but NodePorts, if they share one and there are any.
    pub frontends_octet: Option<u8>,
}

impl Survey {
    pub fn of(table: &ServiceTable<'_>) -> Result<Self, CompileError> {
        let mut sizes = Sizes { services: table.services.len(), ..Sizes::default() };
        let mut octets = Octets::default();
        let mut ascends = true;
        let (mut last, mut most_v6) = (None, None);
        for (service, s) in (0_u32..).zip(table.services) {
            let (name, frontends) = check_service(table, service, s)?;
            let mut v6 = 0_usize;
            for (frontend, f) in (s.frontends.start..).zip(frontends) {
                check_frontend(f).ok_or(CompileError::Frontend { service, frontend })?;
                match f.address {
                    IpAddr::V4(a) if f.kind != FrontendKind::NodePort => octets.add(a.octets()),
                    IpAddr::V4(_) => (),
                    IpAddr::V6(_) => v6 = v6.wrapping_add(1),
                }
            }
            sizes.v6 = sizes.v6.saturating_add(v6);
            sizes.v4 = sizes.v4.saturating_add(frontends.len().saturating_sub(v6));
            // spans that overlap so much that they hold more than there is would ask for more memory than the caller was told
            let all = sizes.v4.saturating_add(sizes.v6);
            if all > table.frontends.len()
                || (v6 != 0 && sizes.v6 > *most_v6.get_or_insert_with(|| Sizes::most(table).v6))
            {
                return Err(CompileError::Span { service });
            }
            sizes.endpoints = sizes.endpoints.max(index(s.endpoints.len));
            let key = (name, s.protocol);
            ascends &= last.is_none_or(|last| last < key);
            last = Some(key);
        }
        Ok(Self { sizes, ascends, frontends_octet: octets.shared() })
    }
}

/// Checks a service's own fields. Returns its name and its frontends.
fn check_service<'t>(
    table: &ServiceTable<'t>,
    service: u32,
    s: &Service,
) -> Result<(&'t [u8], &'t [Frontend]), CompileError> {
    let span = CompileError::Span { service };
    s.endpoints.of(table.endpoints).ok_or(span)?;
    s.hosts.of_str(table.text).ok_or(span)?;
    let ranges = s.source_ranges.of(table.ranges).ok_or(span)?;
    let name = s.name.of_str(table.text).ok_or(span)?;
    let frontends = s.frontends.of(table.frontends).ok_or(span)?;
    if name.is_empty() || s.name.len > u8::MAX.into() || s.hosts.len > u16::MAX.into() {
        return Err(CompileError::Name { service });
    }
    for range in ranges {
        crate::Cidr::new(range.address, range.prefix).ok_or(CompileError::Cidr)?;
    }
    Ok((name.as_bytes(), frontends))
}

fn check_frontend(f: &Frontend) -> Option<()> {
    let is_node_port = f.kind == FrontendKind::NodePort;
    (f.port != 0 && f.address.is_unspecified() == is_node_port).then_some(())
}

/// Whether addresses share their first octet.
#[derive(Default)]
struct Octets {
    first: Option<u8>,
    differ: bool,
}

impl Octets {
    fn add(&mut self, [octet, ..]: [u8; 4]) {
        self.differ |= *self.first.get_or_insert(octet) != octet;
    }

    fn shared(&self) -> Option<u8> {
        self.first.filter(|_| !self.differ)
    }
}
