//! Writes everything before the record map: header, node, frontend indices, ClusterIPs.

use super::cluster_ips;
use super::entry::{Entry, cluster_ip_v4, cluster_ip_v6};
use super::index::{self, Failure, Room};
use super::work::Work;
use crate::bytes::{Writer, count};
use crate::error::CompileError;
use crate::program::context;
use crate::program::layout::{FLAG_V6, HEADER, HEADER6, Header};
use crate::table::ServiceTable;

/// Upper bound of the length, in bytes, with this many frontends of each family.
pub(crate) fn max_len(table: &ServiceTable<'_>, v4: usize, v6: usize) -> usize {
    [
        HEADER,
        HEADER6,
        context::max_len(&table.node),
        index::max_len(v4, 10),
        index::max_len(v6, 22),
        cluster_ips::max_len(v4),
        v6.saturating_mul(16),
    ]
    .into_iter()
    .fold(0, usize::saturating_add)
}

/// What the front is made of.
pub(crate) struct Front<'t, 's> {
    pub table: &'t ServiceTable<'t>,
    /// The frontends, and room.
    pub work: Work<'s>,
    pub scratch: &'s mut [u32],
}

impl Front<'_, '_> {
    /// Leaves room for the header, whose fields it fills, and writes the rest. Returns the length.
    pub fn write(&mut self, header: &mut Header, out: &mut [u8]) -> Result<usize, CompileError> {
        let full = CompileError::OutputTooSmall;
        let mut at = HEADER;
        if !self.work.v6.entries.is_empty() {
            header.flags |= FLAG_V6;
            at = at.saturating_add(HEADER6);
        }
        let mut context = Writer::new(out.get_mut(at..).ok_or(full)?);
        context::write(&self.table.node, &mut context)?;
        header.context = u16::try_from(context.len()).map_err(|_| CompileError::Node)?;
        at = at.saturating_add(context.len());

        let forms = (header.form_v4(), header.form_v6());
        let mut room = Room { scratch: self.scratch, shard_ends: self.work.shard_ends };
        let family = &mut self.work.v4;
        let built = index::build(family.entries, family.spare, forms.0, &mut room, out.get_mut(at..).ok_or(full)?);
        header.v4 = built.map_err(|e| refusal(self.table, &e, header.base_frontends))?;
        at = at.saturating_add(index_len(header.v4.slots(), forms.0.width(), header.v4.pilots()));
        let family = &mut self.work.v6;
        let built = index::build(family.entries, family.spare, forms.1, &mut room, out.get_mut(at..).ok_or(full)?);
        header.v6 = built.map_err(|e| refusal(self.table, &e, 0))?;
        at = at.saturating_add(index_len(header.v6.slots(), forms.1.width(), header.v6.pilots()));

        let len = self.write_cluster_ips_v4(forms.0.base_word(), out.get_mut(at..).ok_or(full)?).ok_or(full)?;
        header.v4.cluster_ips = count(len);
        at = at.saturating_add(len);
        let len = self.write_cluster_ips_v6(out.get_mut(at..).ok_or(full)?).ok_or(full)?;
        header.v6.cluster_ips = count(len);
        at = at.saturating_add(len);

        Ok(at)
    }

    fn write_cluster_ips_v4(&mut self, base: u32, out: &mut [u8]) -> Option<usize> {
        let family = &mut self.work.v4;
        // the memory of a spare entry is for two addresses
        let (addresses, _) = family.spare.as_flattened_mut().as_chunks_mut::<4>();
        let (addresses, spare) = addresses.split_at_mut_checked(family.entries.len())?;
        let mut len = 0_usize;
        for &entry in family.entries.iter() {
            if let Some(address) = cluster_ip_v4(entry) {
                *addresses.get_mut(len)? = (address ^ base).to_be_bytes();
                len = len.checked_add(1)?;
            }
        }
        cluster_ips::write_v4(addresses.get_mut(..len)?, spare.get_mut(..len)?, out)
    }

    fn write_cluster_ips_v6(&mut self, out: &mut [u8]) -> Option<usize> {
        let family = &mut self.work.v6;
        let (addresses, _) = family.spare.as_flattened_mut().as_chunks_mut::<16>();
        let mut len = 0_usize;
        for entry in family.entries.iter() {
            if let Some(address) = cluster_ip_v6(entry) {
                *addresses.get_mut(len)? = address;
                len = len.checked_add(1)?;
            }
        }
        cluster_ips::write_v6(addresses.get_mut(..len)?, out)
    }
}

fn index_len(slots: u32, width: u8, pilots: u32) -> usize {
    crate::bytes::index(slots).saturating_mul(width.into()).saturating_add(crate::bytes::index(pilots))
}

/// Says which frontends of the table have the same key.
fn refusal<E: Entry>(table: &ServiceTable<'_>, failure: &Failure<E>, base: u8) -> CompileError {
    let slot = match failure {
        Failure::Other(error) => return *error,
        Failure::Duplicate(entry) => entry.slot(base),
    };
    let Some(slot) = slot else { return CompileError::Index };
    let mut found = table.services.iter().flat_map(|service| {
        let frontends = service.frontends.of(table.frontends).unwrap_or(&[]);
        (service.frontends.start..).zip(frontends).filter_map(move |(i, f)| {
            let is_it = service.protocol == slot.protocol && f.address == slot.address && f.port == slot.port;
            is_it.then_some(i)
        })
    });
    match (found.next(), found.next()) {
        (Some(a), Some(b)) => CompileError::DuplicateFrontend { first: a.min(b), second: a.max(b) },
        _ => CompileError::Index,
    }
}
