//! `natlet export`: a table for other tools.

use super::args::{ExportArgs, Format};
use super::failure::{Failure, print};
use super::input;
use crate::export::{ExportError, dot, iptables, manifest, nft, toml};

pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    let image = input::read(&args.input)?;
    match args.format {
        Format::IptablesSave => print(&iptables::export(&image.program(), args.ipv6)),
        Format::Nft => {
            let text = nft::export(&image.program()).map_err(|e| Failure::operation("writing nft text", e))?;
            print(&text)
        }
        Format::Manifest => print(&manifest::export(&image.program()).map_err(unsaid("manifests"))?),
        Format::Dot => print(&dot::export(&image.program())),
        Format::Toml => print(&toml::export(&image.program()).map_err(unsaid("services.toml"))?),
    }
}

/// What the form cannot say is the input's affair, not the machine's.
fn unsaid(form: &str) -> impl Fn(ExportError) -> Failure {
    move |error| Failure::input(format!("this table cannot be written as {form}: {error}"))
}
