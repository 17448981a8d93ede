//! Loads one program after another, and sends what differs between the two without reading the tables back.

use super::{ABOUT, About, let_loopback_through};
use crate::image::Image;
use crate::lower::{delta, lower};
use crate::netlink::{LoadError, Netlink};
use crate::nft::apply::{self, Known, Outcome};
use crate::nft::read::{Loaded, read_matching};
use natlet_core::Program;

/// How often to try without reading back while others change their tables.
const ATTEMPTS: u32 = 5;

/// What lets a load trust that the kernel still holds what the one before put there.
pub enum Trust<'t> {
    /// Nothing: all is read and compared.
    Nothing,
    /// The ruleset's generation, which moves with every change of any table: nobody has changed any since.
    Generation,
    /// The caller hears of every change, and none since was of natlet's tables. Asked after the generation was read, so
    /// that all changes up to it are heard of.
    Hearing(&'t mut dyn FnMut() -> bool),
}

/// Loads programs over one socket, and remembers what it left in the kernel.
#[derive(Debug)]
pub struct Loader {
    netlink: Netlink,
    left: Option<Left>,
}

/// What a load left in the kernel.
#[derive(Clone, Debug)]
pub struct Left {
    /// The program.
    pub(super) image: Image,
    /// What the tables say about it.
    pub(super) about: About,
    /// The ruleset's generation after it.
    pub(super) generation: u32,
    /// Tables, sets and rules as they were read, without elements, if they still are so.
    pub(super) objects: Option<Loaded>,
}

impl Loader {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, LoadError> {
        Ok(Self { netlink: Netlink::open()?, left: None })
    }

    /// The socket, to ask the kernel with.
    pub fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    /// What the last load left; `None` if it failed.
    pub fn left(&self) -> Option<&Left> {
        self.left.as_ref()
    }

    /// Takes up what a load of another process left.
    pub fn take_up(&mut self, left: Option<Left>) {
        self.left = left;
    }

    /// Puts a program in force. What is loaded already stays; only the difference is sent. As far as `trust` allows, it is
    /// the difference from the program loaded before, else from what is read back.
    ///
    /// # Errors
    /// The kernel's; what is in force then is found out by the next load.
    pub fn load(&mut self, image: &Image, trust: Trust<'_>) -> Result<Outcome, LoadError> {
        let program = image.program();
        let (outcome, left) = match self.left.take() {
            Some(left) => match self.change(left, image, &program, trust)? {
                Some(done) => done,
                None => self.compare(image, &program)?,
            },
            None => self.compare(image, &program)?,
        };
        self.left = Some(left);
        let_loopback_through(&program)?;
        Ok(outcome)
    }

    /// By what is read back.
    fn compare(&mut self, image: &Image, program: &Program<'_>) -> Result<(Outcome, Left), LoadError> {
        let about = About::after(super::about(&mut self.netlink)?, program);
        let outcome = apply::apply(&mut self.netlink, &lower(program, &about.to_text()))?;
        let left = Left { image: image.clone(), about, generation: outcome.generation, objects: None };
        Ok((outcome, left))
    }

    /// By what was left. `None`: that is not there any more, or not to be trusted.
    fn change(
        &mut self,
        mut left: Left,
        image: &Image,
        program: &Program<'_>,
        mut trust: Trust<'_>,
    ) -> Result<Option<(Outcome, Left)>, LoadError> {
        let about = About::after(Some(left.about.clone()), program);
        let mut differing = None;
        for _ in 0..ATTEMPTS {
            let generation = self.netlink.generation()?;
            let untouched = match &mut trust {
                Trust::Nothing => false,
                Trust::Generation => generation == left.generation,
                Trust::Hearing(hears_nothing) => hears_nothing(),
            };
            if !untouched {
                return Ok(None);
            }
            let objects = match left.objects.take() {
                Some(objects) => objects,
                None => {
                    let read = read_matching(&mut self.netlink, |set| set == ABOUT)?;
                    if About::of(&read).as_ref() != Some(&left.about) {
                        return Ok(None);
                    }
                    read
                }
            };
            let delta = differing.get_or_insert_with(|| {
                delta(&left.image.program(), &left.about.to_text(), program, &about.to_text())
            });
            let Some(current) = objects.holding(&delta.old).map(|loaded| Loaded { generation, ..loaded }) else {
                return Ok(None);
            };
            match apply::apply_known(&mut self.netlink, &current, &delta.new)? {
                Known::Done(outcome) => {
                    let objects = outcome.keeps_objects().then(|| current.after(outcome.generation, &delta.new));
                    let left = Left { image: image.clone(), about, generation: outcome.generation, objects };
                    return Ok(Some((outcome, left)));
                }
                Known::Moved => left.objects = Some(objects),
                Known::Unknown => return Ok(None),
            }
        }
        Ok(None)
    }
}
