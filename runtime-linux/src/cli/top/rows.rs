//! The rows of `natlet top`: their order, what is picked of them, and their cells.

use crate::counters::words::{bytes, count, rate};
use crate::counters::{Report, Row};
use clap::ValueEnum;
use std::cmp::{Ordering, Reverse};

/// What rows are sorted by; numbers with the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// New connections a second
    #[default]
    New,
    /// Connections since the frontends were loaded
    Connections,
    /// Connections that have not ended
    Flows,
    /// Bytes a second
    Traffic,
    /// Name
    Name,
}

/// Headings, and the order that each stands for.
pub const COLUMNS: [(&str, Option<Order>); 7] = [
    ("SERVICE", Some(Order::Name)),
    ("PROTOCOL", None),
    ("NEW/S", Some(Order::New)),
    ("CONNECTIONS", Some(Order::Connections)),
    ("LIVE", Some(Order::Flows)),
    ("BYTES/S", Some(Order::Traffic)),
    ("BYTES", None),
];

/// A row's cells, as [`COLUMNS`] name them.
pub fn cells(row: &Row) -> [String; 7] {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let total = row.bytes.map(|b| b as f64);
    [
        row.name.clone(),
        row.protocol.clone(),
        rate(row.connections_per_second),
        count(row.connections),
        count(row.flows),
        bytes(row.bytes_per_second),
        bytes(total),
    ]
}

/// The rows whose name holds the text, sorted.
pub fn pick<'r>(report: &'r Report, filter: &str, order: Order) -> Vec<&'r Row> {
    let filter = filter.to_lowercase();
    let mut rows: Vec<&Row> = report.services.iter().filter(|r| r.name.to_lowercase().contains(&filter)).collect();
    rows.sort_by(|a, b| compare(a, b, order).then_with(|| a.name.cmp(&b.name)));
    rows
}

fn compare(a: &Row, b: &Row, order: Order) -> Ordering {
    let largest = |a: Option<f64>, b: Option<f64>| b.unwrap_or(0.0).total_cmp(&a.unwrap_or(0.0));
    match order {
        Order::New => largest(a.connections_per_second, b.connections_per_second),
        Order::Connections => Reverse(a.connections).cmp(&Reverse(b.connections)),
        Order::Flows => Reverse(a.flows).cmp(&Reverse(b.flows)),
        Order::Traffic => largest(a.bytes_per_second, b.bytes_per_second),
        Order::Name => Ordering::Equal,
    }
}

impl Order {
    /// The next one, for a key that goes round.
    pub fn next(self) -> Self {
        match self {
            Self::New => Self::Connections,
            Self::Connections => Self::Flows,
            Self::Flows => Self::Traffic,
            Self::Traffic => Self::Name,
            Self::Name => Self::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, connections: u64, rate: Option<f64>) -> Row {
        Row { name: name.into(), connections, connections_per_second: rate, ..Row::default() }
    }

    #[test]
    fn rows_are_picked_and_sorted() {
        let services = vec![row("a/web", 5, Some(1.0)), row("a/log", 9, None), row("b/Web", 5, Some(7.0))];
        let report = Report { services, ..Report::default() };
        let names = |filter, order| pick(&report, filter, order).iter().map(|r| r.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names("", Order::New), ["b/Web", "a/web", "a/log"]);
        assert_eq!(names("", Order::Connections), ["a/log", "a/web", "b/Web"]);
        assert_eq!(names("WEB", Order::Name), ["a/web", "b/Web"]);
    }
}
