//! `iptables-save` listings: the `KUBE-*` chains of a live node, read back to service ports.
//!
//! Both of kube-proxy's styles are read: the old one (`KUBE-SERVICES` to `KUBE-FW-`, `KUBE-XLB-` or `KUBE-SVC-`, then
//! `KUBE-SEP-`) and the one since Kubernetes 1.24 (`KUBE-EXT-`, `KUBE-SVL-`). A listing may stand inside other text and may
//! be a part of the whole, as `grep` leaves it: lines that are none of `iptables-save` are skipped and counted, a rule
//! that is printed several times counts once, and a frontend whose chain is missing is left out with a warning.
//!
//! What a listing cannot say: nodes of endpoints (an endpoint is known to be local only by a `KUBE-SVL-` chain), ports
//! that no rule mentions, and, of addresses that only a REJECT line names, whether they are a load balancer's.

pub(super) mod lift;
mod parse;
mod rule;
mod weights;

pub(super) use lift::lift;
pub(super) use parse::{Listing, is_telling_line, parse};

#[cfg(test)]
mod tests;
