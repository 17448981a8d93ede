//! How long a flow may be idle.

use super::state::State;
use super::time::millis;

/// Idle times, in seconds, after which a flow is forgotten. Each is at most 24 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP in one direction. RFC 4787 REQ-5: not less than two minutes.
    pub udp_one_way: u32,
    /// UDP in both directions. RFC 4787 REQ-5 (c): five minutes or more is recommended.
    pub udp: u32,
    /// Connections that are half open or closing. RFC 5382 REQ-5: not less than four minutes. RFC 7857 §2.2 names the
    /// same for a connection that was reset. It costs nothing under pressure: such flows are given up first.
    pub transitory: u32,
    /// Established TCP connections and SCTP associations. RFC 5382 REQ-5: not less than two hours and four minutes,
    /// so that keep-alives of two hours (RFC 9293 §3.8.4) hold a connection.
    pub established: u32,
    /// Fragments after the first of their packet. RFC 8200 §4.5: a receiver waits 60 seconds.
    pub fragments: u32,
}

impl Timeouts {
    /// What the RFCs ask for.
    pub const DEFAULT: Self =
        Self { udp_one_way: 2 * 60, udp: 5 * 60, transitory: 4 * 60, established: (2 * 60 + 4) * 60, fragments: 60 };

    /// In milliseconds, by state.
    pub(crate) const fn by_state(&self) -> [u32; State::COUNT] {
        let transitory = millis(self.transitory);
        let [one_way, udp, established] = [millis(self.udp_one_way), millis(self.udp), millis(self.established)];
        [
            0, // Free
            one_way,
            udp,
            transitory, // PickedUp
            transitory, // SynSent
            transitory, // SynReceived
            established,
            transitory, // FinWait
            transitory, // CloseWait
            transitory, // LastAck
            transitory, // TimeWait
            transitory, // Closed
        ]
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_states() {
        let table = Timeouts::DEFAULT.by_state();
        let of = |state: State| table[state as usize];
        assert_eq!(of(State::Free), 0);
        assert_eq!(of(State::UdpOneWay), 120_000);
        assert_eq!(of(State::Udp), 300_000);
        assert_eq!(of(State::Established), 7_440_000);
        for state in [State::PickedUp, State::SynSent, State::SynReceived, State::FinWait, State::Closed] {
            assert_eq!(of(state), 240_000, "{state:?}");
        }
        assert_eq!(State::Closed as usize + 1, State::COUNT);
    }
}
