//! The table in memory of its own, for devices: `heapless` vectors, and `postcard` as the form on a wire.
//!
//! A gateway is sent a table over any byte link, decodes it with [`OwnedTable::from_wire`] and compiles it itself. The wire
//! form of a borrowed [`ServiceTable`], of an [`OwnedTable`] and of the `Vec`-based table of the crate `natlet` is one.

use crate::table::{Cidr, Endpoint, Frontend, Node, Service, ServiceTable};
use core::net::IpAddr;
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// What is known about a node, with room for `N` entries of each kind and a name of 253 bytes (a DNS name).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedNode<const N: usize> {
    /// See [`Node::name`].
    pub name: String<253>,
    /// See [`Node::addresses`].
    pub addresses: Vec<IpAddr, N>,
    /// See [`Node::cluster_cidrs`].
    pub cluster_cidrs: Vec<Cidr, N>,
    /// See [`Node::service_cidrs`].
    pub service_cidrs: Vec<Cidr, N>,
    /// See [`Node::node_port_cidrs`].
    pub node_port_cidrs: Vec<Cidr, N>,
    /// See [`Node::masquerade_all`].
    pub masquerade_all: bool,
    /// See [`Node::localhost_node_ports`].
    pub localhost_node_ports: bool,
}

/// A table with room for `S` services, `F` frontends, `E` endpoints, `R` source ranges and `T` bytes of names.
///
/// ```
/// use natlet_core::{Endpoint, Frontend, FrontendKind, Program, Service, Span, compile, max_len, owned::OwnedTable, scratch_len};
///
/// let mut table = OwnedTable::<4, 8, 16, 4, 256>::default();
/// table.text.push_str("shop/web")?;
/// table.frontends.push(Frontend { kind: FrontendKind::ClusterIp, address: [192, 0, 2, 1].into(), port: 80 }).ok();
/// table.endpoints.push(Endpoint::new([198, 51, 100, 7].into(), 8080)).ok();
/// let one = Span { start: 0, len: 1 };
/// let name = Span { start: 0, len: 8 };
/// table.services.push(Service { name, frontends: one, endpoints: one, ..Service::default() }).ok();
///
/// let table = table.as_table();
/// let (mut scratch, mut out) = ([0; 128], [0; 2048]);
/// assert!(scratch_len(&table) <= scratch.len() && max_len(&table) <= out.len());
/// let len = compile(&table, &mut scratch, &mut out)?;
/// let program = Program::new_checked(&out[..len])?;
/// assert_eq!(program.frontend_count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedTable<const S: usize, const F: usize, const E: usize, const R: usize, const T: usize> {
    /// See [`ServiceTable::node`].
    pub node: OwnedNode<8>,
    /// See [`ServiceTable::services`].
    pub services: Vec<Service, S>,
    /// See [`ServiceTable::frontends`].
    pub frontends: Vec<Frontend, F>,
    /// See [`ServiceTable::endpoints`].
    pub endpoints: Vec<Endpoint, E>,
    /// See [`ServiceTable::ranges`].
    pub ranges: Vec<Cidr, R>,
    /// See [`ServiceTable::text`].
    pub text: String<T>,
}

impl<const S: usize, const F: usize, const E: usize, const R: usize, const T: usize> OwnedTable<S, F, E, R, T> {
    /// An empty table. As a `static` it is all zeros and takes no room in flash.
    pub const fn new() -> Self {
        let node = OwnedNode {
            name: String::new(),
            addresses: Vec::new(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node_port_cidrs: Vec::new(),
            masquerade_all: false,
            localhost_node_ports: false,
        };
        Self {
            node,
            services: Vec::new(),
            frontends: Vec::new(),
            endpoints: Vec::new(),
            ranges: Vec::new(),
            text: String::new(),
        }
    }

    /// The table, borrowed, as [`crate::compile`] takes it.
    pub fn as_table(&self) -> ServiceTable<'_> {
        let node = &self.node;
        ServiceTable {
            node: Node {
                name: &node.name,
                addresses: &node.addresses,
                cluster_cidrs: &node.cluster_cidrs,
                service_cidrs: &node.service_cidrs,
                node_port_cidrs: &node.node_port_cidrs,
                masquerade_all: node.masquerade_all,
                localhost_node_ports: node.localhost_node_ports,
            },
            services: &self.services,
            frontends: &self.frontends,
            endpoints: &self.endpoints,
            ranges: &self.ranges,
            text: &self.text,
        }
    }

    /// Decodes a table from its wire form.
    ///
    /// # Errors
    /// `postcard`'s: the bytes end early, hold a value of no variant, or more entries than there is room for.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }

    /// Decodes a table from its wire form into this one, entry by entry: a large table never lies on the stack. After an
    /// error the table is valid and holds what was read so far.
    ///
    /// # Errors
    /// As [`from_wire`](Self::from_wire).
    pub fn read_wire(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        // postcard writes a struct's fields behind each other, and a list's length before its entries
        let (node, rest) = postcard::take_from_bytes(bytes)?;
        self.node = node;
        let rest = read_list(&mut self.services, rest)?;
        let rest = read_list(&mut self.frontends, rest)?;
        let rest = read_list(&mut self.endpoints, rest)?;
        let rest = read_list(&mut self.ranges, rest)?;
        let (text, _) = postcard::take_from_bytes::<&str>(rest)?;
        self.text.clear();
        self.text.push_str(text).map_err(|_| postcard::Error::SerdeDeCustom)
    }
}

/// Reads a list's length and entries into `list`, and returns what is behind them.
fn read_list<'b, T: Deserialize<'b>, const N: usize>(
    list: &mut Vec<T, N>,
    bytes: &'b [u8],
) -> Result<&'b [u8], postcard::Error> {
    list.clear();
    let (len, mut rest) = postcard::take_from_bytes::<usize>(bytes)?;
    for _ in 0..len {
        let (entry, behind) = postcard::take_from_bytes(rest)?;
        list.push(entry).map_err(|_| postcard::Error::SerdeDeCustom)?;
        rest = behind;
    }
    Ok(rest)
}

impl ServiceTable<'_> {
    /// Encodes the table in its wire form (postcard) and returns the part of `out` that was written.
    ///
    /// # Errors
    /// `postcard`'s: `out` is too short.
    pub fn to_wire<'o>(&self, out: &'o mut [u8]) -> Result<&'o mut [u8], postcard::Error> {
        postcard::to_slice(self, out)
    }
}
