//! Interrupt vectors: one of the MPS2's 32 is used.

use cortex_m::peripheral::NVIC;

/// The Ethernet controller's interrupt (QEMU's mps2-an386: IRQ 13).
#[derive(Clone, Copy, Debug)]
pub struct Ethernet;

/// See [`Ethernet`].
pub const ETHERNET: Ethernet = Ethernet;

// SAFETY: 13 is below the 32 interrupts of the MPS2, and one type stands for one interrupt.
unsafe impl cortex_m::interrupt::InterruptNumber for Ethernet {
    fn number(self) -> u16 {
        13
    }
}

/// An entry of the vector table.
#[derive(Clone, Copy)]
#[repr(C)]
pub union Vector {
    handler: unsafe extern "C" fn(),
    reserved: usize,
}

const NONE: Vector = Vector { reserved: 0 };

/// cortex-m-rt's feature `device` expects it under this name.
// SAFETY: the section is where cortex-m-rt's linker script wants the device's vectors, and the name is its contract.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
pub static __INTERRUPTS: [Vector; 32] = {
    let mut vectors = [NONE; 32];
    vectors[13] = Vector { handler: ethernet };
    vectors
};

/// Masks itself: the main loop wakes up, drains the controller and unmasks it.
extern "C" fn ethernet() {
    NVIC::mask(ETHERNET);
}
