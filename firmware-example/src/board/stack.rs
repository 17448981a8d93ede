//! How much of the stack was ever used: cortex-m-rt painted it before `main`.

/// What cortex-m-rt's feature `paint-stack` fills the stack with.
const PAINT: u32 = 0xcccc_cccc;

unsafe extern "C" {
    static _stack_end: u32;
    static _stack_start: u32;
}

/// Bytes between the stack's start and the lowest word that is no longer painted.
pub fn high_water() -> u32 {
    let (end, start) = (&raw const _stack_end, &raw const _stack_start);
    let mut word = end;
    // SAFETY: cortex-m-rt's linker script places both symbols at the ends of the stack, which is readable, aligned memory.
    while word < start && unsafe { word.read_volatile() } == PAINT {
        word = word.wrapping_add(1);
    }
    u32::try_from((start as usize).saturating_sub(word as usize)).unwrap_or(u32::MAX)
}
