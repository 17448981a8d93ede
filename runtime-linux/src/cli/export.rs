//! `natlet export`: a table for other tools.

use super::args::{ExportArgs, Format};
use super::failure::{Failure, print};
use super::input;
use crate::export::{iptables, nft};

pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    let image = input::read(&args.input)?;
    match args.format {
        Format::IptablesSave => print(&iptables::export(&image.program(), args.ipv6)),
        Format::Nft => {
            let text = nft::export(&image.program()).map_err(|e| Failure::operation("writing nft text", e))?;
            print(&text)
        }
    }
}
