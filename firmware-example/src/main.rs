//! The gateway on an MPS2 board (`mps2-an386`): memory, interrupts and logs around [`natlet_firmware_example`].
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is firmware: firmware-example/build.sh builds it for the board");
}

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod run;
