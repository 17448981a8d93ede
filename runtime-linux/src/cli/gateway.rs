//! `natlet gateway`: the translator on a TUN device.

use super::args::GatewayArgs;
use super::failure::{Failure, print, remark};
use super::input;
use crate::gateway::{self, Event, Settings};

pub fn run(args: GatewayArgs) -> Result<(), Failure> {
    let image = input::read(&args.input)?;
    let flows = usize::try_from(args.flows).map_err(|e| Failure::operation("making room for flows", e))?;
    let settings = Settings { tun: args.tun.clone(), flows, metrics: args.metrics };
    let read_again = move || {
        input::read(&args.input)
            .map_err(|failure| {
                // the message is printed here; the gateway goes on
                let _ = failure.report();
                remark("note: the program before stays in force");
            })
            .ok()
    };
    gateway::run(&settings, image, read_again, |event| tell(&settings.tun, &event))
        .map_err(|e| Failure::operation("translating packets", e))
}

fn tell(tun: &str, event: &Event<'_>) {
    match event {
        Event::Ready(report) => {
            // a closed standard output is no reason not to translate
            let _ = print(&format!("ready on {tun}; content id {}\n", report.content_id));
        }
        Event::Replaced { content_id, kept, ended } => {
            remark(&format!("reloaded; content id {content_id}; {kept} connections go on, {ended} ended"));
        }
        Event::Counters(report) => remark(&report.lines()),
    }
}
