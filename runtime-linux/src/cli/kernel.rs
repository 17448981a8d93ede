//! `natlet load` and `unload`.

use super::args::{LoadArgs, counting};
use super::failure::{Failure, print};
use super::input;
use crate::kernel::{self, Terms};
use crate::netlink::Netlink;

pub fn load(args: &LoadArgs) -> Result<(), Failure> {
    let image = input::read(&args.input)?;
    let program = image.program();
    let failed = |e| Failure::operation("loading into the kernel", e);
    let mut netlink = Netlink::open().map_err(failed)?;
    let terms = Terms { counting: counting(args.counters), ..Terms::default() };
    let outcome = kernel::load_on(&mut netlink, &program, terms).map_err(failed)?;
    print(&format!("{outcome}; content id {}\n", program.content_id()))
}

pub fn unload() -> Result<(), Failure> {
    let failed = |e| Failure::operation("unloading from the kernel", e);
    let mut netlink = Netlink::open().map_err(failed)?;
    let removed = kernel::unload(&mut netlink).map_err(failed)?;
    print(if removed { "unloaded\n" } else { "nothing was loaded\n" })
}
