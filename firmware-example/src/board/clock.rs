//! Time: the core's SysTick wakes the main loop, the controller's free-running counter says how late it is.

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use natlet_firmware_example::time::Millis;

/// The MPS2's clock and the controller's counter, Hz.
pub const HERTZ: u32 = 25_000_000;
/// Wake-ups per second, for timers. Well within the counter's wrap of 171 s.
const WAKE_UPS: u32 = 10;

/// Milliseconds since the start, from a 32-bit counter at [`HERTZ`].
#[derive(Debug)]
pub struct Clock {
    last: u32,
    rest: u32,
    now: Millis,
}

impl Clock {
    /// Starts at 0 and the wake-ups with it.
    pub fn start(mut timer: SYST, counter: u32) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(HERTZ / WAKE_UPS);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        Self { last: counter, rest: 0, now: Millis(0) }
    }

    /// The time at this reading of the counter; at least one call per 171 s keeps it right.
    pub fn at(&mut self, counter: u32) -> Millis {
        const PER_MILLI: u32 = HERTZ / 1_000;
        let ticks = counter.wrapping_sub(self.last).saturating_add(self.rest);
        self.last = counter;
        self.rest = ticks % PER_MILLI;
        self.now = Millis(self.now.0.wrapping_add((ticks / PER_MILLI).into()));
        self.now
    }
}

/// Only wakes the main loop.
#[exception]
fn SysTick() {}
