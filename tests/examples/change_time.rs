//! How long a change of one endpoint takes, and how long it takes to read everything back, in a network namespace of its own.
//!
//! `cargo run --release -p natlet-tests --example change_time -- SERVICES ENDPOINTS [CHANGES]`: so many services with so many
//! endpoints each; the first endpoint moves to and fro. Printed are percentiles, in microseconds, of
//!
//! - `send`: a change's prepared transactions sent, each acknowledged by the kernel (what is in `natlet`'s hands is not in it);
//! - `switch`: as `send`, of an endpoint that comes or goes, so that an element of the map of frontends leads to another chain;
//! - `prepare`: the difference of the two programs, planned and written as transactions;
//! - `load`: a whole [`Loader::load`], from program to acknowledgement, the program's own check included;
//!
//! and, once each, in milliseconds: the first load, a dump of all elements, and a comparison of all by key.

#[path = "../common/large.rs"]
mod large;
#[path = "../common/percentiles.rs"]
mod percentiles;
#[path = "../common/prepared.rs"]
mod prepared;

use natlet::image::Image;
use natlet::kernel::{Loader, Terms, Trust};
use natlet::lab;
use natlet::lower::{Detail, Needs, delta_knowing, lower};
use natlet::nft::diff::plan;
use natlet::nft::read::{Loaded, read, read_expecting, read_objects};
use percentiles::report;
use std::error::Error;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    lab::enter()?;
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (services, endpoints, changes) = (next(10_000)?, next(10)?, next(2000)?);
    let programs = [200, 201].map(|moved| large::program(services, endpoints, moved));
    let [a, b] = programs.map(|image| image.map_err(|e| e.message().unwrap_or_default().to_owned()));
    let images = [a?, b?];
    println!("{services} services with {endpoints} endpoints each, programs of {} bytes", images[0].as_bytes().len());

    let mut loader = Loader::open()?;
    let started = Instant::now();
    println!("  {}", loader.load(&images[0], Terms::default(), Trust::Nothing)?);
    println!("first load   {:>9.2} ms", milliseconds(started.elapsed()));
    reading(&mut loader, &images[0])?;

    let mut whole = Vec::new();
    for i in 0..changes {
        let started = Instant::now();
        let outcome = loader.load(&images[(i + 1) % 2], Terms::default(), Trust::Generation)?;
        whole.push(started.elapsed());
        if i == 0 {
            println!("  {outcome}");
        }
    }
    let (prepare, send) = parts(&mut loader, &images, changes)?;
    let switch = switch(&mut loader, &large::table(services, endpoints, 200), changes)?;
    for (what, times) in [("send", send), ("switch", switch), ("prepare", prepare), ("load", whole)] {
        report(what, times);
    }
    Ok(())
}

/// The first endpoint of a table comes and goes.
fn switch(loader: &mut Loader, table: &str, changes: usize) -> Result<Vec<Duration>, Box<dyn Error>> {
    // the last service has as many endpoints as the first one is left with, so that no chain comes or goes
    let first_of = |table: &str, start: usize| -> Option<std::ops::Range<usize>> {
        let from = start + table.get(start..)?.find("\"11.")?;
        Some(from..from + table.get(from..)?.find(", ")? + 2)
    };
    let without = |table: &str, start: usize| {
        let mut table = table.to_owned();
        table.replace_range(first_of(&table, start).ok_or("no endpoint")?, "");
        Ok::<_, Box<dyn Error>>(table)
    };
    let last = table.rfind("endpoints = [").ok_or("no service")?;
    let with = without(table, last)?;
    let first = with.find("endpoints = [").ok_or("no service")?;
    let tables = [without(&with, first)?, with];
    let [a, b] = tables.map(|t| large::image(&t).map_err(|e| e.message().unwrap_or_default().to_owned()));
    let images = [a?, b?];
    loader.load(&images[0], Terms::default(), Trust::Generation)?;
    let netlink = loader.netlink();
    let ways = [
        prepared::transactions(netlink, &images[0], &images[1])?,
        prepared::transactions(netlink, &images[1], &images[0])?,
    ];
    let mut times = Vec::new();
    for i in 0..changes {
        let started = Instant::now();
        ways[i % 2].iter().try_for_each(|batch| netlink.send_batch(batch))?;
        times.push(started.elapsed());
    }
    Ok(times)
}

fn reading(loader: &mut Loader, image: &Image) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    read(loader.netlink())?;
    println!("dump         {:>9.2} ms", milliseconds(started.elapsed()));
    let wanted = lower(&image.program(), "");
    let started = Instant::now();
    let loaded = read_expecting(loader.netlink(), &wanted)?;
    let found = plan(&loaded, &wanted);
    println!(
        "verify       {:>9.2} ms, {} elements differ",
        milliseconds(started.elapsed()),
        found.element_changes().count()
    );
    Ok(())
}

/// The steps of a change one by one: what is prepared, and what is sent.
fn parts(
    loader: &mut Loader,
    images: &[Image; 2],
    changes: usize,
) -> Result<(Vec<Duration>, Vec<Duration>), Box<dyn Error>> {
    let netlink = loader.netlink();
    let mut objects = read_objects(netlink)?;
    let (mut prepare, mut send) = (Vec::new(), Vec::new());
    let mut needs = Needs::of_program(&images[changes % 2].program());
    for i in 0..changes {
        // the loads before ended with images[changes % 2]
        let (old, new) = (images[(changes + i) % 2].program(), images[(changes + i + 1) % 2].program());
        let started = Instant::now();
        let mut delta = delta_knowing(&needs, (&old, "old"), (&new, "new"), Detail::Differing);
        let current = delta.onto(&objects).ok_or("the kernel holds other sets")?;
        let phases = plan(&current, &delta.new).phases;
        let batches: Vec<_> = phases.iter().flat_map(|phase| phase.batches(netlink.max_batch_len())).collect();
        prepare.push(started.elapsed());
        let mut generation = netlink.generation()?;
        let mut sent = Duration::ZERO;
        for mut batch in batches {
            batch.insist_on(generation);
            let started = Instant::now();
            netlink.send_batch(&batch)?;
            sent += started.elapsed();
            generation += 1;
        }
        send.push(sent);
        needs = delta.needs;
        objects = Loaded { generation, ..objects };
    }
    Ok((prepare, send))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
