//! The agent where its process has little: no outputs, few file descriptors.

use crate::common::{Test, holds};
use crate::daemon::{Daemon, LIMIT, Place, within};
use crate::{FIRST, LISTEN, PORT, SECOND, THIRD, get, table, ticks};
use natlet::lab::Namespace;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub fn closed_outputs() -> Test {
    for (name, redirection) in
        [("closed", "2>&- >&-"), ("pipe", "> >(exec true) 2> >(exec true)"), ("full", ">/dev/full 2>/dev/full")]
    {
        let (host, place) = (Namespace::new("node")?, Place::new(&format!("output-{name}"))?);
        place.write(&table(&[FIRST, SECOND]))?;
        let script = format!("exec \"$@\" {redirection}");
        let wrapper = ["bash", "-c", &script, "bash"];
        let daemon = Daemon::start_under(&host, &place, &wrapper, place.source(), &["--log-level", "debug"], &[])?;
        daemon.in_force(&host, &place)?;
        for endpoint in [THIRD, SECOND, THIRD] {
            place.write(&table(&[FIRST, endpoint]))?;
            daemon.in_force(&host, &place)?;
        }
        daemon.stop()?;
    }
    Ok(())
}

/// Twenty descriptors: enough for the work, and clients that take the rest do not stop it for longer than they stay.
pub fn few_file_descriptors() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("descriptors")?);
    place.write(&table(&[FIRST, SECOND]))?;
    let wrapper = ["sh", "-c", "ulimit -n 20; exec \"$@\"", "sh"];
    let daemon = Daemon::start_under(&host, &place, &wrapper, place.source(), &LISTEN, &[])?;
    daemon.in_force(&host, &place)?;
    within("not healthy", LIMIT, || Ok(get(&host, "/healthz").is_ok_and(|a| a.starts_with("HTTP/1.1 200"))))?;
    let address = SocketAddr::from(([127, 0, 0, 1], PORT));
    let clients: Vec<TcpStream> =
        host.run(|| (0..40).map(|_| TcpStream::connect_timeout(&address, LIMIT)).collect::<Result<_, _>>())?;
    let before = ticks(daemon.id())?;
    place.write(&table(&[FIRST, THIRD]))?;
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks(daemon.id())? - before;
    holds(&format!("{spent} ticks in a second without descriptors"), spent < 30)?;
    drop(clients);
    daemon.in_force(&host, &place)?;
    holds("healthy", get(&host, "/healthz")?.starts_with("HTTP/1.1 200"))?;
    daemon.stop()
}
