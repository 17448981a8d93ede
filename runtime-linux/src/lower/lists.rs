//! The maps that lead from a frontend to its chain, and from the slot that the chain draws to an endpoint.

use super::Select;
use super::building::{Building, Bytes, append, append_address, clip, padded_port};
use super::rules::PASSED_OVER;
use crate::nft::model::{Field, SetData, Verdict};
use natlet_core::{Choice, EndpointList, Record};

/// Two maps that hold one of the lists: frontend to verdict, frontend and slot to endpoint.
pub(super) struct Lists {
    pub(super) verdicts: Building,
    /// What each of the verdicts does.
    ways: Vec<Way>,
    pub(super) endpoints: Building,
}

/// What a frontend's verdict does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Refuse,
    PassOver,
    Drop,
    Draw(Select),
}

impl Way {
    fn verdict(self) -> Verdict {
        match self {
            Self::Refuse => Verdict::Goto("refuse".into()),
            Self::PassOver => Verdict::Goto(PASSED_OVER.into()),
            Self::Drop => Verdict::Drop,
            Self::Draw(select) => Verdict::Goto(select.chain()),
        }
    }
}

impl Lists {
    pub(super) fn new(names: [&'static str; 2], key: &[Field], daddr: Field) -> Self {
        let slot = [key, &[Field::Slot]].concat();
        Self {
            verdicts: Building::verdicts(names[0], key),
            ways: Vec::new(),
            endpoints: Building::map(names[1], &slot, &[daddr, Field::Dport]),
        }
    }

    /// Enters a frontend's list: its slots, and with a name its verdict.
    pub(super) fn enter(&mut self, key: &[u8], list: &List<'_>, name: Option<&str>) {
        if let List::Draw(endpoints, Select { affinity: None, .. }) = list {
            self.enter_slots(key, *endpoints);
        }
        if let Some(name) = name {
            let index = self.verdict(list.way());
            self.verdicts.elements.push(key, &index.to_le_bytes(), clip(name));
        }
    }

    fn enter_slots(&mut self, key: &[u8], endpoints: EndpointList<'_>) {
        let elements = &mut self.endpoints.elements;
        let mut bytes = Bytes::from_slice(key).expect("a key is shorter than an element");
        let mut slot = 0_u32;
        for e in endpoints.iter() {
            for _ in 0..e.weight {
                bytes.truncate(key.len());
                append(&mut bytes, slot.to_ne_bytes());
                append_address(&mut bytes, e.address.ip());
                append(&mut bytes, padded_port(e.address.port()));
                elements.push_joined(&bytes);
                slot += 1;
            }
        }
    }

    /// The number of a verdict in the map's list of them.
    fn verdict(&mut self, way: Way) -> u16 {
        let index = self.ways.iter().position(|w| *w == way).unwrap_or_else(|| {
            if let SetData::Verdict(verdicts) = &mut self.verdicts.data {
                verdicts.push(way.verdict());
            }
            self.ways.push(way);
            self.ways.len() - 1
        });
        u16::try_from(index).expect("a list has at most 65535 slots, so fewer verdicts")
    }
}

/// What a frontend's map entry says.
pub(super) enum List<'a> {
    Refuse,
    /// Refuse, unless a NodePort takes the connection.
    PassOver,
    Drop,
    Draw(EndpointList<'a>, Select),
}

impl<'a> List<'a> {
    pub(super) fn of(record: &Record<'a>, endpoints: EndpointList<'a>, node_port: bool, local: bool) -> Self {
        if !record.any_usable() {
            Self::Refuse
        } else if endpoints.is_empty() {
            Self::Drop
        } else {
            let hash = record.choice() == Choice::SourceHash;
            let affinity = record.affinity_timeout();
            Self::Draw(endpoints, Select { node_port, local, hash, affinity, slots: endpoints.slots() })
        }
    }

    const fn way(&self) -> Way {
        match self {
            Self::Refuse => Way::Refuse,
            Self::PassOver => Way::PassOver,
            Self::Drop => Way::Drop,
            Self::Draw(_, select) => Way::Draw(*select),
        }
    }

    /// The chain that draws from it.
    pub(super) fn select(&self) -> Option<Select> {
        if let Self::Draw(_, select) = self { Some(*select) } else { None }
    }
}
