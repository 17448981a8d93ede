//! Which endpoint a new connection goes to.

use crate::decide::Decision;
use crate::program::RecordEndpoint;
use crate::table::Choice;
use core::net::SocketAddr;

/// The endpoint of a decision that translates: the remembered one if it is still in the list that applies, else one that
/// the service's way of choosing gives. `None` for a decision without endpoints.
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
    match decision.frontend?.record.choice() {
        // one place for the hash of the source; until it is there, both draw
        Choice::Random | Choice::SourceHash => list.draw(random()),
    }
}
