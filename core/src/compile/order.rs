//! The order of services in a program: by name, then protocol.

use super::service_at;
use crate::bytes::{Word, index};
use crate::error::CompileError;
use crate::table::ServiceTable;

/// Checks each service's own fields.
pub(crate) fn check_services(table: &ServiceTable<'_>) -> Result<(), CompileError> {
    for (service, s) in (0_u32..).zip(table.services) {
        let spans = s.endpoints.of(table.endpoints).is_some()
            && s.frontends.of(table.frontends).is_some()
            && s.source_ranges.of(table.ranges).is_some()
            && s.name.of_str(table.text).is_some()
            && s.hosts.of_str(table.text).is_some();
        if !spans {
            return Err(CompileError::Span { service });
        }
        if s.name.len == 0 || s.name.len > u8::MAX.into() || s.hosts.len > u16::MAX.into() {
            return Err(CompileError::Name { service });
        }
        for range in s.source_ranges.of(table.ranges).unwrap_or(&[]) {
            crate::Cidr::new(range.address, range.prefix).ok_or(CompileError::Cidr)?;
        }
    }
    Ok(())
}

/// Fills `order` with the services by name and protocol.
pub(crate) fn sort_services(table: &ServiceTable<'_>, order: &mut [Word]) -> Result<(), CompileError> {
    for (service, place) in (0_u32..).zip(order.iter_mut()) {
        *place = service.to_le_bytes();
    }
    // bytes, not text: names were checked, and looking for the bounds of characters takes longer than to compare
    let text = table.text.as_bytes();
    let key = |i: Word| {
        let s = service_at(table, u32::from_le_bytes(i))?;
        Some((text.get(index(s.name.start)..)?.get(..index(s.name.len))?, s.protocol))
    };
    if order.is_sorted_by(|&a, &b| key(a) < key(b)) {
        return Ok(()); // as most sources of tables have them
    }
    order.sort_unstable_by_key(|&i| (key(i), u32::from_le_bytes(i)));
    for pair in order.windows(2) {
        if let [first, second] = *pair
            && key(first) == key(second)
        {
            let (first, second) = (u32::from_le_bytes(first), u32::from_le_bytes(second));
            return Err(CompileError::DuplicateService { first, second });
        }
    }
    Ok(())
}
