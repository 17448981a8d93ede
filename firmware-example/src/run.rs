//! What runs: static memory, the main loop, and the swap of programs.

use crate::board::clock::Clock;
use crate::board::lan9118::Lan9118;
use crate::board::stack;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use cortex_m_rt::{ExceptionFrame, entry, exception};
use cortex_m_semihosting::debug;
use defmt::{Display2Format, error, info, warn};
use defmt_semihosting as _; // the logger
use natlet_core::translate::{
    self, AffinityV4, AffinityV6, Bucket, FlowV4, FlowV6, FragmentsV4, FragmentsV6, Translator,
};
use natlet_core::{Cidr, Program};
use natlet_firmware_example::config::{Config, Interface, Route};
use natlet_firmware_example::ethernet::Buffer;
use natlet_firmware_example::gateway::{Datagram, Gateway};
use natlet_firmware_example::neighbours::Neighbours;
use natlet_firmware_example::node::Node;
use natlet_firmware_example::random::Random;
use natlet_firmware_example::time::Millis;
use natlet_firmware_example::update::{LONGEST_REPLY, Memory, Reply, Status, Updates};
use static_cell::ConstStaticCell;

include!(concat!(env!("OUT_DIR"), "/board.rs"));

/// The table of `services.toml`, compiled by `build.rs`. It lies in flash and is read there.
static SERVICES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/services.natp"));

/// Bytes of each of the two places for a program that came over the wire.
const SLOT: usize = 24 * 1024;
const FLOWS_V4: usize = 1024;
const FLOWS_V6: usize = 256;
/// Ports of masqueraded connections: clear of the control port.
const PORTS: translate::PortRange = match translate::PortRange::new(32_768, 65_535) {
    Some(ports) => ports,
    None => translate::PortRange::DEFAULT,
};
/// Time between two [`Node::tick`]s.
const TICK: u32 = 100;

// All memory that lasts. Zeros, every one of them: they take no flash.
static SLOT_A: ConstStaticCell<[u8; SLOT]> = ConstStaticCell::new([0; SLOT]);
static SLOT_B: ConstStaticCell<[u8; SLOT]> = ConstStaticCell::new([0; SLOT]);
static FRAME: ConstStaticCell<Buffer> = ConstStaticCell::new(Buffer::new());
static REPLY: ConstStaticCell<Buffer> = ConstStaticCell::new(Buffer::new());
static NEIGHBOURS: ConstStaticCell<Neighbours> = ConstStaticCell::new(Neighbours::new());
static UPDATE: ConstStaticCell<Memory> = ConstStaticCell::new(Memory::new());
static V4: ConstStaticCell<[FlowV4; FLOWS_V4]> = ConstStaticCell::new([FlowV4::EMPTY; FLOWS_V4]);
static V6: ConstStaticCell<[FlowV6; FLOWS_V6]> = ConstStaticCell::new([FlowV6::EMPTY; FLOWS_V6]);
static BUCKETS_V4: ConstStaticCell<[Bucket; translate::buckets_for(FLOWS_V4)]> =
    ConstStaticCell::new([Bucket::EMPTY; translate::buckets_for(FLOWS_V4)]);
static BUCKETS_V6: ConstStaticCell<[Bucket; translate::buckets_for(FLOWS_V6)]> =
    ConstStaticCell::new([Bucket::EMPTY; translate::buckets_for(FLOWS_V6)]);
static AFFINITY_V4: ConstStaticCell<[AffinityV4; 64]> = ConstStaticCell::new([AffinityV4::EMPTY; 64]);
static AFFINITY_V6: ConstStaticCell<[AffinityV6; 32]> = ConstStaticCell::new([AffinityV6::EMPTY; 32]);
static FRAGMENTS_V4: ConstStaticCell<[FragmentsV4; 16]> = ConstStaticCell::new([FragmentsV4::EMPTY; 16]);
static FRAGMENTS_V6: ConstStaticCell<[FragmentsV6; 16]> = ConstStaticCell::new([FragmentsV6::EMPTY; 16]);

#[entry]
fn main() -> ! {
    let Some(peripherals) = cortex_m::Peripherals::take() else { halt() };
    let device = match Lan9118::start() {
        Ok(device) => device,
        Err(fault) => {
            error!("the network controller: {}", fault);
            halt()
        }
    };
    let program = match Program::new_checked(SERVICES) {
        Ok(program) => program,
        Err(e) => {
            error!("the program in flash: {}", Display2Format(&e));
            halt()
        }
    };
    let clock = Clock::start(peripherals.SYST, device.counter());
    let mut random = Random::new(device.counter().into());
    device.mac().0.into_iter().for_each(|byte| random.stir(byte.into()));

    let mut config = translate::Config::new([random.next(), random.next()]);
    config.ports = PORTS;
    let memory = translate::Memory {
        flows_v4: V4.take(),
        buckets_v4: BUCKETS_V4.take(),
        flows_v6: V6.take(),
        buckets_v6: BUCKETS_V6.take(),
        affinity_v4: AFFINITY_V4.take(),
        affinity_v6: AFFINITY_V6.take(),
        fragments_v4: FRAGMENTS_V4.take(),
        fragments_v6: FRAGMENTS_V6.take(),
    };
    let translator = Translator::new(program, memory, &config);
    let gateway = Gateway::new(&CONFIG, device.mac(), NEIGHBOURS.take());
    let mut node = Node::new(gateway, translator, random, REPLY.take());
    let mut board = Board {
        device,
        clock,
        frame: FRAME.take(),
        updates: Updates::new(&CONFIG, UPDATE.take(), 0),
        next_tick: Millis(0),
    };
    info!("{}: {} frontends, program {}", CONFIG.name, program.frontend_count(), Display2Format(&program.content_id()));
    node.gateway().announce(&mut board.device);

    // A program is in use in one slot while the next is put into the other; the first is in flash.
    let (a, b) = (SLOT_A.take(), SLOT_B.take());
    let mut len = board.run(&mut node, a);
    loop {
        let mut in_a = board.swap(node, a, len);
        len = board.run(&mut in_a, b);
        node = board.swap(in_a, b, len);
        len = board.run(&mut node, a);
    }
}

/// All that a change of program leaves as it is.
struct Board {
    device: Lan9118,
    clock: Clock,
    frame: &'static mut Buffer,
    updates: Updates<'static>,
    next_tick: Millis,
}

impl Board {
    /// Forwards until `spare` holds another program, and returns its length.
    fn run(&mut self, node: &mut Node<'static, '_>, spare: &mut [u8]) -> usize {
        loop {
            let counter = self.device.counter();
            let now = self.clock.at(counter);
            if now >= self.next_tick {
                self.next_tick = now.plus(TICK);
                node.tick(now, &mut self.device);
            }
            if self.device.receive(self.frame).is_none() {
                self.sleep();
                continue;
            }
            if let Some(datagram) = node.receive(now, counter, self.frame, &mut self.device)
                && let Some(len) = self.control(now, node, &datagram, spare)
            {
                return len;
            }
        }
    }

    /// Sleeps until a frame or the timer interrupts.
    fn sleep(&mut self) {
        cortex_m::interrupt::free(|_| {
            if self.device.rearm() {
                cortex_m::asm::wfi(); // a pending interrupt ends it though masked
            }
        });
    }

    /// Answers a control datagram; a length if there is a program to swap in.
    fn control(
        &mut self,
        now: Millis,
        node: &mut Node<'static, '_>,
        datagram: &Datagram,
        spare: &mut [u8],
    ) -> Option<usize> {
        let request = self.frame.payload().get(datagram.start..datagram.end).unwrap_or(&[]);
        let routed = node.gateway().counters;
        let program = *node.translator().program();
        let translator = node.translator();
        let status = |counter| Status {
            board: CONFIG.name,
            counter,
            content_id: program.content_id().0,
            frontends: program.frontend_count(),
            uptime: now.0,
            stack: stack::high_water(),
            flows: translator.live_flows(),
            received: routed.received,
            sent: routed.sent,
            translated: translator.counters().forwarded,
            answered: translator.counters().answered,
            dropped: translator.counters().drops().map(|(_, n)| n).fold(0, u64::saturating_add),
            undeliverable: routed.no_route.saturating_add(routed.unresolved),
        };
        let outcome = self.updates.handle(datagram.peer, request, status, &program, spare);
        if let Reply::Refused(refusal) = &outcome.reply {
            warn!("update refused: {}", Display2Format(refusal));
        }
        let mut room = [0; LONGEST_REPLY];
        if let Ok(reply) = postcard::to_slice(&outcome.reply, &mut room) {
            node.gateway().answer(now, datagram, reply, self.frame, &mut self.device);
        }
        outcome.install
    }

    /// Goes on with the program in `slot`, which the update checked.
    fn swap<'q>(&mut self, node: Node<'static, '_>, slot: &'q [u8], len: usize) -> Node<'static, 'q> {
        let program = match Program::new_checked(slot.get(..len).unwrap_or(&[])) {
            Ok(program) => program,
            Err(e) => {
                // memory changed between check and use: start again from flash
                error!("the new program: {}", Display2Format(&e));
                cortex_m::peripheral::SCB::sys_reset()
            }
        };
        let now = self.clock.at(self.device.counter());
        let (node, replaced) = node.with_program(now, program);
        info!(
            "update {}: {} frontends, program {}, {} flows go on, {} ended",
            self.updates.counter(),
            program.frontend_count(),
            Display2Format(&program.content_id()),
            replaced.kept,
            replaced.ended
        );
        node
    }
}

/// Ends an emulated board with a failure; a real one stops here.
fn halt() -> ! {
    debug::exit(debug::EXIT_FAILURE);
    loop {
        cortex_m::asm::wfi();
    }
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    error!("hard fault at {:#x}, called from {:#x}", frame.pc(), frame.lr());
    halt()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    error!("{}", Display2Format(info));
    halt()
}
