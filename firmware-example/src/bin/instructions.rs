//! Counts instructions per packet on the emulated board: `-icount shift=10` makes each one 1,024 ns of virtual time, so that
//! SysTick at 25 MHz counts 25.6 of them. Prints lines `NAME COUNT`; `tests/board.rs` reads them.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a measurement: it may panic"
)]
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is firmware: firmware-example/build.sh builds it for the board");
}

#[cfg(target_os = "none")]
#[path = "../board/vectors.rs"]
mod vectors;

#[cfg(target_os = "none")]
mod image {
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use cortex_m::peripheral::SYST;
    use cortex_m::peripheral::syst::SystClkSource;
    use cortex_m_rt::{entry, exception};
    use cortex_m_semihosting::{debug, hprintln};
    use natlet_core::translate::{self, Action, Bucket, FlowV4, Hook, Instant, Translator};
    use natlet_core::{Cidr, Program};
    use natlet_firmware_example::config::{Config, Interface, Route};
    use natlet_firmware_example::ethernet::{Buffer, EtherType, Mac};
    use natlet_firmware_example::gateway::{Device, Gateway};
    use natlet_firmware_example::neighbours::Neighbours;
    use natlet_firmware_example::node::Node;
    use natlet_firmware_example::random::Random;
    use natlet_firmware_example::time::Millis;
    use static_cell::ConstStaticCell;

    include!(concat!(env!("OUT_DIR"), "/board.rs"));
    /// 1,000 services of four endpoints.
    static SERVICES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/thousand.natp"));
    const SERVICES_COUNT: u16 = 1000;

    const FLOWS: usize = 1024;
    static V4: ConstStaticCell<[FlowV4; FLOWS]> = ConstStaticCell::new([FlowV4::EMPTY; FLOWS]);
    static BUCKETS_V4: ConstStaticCell<[Bucket; translate::buckets_for(FLOWS)]> =
        ConstStaticCell::new([Bucket::EMPTY; translate::buckets_for(FLOWS)]);
    static NEIGHBOURS: ConstStaticCell<Neighbours> = ConstStaticCell::new(Neighbours::new());
    static REPLY: ConstStaticCell<Buffer> = ConstStaticCell::new(Buffer::new());

    /// IPv4 and TCP headers of a 66-byte frame: 12 bytes of TCP options, as Linux sends its acknowledgements.
    const LEN: usize = 52;
    const SYN: u8 = 0x02;
    const SYN_ACK: u8 = 0x12;
    const ACK: u8 = 0x10;

    #[entry]
    fn main() -> ! {
        if run().is_none() {
            debug::exit(debug::EXIT_FAILURE);
        }
        debug::exit(debug::EXIT_SUCCESS);
        loop {
            cortex_m::asm::wfi();
        }
    }

    fn run() -> Option<()> {
        let mut timer = cortex_m::Peripherals::take()?.SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(0x00ff_ffff);
        timer.clear_current();
        timer.enable_counter();
        let empty = count(&mut Series::default(), || ());

        let program = Program::new_checked(SERVICES).ok()?;
        let memory =
            translate::Memory { flows_v4: V4.try_take()?, buckets_v4: BUCKETS_V4.try_take()?, ..Default::default() };
        let mut translator = Translator::new(program, memory, &translate::Config::new([1, 2]));
        let mut random = Random::new(7);
        let mut reply = [0; 128];
        let now = Instant::from_millis(1);
        let mut process = |packet: &mut [u8; LEN], series: &mut Series| {
            let mut action = Action::Pass;
            count(series, || {
                action = translator.process(now, Hook::Arriving, &mut || random.next_word(), packet, &mut reply);
            });
            (action == Action::Forward).then_some(())
        };

        let (mut first, mut answer, mut there, mut back) = <(Series, Series, Series, Series)>::default();
        let mut unmeasured = Series::default();
        for i in 0..SERVICES_COUNT {
            let mut packet = packet(i, SYN);
            process(&mut packet, &mut first)?;
            let mut packet = turned(&packet, SYN_ACK);
            process(&mut packet, &mut answer)?;
            process(&mut self::packet(i, ACK), &mut unmeasured)?;
        }
        for i in 0..SERVICES_COUNT {
            let mut packet = packet(i, ACK);
            process(&mut packet, &mut there)?;
            process(&mut turned(&packet, ACK), &mut back)?;
        }
        first.print("first", empty);
        answer.print("answer", empty);
        there.print("established", empty);
        back.print("established-reply", empty);

        // the same with Ethernet, neighbour and route around it
        let neighbours = NEIGHBOURS.try_take()?;
        let start = Millis(1);
        for host in 10..20 {
            neighbours.learn(start, IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), Mac([2, 0, 0, 0, 0, host]), true);
        }
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let mut node = Node::new(Gateway::new(&CONFIG, mac, neighbours), translator, random, REPLY.try_take()?);
        let mut frame = Buffer::new();
        let mut whole = Series::default();
        for i in 0..SERVICES_COUNT {
            // forwarded to an endpoint that board.toml has no route to: turned, it goes to a client on the link
            let mut out = packet(i, ACK);
            let mut reply = [0; 128];
            let _ = node.translator_mut().process(now, Hook::Arriving, &mut || 0, &mut out, &mut reply);
            frame.set_payload_len(LEN);
            frame.payload_mut().copy_from_slice(&turned(&out, ACK));
            frame.set_header(mac, Mac([2, 0, 0, 0, 0, 9]), EtherType::Ipv4);
            let mut device = Sink(0);
            count(&mut whole, || {
                let _ = node.receive(start, 0, &mut frame, &mut device);
            });
            if device.0 != 1 {
                return None;
            }
        }
        whole.print("frame-to-frame", empty);
        Some(())
    }

    /// A device that only counts.
    struct Sink(u32);

    impl Device for Sink {
        fn transmit(&mut self, frame: &mut Buffer) {
            core::hint::black_box(frame.frame());
            self.0 += 1;
        }
    }

    /// Client `i` of 10 to service `i`.
    fn packet(i: u16, flags: u8) -> [u8; LEN] {
        let ([high, low], [p0, p1]) = (i.to_be_bytes(), (20_000 + i).to_be_bytes());
        let mut packet = [0; LEN];
        packet[..20].copy_from_slice(&[
            0x45,
            0,
            0,
            52,
            0,
            0,
            0x40,
            0,
            64,
            6,
            0,
            0,
            192,
            0,
            2,
            (i % 10) as u8 + 10,
            10,
            96,
            high,
            low,
        ]);
        packet[20..24].copy_from_slice(&[p0, p1, 0, 80]);
        (packet[32], packet[33]) = (0x80, flags);
        packet
    }

    /// The endpoint's answer to a packet that reached it.
    fn turned(packet: &[u8; LEN], flags: u8) -> [u8; LEN] {
        let mut turned = *packet;
        turned[12..16].copy_from_slice(&packet[16..20]);
        turned[16..20].copy_from_slice(&packet[12..16]);
        turned[20..22].copy_from_slice(&packet[22..24]);
        turned[22..24].copy_from_slice(&packet[20..22]);
        turned[33] = flags;
        turned
    }

    /// Counts of one kind of packet.
    #[derive(Default)]
    struct Series {
        sum: u32,
        n: u32,
        max: u32,
    }

    impl Series {
        fn print(&self, name: &str, empty: u32) {
            let mean = self.sum / self.n.max(1) - empty;
            hprintln!("{} {}", name, mean);
            hprintln!("{}-max {}", name, self.max - empty);
        }
    }

    /// Instructions that `work` takes, with those of counting.
    #[inline(never)]
    fn count(series: &mut Series, work: impl FnOnce()) -> u32 {
        let before = SYST::get_current();
        work();
        let after = SYST::get_current();
        let ticks = before.wrapping_sub(after) & 0x00ff_ffff;
        let instructions = (ticks * 10 + 128) / 256;
        series.sum += instructions;
        series.n += 1;
        series.max = series.max.max(instructions);
        instructions
    }

    #[exception]
    unsafe fn HardFault(_: &cortex_m_rt::ExceptionFrame) -> ! {
        fail()
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        hprintln!("{}", info);
        fail()
    }

    fn fail() -> ! {
        debug::exit(debug::EXIT_FAILURE);
        loop {
            cortex_m::asm::wfi();
        }
    }
}
