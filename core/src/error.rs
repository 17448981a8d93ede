//! One error enum per operation: [`CompileError`] is about the table, [`ProgramError`] about the bytes.

use core::fmt;

/// Why a table cannot be compiled. Services and frontends are named by their index in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileError {
    /// A span of this service reaches past its slice, or its name is not text.
    Span {
        /// The service.
        service: u32,
    },
    /// The name is empty or longer than 255 bytes, or the hosts are longer than 65,535.
    Name {
        /// The service.
        service: u32,
    },
    /// Two services have the same name and protocol.
    DuplicateService {
        /// One of them.
        first: u32,
        /// The other.
        second: u32,
    },
    /// A frontend has port 0, an unspecified address, or a NodePort has an address.
    Frontend {
        /// Its service.
        service: u32,
        /// The frontend.
        frontend: u32,
    },
    /// Two frontends have the same address, protocol and port.
    DuplicateFrontend {
        /// One of them.
        first: u32,
        /// The other.
        second: u32,
    },
    /// An endpoint has port 0 or an unspecified address.
    Endpoint {
        /// Its service.
        service: u32,
        /// The endpoint.
        endpoint: u32,
    },
    /// The service has more than 65,535 usable endpoints, more than 3,800 source ranges (its own load-balancer addresses
    /// count where they are allowed), or weights that, divided by their common divisor, add up to more than 65,535 or
    /// belong to more than about 32,700 endpoints.
    TooMany {
        /// The service.
        service: u32,
    },
    /// A prefix is longer than its address.
    Cidr,
    /// The node has more than 255 addresses or prefixes of one kind, or a name of more than 255 bytes.
    Node,
    /// The table has more than 2^30 entries of one kind, or the program would have more than 256 MiB of services.
    Limit,
    /// `scratch` is shorter than [`crate::scratch_len`].
    ScratchTooSmall,
    /// `out` is shorter than [`crate::max_len`] and the program does not fit.
    OutputTooSmall,
    /// No perfect hash was found for the frontends under any seed and load (never seen).
    Index,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Span { service } => write!(f, "service {service}: a span reaches past the table"),
            Self::Name { service } => write!(f, "service {service}: the name must have 1 to 255 bytes"),
            Self::DuplicateService { first, second } => {
                write!(f, "services {first} and {second} have the same name and protocol")
            }
            Self::Frontend { service, frontend } => {
                write!(f, "service {service}: frontend {frontend} has no valid address or port")
            }
            Self::DuplicateFrontend { first, second } => {
                write!(f, "frontends {first} and {second} have the same address, protocol and port")
            }
            Self::Endpoint { service, endpoint } => {
                write!(f, "service {service}: endpoint {endpoint} has no valid address or port")
            }
            Self::TooMany { service } => {
                write!(f, "service {service}: more than 65535 endpoints, too large weights or more than 3800 ranges")
            }
            Self::Cidr => f.write_str("a prefix is longer than its address"),
            Self::Node => f.write_str("the node has more than 255 addresses or prefixes of a kind, or too long a name"),
            Self::Limit => f.write_str("the table is too large for a program"),
            Self::ScratchTooSmall => f.write_str("scratch memory is shorter than scratch_len(table)"),
            Self::OutputTooSmall => f.write_str("output memory is too short for the program"),
            Self::Index => f.write_str("no perfect hash found for the frontends"),
        }
    }
}

impl core::error::Error for CompileError {}

/// Why bytes are no program that this version can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgramError {
    /// They do not start with `NATP`.
    Magic,
    /// They are of another format version.
    Version(u8),
    /// They end before the length that the header states.
    Truncated,
    /// They go on after the length that the header states.
    TrailingBytes,
    /// The checksum differs: they were damaged.
    Checksum,
    /// A header field has a value that this version does not write.
    Header,
    /// The node's section is malformed.
    Context,
    /// The frontend index is malformed.
    Index,
    /// A service record is malformed.
    Record,
    /// The names' section is malformed.
    Names,
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a natlet program (no NATP at its start)"),
            Self::Version(v) => {
                write!(f, "program of format version {v}; this natlet reads version {}", crate::program::VERSION)
            }
            Self::Truncated => f.write_str("program is cut short"),
            Self::TrailingBytes => f.write_str("bytes after the end of the program"),
            Self::Checksum => f.write_str("program is damaged: its checksum differs"),
            Self::Header => f.write_str("program header has a value this natlet does not know"),
            Self::Context => f.write_str("program's node section is malformed"),
            Self::Index => f.write_str("program's frontend index is malformed"),
            Self::Record => f.write_str("a service record of the program is malformed"),
            Self::Names => f.write_str("program's names are malformed"),
        }
    }
}

impl core::error::Error for ProgramError {}
