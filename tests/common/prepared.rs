//! Changes made once and sent over and over.

use natlet::image::Image;
use natlet::lower::delta;
use natlet::netlink::Netlink;
use natlet::nft::diff::plan;
use natlet::nft::read::read_objects;
use natlet::nft::wire::Batch;
use std::error::Error;

/// The transactions that lead from one program, whose chains and sets are loaded, to another one, whatever the kernel's
/// generation then is.
pub fn transactions(netlink: &mut Netlink, old: &Image, new: &Image) -> Result<Vec<Batch>, Box<dyn Error>> {
    let objects = read_objects(netlink)?;
    // nothing that is loaded says what is loaded: so each of them fits again
    let mut delta = delta(&old.program(), "", &new.program(), "");
    let current = delta.onto(&objects).ok_or("the kernel holds other sets")?;
    let phases = plan(&current, &delta.new).phases;
    let mut batches: Vec<_> = phases.iter().flat_map(|phase| phase.batches(netlink.max_batch_len())).collect();
    for batch in &mut batches {
        batch.insist_on(0);
    }
    Ok(batches)
}
