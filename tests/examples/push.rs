//! Sends a table or a program to a running board: `push --to 192.0.2.1:4242 --board gw-board --key SEED-FILE --counter N
//! FILE` (a services.toml, manifests or a compiled `.natp`); without FILE it prints the board's status.
#![allow(clippy::pedantic, missing_docs, reason = "a small tool")]

use natlet::source::{Loaded, NodeFlags, load};
use natlet_firmware_example::update::{Kind, Request};
use natlet_tests::push::{Update, ask};
use std::collections::HashMap;
use std::error::Error;
use std::net::UdpSocket;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut options, mut files) = (HashMap::new(), Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some(name) => drop(options.insert(name.to_owned(), words.next().ok_or("an option lacks its value")?)),
            None => files.push(word.into()),
        }
    }
    let option = |name: &str| options.get(name).ok_or(format!("--{name} is missing"));
    let to = option("to")?;
    let socket = UdpSocket::bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.connect(to)?;
    if files.is_empty() {
        println!("{}", ask(&socket, &Request::Status, |reply| format!("{reply:#?}"))?);
        return Ok(());
    }
    let seed = std::fs::read(option("key")?)?.try_into().map_err(|_| "the key's seed has 32 bytes")?;
    let (kind, bytes) = match load(&files, &NodeFlags::default())? {
        Loaded::Table { table, .. } => {
            let mut room = vec![0; 1 << 20];
            (Kind::Table, table.as_table().to_wire(&mut room)?.to_vec())
        }
        Loaded::Program { bytes, .. } => (Kind::Program, bytes),
    };
    let update = Update { board: option("board")?, counter: option("counter")?.parse()?, kind, bytes: &bytes };
    let id = update.push(&socket, seed)?;
    println!("in force: {}", natlet_core::ContentId(id));
    Ok(())
}
