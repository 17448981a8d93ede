//! The gateway's loop: wait, take packets, then whatever else has come.

use super::{Engine, Event, GatewayError, Report, SWEEP, SWEEP_STEPS, TURN, Wish, offload};
use crate::image::Image;
use natlet_core::translate::{Action, Hook, Instant, Replaced, Translator};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand::Rng;
use std::os::fd::AsFd;
use std::time;

impl<T: Fn(Event<'_>)> Engine<T> {
    /// Serves until there is a new program, or, `None`, the end.
    pub fn serve(&mut self, translator: &mut Translator<'_, '_>) -> Result<Option<Image>, GatewayError> {
        loop {
            let ready = self.wait().map_err(|errno| GatewayError::Kernel("wait for packets", errno))?;
            if ready.packets {
                self.frames.wake_ups += 1;
                self.turn(translator)?;
            }
            let now = time::Instant::now();
            let sweeps = now >= self.next_sweep;
            if sweeps {
                self.next_sweep = now + SWEEP;
                let budget = u32::try_from(self.flows.div_ceil(SWEEP_STEPS)).unwrap_or(u32::MAX);
                translator.expire(self.now(), budget);
            }
            if ready.others || sweeps {
                let mut exporter = self.exporter.take();
                if let Some(exporter) = &mut exporter {
                    exporter.serve(now, || self.report(translator).open_metrics());
                }
                self.exporter = exporter;
            }
            while let Some(wish) = self.signals.next() {
                match wish {
                    Wish::Reload => self.reloader.start(),
                    Wish::Report => (self.tell)(Event::Counters(&self.report(translator))),
                    Wish::End => {
                        (self.tell)(Event::Counters(&self.report(translator)));
                        return Ok(None);
                    }
                }
            }
            if ready.reloaded {
                match self.reloader.finish() {
                    Some(image) => return Ok(Some(image)),
                    None => self.frames.failed_reloads += 1,
                }
            }
        }
    }

    /// The translator's clock.
    pub fn now(&self) -> Instant {
        let millis = self.start.elapsed().as_millis();
        Instant::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Takes note of a new program.
    pub fn replaced(&mut self, image: &Image, replaced: Replaced) {
        self.frames.reloads += 1;
        let content_id = image.program().content_id().to_string();
        (self.tell)(Event::Replaced { content_id, kept: replaced.kept, ended: replaced.ended });
    }

    pub fn report(&self, translator: &Translator<'_, '_>) -> Report {
        Report {
            counters: *translator.counters(),
            frames: self.frames,
            flows: translator.live_flows(),
            capacity: self.flows,
            content_id: translator.program().content_id().to_string(),
            uptime: self.start.elapsed(),
        }
    }

    fn wait(&self) -> Result<Ready, Errno> {
        let mut watched = vec![
            PollFd::new(self.tun.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.reloader.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        let exporter = self.exporter.iter().flat_map(|exporter| exporter.watched());
        watched.extend(exporter.map(|(fd, flags)| PollFd::new(fd, flags)));
        let left = self.next_sweep.saturating_duration_since(time::Instant::now());
        // rounded up: waking before the time would spin
        let timeout = PollTimeout::try_from(left + time::Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let any = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        Ok(Ready { packets: any(&watched[0]), reloaded: any(&watched[1]), others: watched[2..].iter().any(any) })
    }

    /// Takes what the device has, up to a turn.
    fn turn(&mut self, translator: &mut Translator<'_, '_>) -> Result<(), GatewayError> {
        let now = self.now();
        for _ in 0..TURN {
            let Some(length) = self.tun.read(&mut self.frame).map_err(GatewayError::Read)? else { return Ok(()) };
            self.frames.read += 1;
            let Some((header, packet)) = self.frame[..length].split_first_chunk_mut::<{ offload::LEN }>() else {
                self.frames.misfits += 1;
                continue;
            };
            self.frames.bytes += packet.len() as u64;
            let (reply_header, reply) = self.reply.split_at_mut(offload::LEN);
            let action = translator.process(now, Hook::Arriving, &mut || self.rng.next_u32(), packet, reply);
            let frame = match action {
                Action::Drop(_) => continue,
                Action::Forward if !offload::refresh(header, packet) => {
                    self.frames.misfits += 1;
                    continue;
                }
                Action::Forward | Action::Pass => &self.frame[..length],
                Action::Reply(reply_length) => {
                    reply_header.copy_from_slice(&offload::NONE);
                    &self.reply[..offload::LEN + reply_length]
                }
            };
            if self.tun.write(frame).is_err() {
                self.frames.unsent += 1;
            }
        }
        Ok(())
    }
}

/// What there is to do.
struct Ready {
    packets: bool,
    reloaded: bool,
    others: bool,
}
