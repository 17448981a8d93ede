//! Which endpoint a new connection goes to.

use crate::decide::Decision;
use crate::program::RecordEndpoint;
use core::net::SocketAddr;

/// The endpoint of a decision that translates: the remembered one if it is still in the list that applies, else the one
/// that the source's hash names, or a random draw, as the service chooses. `None` for a decision without endpoints.
pub(crate) fn choose(
    decision: &Decision<'_>,
    remembered: Option<SocketAddr>,
    random: &mut dyn FnMut() -> u32,
) -> Option<RecordEndpoint> {
    let list = decision.endpoints?;
    if let Some(remembered) = remembered
        && let Some(endpoint) = list.iter().find(|e| e.address == remembered)
    {
        return Some(endpoint);
    }
    decision.hashed().or_else(|| list.draw(random()))
}
