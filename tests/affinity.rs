//! Session affinity and source-hash choice in the real kernel: who is sent where, and who stays.

mod common;

use common::site::{at, ip};
use common::{Test, or_skip};
use libtest_mimic::{Arguments, Failed, Trial};
use natlet::image::Image;
use natlet::kernel;
use natlet::lab::{self, Listener, Namespace, Plan, Probe, ProbeResult, Servers, Skip, Topology};
use natlet::netlink::Netlink;
use natlet::nft::apply::Outcome;
use natlet::source::{Input, Loaded, NodeFlags, load_inputs};
use natlet_core::table::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(2);
/// Affinity of the services that are to forget, and a wait that is longer.
const SHORT: Duration = Duration::from_secs(2);
const LONGER: Duration = Duration::from_millis(2600);

const NODE: &str = "[node]\nname = 'gw'\nip = ['192.0.2.1', '2001:db8:2::1']\n";
const FOUR: &str = "endpoints = ['10.82.0.10:8080', '10.82.0.11:8080', '10.82.0.12:8080', '10.82.0.13:8080', \
                    '[2001:db8:82::10]:8080', '[2001:db8:82::11]:8080', '[2001:db8:82::12]:8080', '[2001:db8:82::13]:8080']\n";
const THREE: &str = "endpoints = ['10.82.0.11:8080', '10.82.0.12:8080', '10.82.0.13:8080', \
                     '[2001:db8:82::11]:8080', '[2001:db8:82::12]:8080', '[2001:db8:82::13]:8080']\n";
const VIPS: &str = "cluster-ip = ['172.30.0.41', '2001:db8:30::41']\n";

/// The endpoints that each client's connections reached.
type Reached = BTreeMap<IpAddr, BTreeSet<SocketAddr>>;

fn main() {
    let arguments = Arguments::from_args();
    if let Err(error) = lab::enter() {
        eprintln!("{error}");
        assert!(std::env::var_os("NATLET_NO_SKIP").is_none_or(|v| v != "1"), "no laboratory, and NATLET_NO_SKIP=1");
        eprintln!("skipped: every test of affinity");
        return;
    }
    let trials = vec![
        Trial::test("a_hundred_clients_stay_and_are_spread", a_hundred_clients_stay_and_are_spread),
        Trial::test("frontends_of_a_service_share_the_memory", frontends_of_a_service_share_the_memory),
        Trial::test("two_ports_of_a_service_do_not", two_ports_of_a_service_do_not),
        Trial::test("the_timeout_forgets_and_connections_refresh_it", the_timeout_forgets_and_connections_refresh_it),
        Trial::test("a_removed_endpoint_is_not_honoured", a_removed_endpoint_is_not_honoured),
        Trial::test("other_services_come_and_go", other_services_come_and_go),
        Trial::test("turning_affinity_off_forgets", turning_affinity_off_forgets),
        Trial::test("the_node_is_a_client_too", the_node_is_a_client_too),
        Trial::test("a_hash_decides_for_new_clients_only", a_hash_decides_for_new_clients_only),
        Trial::test("weights_are_the_new_clients_shares", weights_are_the_new_clients_shares),
        Trial::test("policy_local_keeps_to_local_endpoints", policy_local_keeps_to_local_endpoints),
        Trial::test("endpoints_may_share_an_address", endpoints_may_share_an_address),
        Trial::test("source_hash_is_the_kernels", source_hash_is_the_kernels),
        Trial::test("what_is_out_of_date_heals", || or_skip(what_is_out_of_date_heals)),
        Trial::test("nft_lists_and_reloads_it", || or_skip(nft_lists_and_reloads_it)),
        Trial::test("rules_do_not_grow_with_services", rules_do_not_grow_with_services),
        Trial::test("bench_new_flows", bench_new_flows).with_ignored_flag(true),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn a_hundred_clients_stay_and_are_spread() -> Test {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let table =
            format!("{NODE}[[service]]\nname = 'a'\nprotocol = '{protocol}'\nport = 80\naffinity = true\n{VIPS}{FOUR}");
        let lab = Lab::new(&table, 100)?;
        for vip in ["172.30.0.41:80", "[2001:db8:30::41]:80"].map(at) {
            let reached = lab.connect(protocol, &[vip; 4])?;
            same((vip, reached.len(), split(&reached)), (vip, 100, 0))?;
            let mut shares: BTreeMap<SocketAddr, u32> = BTreeMap::new();
            reached.values().flatten().for_each(|e| *shares.entry(*e).or_default() += 1);
            // 25 each is expected; less than 5 comes once in a million
            check(&format!("{shares:?}"), shares.len() == 4 && shares.values().all(|n| *n >= 5))?;
            same(lab.connect(protocol, &[vip])?, reached)?;
        }
    }
    Ok(())
}

fn frontends_of_a_service_share_the_memory() -> Test {
    let table = format!(
        "{NODE}[[service]]\nname = 'a'\nport = 80\naffinity = true\nnode-port = 30080\n\
         load-balancer = ['203.0.113.5', '2001:db8:5::5']\nexternal-ip = ['203.0.113.6']\n{VIPS}{FOUR}"
    );
    let lab = Lab::new(&table, 40)?;
    let v4 = ["172.30.0.41:80", "192.0.2.1:30080", "203.0.113.5:80", "203.0.113.6:80"].map(at);
    let v6 = ["[2001:db8:30::41]:80", "[2001:db8:2::1]:30080", "[2001:db8:5::5]:80"].map(at);
    for frontends in [&v4[..], &v6] {
        let reached = lab.connect(Protocol::Tcp, frontends)?;
        same((reached.len(), split(&reached)), (40, 0))?;
    }
    Ok(())
}

fn two_ports_of_a_service_do_not() -> Test {
    let port = |name: &str, port: u16| {
        format!("[[service]]\nname = 's/a:{name}'\nport = {port}\naffinity = true\n{VIPS}{FOUR}")
    };
    let lab = Lab::new(&format!("{NODE}{}{}", port("http", 80), port("https", 443)), 100)?;
    for vip in ["172.30.0.41", "2001:db8:30::41"].map(ip) {
        let frontends = [80, 443].map(|port| SocketAddr::new(vip, port));
        let both = lab.connect(Protocol::Tcp, &frontends)?;
        // three of four clients draw another endpoint for the other port
        let differ = split(&both);
        check(&format!("{differ} of 100 differ"), (40..100).contains(&differ))?;
        for frontend in frontends {
            same(split(&lab.connect(Protocol::Tcp, &[frontend; 2])?), 0)?;
        }
    }
    Ok(())
}

fn the_timeout_forgets_and_connections_refresh_it() -> Test {
    let table = format!("{NODE}[[service]]\nname = 'a'\nport = 80\naffinity = {}\n{VIPS}{FOUR}", SHORT.as_secs());
    let lab = Lab::new(&table, 40)?;
    let vips = ["172.30.0.41:80", "[2001:db8:30::41]:80"].map(at);
    let all = || -> Result<[Reached; 2], Failed> {
        Ok([lab.connect(Protocol::Tcp, &vips[..1])?, lab.connect(Protocol::Tcp, &vips[1..])?])
    };
    let mut refreshed = 0;
    let mut begun = Instant::now();
    let mut first = all()?;
    for _ in 0..20 {
        std::thread::sleep(SHORT * 6 / 10);
        let before = std::mem::replace(&mut begun, Instant::now());
        let now = all()?;
        if before.elapsed() < SHORT {
            same(&now, &first)?;
            refreshed += 1;
        } else {
            (refreshed, first) = (0, now); // a busy machine: too late to say
        }
        if refreshed == 3 {
            break;
        }
    }
    same(refreshed, 3)?;
    std::thread::sleep(LONGER);
    for (first, second) in first.iter().zip(all()?) {
        let moved = first.iter().filter(|(client, reached)| second.get(client) != Some(reached)).count();
        check(&format!("{moved} of 40 drew another endpoint"), moved > 10)?;
    }
    Ok(())
}

fn a_removed_endpoint_is_not_honoured() -> Test {
    let with =
        |endpoints: &str| format!("{NODE}[[service]]\nname = 'a'\nport = 80\naffinity = true\n{VIPS}{endpoints}");
    let lab = Lab::new(&with(FOUR), 100)?;
    for vip in ["172.30.0.41:80", "[2001:db8:30::41]:80"].map(at) {
        let gone = if vip.is_ipv4() { at("10.82.0.10:8080") } else { at("[2001:db8:82::10]:8080") };
        let before = lab.connect(Protocol::Tcp, &[vip])?;
        let on_it = |reached: &Reached| reached.values().filter(|r| r.contains(&gone)).count();
        let outcome = lab.load(&with(THREE))?;
        same(outcome.forgotten, on_it(&before))?;
        check(&format!("by small steps: {outcome}"), outcome.summary.replaced.is_empty())?;
        let after = lab.connect(Protocol::Tcp, &[vip; 2])?;
        same((split(&after), on_it(&after)), (0, 0))?;
        for (client, reached) in &before {
            if !reached.contains(&gone) {
                same((client, after.get(client)), (client, Some(reached)))?;
            }
        }
        // back again, it is a new endpoint: nobody is held to it, and all stay where they are
        same(lab.load(&with(FOUR))?.forgotten, 0)?;
        same(lab.connect(Protocol::Tcp, &[vip])?, after)?;
    }
    Ok(())
}

fn other_services_come_and_go() -> Test {
    let service =
        |name: &str, port: u16| format!("[[service]]\nname = '{name}'\nport = {port}\naffinity = true\n{VIPS}{FOUR}");
    let lab = Lab::new(&format!("{NODE}{}", service("m", 80)), 60)?;
    let vip = at("172.30.0.41:80");
    let before = lab.connect(Protocol::Tcp, &[vip])?;
    for others in [service("a", 81) + &service("z", 82), service("z", 82), String::new()] {
        let outcome = lab.load(&format!("{NODE}{}{others}", service("m", 80)))?;
        same((outcome.forgotten, outcome.summary.replaced.len()), (0, 0))?;
        same(lab.connect(Protocol::Tcp, &[vip])?, before.clone())?;
    }
    let again = lab.load(&format!("{NODE}{}", service("m", 80)))?;
    same((again.phases.len(), again.bytes, again.forgotten), (0, 0, 0))
}

fn turning_affinity_off_forgets() -> Test {
    let with = |affinity: &str| {
        // another service with affinity keeps the memory in place
        let other = format!("[[service]]\nname = 'b'\nport = 81\naffinity = true\n{VIPS}{FOUR}");
        format!("{NODE}[[service]]\nname = 'a'\nport = 80\n{affinity}{VIPS}{FOUR}{other}")
    };
    let lab = Lab::new(&with("affinity = true\n"), 60)?;
    let vip = at("172.30.0.41:80");
    let other = at("172.30.0.41:81");
    let before = lab.connect(Protocol::Tcp, &[vip])?;
    let others = lab.connect(Protocol::Tcp, &[other])?;
    same(lab.load(&with(""))?.forgotten, 60)?;
    check("connections are drawn freely", split(&lab.connect(Protocol::Tcp, &[vip; 4])?) > 30)?;
    lab.load(&with("affinity = true\n"))?;
    let after = lab.connect(Protocol::Tcp, &[vip])?;
    let moved = before.iter().filter(|(client, reached)| after.get(client) != Some(reached)).count();
    check(&format!("{moved} of 60 moved"), moved > 20)?;
    same(lab.connect(Protocol::Tcp, &[other])?, others)
}

fn the_node_is_a_client_too() -> Test {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let table = format!(
            "{NODE}cluster-cidr = ['10.82.0.0/16']\n[[service]]\nname = 'a'\nprotocol = '{protocol}'\nport = 80\n\
             affinity = {}\nnode-port = 30080\n{VIPS}{FOUR}",
            SHORT.as_secs()
        );
        let lab = Lab::new(&table, 1)?;
        let (v4, v6) = (["172.30.0.41:80", "192.0.2.1:30080"], ["[2001:db8:30::41]:80", "[2001:db8:2::1]:30080"]);
        for frontends in [v4, v6].map(|f| f.map(at)) {
            let mut drawn = BTreeSet::new();
            for _ in 0..20 {
                let probe = |i: usize| Probe { protocol, source: None, destination: frontends[i % 2] };
                let probes: Vec<_> = (0..8).map(probe).collect();
                let begun = Instant::now();
                let answers = lab.topology.node.run(|| lab::probes(&probes, PATIENCE))?;
                let mut reached = BTreeSet::new();
                for answer in answers {
                    reached.insert(endpoint_of(answer).ok_or_else(|| format!("{frontends:?}: {answer:?}"))?);
                }
                if begun.elapsed() < SHORT {
                    same((frontends, reached.len()), (frontends, 1))?;
                }
                drawn.extend(reached);
                if drawn.len() > 1 {
                    break;
                }
                std::thread::sleep(LONGER);
            }
            check("forgotten, it draws again", drawn.len() > 1)?;
        }
    }
    Ok(())
}

fn a_hash_decides_for_new_clients_only() -> Test {
    let with = |endpoints: &str| {
        format!("{NODE}[[service]]\nname = 'a'\nport = 80\naffinity = true\nchoice = 'source-hash'\n{VIPS}{endpoints}")
    };
    let lab = Lab::new(&with(THREE), 100)?;
    for vip in ["172.30.0.41:80", "[2001:db8:30::41]:80"].map(at) {
        lab.load(&with(THREE))?;
        let image = image(&with(THREE))?;
        let before = lab.connect(Protocol::Tcp, &[vip; 2])?;
        for (client, reached) in &before {
            same((client, reached.clone()), (client, BTreeSet::from([hashed(&image, *client, vip)?])))?;
        }
        lab.load(&with(FOUR))?;
        same(lab.connect(Protocol::Tcp, &[vip])?, before)?;
    }
    Ok(())
}

fn weights_are_the_new_clients_shares() -> Test {
    let table = format!(
        "{NODE}[[service]]\nname = 'a'\nport = 80\naffinity = true\ncluster-ip = '172.30.0.41'\n\
         endpoints = [{{ address = '10.82.0.10:80', weight = 9 }}, '10.82.0.11:80']\n"
    );
    let lab = Lab::new(&table, 200)?;
    let reached = lab.connect(Protocol::Tcp, &[at("172.30.0.41:80"); 3])?;
    let few = reached.values().filter(|r| r.contains(&at("10.82.0.11:80"))).count();
    same(split(&reached), 0)?;
    check(&format!("{few} of 200 at the endpoint with a tenth"), (4..50).contains(&few))
}

/// kube-proxy's memory is per endpoint: whoever is remembered at one that lies in both lists is held to it in both.
fn policy_local_keeps_to_local_endpoints() -> Test {
    let table = format!(
        "{NODE}[[service]]\nname = 'a'\nport = 80\naffinity = true\nnode-port = 30080\nload-balancer = '203.0.113.5'\n\
         external-policy = 'local'\ncluster-ip = '172.30.0.41'\n\
         endpoints = ['10.82.0.10:80', '10.82.0.11:80', {{ address = '10.82.0.12:80', local = true }}, \
         {{ address = '10.82.0.13:80', local = true }}]\n"
    );
    let lab = Lab::new(&table, 100)?;
    let (cluster, node_port, balancer) = (at("172.30.0.41:80"), at("192.0.2.1:30080"), at("203.0.113.5:80"));
    let local = |e: &SocketAddr| [at("10.82.0.12:80"), at("10.82.0.13:80")].contains(e);
    let (first, second) = lab.clients(true).split_at(50);
    // the first half comes by the Cluster list first
    let by_cluster = lab.connect_from(first, Protocol::Tcp, &[cluster])?;
    let by_balancer = lab.connect_from(first, Protocol::Tcp, &[balancer, node_port, balancer])?;
    same(split(&by_balancer), 0)?;
    let mut remote = 0;
    for (client, reached) in &by_cluster {
        let then = by_balancer.get(client).ok_or("a client is missing")?;
        check("only local endpoints", then.iter().all(local))?;
        if reached.iter().all(local) {
            same((client, then), (client, reached))?;
        } else {
            remote += 1;
        }
    }
    check(&format!("{remote} of 50 drew a remote endpoint"), (5..45).contains(&remote))?;
    same(lab.connect_from(first, Protocol::Tcp, &[cluster])?, by_cluster)?;
    // the second half the other way round
    let by_balancer = lab.connect_from(second, Protocol::Tcp, &[balancer])?;
    check("only local endpoints", by_balancer.values().flatten().all(local))?;
    same(lab.connect_from(second, Protocol::Tcp, &[cluster, node_port, balancer])?, by_balancer)
}

fn endpoints_may_share_an_address() -> Test {
    let table = format!(
        "{NODE}[[service]]\nname = 'a'\nport = 80\naffinity = true\n{VIPS}endpoints = ['10.82.0.10:80', '10.82.0.10:81', \
         '10.82.0.10:82', '[2001:db8:82::10]:80', '[2001:db8:82::10]:81', '[2001:db8:82::10]:82']\n"
    );
    let lab = Lab::new(&table, 60)?;
    for vip in ["172.30.0.41:80", "[2001:db8:30::41]:80"].map(at) {
        let reached = lab.connect(Protocol::Tcp, &[vip; 4])?;
        let distinct: BTreeSet<_> = reached.values().flatten().collect();
        same((split(&reached), distinct.len()), (0, 3))?;
    }
    Ok(())
}

fn source_hash_is_the_kernels() -> Test {
    let endpoints = |v6: bool| -> String {
        let one = |i: u32| {
            let address = if v6 { format!("[2001:db8:82::{i:x}]") } else { format!("10.82.0.{i}") };
            format!("{{ address = '{address}:8080', weight = {} }}, ", i % 3 + 1)
        };
        (1..=7).map(one).collect()
    };
    let table = format!(
        "{NODE}[[service]]\nname = 'a'\nprotocol = 'udp'\nport = 80\nnode-port = 30080\nchoice = 'source-hash'\n{VIPS}endpoints = [{}{}]\n",
        endpoints(false),
        endpoints(true)
    );
    let image = image(&table)?;
    // 1,000 at once are more neighbours than a kernel keeps (gc_thresh3 is 1024 for all namespaces together)
    for part in 0..5 {
        let lab = Lab::with_clients(&table, part * 200 + 1..=part * 200 + 200)?;
        for vip in ["172.30.0.41:80", "192.0.2.1:30080", "[2001:db8:30::41]:80", "[2001:db8:2::1]:30080"].map(at) {
            let reached = lab.connect(Protocol::Udp, &[vip])?;
            same(reached.len(), 200)?;
            for (client, reached) in &reached {
                same((client, reached.clone()), (client, BTreeSet::from([hashed(&image, *client, vip)?])))?;
            }
            same(reached.values().flatten().collect::<BTreeSet<_>>().len(), 7)?;
        }
    }
    Ok(())
}

fn nft_lists_and_reloads_it() -> Result<Test, Skip> {
    lab::need("nft")?;
    Ok((|| {
        let table = format!(
            "{NODE}cluster-cidr = ['10.82.0.0/16', '2001:db8:82::/48']\n\
             [[service]]\nname = 'a'\nport = 80\naffinity = true\nnode-port = 30080\nload-balancer = ['203.0.113.5', '2001:db8:5::5']\n\
             external-policy = 'local'\n{VIPS}endpoints = ['10.82.0.10:80', {{ address = '10.82.0.11:80', local = true }}, \
             {{ address = '10.82.0.12:80', local = true }}, '[2001:db8:82::10]:80', {{ address = '[2001:db8:82::11]:80', local = true }}, \
             {{ address = '[2001:db8:82::12]:80', local = true }}]\n\
             [[service]]\nname = 'b'\nprotocol = 'udp'\nport = 53\naffinity = 90\nchoice = 'source-hash'\n{VIPS}{FOUR}\
             [[service]]\nname = 'c'\nprotocol = 'sctp'\nport = 99\naffinity = 90\n{VIPS}{FOUR}"
        );
        let lab = Lab::new(&table, 50)?;
        let frontends = [
            ["172.30.0.41:80", "203.0.113.5:80", "192.0.2.1:30080"].map(at),
            ["[2001:db8:30::41]:80", "[2001:db8:5::5]:80", "[2001:db8:2::1]:30080"].map(at),
        ];
        let mut before = Vec::new();
        for frontend in frontends.as_flattened() {
            before.push(lab.connect(Protocol::Tcp, &[*frontend])?);
        }
        let node = &lab.topology.node;
        let listing = nft(node, &["list", "ruleset"], None)?;
        for expected in [
            "update @affinity { meta priority . ip saddr timeout 3h : ip daddr }",
            "update @affinity { meta priority . jhash ip6 saddr mod 4294967295 seed 0x6e61746c timeout 1m30s : ip6 daddr }",
            "ip daddr set meta priority . numgen random mod 3 map @affinity-draws goto remember-10800",
            "ip6 daddr set meta priority . jhash ip6 saddr mod 4 seed 0x6e61746c map @affinity-draws goto remember-90",
            "198.51.100.1 timeout 3h expires",
            "flags dynamic,timeout",
        ] {
            check(&format!("{expected:?} is not in\n{listing}"), listing.contains(expected))?;
        }
        let json = nft(node, &["-j", "list", "ruleset"], None)?;
        check("the memory is in the JSON", json.contains("\"affinity-siblings\""))?;
        nft(node, &["flush", "ruleset"], None)?;
        nft(node, &["-f", "-"], Some(&listing))?;
        same(expires_aside(&nft(node, &["list", "ruleset"], None)?), expires_aside(&listing))?;
        let stay = |when: &str| -> Test {
            for (frontend, before) in frontends.as_flattened().iter().zip(&before) {
                same((when, frontend, &lab.connect(Protocol::Tcp, &[*frontend])?), (when, frontend, before))?;
            }
            Ok(())
        };
        stay("by the rules that nft made of the listing")?;
        let outcome = lab.load(&table)?;
        let s = &outcome.summary;
        same((s.replaced.len(), s.added, s.removed, outcome.forgotten), (0, 0, 0, 0))?;
        stay("after natlet has loaded again")?;
        same(expires_aside(&nft(node, &["list", "ruleset"], None)?), expires_aside(&listing))?;
        // and clients that nft's rules have to remember
        nft(node, &["flush", "ruleset"], None)?;
        nft(node, &["-f", "-"], Some(&listing))?;
        for map in [["ip", "natlet"], ["ip6", "natlet"]] {
            nft(node, &["flush", "map", map[0], map[1], "affinity"], None)?;
        }
        let all_stay = |whose: &str| -> Test {
            for frontend in frontends.as_flattened() {
                let split = split(&lab.connect(Protocol::Tcp, &[*frontend; 4])?);
                same((whose, frontend, split), (whose, frontend, 0))?;
            }
            Ok(())
        };
        all_stay("nft's")?;
        let exported = natlet::nft::script::write(&natlet::lower::lower(&image(&table)?.program(), "test"))?;
        nft(node, &["-f", "-"], Some(&exported))?;
        all_stay("the exported text's")
    })())
}

/// An element that no load could know of leads a client's packet nowhere once: the next try draws.
fn what_is_out_of_date_heals() -> Result<Test, Skip> {
    lab::need("nft")?;
    Ok((|| {
        let with = |e: &str| format!("{NODE}[[service]]\nname = 'a'\nport = 80\naffinity = true\n{VIPS}{e}");
        let lab = Lab::new(&with(FOUR), 1)?;
        let vip = at("172.30.0.41:80");
        lab.connect(Protocol::Tcp, &[vip])?;
        let node = &lab.topology.node;
        let listing = nft(node, &["list", "map", "ip", "natlet", "affinity"], None)?;
        let key = listing
            .lines()
            .find_map(|l| Some(l.split_once("elements = {")?.1.split_once("timeout")?.0.trim().to_owned()))
            .ok_or(listing)?;
        let plant = format!(
            "delete element ip natlet affinity {{ {key} }}\n\
             add element ip natlet affinity {{ {key} timeout 1h : 10.82.0.99 }}\n"
        );
        nft(node, &["-f", "-"], Some(&plant))?;
        // the first SYN is dropped, the second comes after a second
        let reached = lab.connect(Protocol::Tcp, &[vip])?;
        same(lab.connect(Protocol::Tcp, &[vip; 4])?, reached)?;
        let rules = nft(node, &["list", "chain", "ip", "natlet", "remember-10800"], None)?;
        check(&rules, rules.contains("counter packets 1 "))?;
        // a load that removes something finds it as well
        nft(node, &["-f", "-"], Some(&plant))?;
        same(lab.load(&with(THREE))?.forgotten, 1)
    })())
}

fn rules_do_not_grow_with_services() -> Test {
    let table = |services: u32| {
        let mut text = NODE.to_owned();
        for i in 0..services {
            let _ = write!(
                text,
                "[[service]]\nname = 's{i}'\nport = 80\naffinity = true\nnode-port = {}\n\
                 cluster-ip = ['172.30.{}.{}', '2001:db8:30::{i:x}']\n{FOUR}",
                30_000 + i,
                i / 250,
                i % 250 + 1
            );
        }
        text
    };
    let lab = Lab::new(&table(1), 1)?;
    let count = || -> Result<Vec<[usize; 3]>, Failed> {
        let status = lab.topology.node.run(|| kernel::status(&mut Netlink::open()?))?.ok_or("nothing is loaded")?;
        Ok(status.tables.iter().map(|t| [t.chains, t.rules, t.sets]).collect())
    };
    let one = count()?;
    let outcome = lab.load(&table(1000))?;
    check(&format!("by small steps: {outcome}"), outcome.summary.replaced.is_empty())?;
    eprintln!("chains, rules, sets of the ip and the ip6 table: {one:?}");
    same(count()?, one)
}

/// What a new flow through the output hook costs, with and without affinity: the same client, each time from another port.
/// The least of many short runs, as this machine is not alone.
fn bench_new_flows() -> Test {
    const FLOWS: u32 = 300;
    let with =
        |affinity: &str| format!("{NODE}[[service]]\nname = 'a'\nprotocol = 'udp'\nport = 80\n{affinity}{VIPS}{FOUR}");
    let mut lab = Lab::new(&with(""), 1)?;
    lab.servers.clear();
    let vips = ["172.30.0.41:80", "[2001:db8:30::41]:80", "10.82.0.10:8080"].map(at);
    let mut least: BTreeMap<(SocketAddr, bool), Duration> = BTreeMap::new();
    for round in 0..80 {
        let affinity = round % 2 == 1;
        lab.load(&with(if affinity { "affinity = true\n" } else { "" }))?;
        for vip in vips {
            let took = lab.topology.node.run(|| -> std::io::Result<Duration> {
                let any: IpAddr =
                    if vip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let bind = |_| std::net::UdpSocket::bind(SocketAddr::new(any, 0));
                let sockets = (0..FLOWS).map(bind).collect::<Result<Vec<_>, _>>()?;
                let start = Instant::now();
                for socket in &sockets {
                    socket.send_to(b"x", vip)?;
                }
                Ok(start.elapsed())
            })?;
            let least = least.entry((vip, affinity)).or_insert(took);
            *least = took.min(*least);
        }
    }
    for ((vip, affinity), took) in least {
        let name = if affinity { "with" } else { "without" };
        eprintln!("{vip} {name} affinity: {:.2} us a flow", took.as_secs_f64() * 1e6 / f64::from(FLOWS));
    }
    Ok(())
}

/// A topology with servers at all endpoints of a table, its program loaded on the node.
struct Lab {
    topology: Topology,
    clients: [Vec<IpAddr>; 2],
    servers: Vec<Servers>,
}

impl Lab {
    /// `clients` clients of each family.
    fn new(table: &str, clients: u16) -> Result<Self, Failed> {
        Self::with_clients(table, 1..=clients)
    }

    /// The clients of each family with these numbers.
    fn with_clients(table: &str, clients: RangeInclusive<u16>) -> Result<Self, Failed> {
        let image = image(table)?;
        let program = image.program();
        let v4 = |i: u16| IpAddr::from([198, 51, 100 + (i >> 8).to_be_bytes()[1], i.to_be_bytes()[1]]);
        let v6 = |i: u16| IpAddr::from([0x2001, 0xdb8, 0x7, i, 0, 0, 0, i.wrapping_mul(40_503)]);
        let clients = [clients.clone().map(v4).collect::<Vec<_>>(), clients.map(v6).collect()];
        let endpoints: BTreeSet<SocketAddr> =
            program.records().flat_map(|r| r.endpoints().iter().map(|e| e.address)).collect();
        let plan = Plan {
            node: program.context().addresses().filter(|a| !a.is_loopback()).collect(),
            clients: clients.concat(),
            endpoints: endpoints.iter().map(SocketAddr::ip).collect(),
            ..Plan::default()
        };
        let topology = Topology::build(&plan)?;
        let listeners: Vec<_> = endpoints.iter().flat_map(|e| [Listener::tcp(*e), Listener::udp(*e)]).collect();
        let servers = topology.serve(&listeners)?;
        let lab = Self { topology, clients, servers };
        lab.load(table)?;
        Ok(lab)
    }

    fn load(&self, table: &str) -> Result<Outcome, Failed> {
        let image = image(table)?;
        Ok(self.topology.node.run(|| kernel::load(&mut Netlink::open()?, &image.program()))?)
    }

    fn clients(&self, v4: bool) -> &[IpAddr] {
        &self.clients[usize::from(!v4)]
    }

    /// Connects every client to these frontends, one after the other.
    fn connect(&self, protocol: Protocol, frontends: &[SocketAddr]) -> Result<Reached, Failed> {
        let v4 = frontends.iter().all(SocketAddr::is_ipv4);
        self.connect_from(self.clients(v4), protocol, frontends)
    }

    fn connect_from(
        &self,
        clients: &[IpAddr],
        protocol: Protocol,
        frontends: &[SocketAddr],
    ) -> Result<Reached, Failed> {
        let mut reached = Reached::new();
        for destination in frontends {
            let probe = |client: &IpAddr| Probe {
                protocol,
                source: Some(SocketAddr::new(*client, 0)),
                destination: *destination,
            };
            let probes: Vec<Probe> = clients.iter().map(probe).collect();
            let results = self.topology.client.run(|| lab::probes(&probes, PATIENCE))?;
            for (client, result) in clients.iter().zip(results) {
                let endpoint =
                    endpoint_of(result).ok_or_else(|| format!("{client} to {destination}/{protocol}: {result:?}"))?;
                reached.entry(*client).or_default().insert(endpoint);
            }
        }
        Ok(reached)
    }
}

fn endpoint_of(result: ProbeResult) -> Option<SocketAddr> {
    match result {
        ProbeResult::Answered { endpoint, .. } => Some(endpoint),
        _ => None,
    }
}

/// How many clients reached more than one endpoint.
fn split(reached: &Reached) -> usize {
    reached.values().filter(|r| r.len() > 1).count()
}

fn image(table: &str) -> Result<Image, Failed> {
    let input = Input { name: "services.toml".into(), bytes: table.into(), found: false };
    match load_inputs(vec![input], &NodeFlags::default()) {
        Ok(Loaded::Table { table, .. }) => Image::compile(&table.as_table()).map_err(|e| format!("{e:?}").into()),
        Ok(Loaded::Program { .. }) => Err("TOML is no program".into()),
        Err(problems) => Err(problems.render(false).into()),
    }
}

/// The endpoint that core gives this client.
fn hashed(image: &Image, client: IpAddr, frontend: SocketAddr) -> Result<SocketAddr, Failed> {
    let program = image.program();
    let protocol = program.frontends().map(|f| f.protocol).next().ok_or("no frontend")?;
    let packet = program.packet(client, frontend.ip(), protocol, frontend.port());
    Ok(program.decide(&packet).hashed().ok_or("not by hash")?.address)
}

/// A listing in which elements have no rest of life and no order.
fn expires_aside(listing: &str) -> BTreeSet<String> {
    let line = |line: &str| {
        let words = line.split_whitespace().collect::<Vec<_>>();
        let mut words = words.split(|w| *w == "expires");
        let head = words.next().unwrap_or_default().join(" ");
        let tail = words.next().unwrap_or_default().get(1..).unwrap_or_default().join(" ");
        format!("{head} {tail}").replace("elements = {", "").trim_matches([',', '}', ' ']).to_owned()
    };
    listing.lines().map(line).filter(|line| !line.contains("packets ")).collect()
}

fn nft(node: &Namespace, arguments: &[&str], input: Option<&str>) -> Result<String, Failed> {
    node.run(|| {
        let mut child = Command::new("nft")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().ok_or("no stdin")?.write_all(input.unwrap_or_default().as_bytes())?;
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        Err(format!("nft {arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
    })
}

fn check(what: &str, holds: bool) -> Test {
    if holds { Ok(()) } else { Err(what.into()) }
}

#[expect(clippy::needless_pass_by_value, reason = "the callers' values are made for the comparison")]
fn same<T: PartialEq + std::fmt::Debug>(is: T, expected: T) -> Test {
    if is == expected { Ok(()) } else { Err(format!("is       {is:?}\nexpected {expected:?}").into()) }
}
