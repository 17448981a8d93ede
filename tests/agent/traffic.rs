//! Clients that keep talking while the table changes under them.

use crate::common::site::{at, site};
use crate::common::{Test, has, holds, same, tool};
use crate::daemon::{Daemon, LIMIT, Place, within};
use crate::{OTHER, SECOND, table};
use libtest_mimic::Failed;
use natlet::lab::{Servers, Topology};
use std::io::Read as _;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

/// A client, a node, and three pods behind it.
fn hosts() -> Result<(Topology, Vec<Servers>), Failed> {
    site(&["10.82.0.10", SECOND, OTHER])
}

/// Who answered: the first word of a server's line.
fn endpoint(line: &[u8]) -> String {
    String::from_utf8_lossy(line).split(' ').next().unwrap_or_default().to_owned()
}

/// Connections to the endpoint that stays live through 200 changes and some deaths of the agent; new ones never fail.
pub fn connections_live_through_many_changes() -> Test {
    let (topology, _servers) = hosts()?;
    let place = Place::new("traffic")?;
    place.write(&table(SECOND))?;
    let mut daemon = Daemon::start(&topology.node, &place, &["--min-sync-period", "1ms"])?;
    daemon.in_force(&topology.node, &place)?;
    let connect = || -> Result<(TcpStream, String), Failed> {
        let stream = topology.client.run(|| TcpStream::connect_timeout(&at("192.168.5.65:443"), LIMIT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut buffer = [0; 128];
        let length = (&stream).read(&mut buffer)?;
        Ok((stream, endpoint(&buffer[..length])))
    };
    let (mut kept, mut tried) = (Vec::new(), 0);
    for round in 0..200 {
        place.write(&table([SECOND, OTHER][round % 2]))?;
        let (stream, endpoint) = connect()?;
        tried += 1;
        holds(
            &format!("{endpoint} is an endpoint"),
            ["10.82.0.10:8443", "10.82.0.82:8443", "10.82.0.83:8443"].contains(&endpoint.as_str()),
        )?;
        if endpoint == "10.82.0.10:8443" {
            kept.push(stream);
        }
        if round % 20 == 19 {
            daemon.kill()?;
            daemon = Daemon::start(&topology.node, &place, &["--min-sync-period", "1ms"])?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.in_force(&topology.node, &place)?;
    println!("{tried} connections made during 200 changes, {} of them kept", kept.len());
    for stream in kept {
        same("errors on a connection", &stream.take_error()?.map(|e| e.to_string()), &None)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut rest = Vec::new();
        (&stream).read_to_end(&mut rest)?; // the server closes after the client; a broken connection is an error here
        same("bytes after the answer", &rest.len(), &0)?;
    }
    daemon.stop()
}

pub fn a_udp_client_leaves_a_removed_endpoint() -> Test {
    if !has("conntrack") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    let place = Place::new("udp")?;
    place.write(&table(SECOND))?;
    let daemon = Daemon::start(&topology.node, &place, &[])?;
    daemon.in_force(&topology.node, &place)?;
    // clients, each with a socket of its own, until both endpoints have one
    let ask = |socket: &UdpSocket| -> Option<String> {
        socket.send(b"x").ok()?;
        let mut buffer = [0; 128];
        socket.recv(&mut buffer).ok().map(|length| endpoint(&buffer[..length]))
    };
    let (mut leaving, mut staying) = (None, None);
    for _ in 0..60 {
        let socket = topology.client.run(|| UdpSocket::bind("203.0.113.9:0"))?;
        topology.client.run(|| socket.connect("192.168.5.66:514"))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        match ask(&socket).as_deref() {
            Some("10.82.0.82:5514") => leaving = Some(socket),
            Some("10.82.0.10:5514") => staying = Some(socket),
            other => return Err(format!("{other:?} answered").into()),
        }
    }
    let (leaving, staying) = (leaving.ok_or("no client of the second")?, staying.ok_or("no client of the first")?);
    let entry = || -> Result<String, Failed> {
        let port = staying.local_addr()?.port().to_string();
        let text = tool(&topology.node, "conntrack", &["-L", "-p", "udp", "--sport", &port, "-o", "id"], "")?;
        let id = text.split_whitespace().find(|w| w.starts_with("id=")).map(str::to_owned);
        id.ok_or(format!("no entry: {text}").into())
    };
    let before = entry()?;
    place.write(&table("10.82.0.10").replace(", \"10.82.0.10:5514\"", "").replace(", \"10.82.0.10:8443\"", ""))?;
    let took = within("the client is stuck", LIMIT, || Ok(ask(&leaving).as_deref() == Some("10.82.0.10:5514")))?;
    println!("a UDP client reached a living endpoint after {took:.1?}");
    same("who answers the other client", &ask(&staying).as_deref(), &Some("10.82.0.10:5514"))?;
    same("its conntrack entry", &entry()?, &before)?;
    daemon.stop()
}
