//! What is known of a flow's life: TCP's states as Linux tracks them (`nf_conntrack_proto_tcp.c`, Linux 6.1), mapped to
//! SCTP's and UDP's where they fit. Sequence numbers are not tracked.

use super::flow::Direction;
use super::wire::tcp::{ACK, FIN, RST, SYN};

/// A flow's state. The discriminants index the table of timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The entry is not in use.
    Free,
    /// UDP in one direction.
    UdpOneWay,
    /// UDP, answered.
    Udp,
    /// A connection seen from the middle, as after a restart; nothing came back yet.
    PickedUp,
    /// Asked for: SYN, INIT.
    SynSent,
    /// Answered, not confirmed: SYN-ACK, INIT-ACK.
    SynReceived,
    /// In use.
    Established,
    /// One side has finished.
    FinWait,
    /// One side has finished, and that was acknowledged.
    CloseWait,
    /// Both sides have finished.
    LastAck,
    /// Both sides have finished, and that was acknowledged.
    TimeWait,
    /// Reset, aborted or shut down.
    Closed,
}

impl State {
    pub(crate) const COUNT: usize = 12;

    /// How gladly an entry is given up for a new flow, 0 first; `None`: never.
    pub(crate) const fn eviction_rank(self) -> Option<u8> {
        match self {
            Self::Free | Self::Closed | Self::TimeWait | Self::LastAck | Self::CloseWait | Self::FinWait => Some(0),
            Self::SynSent | Self::PickedUp | Self::SynReceived => Some(1),
            Self::UdpOneWay => Some(2),
            Self::Udp => Some(3),
            Self::Established => None,
        }
    }
}

/// What a packet does to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The flow is in this state and was used now.
    To(State),
    /// The packet passes but proves nothing: state and clock stay.
    Keep,
    /// The old connection is over; this packet starts a new one.
    Reopen,
}

/// The part of a TCP segment that moves its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
    /// None of these flags.
    Bare,
}

impl Segment {
    /// From the header's flags; the order is Linux's `get_conntrack_index`.
    pub const fn of(flags: u8) -> Self {
        if flags & RST != 0 {
            Self::Rst
        } else if flags & SYN != 0 {
            if flags & ACK != 0 { Self::SynAck } else { Self::Syn }
        } else if flags & FIN != 0 {
            Self::Fin
        } else if flags & ACK != 0 {
            Self::Ack
        } else {
            Self::Bare
        }
    }

    /// Whether flags are those of data and acknowledgements in the middle of a connection: [`Segment::Ack`].
    #[inline]
    pub const fn is_plain(flags: u8) -> bool {
        flags & (SYN | FIN | RST | ACK) == ACK
    }

    /// The state of a flow that starts with this segment; `None` where none can.
    pub const fn opens(self) -> Option<State> {
        match self {
            Self::Syn => Some(State::SynSent),
            Self::Ack => Some(State::PickedUp),
            Self::SynAck | Self::Fin | Self::Rst | Self::Bare => None,
        }
    }

    /// The step from a state.
    #[allow(clippy::match_same_arms, reason = "in the order of a connection's life")]
    pub fn step(self, state: State, direction: Direction) -> Step {
        use Direction::{Original, Reply};
        use State::{
            CloseWait, Closed, Established, FinWait, Free, LastAck, PickedUp, SynReceived, SynSent, TimeWait, Udp,
            UdpOneWay,
        };
        match (self, direction, state) {
            (_, _, Free | UdpOneWay | Udp) | (Self::Bare, ..) => Step::Keep,
            // RFC 7857 §2.2: the mapping outlives a reset for a while, and packets keep it: the reset may be forged
            (Self::Rst, ..) => Step::To(Closed),

            (Self::Syn, Original, SynSent) => Step::To(SynSent),
            (Self::Syn, Original, TimeWait | Closed) | (Self::Syn, Reply, TimeWait) => Step::Reopen,
            // simultaneous open (RFC 9293 §3.5)
            (Self::Syn, Reply, SynSent) | (Self::SynAck, Reply, SynSent | SynReceived | PickedUp) => {
                Step::To(SynReceived)
            }
            (Self::SynAck, Original, SynReceived) => Step::To(SynReceived),
            (Self::Syn | Self::SynAck, ..) => Step::Keep,

            (Self::Fin, _, PickedUp | SynReceived | Established) => Step::To(FinWait),
            (Self::Fin, _, FinWait | CloseWait | LastAck) => Step::To(LastAck),
            (Self::Fin | Self::Ack, _, TimeWait) => Step::To(TimeWait),
            (Self::Fin | Self::Ack, _, Closed) => Step::To(Closed),

            (Self::Ack, Original, PickedUp) => Step::To(PickedUp),
            (Self::Ack, Reply, PickedUp) | (Self::Ack, Original, SynReceived) | (Self::Ack, _, Established) => {
                Step::To(Established)
            }
            (Self::Ack, Reply, SynReceived) => Step::To(SynReceived),
            (Self::Ack, _, FinWait | CloseWait) => Step::To(CloseWait),
            (Self::Ack, _, LastAck) => Step::To(TimeWait),
            (Self::Fin | Self::Ack, _, SynSent) => Step::Keep,
        }
    }
}

/// The first chunk of an SCTP packet (RFC 9260 §3.2), as far as it moves the state.
pub(crate) mod chunk {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const INIT_ACK: u8 = 2;
    pub(crate) const ABORT: u8 = 6;
    pub(crate) const SHUTDOWN: u8 = 7;
    pub(crate) const SHUTDOWN_ACK: u8 = 8;
    pub(crate) const COOKIE_ECHO: u8 = 10;
    pub(crate) const COOKIE_ACK: u8 = 11;
    pub(crate) const SHUTDOWN_COMPLETE: u8 = 14;
}

/// The state of a flow that starts with this SCTP chunk; `None` where none can.
pub(crate) const fn sctp_opens(first: Option<u8>) -> Option<State> {
    match first {
        Some(chunk::INIT) => Some(State::SynSent),
        Some(chunk::INIT_ACK | chunk::ABORT | chunk::SHUTDOWN_ACK | chunk::SHUTDOWN_COMPLETE) | None => None,
        Some(_) => Some(State::PickedUp),
    }
}

/// The step of an SCTP packet from a state.
#[allow(clippy::match_same_arms, reason = "in the order of an association's life")]
pub(crate) fn sctp_step(first: Option<u8>, state: State, direction: Direction) -> Step {
    use State::{Closed, Established, FinWait, LastAck, PickedUp, SynReceived, SynSent};
    match (first, state) {
        (None, _) => Step::Keep,
        (Some(chunk::ABORT | chunk::SHUTDOWN_COMPLETE), _) => Step::To(Closed),
        (Some(chunk::INIT), Closed) => Step::Reopen,
        (Some(chunk::INIT), SynSent) => Step::To(SynSent),
        (Some(chunk::INIT), _) => Step::Keep,
        (Some(chunk::INIT_ACK | chunk::COOKIE_ECHO), SynSent | SynReceived) => Step::To(SynReceived),
        (Some(chunk::COOKIE_ACK), SynReceived) => Step::To(Established),
        (Some(chunk::SHUTDOWN), _) => Step::To(FinWait),
        (Some(chunk::SHUTDOWN_ACK), _) => Step::To(LastAck),
        (Some(_), PickedUp) if direction == Direction::Reply => Step::To(Established),
        (Some(_), SynSent) => Step::Keep,
        (Some(_), same) => Step::To(same),
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Original, Reply};
    use super::State::*;
    use super::*;

    const TCP: [State; 9] =
        [PickedUp, SynSent, SynReceived, Established, FinWait, CloseWait, LastAck, TimeWait, Closed];

    fn row(segment: Segment, direction: Direction) -> std::vec::Vec<Step> {
        TCP.iter().map(|&s| segment.step(s, direction)).collect()
    }

    /// The tables of Linux's `tcp_conntracks`, without the states that do not exist here. `.` is a packet that keeps.
    #[test]
    fn the_tables() {
        let text = |steps: &[Step]| -> std::string::String {
            let letter = |s: &Step| match s {
                Step::Keep => '.',
                Step::Reopen => '*',
                Step::To(PickedUp) => 'P',
                Step::To(SynSent) => 'S',
                Step::To(SynReceived) => 'R',
                Step::To(Established) => 'E',
                Step::To(FinWait) => 'F',
                Step::To(CloseWait) => 'C',
                Step::To(LastAck) => 'L',
                Step::To(TimeWait) => 'T',
                Step::To(Closed) => 'X',
                Step::To(_) => '?',
            };
            steps.iter().map(letter).collect()
        };
        for (segment, direction, expected) in [
            //                              PSREFCLTX
            (Segment::Syn, Original, /* */ ".S.....**"),
            (Segment::Syn, Reply, /*    */ ".R.....*."),
            (Segment::SynAck, Original, "..R......"),
            (Segment::SynAck, Reply, /* */ "RRR......"),
            (Segment::Fin, Original, /* */ "F.FFLLLTX"),
            (Segment::Fin, Reply, /*    */ "F.FFLLLTX"),
            (Segment::Ack, Original, /* */ "P.EECCTTX"),
            (Segment::Ack, Reply, /*    */ "E.RECCTTX"),
            (Segment::Rst, Original, /* */ "XXXXXXXXX"),
            (Segment::Rst, Reply, /*    */ "XXXXXXXXX"),
            (Segment::Bare, Original, /**/ "........."),
            (Segment::Bare, Reply, /*   */ "........."),
        ] {
            assert_eq!(text(&row(segment, direction)), expected, "{segment:?} {direction:?}");
        }
    }

    #[test]
    fn flags_in_linux_order() {
        for (flags, expected) in [
            (SYN, Segment::Syn),
            (SYN | ACK, Segment::SynAck),
            (FIN | ACK, Segment::Fin),
            (ACK | 8, Segment::Ack),
            (RST | ACK, Segment::Rst),
            (SYN | RST, Segment::Rst),
            (8, Segment::Bare),
        ] {
            assert_eq!(Segment::of(flags), expected);
        }
    }

    #[test]
    fn an_sctp_association_lives_and_ends() {
        let walk = [
            (chunk::INIT_ACK, Reply, SynReceived),
            (chunk::COOKIE_ECHO, Original, SynReceived),
            (chunk::COOKIE_ACK, Reply, Established),
            (0, Original, Established),
            (chunk::SHUTDOWN, Original, FinWait),
            (chunk::SHUTDOWN_ACK, Reply, LastAck),
            (chunk::SHUTDOWN_COMPLETE, Original, Closed),
        ];
        let mut state = sctp_opens(Some(chunk::INIT)).unwrap();
        for (chunk, direction, expected) in walk {
            assert_eq!(sctp_step(Some(chunk), state, direction), Step::To(expected), "{chunk}");
            state = expected;
        }
        assert_eq!(sctp_step(Some(chunk::INIT), state, Original), Step::Reopen);
        assert_eq!(sctp_opens(Some(chunk::ABORT)), None);
        assert_eq!(sctp_step(Some(0), PickedUp, Reply), Step::To(Established));
    }
}
