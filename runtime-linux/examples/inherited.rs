//! Loads a program over a netfilter socket that somebody else opened: `inherited load FILE...`, `inherited unload`, with the
//! socket as standard input. Its opener's network namespace gets the tables, wherever this process lives.
//!
//! An emulator of other processors' programs that opens no such sockets itself lets one be inherited.

use natlet::image::Image;
use natlet::kernel;
use natlet::netlink::Netlink;
use natlet::source::{Loaded, NodeFlags, load};
use std::error::Error;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut netlink = Netlink::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("load") => {
            let files: Vec<PathBuf> = words.map(PathBuf::from).collect();
            let image = match load(&files, &NodeFlags::default())? {
                Loaded::Table { table, .. } => Image::compile(&table.as_table())?,
                Loaded::Program { bytes, .. } => Image::from_bytes(bytes)?,
            };
            println!("{}", kernel::load(&mut netlink, &image.program())?);
        }
        Some("unload") => println!("removed: {}", kernel::unload(&mut netlink)?),
        _ => return Err("usage: inherited load FILE... | inherited unload, with the socket as standard input".into()),
    }
    Ok(())
}
