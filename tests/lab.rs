//! The laboratory itself: does it carry packets as a network of three hosts would, and leave nothing behind?

mod common;

use common::site::{at, ip};
use common::{Test, or_skip};
use libtest_mimic::{Arguments, Failed, Trial};
use natlet::lab::{
    self, Listener, Namespace, Plan, Privilege, Probe, ProbeResult, Servers, Skip, Topology, probes, tcp_probe,
    udp_probe,
};
use natlet_core::table::Protocol;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Answers take microseconds: only what shall not be answered waits this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where silence is expected.
const SHORT: Duration = Duration::from_millis(300);

fn main() {
    let arguments = Arguments::from_args();
    // Opened before the process leaves the host's network, this file goes on showing the host's links.
    let host = Host::open();
    let unprivileged = !is_root();
    let privilege = match lab::enter() {
        Ok(privilege) => privilege,
        Err(error) => {
            eprintln!("{error}");
            assert!(std::env::var_os("NATLET_NO_SKIP").is_none_or(|v| v != "1"), "no laboratory, and NATLET_NO_SKIP=1");
            eprintln!("skipped: every test of the laboratory");
            return;
        }
    };
    eprintln!("in a private network by {privilege:?}");
    let trials = vec![
        Trial::test("a_user_without_root_gets_a_user_namespace", move || {
            same(unprivileged && privilege != Privilege::UserNamespace, false)
        }),
        Trial::test("endpoints_are_reached_by_plain_routing", endpoints_are_reached_by_plain_routing),
        Trial::test("a_closed_port_refuses", a_closed_port_refuses),
        Trial::test("a_black_hole_times_out", a_black_hole_times_out),
        Trial::test("servers_see_the_source_that_was_asked_for", servers_see_the_source_that_was_asked_for),
        Trial::test("pods_and_backends_talk_through_the_node", pods_and_backends_talk_through_the_node),
        Trial::test("a_rule_in_the_node_translates", || or_skip(a_rule_in_the_node_translates)),
        Trial::test("a_reject_is_heard_every_time", || or_skip(a_reject_is_heard_every_time)),
        Trial::test("hundreds_of_probes_take_one_timeout", hundreds_of_probes_take_one_timeout),
        Trial::test("thousands_of_endpoints_are_served", thousands_of_endpoints_are_served),
        Trial::test("servers_stop_when_dropped", servers_stop_when_dropped),
        Trial::test("namespaces_end_with_their_owner", namespaces_end_with_their_owner),
        Trial::test("errors_name_their_object", errors_name_their_object),
        Trial::test("nobody_can_do_the_same", move || or_skip(|| nobody_can_do_the_same(privilege))),
        Trial::test("nothing_is_left_on_the_host", move || host.is_unchanged()),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn endpoints_are_reached_by_plain_routing() -> Test {
    let endpoints = [at("10.82.0.10:80"), at("10.82.0.82:8080"), at("[2001:db8:82::10]:80")];
    let topology = topology(&endpoints)?;
    let _servers = serve_both(&topology, &endpoints)?;
    for host in [&topology.client, &topology.node] {
        for endpoint in endpoints {
            for result in both(host, None, endpoint)? {
                let ProbeResult::Answered { endpoint: seen, .. } = result else {
                    return Err(format!("{endpoint} from {}: {result:?}", host.name()).into());
                };
                same(seen, endpoint)?;
            }
        }
    }
    Ok(())
}

fn a_closed_port_refuses() -> Test {
    let endpoints = [at("10.82.0.10:80"), at("[2001:db8:82::10]:80")];
    let topology = topology(&endpoints)?;
    for endpoint in endpoints {
        same(both(&topology.client, None, endpoint)?, [ProbeResult::Refused; 2])?;
    }
    Ok(())
}

fn a_black_hole_times_out() -> Test {
    let topology = topology(&[at("10.82.0.10:80")])?;
    for nowhere in [at("10.82.0.11:80"), at("[2001:db8:82::11]:80")] {
        let result = topology.client.run(|| (tcp_probe(None, nowhere, SHORT), udp_probe(None, nowhere, SHORT)));
        same([result.0?, result.1?], [ProbeResult::TimedOut; 2])?;
    }
    Ok(())
}

fn servers_see_the_source_that_was_asked_for() -> Test {
    let plan = Plan {
        clients: vec![ip("198.51.100.7"), ip("198.51.100.8"), ip("2001:db8:7::7"), ip("2001:db8:7::8")],
        endpoints: vec![ip("10.82.0.10"), ip("2001:db8:82::10")],
        ..Plan::default()
    };
    let topology = Topology::build(&plan)?;
    let endpoints = [at("10.82.0.10:80"), at("[2001:db8:82::10]:80")];
    let _servers = serve_both(&topology, &endpoints)?;
    same(answers(both(&topology.client, None, endpoints[0])?)?.1, [ip("198.51.100.7"); 2])?;
    for (source, endpoint) in [
        (at("198.51.100.8:4321"), endpoints[0]),
        (at("198.51.100.7:4321"), endpoints[0]),
        (at("[2001:db8:7::7]:4321"), endpoints[1]),
        (at("[2001:db8:7::8]:4321"), endpoints[1]),
    ] {
        for result in both(&topology.client, Some(source), endpoint)? {
            same(result, ProbeResult::Answered { endpoint, seen_source: source })?;
        }
    }
    let foreign = topology.client.run(|| tcp_probe(Some(at("198.51.100.99:0")), endpoints[0], SHORT));
    match foreign {
        Err(error) if error.to_string().contains("from 198.51.100.99:0: EADDRNOTAVAIL") => Ok(()),
        other => Err(format!("a source the client does not have: {other:?}").into()),
    }
}

fn pods_and_backends_talk_through_the_node() -> Test {
    let plan = Plan {
        pods: vec![vec![ip("10.82.1.1"), ip("2001:db8:82:1::1")], vec![ip("10.82.1.2"), ip("2001:db8:82:1::2")]],
        endpoints: vec![ip("10.82.1.1"), ip("10.82.0.10"), ip("2001:db8:82::10")],
        ..Plan::default()
    };
    let topology = Topology::build(&plan)?;
    let node = topology.node_addresses().to_vec();
    let v4 = [at("10.82.1.2:80"), at("10.82.0.10:80"), SocketAddr::new(node[0], 80)];
    let v6 = [at("[2001:db8:82:1::2]:80"), at("[2001:db8:82::10]:80"), SocketAddr::new(node[1], 80)];
    let _servers = serve_both(&topology, &[v4, v6].concat())?;
    for (source, endpoints) in [(at("10.82.1.1:4000"), v4), (at("[2001:db8:82:1::1]:4000"), v6)] {
        for endpoint in endpoints {
            let seen = both(&topology.pods[0], Some(source), endpoint)?;
            same(seen, [ProbeResult::Answered { endpoint, seen_source: source }; 2])?;
        }
    }
    for (source, endpoint) in [(at("10.82.0.10:4001"), v4[0]), (at("[2001:db8:82::10]:4001"), v6[0])] {
        let seen = both(&topology.backends, Some(source), endpoint)?;
        same(seen, [ProbeResult::Answered { endpoint, seen_source: source }; 2])?;
    }
    Ok(())
}

fn a_rule_in_the_node_translates() -> Result<Test, Skip> {
    lab::need("nft")?;
    Ok((|| {
        let cases = [
            ("ip", at("172.30.0.41:80"), at("10.82.0.10:8080"), at("10.82.1.1:0")),
            ("ip6", at("[2001:db8:30::41]:80"), at("[2001:db8:82::10]:8080"), at("[2001:db8:82:1::1]:0")),
        ];
        let plan = Plan {
            endpoints: cases.iter().map(|c| c.2.ip()).collect(),
            pods: vec![cases.iter().map(|c| c.3.ip()).collect()],
            avoid: vec!["172.30.0.0".parse().map(|a| natlet_core::table::Cidr { address: a, prefix: 16 })?],
            ..Plan::default()
        };
        let topology = Topology::build(&plan)?;
        let _servers = serve_both(&topology, &cases.map(|c| c.2))?;
        for (family, service, _, _) in cases {
            let before = topology.client.run(|| tcp_probe(None, service, SHORT))?;
            same((family, before), (family, ProbeResult::TimedOut))?;
        }
        for (family, service, endpoint, _) in cases {
            let (vip, target) = (service.ip(), endpoint);
            let hook = |chain: &str| {
                format!(
                    "chain {chain} {{ type nat hook {chain} priority -100; {family} daddr {vip} meta l4proto {{ tcp, udp }} \
                     th dport 80 dnat to {target}; }}\n"
                )
            };
            let postrouting =
                "chain postrouting { type nat hook postrouting priority 100; ct status dnat masquerade; }\n";
            nft(
                &topology.node,
                &format!("table {family} t {{ {} {} {postrouting} }}", hook("prerouting"), hook("output")),
            )?;
        }
        for (_, service, endpoint, pod) in cases {
            let node = topology.node_address(service.ip()).ok_or("no node address")?;
            // From outside, from the node itself, from a pod, and from the endpoint to itself (hairpin).
            let from = [
                (&topology.client, None),
                (&topology.node, None),
                (&topology.pods[0], Some(pod)),
                (&topology.backends, Some(SocketAddr::new(endpoint.ip(), 0))),
            ];
            for (host, source) in from {
                let (seen, sources) = answers(both(host, source, service)?)?;
                same((host.name(), seen), (host.name(), [endpoint; 2]))?;
                same((host.name(), sources), (host.name(), [node; 2]))?;
            }
        }
        Ok(())
    })())
}

/// The kernel limits the ICMP errors it sends; the laboratory must lift that, or the second refusal is a time-out.
fn a_reject_is_heard_every_time() -> Result<Test, Skip> {
    lab::need("nft")?;
    Ok((|| {
        let topology = topology(&[at("10.82.0.10:80")])?;
        let reject =
            |hook: &str| format!("chain {hook} {{ type filter hook {hook} priority 0; th dport 81 reject; }}\n");
        nft(&topology.node, &format!("table inet t {{ {} {} }}", reject("forward"), reject("output")))?;
        for host in [&topology.client, &topology.node] {
            for destination in [at("10.82.0.10:81"), at("[2001:db8:82::10]:81")] {
                let (tcp, udp) = (Probe { protocol: Protocol::Tcp, source: None, destination }, Protocol::Udp);
                let all = [[tcp; 100], [Probe { protocol: udp, ..tcp }; 100]].concat();
                let start = Instant::now();
                for (probe, result) in all.iter().zip(host.run(|| probes(&all, PATIENCE))?) {
                    same((host.name(), *probe, result), (host.name(), *probe, ProbeResult::Refused))?;
                }
                let took = start.elapsed(); // one that is not heard at once is heard at the second SYN, after a second
                same(
                    (host.name(), destination, took, took < Duration::from_millis(900)),
                    (host.name(), destination, took, true),
                )?;
            }
        }
        Ok(())
    })())
}

fn hundreds_of_probes_take_one_timeout() -> Test {
    let endpoint = at("10.82.0.10:80");
    let topology = topology(&[endpoint])?;
    let _servers = serve_both(&topology, &[endpoint])?;
    let probe = |i: usize| {
        let destination = [endpoint, at("10.82.0.10:81"), at("10.82.0.11:80")][i % 3];
        let protocol = if i.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp };
        Probe { protocol, source: None, destination }
    };
    let all: Vec<_> = (0..900).map(probe).collect();
    let start = Instant::now();
    let results = topology.client.run(|| probes(&all, Duration::from_secs(1)))?;
    let took = start.elapsed();
    for (i, result) in results.iter().enumerate() {
        let right = match i % 3 {
            0 => matches!(result, ProbeResult::Answered { .. }),
            1 => *result == ProbeResult::Refused,
            _ => *result == ProbeResult::TimedOut,
        };
        same((i, result, right), (i, result, true))?;
    }
    if took > Duration::from_secs(3) { Err(format!("900 probes took {took:?}").into()) } else { Ok(()) }
}

fn thousands_of_endpoints_are_served() -> Test {
    let v4 = (0..2000_u32).map(|i| SocketAddr::new(IpAddr::from((0x0a52_0000 + i).to_be_bytes()), 80));
    let v6 = (0..1000_u16).map(|i| SocketAddr::new(IpAddr::from([0x2001, 0xdb8, 0x82, 0, 0, 0, 1, i]), 80));
    let endpoints: Vec<_> = v4.chain(v6).collect();
    let start = Instant::now();
    let topology = topology(&endpoints)?;
    let built = start.elapsed();
    let _servers = serve_both(&topology, &endpoints)?;
    let served = start.elapsed();
    let to = |protocol| endpoints.iter().map(move |e| Probe { protocol, source: None, destination: *e });
    let all: Vec<_> = to(Protocol::Tcp).chain(to(Protocol::Udp)).collect();
    let results = topology.client.run(|| probes(&all, PATIENCE))?;
    let took = (built, served.saturating_sub(built), start.elapsed().saturating_sub(served));
    for (probe, result) in all.iter().zip(results) {
        match result {
            ProbeResult::Answered { endpoint, .. } if endpoint == probe.destination => {}
            other => return Err(format!("{probe:?}: {other:?}").into()),
        }
    }
    eprintln!("{} endpoints: build {:?}, serve {:?}, probe {:?}", endpoints.len(), took.0, took.1, took.2);
    Ok(())
}

fn servers_stop_when_dropped() -> Test {
    let endpoint = at("10.82.0.10:80");
    let topology = topology(&[endpoint])?;
    for _ in 0..3 {
        let servers = Servers::start(&topology.backends, &[Listener::tcp(endpoint), Listener::udp(endpoint)])?;
        let twice = Servers::start(&topology.backends, &[Listener::udp(at("10.82.0.99:80"))]);
        let message = twice.err().map(|e| e.to_string()).unwrap_or_default();
        same(
            message.as_str(),
            "cannot listen on udp 10.82.0.99:80 in backends: EADDRNOTAVAIL: Cannot assign requested address",
        )?;
        answers(both(&topology.client, None, endpoint)?)?;
        drop(servers);
        same(both(&topology.client, None, endpoint)?, [ProbeResult::Refused; 2])?;
    }
    Ok(())
}

/// A cable whose far end lies in a namespace that ends, ends with it.
fn namespaces_end_with_their_owner() -> Test {
    let (stays, goes) = (Namespace::new("stays")?, Namespace::new("goes")?);
    stays.links()?.veth("cable", &goes, "eth0")?;
    same(links_of(&stays)?, ["cable", "lo"].map(str::to_owned).into())?;
    same(links_of(&goes)?, ["eth0", "lo"].map(str::to_owned).into())?;
    assert!(File::from(goes.as_fd().try_clone_to_owned()?).metadata().is_ok());
    drop(goes);
    let deadline = Instant::now() + Duration::from_secs(5); // the kernel takes namespaces down in its own time
    while links_of(&stays)?.contains("cable") {
        if Instant::now() > deadline {
            return Err("the cable outlives its namespace".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn errors_name_their_object() -> Test {
    let namespace = Namespace::new("host")?;
    let cidr = |address: &str, prefix| natlet_core::table::Cidr { address: ip(address), prefix };
    let mut links = namespace.links()?;
    let errors = [
        (links.up("eth9"), "cannot set the link eth9 up: ENODEV: No such device"),
        (links.address("eth9", cidr("192.0.2.1", 32)), "cannot find the link eth9: ENODEV: No such device"),
        (
            links.routes(&[cidr("10.0.0.1", 32), cidr("10.0.0.1", 32), cidr("10.0.0.2", 32)], lab::Route::Local),
            "cannot add the route 10.0.0.1/32 to this host: EEXIST: File exists",
        ),
        (
            namespace.sysctl("net/ipv4/no_such_thing", "1"),
            "cannot set net/ipv4/no_such_thing to 1: ENOENT: No such file or directory\n  \
             way out: the kernel lacks this setting: is IPv6 switched off, or a module not loaded?",
        ),
    ];
    for (result, expected) in errors {
        same(result.err().map(|e| e.to_string()).as_deref(), Some(expected))?;
    }
    links.route(cidr("10.0.0.3", 32), lab::Route::Local)?; // the socket is in step after errors
    Ok(())
}

/// Runs all of these tests again as the user nobody.
fn nobody_can_do_the_same(privilege: Privilege) -> Result<Test, Skip> {
    if privilege == Privilege::UserNamespace {
        return Ok(Ok(())); // this process is no root: all the other tests are the proof
    }
    lab::need("setpriv")?;
    Ok((|| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        // By descriptor: nobody may have no way into the directory of this program.
        let output = command.arg("/proc/self/fd/0").stdin(File::open(std::env::current_exe()?)?).output()?;
        let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
        let ran = text.contains("by UserNamespace") || text.contains("skipped: every test");
        if output.status.success() && ran { Ok(()) } else { Err(text.into()) }
    })())
}

/// What the host shows of its links and of named namespaces.
struct Host {
    links: Arc<Mutex<File>>,
    before: (BTreeSet<String>, BTreeSet<std::ffi::OsString>),
}

impl Host {
    fn open() -> Self {
        let mut links = File::open("/proc/thread-self/net/dev").expect("/proc is mounted");
        let before = Self::look(&mut links).expect("/proc/thread-self/net/dev can be read");
        Self { links: Arc::new(Mutex::new(links)), before }
    }

    fn look(links: &mut File) -> std::io::Result<(BTreeSet<String>, BTreeSet<std::ffi::OsString>)> {
        links.rewind()?;
        let mut text = String::new();
        links.read_to_string(&mut text)?;
        let named = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.file_name());
        Ok((names(&text), named.collect()))
    }

    fn is_unchanged(&self) -> Test {
        let _topology = topology(&[at("10.82.0.10:80")])?;
        let now = Self::look(&mut *self.links.lock().map_err(|_| "poisoned")?)?;
        same(&now, &self.before)
    }
}

fn links_of(namespace: &Namespace) -> Result<BTreeSet<String>, Failed> {
    Ok(names(&namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?))
}

/// The names in a listing of `/proc/net/dev`.
fn names(listing: &str) -> BTreeSet<String> {
    listing.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn nft(namespace: &Namespace, rules: &str) -> Test {
    namespace.run(|| {
        let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().ok_or("no stdin")?.write_all(rules.as_bytes())?;
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("nft: {}\n{rules}", String::from_utf8_lossy(&output.stderr)).into())
    })
}

fn topology(endpoints: &[SocketAddr]) -> Result<Topology, Failed> {
    Ok(Topology::build(&Plan { endpoints: endpoints.iter().map(SocketAddr::ip).collect(), ..Plan::default() })?)
}

fn serve_both(topology: &Topology, endpoints: &[SocketAddr]) -> Result<Vec<Servers>, Failed> {
    let listeners: Vec<_> = endpoints.iter().flat_map(|e| [Listener::tcp(*e), Listener::udp(*e)]).collect();
    Ok(topology.serve(&listeners)?)
}

/// One TCP and one UDP probe.
fn both(host: &Namespace, source: Option<SocketAddr>, destination: SocketAddr) -> Result<[ProbeResult; 2], Failed> {
    let (tcp, udp) = host.run(|| (tcp_probe(source, destination, PATIENCE), udp_probe(source, destination, PATIENCE)));
    Ok([tcp?, udp?])
}

/// The endpoints that answered, and the addresses they saw.
fn answers(results: [ProbeResult; 2]) -> Result<([SocketAddr; 2], [IpAddr; 2]), Failed> {
    match results {
        [
            ProbeResult::Answered { endpoint: a, seen_source: b },
            ProbeResult::Answered { endpoint: c, seen_source: d },
        ] => Ok(([a, c], [b.ip(), d.ip()])),
        other => Err(format!("no answer: {other:?}").into()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the callers' values are made for the comparison")]
fn same<T: PartialEq + std::fmt::Debug>(is: T, expected: T) -> Test {
    if is == expected { Ok(()) } else { Err(format!("is       {is:?}\nexpected {expected:?}").into()) }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
