//! One rule of kube-proxy, taken apart.

use super::super::address;
use super::parse::Line;
use natlet_core::table::{Cidr, Protocol};
use std::net::IpAddr;

/// What kube-proxy's rules match and do. A match that no rule of kube-proxy has makes the rule unreadable.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule<'a> {
    pub source: Option<Cidr>,
    /// `! -s CIDR`.
    pub not_source: Option<Cidr>,
    pub destination: Option<IpAddr>,
    pub protocol: Option<Protocol>,
    pub port: Option<u16>,
    pub comment: Option<&'a str>,
    /// The chain or target after `-j`.
    pub target: Option<&'a str>,
    pub probability: Option<f64>,
    /// `-m recent --rcheck --seconds N`.
    pub affinity: Option<u32>,
    /// `--src-type LOCAL`.
    pub from_node: bool,
    /// `--dst-type LOCAL`.
    pub to_node: bool,
    /// Destination of a DNAT.
    pub to: Option<(IpAddr, u16)>,
    pub v6: Option<bool>,
}

impl<'a> Rule<'a> {
    /// Takes a line apart, or says which of its words is not understood.
    pub fn read(line: &'a Line) -> Result<Self, String> {
        let mut rule = Self::default();
        let mut words = line.words.iter().map(String::as_str);
        let mut negated = false;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} lacks its value"));
            match word {
                "!" => {
                    negated = true;
                    continue;
                }
                "-s" | "--source" => {
                    let cidr = cidr(value()?)?;
                    *(if negated { &mut rule.not_source } else { &mut rule.source }) = Some(cidr);
                    negated = false;
                }
                "-d" | "--destination" => {
                    let cidr = cidr(value()?)?;
                    // kube-proxy's own rules for 127.0.0.0/8 name a network; they are in chains that are not read
                    rule.destination = Some(cidr.address);
                }
                "-p" | "--protocol" => rule.protocol = Some(protocol(value()?)?),
                "--dport" => rule.port = Some(port(value()?)?),
                "--comment" => rule.comment = Some(value()?),
                "-j" | "-g" => rule.target = Some(value()?),
                "--probability" => {
                    let text = value()?;
                    let number = text.parse::<f64>().ok().filter(|p| (0.0..=1.0).contains(p));
                    rule.probability = Some(number.ok_or_else(|| format!("{text} is no probability"))?);
                }
                "--seconds" => {
                    let text = value()?;
                    rule.affinity = Some(text.parse().map_err(|_| format!("{text} is no number of seconds"))?);
                }
                "--src-type" | "--dst-type" => {
                    let kind = value()?;
                    if kind != "LOCAL" {
                        return Err(format!("{word} {kind}"));
                    }
                    // `! --src-type LOCAL` is the old external-IP rule, for everything that is not the node itself
                    *(if word == "--src-type" { &mut rule.from_node } else { &mut rule.to_node }) = !negated;
                    negated = false;
                }
                "--to-destination" => {
                    let text = value()?;
                    rule.to =
                        Some(address::parse_socket(text).map_err(|_| format!("{text} is no address with a port"))?);
                }
                "--reject-with" => rule.v6 = Some(value()?.starts_with("icmp6")),
                "-m" | "--name" | "--nfacct-name" | "--mask" | "--mode" | "--set-xmark" | "--set-mark" => {
                    value()?;
                }
                "--physdev-is-in" => negated = false,
                "--rcheck" | "--reap" | "--set" | "--rsource" | "--random" | "--random-fully" | "--persistent" => {}
                other => {
                    return Err(format!(
                        "{} is not known from kube-proxy's rules",
                        super::super::diagnostic::quote(other)
                    ));
                }
            }
            if negated {
                return Err(format!("! before {word}"));
            }
        }
        Ok(rule)
    }

    /// The family that the rule's addresses say, if it has any.
    pub fn is_v6(&self) -> Option<bool> {
        let address = self.destination.or(self.to.map(|(address, _)| address));
        let cidr = self.source.or(self.not_source).map(|cidr| cidr.address);
        address.or(cidr).map(|address| address.is_ipv6()).or(self.v6)
    }
}

/// A prefix, or an address alone.
fn cidr(text: &str) -> Result<Cidr, String> {
    let whole = |address: IpAddr| Cidr { address, prefix: if address.is_ipv4() { 32 } else { 128 } };
    address::parse_cidr(text).or_else(|_| address::parse(text).map(whole)).map_err(|_| format!("{text} is no address"))
}

fn protocol(text: &str) -> Result<Protocol, String> {
    let known = Protocol::ALL.into_iter().find(|p| p.name() == text || p.number().to_string() == text);
    known.ok_or_else(|| format!("unknown protocol {text}"))
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("{text} is no port"))
}
