//! Loads one program after another, and sends what differs between the two without reading the tables back.

use super::{ABOUT, About, Counting, Terms, let_loopback_through, owner, wanted};
use crate::image::Image;
use crate::lower::{Delta, delta, delta_of_some, lower};
use crate::netlink::{LoadError, Netlink};
use crate::nft::apply::{self, Known, Outcome};
use crate::nft::model::Ruleset;
use crate::nft::read::{Loaded, read_expecting, read_matching, recount};
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
    /// What was changed for a program that is still to be loaded.
    pub(super) ahead: Option<Ahead>,
}

/// What a load began with.
#[derive(Clone, Debug)]
pub(super) struct Ahead {
    done: Delta,
    outcome: Outcome,
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

    /// Whether nobody has changed any table since the last load. Not known is no.
    pub fn is_untouched(&mut self) -> bool {
        let left = self.left.as_ref().map(|left| left.generation);
        left.is_some_and(|generation| self.netlink.generation().is_ok_and(|now| now == generation))
    }

    /// Takes up what a load of another process left.
    pub fn take_up(&mut self, left: Option<Left>) {
        self.left = left;
    }

    /// Puts a program in force. What is loaded already stays; only the difference is sent. As far as `trust` allows, it is
    /// the difference from the program loaded before, else from what is read back. Tables that are there and have no owner
    /// are replaced, in one transaction, where this socket is to be their owner ([`claim`](super::claim) spares those that
    /// had one).
    ///
    /// # Errors
    /// The kernel's; what is in force then is found out by the next load.
    pub fn load(&mut self, image: &Image, terms: Terms, trust: Trust<'_>) -> Result<Outcome, LoadError> {
        let program = image.program();
        let (outcome, left) = match self.left.take() {
            Some(left) => match self.change(left, image, terms, trust)? {
                Some(done) => done,
                None => self.compare(image, terms)?,
            },
            None => self.compare(image, terms)?,
        };
        self.left = Some(left);
        let_loopback_through(&program)?;
        Ok(outcome)
    }

    /// Puts some services of the program that is to be loaded next in force ahead of it: `some` is a program of them alone,
    /// and `is_one` tells them by their names. `None` if that is not to be done, or not to be trusted: loading the whole
    /// program does it. What the tables say about themselves is still of the program before.
    ///
    /// # Errors
    /// The kernel's; what is in force then is found out by the next load.
    pub fn load_ahead(
        &mut self,
        some: &Image,
        is_one: &dyn Fn(&str) -> bool,
        terms: Terms,
        trust: Trust<'_>,
    ) -> Result<Option<Outcome>, LoadError> {
        let Some(mut left) = self.left.take_if(|left| left.ahead.is_none()) else { return Ok(None) };
        let terms = Terms { counting: Counting::AsLoaded, ..terms };
        let mut refused = false;
        let sent = self.send(&mut left, trust, |left, objects| {
            let (old, info) = (left.image.program(), left.about.to_string());
            let delta = delta_of_some(&old, &info, &some.program(), is_one);
            refused = delta.is_none();
            delta.map(|Delta { old, new }| Delta { old: terms.shape(old, objects), new: terms.shape(new, objects) })
        })?;
        let Some(Sent { outcome, objects, delta: done }) = sent else {
            self.left = refused.then_some(left);
            return Ok(None);
        };
        left.generation = outcome.generation;
        left.objects = objects;
        left.ahead = Some(Ahead { done, outcome: outcome.clone() });
        self.left = Some(left);
        Ok(Some(outcome))
    }

    /// Whether the last load left this program, as far as is known.
    pub fn holds(&self, image: Option<&Image>) -> bool {
        self.left.as_ref().is_some_and(|left| image == Some(&left.image))
    }

    /// Whether something is in force ahead of its program.
    pub fn is_ahead(&self) -> bool {
        self.left.as_ref().is_some_and(|left| left.ahead.is_some())
    }

    /// By what is read back.
    fn compare(&mut self, image: &Image, terms: Terms) -> Result<(Outcome, Left), LoadError> {
        let loaded = read_matching(&mut self.netlink, |set| set == ABOUT)?;
        owner::must_be_mine(&self.netlink, &loaded)?;
        let program = image.program();
        let about = About::after(About::of(&loaded), &program);
        let ruleset = terms.shape(lower(&program, &about.to_string()), &loaded);
        let outcome = apply::apply(&mut self.netlink, &ruleset)?;
        let left = Left { image: image.clone(), about, generation: outcome.generation, objects: None, ahead: None };
        Ok((outcome, left))
    }

    /// What differs between the kernel and a program: a part of what is loaded, and of what [`Loader::load`] would put there.
    /// All of both where the kernel's generation is not the one that was left, and so everything is read.
    ///
    /// # Errors
    /// The kernel's.
    pub fn difference(&mut self, image: &Image) -> Result<(Loaded, Ruleset), LoadError> {
        let program = image.program();
        if let Some(left) = self.left.take().filter(|left| left.ahead.is_none()) {
            let generation = self.netlink.generation()?;
            if generation == left.generation
                && let Some(objects) = self.objects(&left)?
                && objects.generation == generation
            {
                let about = About::after(Some(left.about.clone()), &program);
                let mut delta = left.delta(&program, &about, Terms::default(), &objects);
                if let Some(loaded) = delta.onto(&objects) {
                    self.left = Some(left);
                    return Ok((loaded, delta.new));
                }
            }
        }
        let loaded = read_matching(&mut self.netlink, |set| set == ABOUT)?;
        let wanted = wanted(&program, &loaded, Terms::default());
        Ok((read_expecting(&mut self.netlink, &wanted)?, wanted))
    }

    /// Tables, sets and rules as they are, if they say that they hold what was left.
    fn objects(&mut self, left: &Left) -> Result<Option<Loaded>, LoadError> {
        let read = read_matching(&mut self.netlink, |set| set == ABOUT)?;
        Ok(Some(read).filter(|read| About::of(read).as_ref() == Some(&left.about)))
    }

    /// By what was left. `None`: that is not there any more, or not to be trusted.
    fn change(
        &mut self,
        mut left: Left,
        image: &Image,
        terms: Terms,
        trust: Trust<'_>,
    ) -> Result<Option<(Outcome, Left)>, LoadError> {
        let program = image.program();
        let about = About::after(Some(left.about.clone()), &program);
        let sent = self.send(&mut left, trust, |left, objects| {
            let delta = left.delta(&program, &about, terms, objects);
            match &left.ahead {
                Some(ahead) => delta.begun(&ahead.done),
                None => Some(delta),
            }
        })?;
        Ok(sent.map(|Sent { outcome, objects, .. }| {
            let generation = outcome.generation;
            let outcome = match left.ahead {
                Some(ahead) => ahead.outcome.and(outcome),
                None => outcome,
            };
            (outcome, Left { image: image.clone(), about, generation, objects, ahead: None })
        }))
    }

    /// Sends what a function makes of what was left. `None`: it makes nothing, or that is not there any more, or not to be
    /// trusted.
    fn send(
        &mut self,
        left: &mut Left,
        mut trust: Trust<'_>,
        make: impl FnOnce(&Left, &Loaded) -> Option<Delta>,
    ) -> Result<Option<Sent>, LoadError> {
        let (mut make, mut made) = (Some(make), None);
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
                None => match self.objects(left)? {
                    Some(read) => read,
                    None => return Ok(None),
                },
            };
            owner::must_be_mine(&self.netlink, &objects)?;
            if let Some(make) = make.take() {
                made = make(left, &objects);
            }
            let Some(delta) = &mut made else {
                left.objects = Some(objects);
                return Ok(None);
            };
            let Some(mut current) = delta.onto(&objects).map(|loaded| Loaded { generation, ..loaded }) else {
                return Ok(None);
            };
            // elements that are written anew go on counting
            if !recount(&mut self.netlink, &mut current)? {
                return Ok(None);
            }
            match apply::apply_known(&mut self.netlink, &current, &delta.new)? {
                Known::Done(outcome) => {
                    let objects = outcome.keeps_objects().then(|| current.after(outcome.generation, &delta.new));
                    return Ok(made.map(|delta| Sent { outcome, objects, delta }));
                }
                Known::Moved => left.objects = Some(objects),
                Known::Unknown => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// What was sent.
struct Sent {
    outcome: Outcome,
    /// Tables, sets and rules as they are now, if they still are as they were read.
    objects: Option<Loaded>,
    delta: Delta,
}

impl Left {
    /// From the program that was left to another one on these terms, of which the kernel is to keep this.
    fn delta(&self, program: &Program<'_>, about: &About, terms: Terms, loaded: &Loaded) -> Delta {
        let Delta { old, new } = delta(&self.image.program(), &self.about.to_string(), program, &about.to_string());
        let as_loaded = Terms { counting: Counting::AsLoaded, ..terms };
        Delta { old: as_loaded.shape(old, loaded), new: terms.shape(new, loaded) }
    }
}
