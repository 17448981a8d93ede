//! Any bytes, as they are and with their checksum put right: what opens as a program upholds `checks.rs`, and decides
//! about packets made of the input without a panic.
#![no_main]

#[path = "../../tests/common/checks.rs"]
mod checks;

use libfuzzer_sys::fuzz_target;
use natlet_core::{Program, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fuzz_target!(|input: &[u8]| {
    checks::check_bytes(input);
    let mut fixed = input.to_vec();
    if let Some(head) = fixed.get_mut(..5) {
        head.copy_from_slice(b"NATP\x02");
    }
    checks::fix_checksum(&mut fixed);
    checks::check_bytes(&fixed);
    let Ok(program) = Program::new_checked(&fixed) else { return };
    for window in fixed.windows(18).step_by(7).take(200) {
        let (address, port) = window.split_at(16);
        let port = u16::from_le_bytes(port.try_into().unwrap());
        let wide = Ipv6Addr::from(<[u8; 16]>::try_from(address).unwrap());
        let v4 = |at: usize| IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&address[at..at + 4]).unwrap()));
        for (source, destination) in [(v4(0), v4(4)), (IpAddr::V6(wide), IpAddr::V6(wide)), (v4(8), IpAddr::V6(wide))] {
            for protocol in Protocol::ALL {
                checks::check_decision(&program.decide(&program.packet(source, destination, protocol, port)));
            }
        }
    }
});
