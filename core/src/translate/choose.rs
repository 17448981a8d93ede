//! Which endpoint a new connection goes to.

use crate::program::{EndpointList, Record, RecordEndpoint};
use crate::table::Choice;
use core::net::{IpAddr, SocketAddr};

/// An endpoint of a service's list: the remembered one if it is still in the list, else the one that the source's hash
/// names, or a random draw, as the service chooses. `None` for an empty list.
pub(crate) fn choose(
    record: &Record<'_>,
    list: &EndpointList<'_>,
    source: IpAddr,
    remembered: Option<SocketAddr>,
    random: &mut dyn FnMut() -> u32,
) -> Option<RecordEndpoint> {
    if let Some(remembered) = remembered
        && let Some(endpoint) = list.iter().find(|e| e.address == remembered)
    {
        return Some(endpoint);
    }
    match record.choice() {
        Choice::SourceHash => list.hashed(source),
        Choice::Random => list.draw(random()),
    }
}
