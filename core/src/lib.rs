//! natlet's core: a service table compiled to a compact NAT program, and the program's interpreter.
#![no_std]

pub mod table;

pub use table::{
    Choice, Cidr, Endpoint, Frontend, FrontendKind, Node, Policy, Protocol, Service, ServiceTable, ServiceType, Span,
};
