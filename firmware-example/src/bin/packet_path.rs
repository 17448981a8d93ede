//! The packet path alone, to prove two things at link time: it cannot panic, and how much flash it takes.
//!
//! The image forwards like the gateway, without logs and updates. Its panic handler calls a function that does not exist:
//! if any code that is left after optimization could panic, linking fails. `tests/board.rs` builds it and reads its size.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is firmware: firmware-example/build.sh builds it for the board");
}

#[cfg(target_os = "none")]
#[path = "../board/mod.rs"]
#[allow(dead_code, reason = "no clock, no sleep, no status")]
mod board;

#[cfg(target_os = "none")]
mod image {
    use crate::board::lan9118::Lan9118;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use cortex_m_rt::entry;
    use natlet_core::translate::{
        self, AffinityV4, AffinityV6, Bucket, FlowV4, FlowV6, FragmentsV4, FragmentsV6, Translator,
    };
    use natlet_core::{Cidr, Program};
    use natlet_firmware_example::config::{Config, Interface, Route};
    use natlet_firmware_example::ethernet::Buffer;
    use natlet_firmware_example::gateway::Gateway;
    use natlet_firmware_example::neighbours::Neighbours;
    use natlet_firmware_example::node::Node;
    use natlet_firmware_example::random::Random;
    use natlet_firmware_example::time::Millis;
    use static_cell::ConstStaticCell;

    include!(concat!(env!("OUT_DIR"), "/board.rs"));
    static SERVICES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/services.natp"));

    static FRAME: ConstStaticCell<Buffer> = ConstStaticCell::new(Buffer::new());
    static REPLY: ConstStaticCell<Buffer> = ConstStaticCell::new(Buffer::new());
    static NEIGHBOURS: ConstStaticCell<Neighbours> = ConstStaticCell::new(Neighbours::new());
    static V4: ConstStaticCell<[FlowV4; 64]> = ConstStaticCell::new([FlowV4::EMPTY; 64]);
    static V6: ConstStaticCell<[FlowV6; 64]> = ConstStaticCell::new([FlowV6::EMPTY; 64]);
    static BUCKETS_V4: ConstStaticCell<[Bucket; translate::buckets_for(64)]> =
        ConstStaticCell::new([Bucket::EMPTY; translate::buckets_for(64)]);
    static BUCKETS_V6: ConstStaticCell<[Bucket; translate::buckets_for(64)]> =
        ConstStaticCell::new([Bucket::EMPTY; translate::buckets_for(64)]);
    static AFFINITY_V4: ConstStaticCell<[AffinityV4; 4]> = ConstStaticCell::new([AffinityV4::EMPTY; 4]);
    static AFFINITY_V6: ConstStaticCell<[AffinityV6; 4]> = ConstStaticCell::new([AffinityV6::EMPTY; 4]);
    static FRAGMENTS_V4: ConstStaticCell<[FragmentsV4; 4]> = ConstStaticCell::new([FragmentsV4::EMPTY; 4]);
    static FRAGMENTS_V6: ConstStaticCell<[FragmentsV6; 4]> = ConstStaticCell::new([FragmentsV6::EMPTY; 4]);

    #[entry]
    fn main() -> ! {
        run();
        loop {
            cortex_m::asm::wfi();
        }
    }

    fn run() -> Option<()> {
        let mut device = Lan9118::start().ok()?;
        let program = Program::new_checked(SERVICES).ok()?;
        let memory = translate::Memory {
            flows_v4: V4.try_take()?,
            buckets_v4: BUCKETS_V4.try_take()?,
            flows_v6: V6.try_take()?,
            buckets_v6: BUCKETS_V6.try_take()?,
            affinity_v4: AFFINITY_V4.try_take()?,
            affinity_v6: AFFINITY_V6.try_take()?,
            fragments_v4: FRAGMENTS_V4.try_take()?,
            fragments_v6: FRAGMENTS_V6.try_take()?,
        };
        let random = Random::new(device.counter().into());
        let translator = Translator::new(program, memory, &translate::Config::new([1, 2]));
        let gateway = Gateway::new(&CONFIG, device.mac(), NEIGHBOURS.try_take()?);
        let mut node = Node::new(gateway, translator, random, REPLY.try_take()?);
        let frame = FRAME.try_take()?;
        loop {
            let counter = device.counter();
            let now = Millis(counter.into());
            node.tick(now, &mut device);
            if device.receive(frame).is_some() {
                let _ = node.receive(now, counter, frame, &mut device);
            }
        }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        unsafe extern "C" {
            fn a_panic_is_possible_on_the_packet_path() -> !;
        }
        // SAFETY: never runs: no such function exists, so no image has this call.
        unsafe { a_panic_is_possible_on_the_packet_path() }
    }
}
