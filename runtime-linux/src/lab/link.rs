//! Links, addresses and routes of one namespace, over rtnetlink: each request waits for its acknowledgement.

use super::{LabError, Namespace, errno_of};
use natlet_core::table::Cidr;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// Requests sent before their acknowledgements are read: well below what the socket's receive buffer holds.
const IN_FLIGHT: usize = 64;

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// The links of the namespace that the calling thread was in when this was opened ([`Namespace::links`]).
pub struct Links {
    socket: Socket,
    sequence: u32,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// To this neighbour, found by the routes that are there (`via`).
    Via(IpAddr),
    /// To whoever is on this link (`dev`).
    Link(&'a str),
    /// To this host itself: every address of the prefix is local, as `ip route add local PREFIX dev lo` makes it.
    Local,
}

/// A message, its flags, and what it is in words.
struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    what: String,
}

impl Links {
    /// A socket to the calling thread's namespace.
    pub fn open() -> Result<Self, LabError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_cap_ack(true)?; // an error quotes the header of its request, not all of it
            Ok(Self { socket, sequence: 0 })
        };
        open().map_err(|error| LabError::io("open an rtnetlink socket", &error))
    }

    /// Sets a link up.
    pub fn up(&mut self, name: &str) -> Result<(), LabError> {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.request(RouteNetlinkMessage::SetLink(message), 0, format!("set the link {name} up"))
    }

    /// Lays a virtual cable from `name` here to `peer` in another namespace, both ends up.
    pub fn veth(&mut self, name: &str, other: &Namespace, peer: &str) -> Result<(), LabError> {
        let mut far = LinkMessage::default();
        far.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        far.attributes.push(LinkAttribute::NetNsFd(other.as_fd().as_raw_fd()));
        let mut near = LinkMessage::default();
        near.attributes.push(LinkAttribute::IfName(name.to_owned()));
        near.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        let what = format!("make the veth pair {name} - {peer} of {}", other.name());
        self.request(RouteNetlinkMessage::NewLink(near), CREATE, what)?;
        self.up(name)?;
        other.links()?.up(peer)
    }

    /// Gives a link an address, usable at once (no duplicate address detection).
    pub fn address(&mut self, name: &str, address: Cidr) -> Result<(), LabError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.address);
        message.header.prefix_len = address.prefix;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.header.scope = AddressScope::Universe;
        message.header.index = self.index(name)?;
        message.attributes.push(AddressAttribute::Local(address.address));
        message.attributes.push(AddressAttribute::Address(address.address));
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        self.request(RouteNetlinkMessage::NewAddress(message), CREATE, format!("add the address {address} to {name}"))
    }

    /// Adds one route.
    pub fn route(&mut self, to: Cidr, route: Route<'_>) -> Result<(), LabError> {
        self.routes(&[to], route)
    }

    /// Adds routes that all lead to the same place, several requests at a time.
    pub fn routes(&mut self, to: &[Cidr], route: Route<'_>) -> Result<(), LabError> {
        let device = match route {
            Route::Via(_) => None,
            Route::Link(name) => Some(self.index(name)?),
            Route::Local => Some(self.index("lo")?),
        };
        for chunk in to.chunks(IN_FLIGHT) {
            self.submit(chunk.iter().map(|to| route_request(*to, route, device)).collect())?;
        }
        Ok(())
    }

    /// The index of a link.
    pub fn index(&mut self, name: &str) -> Result<u32, LabError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let what = format!("find the link {name}");
        let message = RouteNetlinkMessage::GetLink(message);
        match self.submit(vec![Request { message, flags: 0, what: what.clone() }])? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
            _ => Err(LabError::kernel(what, Errno::EBADMSG)),
        }
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16, what: String) -> Result<(), LabError> {
        self.submit(vec![Request { message, flags, what }]).map(drop)
    }

    /// Sends requests in one datagram, reads every acknowledgement, and returns the last message that was no
    /// acknowledgement. The first refusal is the error.
    fn submit(&mut self, requests: Vec<Request>) -> Result<Option<RouteNetlinkMessage>, LabError> {
        let first = self.sequence;
        let (mut datagram, mut what) = (Vec::new(), Vec::new());
        for request in requests {
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
            header.sequence_number = self.sequence;
            self.sequence = self.sequence.wrapping_add(1);
            let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.message));
            message.finalize();
            let start = datagram.len();
            datagram.resize(start + message.buffer_len(), 0);
            message.serialize(&mut datagram[start..]);
            what.push(request.what);
        }
        let about = |sequence: u32| {
            usize::try_from(sequence.wrapping_sub(first)).ok().and_then(|i| what.get(i)).cloned().unwrap_or_default()
        };
        self.socket.send(&datagram, 0).map_err(|error| LabError::io(about(first), &error))?;
        let (mut answer, mut refusal, mut acknowledged) = (None, None, 0);
        while acknowledged < what.len() {
            let (bytes, _) = self.socket.recv_from_full().map_err(|error| LabError::io(about(first), &error))?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let bad = |_| LabError::kernel(about(first), Errno::EBADMSG);
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(bad)?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::Error(error) => {
                        acknowledged += 1;
                        if error.code.is_some() && refusal.is_none() {
                            let what = about(message.header.sequence_number);
                            refusal = Some(LabError::kernel(what, errno_of(&error.to_io())));
                        }
                    }
                    NetlinkPayload::InnerMessage(inner) => answer = Some(inner),
                    _ => {}
                }
            }
        }
        refusal.map_or(Ok(answer), Err)
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_request(to: Cidr, route: Route<'_>, device: Option<u32>) -> Request {
    /// The table in which the kernel looks for its own addresses.
    const RT_TABLE_LOCAL: u8 = 255;
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.address);
    message.header.destination_prefix_length = to.prefix;
    message.header.table = if route == Route::Local { RT_TABLE_LOCAL } else { RouteHeader::RT_TABLE_MAIN };
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = if route == Route::Local { RouteType::Local } else { RouteType::Unicast };
    message.header.scope = match route {
        Route::Via(_) => RouteScope::Universe,
        Route::Link(_) => RouteScope::Link,
        Route::Local => RouteScope::Host,
    };
    if to.prefix > 0 {
        message.attributes.push(RouteAttribute::Destination(to.address.into()));
    }
    if let Route::Via(gateway) = route {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(index) = device {
        message.attributes.push(RouteAttribute::Oif(index));
    }
    let way = match route {
        Route::Via(gateway) => format!("via {gateway}"),
        Route::Link(name) => format!("on {name}"),
        Route::Local => "to this host".to_owned(),
    };
    Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags: CREATE,
        what: format!("add the route {to} {way}"),
    }
}
