//! `natlet load` and `unload`.

use super::args::{LoadArgs, Memory, counting};
use super::failure::{Failure, print};
use super::input;
use crate::kernel::{self, Loader, Remembered, Terms, Trust};
use crate::netlink::{LoadError, Netlink};

pub fn load(args: &LoadArgs) -> Result<(), Failure> {
    let image = input::read(&args.input)?;
    let program = image.program();
    let failed = |e| Failure::operation("loading into the kernel", e);
    let (mut loader, remembered) = loader(&args.memory).map_err(failed)?;
    let terms = Terms { counting: counting(args.counters), ..Terms::default() };
    let outcome = loader.load(&image, terms, Trust::Generation);
    // A directory that cannot be written to costs the next load the time to read back, and nothing else.
    let _ = remembered.map(|r| r.write(loader.left()));
    let outcome = outcome.map_err(failed)?;
    print(&format!("{outcome}; content id {}\n", program.content_id()))
}

/// A loader that knows what the last `natlet load` left, and where that is kept.
pub fn loader(memory: &Memory) -> Result<(Loader, Option<Remembered>), LoadError> {
    let mut loader = Loader::open()?;
    let remembered = Remembered::in_directory(&memory.runtime_dir);
    if !memory.verify {
        let generation = loader.netlink().generation()?;
        loader.take_up(remembered.as_ref().and_then(|r| r.read(generation)));
    }
    Ok((loader, remembered))
}

pub fn unload() -> Result<(), Failure> {
    let failed = |e| Failure::operation("unloading from the kernel", e);
    let mut netlink = Netlink::open().map_err(failed)?;
    let removed = kernel::unload(&mut netlink).map_err(failed)?;
    print(if removed { "unloaded\n" } else { "nothing was loaded\n" })
}
