//! Programs in the forms that other tools read.
//!
//! [`manifest`] and [`toml`] can be read back and then give the same content id; what such a form cannot say is an error
//! that names the service, never a table that means something else.

pub mod chain_names;
mod check;
pub mod dot;
pub mod iptables;
pub mod manifest;
pub mod nft;
pub mod recover;
pub mod toml;

/// Why a program cannot be written in a form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The names were stripped.
    #[error("the program carries no names (it was compiled with --strip-names)")]
    NoNames,
    /// The form has no way to say something about a service.
    #[error("service {name}: {why}")]
    Service {
        /// `namespace/name:port`.
        name: String,
        /// What cannot be said.
        why: String,
    },
    /// The form has no way to say something about the node.
    #[error("the node: {0}")]
    Node(String),
    /// The form's own reader refuses it.
    #[error("it could not be read back:\n{0}")]
    Unreadable(String),
}
