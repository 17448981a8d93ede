//! Large tables and their programs, for tests and measurements.
#![allow(dead_code, reason = "each user takes its part")]

use libtest_mimic::Failed;
use natlet::image::Image;
use natlet::source::{Input, Loaded, NodeFlags, load_inputs};
use std::fmt::Write as _;

/// `services` service ports with a ClusterIP and `endpoints` endpoints each; the first one's first endpoint is
/// 11.`moved`.0.0, where no other one is for values from 200 on.
pub fn table(services: usize, endpoints: usize, moved: u8) -> String {
    let mut text = String::from("[node]\ncluster-cidr = [\"11.0.0.0/8\"]\nservice-cidr = [\"10.0.0.0/8\"]\n");
    for i in 0..services {
        let [_, a, b, c] = u32::try_from(i + 256).unwrap().to_be_bytes();
        let _ = write!(
            text,
            "[[service]]\nname = \"ns{}/svc{i}:http\"\nport = 80\ncluster-ip = \"10.{a}.{b}.{c}\"\nendpoints = [",
            i % 200
        );
        for e in 0..endpoints {
            let [_, a, b, c] = u32::try_from(i * endpoints + e).unwrap().to_be_bytes();
            let a = if (i, e) == (0, 0) { moved } else { a };
            let _ = write!(text, "\"11.{a}.{b}.{c}:8080\", ");
        }
        text += "]\n";
    }
    text
}

/// The program of a `services.toml`.
pub fn image(toml: &str) -> Result<Image, Failed> {
    let input = Input { name: "services.toml".into(), bytes: toml.into(), found: false };
    match load_inputs(vec![input], &NodeFlags::default())? {
        Loaded::Table { table, .. } => Ok(Image::compile(&table.as_table())?),
        Loaded::Program { .. } => Err("a table was given".into()),
    }
}

/// The program of [`table`].
pub fn program(services: usize, endpoints: usize, moved: u8) -> Result<Image, Failed> {
    image(&table(services, endpoints, moved))
}
