//! The names' section: what people see. It decides nothing about packets and can be stripped for firmware.
//!
//! Layout: the node's name (length byte, text), then for each record in order: a byte with the protocol (bits 0-1), the
//! Service type (bits 2-3); the name (length byte, text); the Ingress hosts (16-bit length, text).

use super::slot::protocol_code;
use crate::bytes::{Reader, Writer};
use crate::table::{Protocol, ServiceType};

/// What people call a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// `namespace/name` or `namespace/name:port`.
    pub name: &'a str,
    /// Protocol.
    pub protocol: Protocol,
    /// `type` of the Service.
    pub service_type: ServiceType,
    /// Hosts of the Ingress rules that ride on it, comma-separated; empty for none.
    pub hosts: &'a str,
}

/// Iterator over the names' section.
#[derive(Clone, Debug)]
pub(crate) struct Names<'a>(Reader<'a>);

impl<'a> Names<'a> {
    /// The node's name and the services' names behind it.
    pub fn new(section: &'a [u8]) -> Option<(&'a str, Self)> {
        let mut r = Reader(section);
        let len = r.u8()?;
        let node = core::str::from_utf8(r.take(len.into())?).ok()?;
        Some((node, Self(r)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = Name<'a>;

    fn next(&mut self) -> Option<Name<'a>> {
        let r = &mut self.0;
        let info = r.u8()?;
        let protocol = Protocol::ALL.get(usize::from(info & 3)).copied()?;
        let service_type = match info >> 2 {
            0 => ServiceType::ClusterIp,
            1 => ServiceType::NodePort,
            2 => ServiceType::LoadBalancer,
            _ => return None,
        };
        let len = r.u8()?;
        let name = core::str::from_utf8(r.take(len.into())?).ok()?;
        let len = r.u16()?;
        let hosts = core::str::from_utf8(r.take(len.into())?).ok()?;
        Some(Name { name, protocol, service_type, hosts })
    }
}

/// Writes one service's entry. `None` where the room or a length is short.
pub(crate) fn write(name: &Name<'_>, out: &mut Writer<'_>) -> Option<()> {
    let service_type: u8 = match name.service_type {
        ServiceType::ClusterIp => 0,
        ServiceType::NodePort => 1,
        ServiceType::LoadBalancer => 2,
    };
    out.u8(protocol_code(name.protocol) | (service_type << 2))?;
    out.u8(u8::try_from(name.name.len()).ok()?)?;
    out.put(name.name.as_bytes())?;
    out.u16(u16::try_from(name.hosts.len()).ok()?)?;
    if name.hosts.is_empty() { Some(()) } else { out.put(name.hosts.as_bytes()) }
}
