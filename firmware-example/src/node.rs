//! A router and a translator as one: the packet path, and the only place that calls the translator.

use crate::ethernet::Buffer;
use crate::gateway::{Datagram, Device, Gateway, Received};
use crate::random::Random;
use crate::time::Millis;
use natlet_core::{Program, translate};
use translate::{Action, Hook, Instant, Replaced, Translator};

/// Flow entries looked at per [`Node::tick`] for idle ones: ten ticks a second go round 1,000 in ten seconds.
const EXPIRY: u32 = 16;

/// A gateway: router, translator and their randomness.
#[derive(Debug)]
pub struct Node<'m, 'p> {
    gateway: Gateway<'m>,
    translator: Translator<'m, 'p>,
    random: Random,
    reply: &'m mut Buffer,
}

impl<'m, 'p> Node<'m, 'p> {
    /// Puts the parts together; `reply` is memory for answers.
    pub const fn new(
        gateway: Gateway<'m>,
        translator: Translator<'m, 'p>,
        random: Random,
        reply: &'m mut Buffer,
    ) -> Self {
        Self { gateway, translator, random, reply }
    }

    /// Handles one frame, in place. A datagram for the control port is handed back.
    pub fn receive(
        &mut self,
        now: Millis,
        entropy: u32,
        frame: &mut Buffer,
        device: &mut impl Device,
    ) -> Option<Datagram> {
        let len = match self.gateway.receive(now, frame, self.translator.program(), device) {
            Received::Done => return None,
            Received::Control(datagram) => return Some(datagram),
            Received::Packet(len) => len,
        };
        self.random.stir(entropy);
        let packet = frame.payload_mut().get_mut(..len).unwrap_or(&mut []);
        match translate_packet(&mut self.translator, now, &mut self.random, packet, self.reply.payload_room()) {
            Action::Forward => self.gateway.send(now, frame, len, device),
            Action::Reply(len) => self.gateway.send(now, self.reply, len, device),
            Action::Drop(_) => {} // counted by the translator
            Action::Pass => self.gateway.pass(now, frame, len, device),
        }
        None
    }

    /// What is due: questions to neighbours, idle flows. To be called about ten times per second.
    pub fn tick(&mut self, now: Millis, device: &mut impl Device) {
        self.gateway.tick(now, device);
        self.translator.expire(Instant::from_millis(now.0), EXPIRY);
    }

    /// The router.
    pub const fn gateway(&mut self) -> &mut Gateway<'m> {
        &mut self.gateway
    }

    /// The translator.
    pub const fn translator(&self) -> &Translator<'m, 'p> {
        &self.translator
    }

    /// The translator, to show it packets that come by another way.
    pub const fn translator_mut(&mut self) -> &mut Translator<'m, 'p> {
        &mut self.translator
    }

    /// Goes on with another program: flows to endpoints that are still there live.
    pub fn with_program<'q>(self, now: Millis, program: Program<'q>) -> (Node<'m, 'q>, Replaced) {
        let Self { gateway, translator, random, reply } = self;
        let (translator, replaced) = translator.with_program(Instant::from_millis(now.0), program);
        (Node { gateway, translator, random, reply }, replaced)
    }
}

/// A function of its own, so that an image shows what the translator takes in flash.
#[inline(never)]
fn translate_packet(
    translator: &mut Translator<'_, '_>,
    now: Millis,
    random: &mut Random,
    packet: &mut [u8],
    reply: &mut [u8],
) -> Action {
    translator.process(Instant::from_millis(now.0), Hook::Arriving, &mut || random.next_word(), packet, reply)
}
