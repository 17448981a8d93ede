//! The command as a user runs it, where no kernel is needed: exports, flows, exit statuses.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const WORKSHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workshop");
const EDGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/services.toml");
const FLOWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flows.toml");

fn natlet(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_natlet"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    child.wait_with_output().expect("the command ends")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("the command was not killed")
}

/// Standard output of a command that succeeds.
fn out(arguments: &[&str], input: &str) -> String {
    let output = natlet(arguments, input);
    assert_eq!(status(&output), 0, "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file of this text, in cargo's own temporary directory.
fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the directory is writable");
    path.display().to_string()
}

fn content_id(path: &str, input: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(&out(&["show", "-o", "json", path], input)).expect("JSON");
    json["content_id"].as_str().expect("an id").to_owned()
}

#[test]
fn exports_read_back_to_the_same_content_id() {
    for format in ["toml", "manifest"] {
        for input in [WORKSHOP, EDGE] {
            if (format, input) == ("manifest", EDGE) {
                continue; // its services have no ClusterIP
            }
            let text = out(&["export", "--format", format, input], "");
            assert_eq!(content_id("-", &text), content_id(input, ""), "{format} of {input}:\n{text}");
        }
    }
}

#[test]
fn yaml_says_what_json_says_line_by_line() {
    for command in [&["show", WORKSHOP][..], &["trace", "--from", "203.0.113.9", "--to", "192.168.5.65:443", WORKSHOP]]
    {
        let json: serde_json::Value =
            serde_json::from_str(&out(&[command, &["-o", "json"]].concat(), "")).expect("JSON");
        let yaml = out(&[command, &["-o", "yaml"]].concat(), "");
        let keys: Vec<&str> =
            yaml.lines().filter(|l| !l.starts_with([' ', '-'])).map(|l| l.split(':').next().unwrap()).collect();
        assert_eq!(keys, json.as_object().expect("an object").keys().collect::<Vec<_>>(), "{yaml}");
        assert!(!yaml.contains("{\n"), "{yaml}");
    }
}

#[test]
fn what_a_form_cannot_say_is_bad_input_and_names_the_service() {
    let output = natlet(&["export", "--format", "manifest", EDGE], "");
    assert_eq!(status(&output), 2);
    assert!(output.stdout.is_empty(), "nothing is printed");
    assert!(err(&output).contains("service edge/mqtt: it has no ClusterIP"), "{}", err(&output));
}

#[test]
fn nft_text_replaces_the_table_whole_and_is_the_same_each_time() {
    let text = out(&["export", "--format", "nft", WORKSHOP], "");
    assert!(text.contains("\ntable ip natlet\ndelete table ip natlet\ntable ip natlet {\n"), "{text}");
    assert_eq!(text, out(&["export", "--format", "nft", WORKSHOP], ""));
    assert!(text.contains("since 0\""), "{text}");
}

#[test]
fn dot_names_services_and_endpoints() {
    let text = out(&["export", "--format", "dot", EDGE], "");
    for expected in ["digraph natlet {", "<b>web:https</b>", "10.0.0.11:8443", "weight 2 (67 %)", "www.example.com"] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn the_nodes_settings_travel_as_annotations_and_flags_win() {
    let node = ["--node-name", "gw", "--node-ip", "192.0.2.1", "--cluster-cidr", "10.0.0.0/8", "--masquerade-all"];
    let text = out(&[&["export", "--format", "manifest", WORKSHOP][..], &node].concat(), "");
    let show = |flags: &[&str]| -> serde_json::Value {
        let text = out(&[&["show", "-o", "json", "-"][..], flags].concat(), &text);
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["node"].clone()
    };
    let node = show(&[]);
    assert_eq!(node["name"], "gw");
    assert_eq!(node["addresses"], serde_json::json!(["192.0.2.1"]));
    assert_eq!(node["cluster_cidrs"], serde_json::json!(["10.0.0.0/8"]));
    assert_eq!(node["masquerade_all"], true);
    let node = show(&["--cluster-cidr", "10.9.0.0/16"]);
    assert_eq!(node["cluster_cidrs"], serde_json::json!(["10.9.0.0/16"]));
}

#[test]
fn flows_that_hold_end_with_0() {
    let text = out(&["trace", "--flows", FLOWS, EDGE], "");
    assert_eq!(text.lines().filter(|l| l.starts_with("ok  ")).count(), 5, "{text}");
    assert!(text.ends_with("5 of 5 flows as expected\n"), "{text}");
}

#[test]
fn flows_that_differ_end_with_1_and_say_in_what() {
    let flows = file(
        "differ.toml",
        "[[flow]]\nname = 'one'\nfrom = '203.0.113.9:4000'\nto = '192.0.2.10:443'\n\
         expect = { verdict = 'dnat', service = 'edge/mail', frontend = 'cluster-ip', endpoints = ['10.0.0.10:8443'], masquerade = false }\n\
         [[flow]]\nfrom = '203.0.113.9'\nto = '192.0.2.10:444'\nexpect = 'reject'\n\
         [[flow]]\nfrom = '203.0.113.9'\nto = '192.0.2.10:443'\nexpect = { verdict = 'dnat', masquerade = ['10.0.0.10:8443'] }\n",
    );
    let output = natlet(&["trace", "--flows", &flows, EDGE], "");
    assert_eq!(status(&output), 1);
    assert_eq!(err(&output), "error: 3 of 3 flows differ\n");
    let text = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "service edge/web:https (expected edge/mail)",
        "frontend load-balancer (expected cluster-ip)",
        "endpoints 10.0.0.10:8443, 10.0.0.11:8443 (expected 10.0.0.10:8443)",
        "masqueraded 10.0.0.10:8443, 10.0.0.11:8443 (expected none)",
        "verdict accept (expected reject)",
        "differ.toml:6:1",
        "masqueraded 10.0.0.10:8443, 10.0.0.11:8443 (expected 10.0.0.10:8443)",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let json = natlet(&["trace", "-o", "json", "--flows", &flows, EDGE], "");
    assert_eq!(status(&json), 1);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["ok"], false);
    let difference = &json["flows"][1]["differences"][0];
    assert_eq!(difference, &serde_json::json!({ "aspect": "verdict", "expected": "reject", "is": "accept" }));
}

#[test]
fn flows_that_cannot_be_read_end_with_2_and_a_place() {
    let cases = [
        ("[[flow]]\nfrom = '203.0.113.9'\nexpect = 'drop'\n", "a flow has no to", ":1:1"),
        ("[[flow]]\nfrom = '203.0.113.9'\nto = '192.0.2.10:443'\nexpect = 'dropp'\n", "unknown verdict", ":4:10"),
        ("[[flow]]\nfrom = '203.0.113.9'\nto = '192.0.2.10'\nexpect = 'drop'\n", "not an address with a port", ":3:6"),
        ("[[flow]]\nfrom = '2001:db8::1'\nto = '192.0.2.10:443'\nexpect = 'drop'\n", "different families", ":3:6"),
        ("[[flow]]\nform = '203.0.113.9'\n", "did you mean from", ":2:1"),
        (
            "[[flow]]\nfrom = '203.0.113.9'\nto = '192.0.2.10:443'\nexpect = { verdict = 'drop', masquerade = true }\n",
            "drop goes with no masquerade",
            ":4:43",
        ),
        ("[node]\nname = 'x'\n", "the file has no key", ":1:2"),
    ];
    for (number, (text, message, place)) in cases.into_iter().enumerate() {
        let path = file(&format!("bad-{number}.toml"), text);
        let output = natlet(&["trace", "--flows", &path, EDGE], "");
        assert_eq!(status(&output), 2, "{text}");
        let said = err(&output);
        assert!(said.contains(message) && said.contains(&format!("bad-{number}.toml{place}")), "{text}\n{said}");
    }
    let output = natlet(&["trace", "--flows", "-", EDGE], "# nothing\n");
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("<stdin> has no flow"), "{}", err(&output));
}

#[test]
fn trace_needs_a_packet_or_flows() {
    assert_eq!(status(&natlet(&["trace", EDGE], "")), 2);
    assert_eq!(status(&natlet(&["trace", "--flows", FLOWS, "--from", "192.0.2.7", EDGE], "")), 2);
    assert_eq!(status(&natlet(&["trace", "--from", "192.0.2.7", "--to", "192.0.2.10:443", EDGE], "")), 0);
}

#[test]
fn diff_of_bad_input_ends_with_2() {
    assert_eq!(status(&natlet(&["diff", "/nonexistent"], "")), 2);
}

#[test]
fn a_destination_without_port_is_told_what_to_give() {
    for to in ["192.0.2.1", "192.0.2.1:http", "2001:db8::1:80", "192.0.2.1:65536"] {
        let output = natlet(&["trace", "--from", "203.0.113.9", "--to", to, EDGE], "");
        assert_eq!(status(&output), 2, "{to}");
        assert!(err(&output).contains("give an address and a port such as 192.0.2.7:443"), "{}", err(&output));
    }
}

#[test]
fn a_damaged_program_is_told_with_a_way_out() {
    let path = file("damaged.natp", "");
    let output = natlet(&["compile", WORKSHOP, "-o", &path], "");
    assert_eq!(status(&output), 0, "{}", err(&output));
    let whole = std::fs::read(&path).expect("it was written");
    let damaged = [whole[..whole.len() / 2].to_vec(), [&whole[..], b"x"].concat(), [b"NATP\xff", &whole[5..]].concat()];
    for bytes in damaged {
        std::fs::write(&path, bytes).expect("the directory is writable");
        let output = natlet(&["show", &path], "");
        assert_eq!(status(&output), 2);
        let text = err(&output);
        assert!(text.starts_with("error: ") && text.contains(&path), "{text}");
        assert!(text.contains("= help: compile it again with natlet compile"), "{text}");
    }
}

#[test]
fn a_service_that_is_too_large_is_named_once() {
    let endpoints: Vec<String> =
        (0..65_536_u32).map(|i| format!("\"{}:80\"", std::net::Ipv4Addr::from(0x0a00_0000 + i))).collect();
    let table = format!(
        "[[service]]\nname = \"shop/web\"\nport = 80\ncluster-ip = \"10.96.0.1\"\nendpoints = [{}]\n",
        endpoints.join(", ")
    );
    let output = natlet(&["show", "-"], &table);
    assert_eq!(status(&output), 2);
    assert!(err(&output).starts_with("error: service shop/web: more than 65535 endpoints"), "{}", err(&output));
}

#[test]
fn every_help_has_an_example() {
    let help = out(&["--help"], "");
    let commands: Vec<&str> = help
        .lines()
        .filter_map(|l| l.strip_prefix("  ")?.split_whitespace().next())
        .filter(|w| *w != "natlet")
        .collect();
    assert!(help.contains("Examples:\n  natlet "), "{help}");
    let known = ["try", "compile", "show", "trace", "load", "unload", "status", "diff", "run", "gateway", "export"];
    for command in known {
        assert!(commands.contains(&command), "{help}");
        let help = out(&[command, "--help"], "");
        assert!(help.contains("Example"), "{help}");
    }
}

/// kube-proxy's KUBE-SERVICES chain of the filter table is for ClusterIPs, of which every other port is refused.
#[test]
fn an_external_address_without_endpoints_stays_one_through_a_listing() {
    let table =
        "[[service]]\nname = \"shop/web\"\nport = 80\ncluster-ip = \"10.96.0.1\"\nexternal-ip = \"192.0.2.11\"\n";
    let listing = out(&["export", "--format", "iptables-save", "-"], table);
    let refusals: Vec<&str> = listing.lines().filter(|l| l.contains("-j REJECT")).collect();
    let chain = |address: &str| refusals.iter().find(|l| l.contains(address)).and_then(|l| l.split(' ').nth(1));
    assert_eq!(chain("10.96.0.1/32"), Some("KUBE-SERVICES"), "{listing}");
    assert_eq!(chain("192.0.2.11/32"), Some("KUBE-EXTERNAL-SERVICES"), "{listing}");
    for (to, verdict, frontend) in [
        ("192.0.2.11:80", "reject", Some("external-ip")),
        ("192.0.2.11:22", "accept", None),
        ("10.96.0.1:80", "reject", Some("cluster-ip")),
        ("10.96.0.1:22", "reject", None),
    ] {
        for input in [table, &listing] {
            let answer = out(&["trace", "--from", "203.0.113.9", "--to", to, "-o", "json", "-"], input);
            let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!((answer["verdict"].as_str(), answer["frontend"].as_str()), (Some(verdict), frontend), "{to}");
        }
    }
}

#[test]
fn local_endpoints_that_hints_pass_over_stay_through_a_listing() {
    let table = r#"
[[service]]
name = "shop/web"
port = 80
cluster-ip = "10.96.0.1"
node-port = 30080
external-policy = "local"
endpoints = [
  { address = "10.0.0.1:80", local = true },
  { address = "10.0.0.2:80", local = true, hinted = false },
  { address = "10.0.0.3:80", hinted = false },
]
"#;
    let listing = out(&["export", "--format", "iptables-save", "-"], table);
    for (to, endpoints) in [("10.96.0.1:80", "10.0.0.1:80"), ("192.0.2.1:30080", "10.0.0.1:80 10.0.0.2:80")] {
        for input in [table, &listing] {
            let answer = out(&["trace", "--from", "203.0.113.9", "--to", to, "-o", "json", "-"], input);
            let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
            let drawn: Vec<&str> =
                answer["endpoints"].as_array().unwrap().iter().map(|e| e["endpoint"].as_str().unwrap()).collect();
            assert_eq!(drawn.join(" "), endpoints, "{to}:\n{listing}");
        }
    }
}
