//! The kernel's counters for the server: a thread of its own reads them, when somebody asks.
//!
//! The server's thread has no right to, and a listing of conntrack must not hold up the agent's loop. Nobody asks: nothing is
//! read and nothing kept.

use super::status::Status;
use crate::counters::{Meter, Report};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A report of this age is as good as a new one.
const FRESH: Duration = Duration::from_secs(1);
/// After so long without a question the last look is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// The last report, or why there is none.
pub type Answer = Result<Arc<Report>, String>;

/// What the reading thread and the server share.
#[derive(Debug, Default)]
pub struct Counts {
    state: Mutex<State>,
    asked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: bool,
    latest: Option<(Instant, Answer)>,
}

impl Counts {
    /// What services carry; `None` where it is being read: [`Status::news`] tells when it is there.
    pub fn ask(&self) -> Option<Answer> {
        let mut state = self.lock();
        match &state.latest {
            Some((at, answer)) if at.elapsed() < FRESH => Some(answer.clone()),
            _ => {
                state.wanted = true;
                self.asked.notify_one();
                None
            }
        }
    }

    /// Waits for a question; `false` after [`IDLE`] without any.
    fn wait(&self) -> bool {
        let unasked = |state: &mut State| !state.wanted;
        let (mut state, waited) =
            self.asked.wait_timeout_while(self.lock(), IDLE, unasked).unwrap_or_else(PoisonError::into_inner);
        state.wanted = false;
        if waited.timed_out() {
            state.latest = None;
        }
        !waited.timed_out()
    }

    fn answer(&self, answer: Answer) {
        self.lock().latest = Some((Instant::now(), answer));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the reading thread. It needs the rights of the thread that starts it.
///
/// # Errors
/// No thread.
pub fn start(status: Arc<Status>) -> io::Result<()> {
    std::thread::Builder::new().name("counters".into()).spawn(move || run(&status)).map(drop)
}

fn run(status: &Status) {
    let mut meter: Option<Meter> = None;
    loop {
        if !status.counts.wait() {
            meter = None;
            continue;
        }
        let look = match &mut meter {
            Some(meter) => meter.look(),
            None => Meter::open().and_then(|new| meter.insert(new).look()),
        };
        status.counts.answer(look.map(Arc::new).map_err(|e| e.to_string()));
        status.announce();
    }
}
