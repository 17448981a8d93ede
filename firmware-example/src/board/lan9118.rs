//! Driver of the SMSC LAN9118 (real MPS2 boards carry its pin-compatible LAN9220): programmed I/O over two FIFOs.
//!
//! One frame at a time goes through one buffer, at offset 2 on both ways, so that the IP header behind the 14 bytes of
//! Ethernet is word-aligned (LAN9118 data sheet, RX_CFG `RXDOFF` and TX command A "data start offset"). Interrupt mode:
//! the handler masks the line, [`Lan9118::rearm`] opens it again once the FIFO is empty.

use super::vectors::ETHERNET;
use cortex_m::peripheral::NVIC;
use natlet_firmware_example::ethernet::{Buffer, Mac, OFFSET};
use natlet_firmware_example::gateway::Device;

/// Where the MPS2 has it.
const BASE: usize = 0x4020_0000;
/// Rounds that a wait for the controller may take.
const PATIENCE: u32 = 100_000;
/// The frame check sequence, which the length of a received frame counts.
const FCS: usize = 4;
/// Shortest frame without FCS (IEEE 802.3).
const SHORTEST: usize = 60;

/// Registers, by their offset (data sheet, section 5.3).
#[derive(Clone, Copy)]
#[repr(usize)]
enum Register {
    RxData = 0x00,
    TxData = 0x20,
    RxStatus = 0x40,
    TxStatus = 0x48,
    IdRev = 0x50,
    IrqCfg = 0x54,
    IntSts = 0x58,
    IntEn = 0x5c,
    ByteTest = 0x64,
    FifoInt = 0x68,
    RxCfg = 0x6c,
    TxCfg = 0x70,
    HwCfg = 0x74,
    RxFifoInf = 0x7c,
    TxFifoInf = 0x80,
    FreeRun = 0x9c,
    MacCsrCmd = 0xa4,
    MacCsrData = 0xa8,
    AfcCfg = 0xac,
    E2pCmd = 0xb0,
}

/// MAC registers, behind MAC_CSR_CMD.
#[derive(Clone, Copy)]
enum MacRegister {
    Control = 1,
    AddressHigh = 2,
    AddressLow = 3,
}

/// RX status level: a frame is waiting.
const RSFL: u32 = 1 << 3;
/// Active high, push-pull, enabled.
const IRQ_LINE: u32 = 0x111;
const BUSY: u32 = 1 << 31;

/// What the controller did not do in time, or is not.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub enum Fault {
    /// BYTE_TEST or ID_REV read wrong: no such controller here.
    Absent(u32),
    /// The soft reset did not end.
    Reset,
    /// The EEPROM's address did not load, or a MAC register stayed busy.
    Busy,
}

/// The controller, initialised.
#[derive(Debug)]
pub struct Lan9118 {
    mac: Mac,
    sent: u16,
}

impl Lan9118 {
    /// Resets the controller and starts it: own address, broadcast and multicast pass.
    pub fn start() -> Result<Self, Fault> {
        let test = read(Register::ByteTest);
        let id = read(Register::IdRev);
        if test != 0x8765_4321 || !matches!(id >> 16, 0x0118 | 0x9220) {
            return Err(Fault::Absent(id));
        }
        write(Register::HwCfg, 1);
        wait(|| read(Register::HwCfg) & 1 == 0, Fault::Reset)?;
        write(Register::IntEn, 0);
        write(Register::IntSts, u32::MAX);
        write(Register::HwCfg, (5 << 16) | (1 << 20)); // 5 KiB of TX FIFO; "must be one"
        write(Register::AfcCfg, 0x006e_3740);
        wait(|| read(Register::E2pCmd) & BUSY == 0, Fault::Busy)?;
        let mac = address()?;
        write(Register::FifoInt, 0); // an interrupt at the first frame
        write(Register::TxCfg, (1 << 15) | (1 << 14)); // dump status and data
        write(Register::RxCfg, 1 << 15);
        write(Register::RxCfg, OFFSET_WORD << 8);
        write(Register::TxCfg, 1 << 1);
        // full duplex, all multicast (NDP), transmitter, receiver
        write_mac(MacRegister::Control, (1 << 20) | (1 << 19) | (1 << 3) | (1 << 2))?;
        write(Register::IrqCfg, IRQ_LINE);
        write(Register::IntEn, RSFL);
        // SAFETY: the handler only masks this interrupt, so unmasking it breaks no critical section.
        unsafe { NVIC::unmask(ETHERNET) };
        Ok(Self { mac, sent: 0 })
    }

    /// The address that the EEPROM (in QEMU `macaddr=`) gave it.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The free-running counter at 25 MHz.
    pub fn counter(&self) -> u32 {
        read(Register::FreeRun)
    }

    /// Takes the oldest waiting frame; `None` if there is none. A frame with errors, or longer than the buffer, is read and
    /// given as an empty one (fast forward is not used: QEMU 7.2's is broken).
    pub fn receive(&mut self, buffer: &mut Buffer) -> Option<()> {
        if read(Register::RxFifoInf) >> 16 & 0xff == 0 {
            return None;
        }
        let status = read(Register::RxStatus);
        let with_fcs = (status >> 16 & 0x3fff) as usize;
        let words = with_fcs.saturating_add(OFFSET).div_ceil(4);
        let space = buffer.words();
        let fits = words <= space.len();
        let mut space = space.chunks_exact_mut(4);
        for _ in 0..words {
            let word = read(Register::RxData).to_le_bytes();
            if let Some(space) = space.next() {
                space.copy_from_slice(&word);
            }
        }
        let sound = fits && status & (1 << 15) == 0;
        buffer.set_len(if sound { with_fcs.saturating_sub(FCS) } else { 0 });
        Some(())
    }

    /// Lets the next frame interrupt again; true if none came in meanwhile, so that the caller may sleep. To be called with
    /// interrupts off: the status bit is set by an arrival, not by the level.
    pub fn rearm(&mut self) -> bool {
        write(Register::IntSts, RSFL);
        let empty = read(Register::RxFifoInf) >> 16 & 0xff == 0;
        if empty {
            // SAFETY: as in `start`.
            unsafe { NVIC::unmask(ETHERNET) };
        }
        empty
    }
}

/// [`OFFSET`] as the registers take it.
const OFFSET_WORD: u32 = 2;
const _: () = assert!(OFFSET == 2, "OFFSET_WORD is OFFSET");

impl Device for Lan9118 {
    /// Pads to the shortest frame, and waits for room. In QEMU there always is: the frame leaves with its last word.
    fn transmit(&mut self, buffer: &mut Buffer) {
        buffer.pad_to(SHORTEST);
        let Ok(len) = u32::try_from(buffer.frame().len()) else { return };
        let words = buffer.frame().len().saturating_add(OFFSET).div_ceil(4);
        let room = u32::try_from(words).unwrap_or(u32::MAX).saturating_mul(4).saturating_add(8); // with both commands
        if wait(|| read(Register::TxFifoInf) & 0xffff >= room, Fault::Busy).is_err() {
            return; // no link: lost, as on any cable
        }
        write(Register::TxData, (OFFSET_WORD << 16) | (1 << 13) | (1 << 12) | len); // first and last segment
        write(Register::TxData, (u32::from(self.sent) << 16) | len);
        self.sent = self.sent.wrapping_add(1);
        for word in buffer.words().chunks_exact(4).take(words) {
            if let &[a, b, c, d] = word {
                write(Register::TxData, u32::from_le_bytes([a, b, c, d]));
            }
        }
        if read(Register::TxFifoInf) >> 16 & 0xff != 0 {
            read(Register::TxStatus); // one entry per frame; kept, they would fill their FIFO
        }
    }
}

fn address() -> Result<Mac, Fault> {
    let low = read_mac(MacRegister::AddressLow)?.to_le_bytes();
    let high = read_mac(MacRegister::AddressHigh)?.to_le_bytes();
    let ([a, b, c, d], [e, f, ..]) = (low, high);
    Ok(Mac([a, b, c, d, e, f]))
}

fn read_mac(register: MacRegister) -> Result<u32, Fault> {
    write(Register::MacCsrCmd, BUSY | (1 << 30) | register as u32);
    wait(|| read(Register::MacCsrCmd) & BUSY == 0, Fault::Busy)?;
    Ok(read(Register::MacCsrData))
}

fn write_mac(register: MacRegister, value: u32) -> Result<(), Fault> {
    write(Register::MacCsrData, value);
    write(Register::MacCsrCmd, BUSY | register as u32);
    wait(|| read(Register::MacCsrCmd) & BUSY == 0, Fault::Busy)
}

fn wait(done: impl Fn() -> bool, fault: Fault) -> Result<(), Fault> {
    (0..PATIENCE).any(|_| done()).then_some(()).ok_or(fault)
}

#[inline(always)]
fn read(register: Register) -> u32 {
    // SAFETY: every Register is a 32-bit register of the controller, which the MPS2 has at BASE.
    unsafe { core::ptr::with_exposed_provenance::<u32>(BASE + register as usize).read_volatile() }
}

#[inline(always)]
fn write(register: Register, value: u32) {
    // SAFETY: as in `read`; the driver owns the controller.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(BASE + register as usize).write_volatile(value) }
}
