//! Compiles `services.toml` to the program that the image carries, and `board.toml` to its settings.
#![allow(missing_docs, clippy::expect_used, clippy::panic, reason = "a build script ends with a message")]

use natlet::image::Image;
use natlet::source::{Loaded, NodeFlags, ServiceBuf, TableBuf, load};
use natlet_core::{Endpoint, Frontend, FrontendKind};
use serde::Deserialize;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for file in ["services.toml", "board.toml", "memory.x", "device.x"] {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rustc-link-search={}", env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));

    // The static table: three lines.
    let loaded = load(&["services.toml".into()], &NodeFlags::default()).unwrap_or_else(|e| panic!("{e}"));
    let Loaded::Table { table, .. } = loaded else { panic!("services.toml is a table") };
    let image = Image::compile(&table.as_table()).unwrap_or_else(|e| panic!("services.toml: {e}"));
    fs::write(out.join("services.natp"), image.as_bytes()).expect("OUT_DIR is writable");

    fs::write(out.join("thousand.natp"), thousand().as_bytes()).expect("OUT_DIR is writable");

    let board = Board::read();
    for address in &table.node.addresses {
        assert!(board.has(*address), "services.toml: the node's {address} is no address of board.toml");
    }
    fs::write(out.join("board.rs"), board.to_rust()).expect("OUT_DIR is writable");
}

/// 1,000 services of four endpoints, for counting instructions.
fn thousand() -> Image {
    let mut table = TableBuf::default();
    for i in 0..1000_u32 {
        let [_, _, high, low] = i.to_be_bytes();
        table.push(&ServiceBuf {
            name: format!("bench/{i}"),
            frontends: vec![Frontend { kind: FrontendKind::ClusterIp, address: [10, 96, high, low].into(), port: 80 }],
            endpoints: (10..14).map(|n| Endpoint::new([10, n, high, low].into(), 8080)).collect(),
            ..ServiceBuf::default()
        });
    }
    Image::compile(&table.as_table()).expect("the table is sound")
}

/// `board.toml`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Board {
    name: String,
    control_port: u16,
    update_key: String,
    addresses: Vec<String>,
    #[serde(default)]
    route: Vec<Route>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    to: String,
    via: IpAddr,
}

impl Board {
    fn read() -> Self {
        println!("cargo:rerun-if-env-changed=NATLET_UPDATE_KEY");
        let text = fs::read_to_string("board.toml").expect("board.toml is there");
        let mut board: Self = toml::from_str(&text).unwrap_or_else(|e| panic!("board.toml: {e}"));
        board.update_key = env::var("NATLET_UPDATE_KEY").unwrap_or(board.update_key);
        board
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|a| prefix(a).0 == address)
    }

    /// The settings as the constant `CONFIG`.
    fn to_rust(&self) -> String {
        let mut text = String::from("const CONFIG: Config<'static> = Config {\n");
        let mut line = |line: String| writeln!(text, "    {line}").expect("a String takes all");
        line(format!("name: {:?},\n    control_port: {},", self.name, self.control_port));
        line(format!("update_key: {:?},\n    interfaces: &[", key(&self.update_key)));
        for address in &self.addresses {
            let (address, length) = prefix(address);
            line(format!("    Interface {{ address: {}, subnet: {} }},", rust(address), subnet(address, length)));
        }
        line("],\n    routes: &[".into());
        for route in &self.route {
            let (to, length) = prefix(&route.to);
            line(format!("    Route {{ to: {}, via: {} }},", subnet(to, length), rust(route.via)));
        }
        line("],\n};".into());
        text
    }
}

fn prefix(text: &str) -> (IpAddr, u8) {
    let parsed = text.split_once('/').and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("board.toml: {text} is no ADDRESS/LENGTH"))
}

fn rust(address: IpAddr) -> String {
    match address {
        IpAddr::V4(a) => format!("IpAddr::V4(Ipv4Addr::from_bits({:#x}))", a.to_bits()),
        IpAddr::V6(a) => format!("IpAddr::V6(Ipv6Addr::from_bits({:#x}))", a.to_bits()),
    }
}

fn subnet(address: IpAddr, length: u8) -> String {
    let subnet = natlet_core::Cidr::new(address, length).unwrap_or_else(|| panic!("board.toml: {address}/{length}"));
    format!("Cidr {{ address: {}, prefix: {length} }}", rust(subnet.address))
}

fn key(text: &str) -> [u8; 32] {
    let digits = |i: usize| text.get(2 * i..2 * i + 2).and_then(|d| u8::from_str_radix(d, 16).ok());
    let key: Option<Vec<u8>> = (0..32).map(digits).collect();
    let key = key.filter(|_| text.len() == 64).and_then(|k| k.try_into().ok());
    key.unwrap_or_else(|| panic!("the update key is 64 hexadecimal digits"))
}
