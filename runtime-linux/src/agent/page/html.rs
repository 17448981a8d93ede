//! The facts as a page: plain HTML, complete without scripts, nothing from elsewhere.
//!
//! Text that is not the page's own goes through [`Page::text`], which escapes it; [`Page::raw`] takes nothing but text that
//! was there at compile time. What a browser may run or load is said in the answer's [`policy`].

use super::{ENDPOINTS, Facts, Service};
use crate::counters::words::{bytes, count, rate};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The header field that lets a browser use the page's own style and script, ask the agent, and do nothing else.
pub fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = |text: &str| BASE64.encode(&Sha256::digest(text));
        format!(
            "Content-Security-Policy: default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; \
             connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        )
    });
    &POLICY
}

/// A page under construction.
struct Page(String);

impl Page {
    /// The page's own text.
    fn raw(&mut self, html: &'static str) {
        self.0.push_str(html);
    }

    /// Anybody's text, also inside an attribute's quotation marks.
    fn text(&mut self, text: impl Display) {
        for c in text.to_string().chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
    }

    /// An element around text.
    fn element(&mut self, open: &'static str, text: impl Display, close: &'static str) {
        self.raw(open);
        self.text(text);
        self.raw(close);
    }

    /// A name and its value in a list of facts.
    fn fact(&mut self, name: impl Display, value: impl Display) {
        self.element("<div><dt>", name, "</dt>");
        self.element("<dd>", value, "</dd></div>");
    }
}

/// The page.
pub fn html(facts: &Facts<'_>) -> String {
    let mut page = Page(String::with_capacity(64 * 1024));
    page.raw("<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.raw("<meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\"><title>natlet");
    if let Some((_, name)) = facts.node.iter().find(|(key, _)| *key == "node-name") {
        page.element(" on ", name, "");
    }
    page.raw("</title><noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript><style>");
    page.raw(STYLE);
    page.raw("</style></head><body><main id=\"live\">");
    head(&mut page, facts);
    troubles(&mut page, facts);
    overview(&mut page, facts);
    services(&mut page, facts);
    events(&mut page, facts);
    page.raw("</main><footer>Also for programs: <a href=\"status\">status</a>, <a href=\"counters\">counters</a>, ");
    page.raw("<a href=\"metrics\">metrics</a>, <a href=\"healthz\">healthz</a>. In a terminal: <code>natlet top</code>.</footer>");
    page.raw("<script>");
    page.raw(SCRIPT);
    page.raw("</script></body></html>\n");
    page.0
}

fn head(page: &mut Page, facts: &Facts<'_>) {
    page.raw("<header><h1>natlet</h1>");
    let s = facts.standing;
    match (&s.image, facts.is_healthy(), s.refusal.is_some() || facts.contested) {
        (None, _, _) => page.raw("<p class=\"badge bad\">nothing in force</p>"),
        (_, false, _) => page.raw("<p class=\"badge bad\">not as wanted</p>"),
        (_, true, true) => page.raw("<p class=\"badge warn\">in force, see below</p>"),
        (_, true, false) => page.raw("<p class=\"badge good\">in force</p>"),
    }
    page.element("<p class=\"quiet\">version ", env!("CARGO_PKG_VERSION"), ", ");
    page.element("running for ", age(s.started), "</p></header>");
}

/// What is wrong, if anything.
fn troubles(page: &mut Page, facts: &Facts<'_>) {
    let s = facts.standing;
    if let Some(refusal) = &s.refusal {
        page.raw("<section class=\"trouble\"><h2>The sources are refused; what was in force stays</h2>");
        page.element("<pre>", refusal, "</pre></section>");
    }
    if let Some(failure) = &s.failure {
        page.raw("<section class=\"trouble\"><h2>The kernel refused what is wanted; it is tried again</h2>");
        page.element("<pre>", failure, "</pre></section>");
    }
    if facts.contested {
        page.raw("<section class=\"trouble\"><h2>Another program keeps undoing natlet's rules</h2>");
        page.raw("<p>They are restored less and less often. The events below say who it is.</p></section>");
    }
}

fn overview(page: &mut Page, facts: &Facts<'_>) {
    let s = facts.standing;
    page.raw("<section><h2>Program</h2><dl>");
    page.fact("in force", s.content_id.as_deref().unwrap_or("nothing"));
    if s.wanted != s.content_id {
        page.fact("wanted", s.wanted.as_deref().unwrap_or("nothing"));
    }
    if let (Some(at), Some(outcome)) = (s.last_sync, &s.last_outcome) {
        let (why, text, took) = (outcome.why, &outcome.text, outcome.took);
        page.fact(
            "last sync",
            format_args!("{} ago, for {why}, in {:.1} ms: {text}", age(at), took.as_secs_f64() * 1e3),
        );
    }
    page.fact("repairs", format_args!("{} of what others changed", count(facts.repairs)));
    for source in &s.sources {
        page.fact("source", source);
    }
    let (directory, slots) = &s.state;
    let slots = slots.map(|slot| slot.map_or("empty".to_owned(), |n| format!("no. {n}")));
    page.fact("kept for the next boot", format_args!("{}: {}", directory.display(), slots.join(", ")));
    for (name, value) in &facts.node {
        page.fact(name, value);
    }
    page.raw("</dl></section>");
}

fn services(page: &mut Page, facts: &Facts<'_>) {
    page.element("<section><h2>", count(facts.total as u64), " services</h2>");
    page.raw("<form><input type=\"search\" name=\"q\" aria-label=\"filter\" placeholder=\"name, address, port, host\" value=\"");
    page.text(&facts.query.words);
    page.raw("\"><button>Filter</button></form>");
    if facts.services.len() < facts.matching {
        page.element("<p class=\"quiet\">The first ", count(facts.services.len() as u64), " of ");
        page.element("", count(facts.matching as u64), " that match; filter for the others.</p>");
    } else if !facts.query.words.is_empty() {
        page.element("<p class=\"quiet\">", count(facts.matching as u64), " match. <a href=\".\">Show all</a></p>");
    }
    notes(page, facts);
    if !facts.services.is_empty() {
        page.raw(
            "<table><thead><tr><th>Service<th>Frontends<th>Endpoints<th class=\"n\">New/s<th class=\"n\">Connections",
        );
        page.raw("<th class=\"n\">Live<th class=\"n\">Traffic</thead><tbody>");
        facts.services.iter().for_each(|s| service(page, s));
        page.raw("</tbody></table>");
    }
    page.raw("</section>");
}

/// Why numbers are missing, and what to do.
fn notes(page: &mut Page, facts: &Facts<'_>) {
    if let Some(why) = &facts.no_report {
        page.element("<p class=\"quiet\">No counters: ", why, "</p>");
    }
    let Some(report) = facts.report.as_deref().filter(|r| r.loaded) else { return };
    if !report.counting {
        page.raw("<p class=\"quiet\">Connections are not counted: the tables were loaded with <code>--counters off</code>.</p>");
    }
    if !report.accounting {
        page.raw("<p class=\"quiet\">Traffic is not counted: <code>sysctl net.netfilter.nf_conntrack_acct=1</code> ");
        page.raw("counts it for flows that begin after it.</p>");
    }
}

fn service(page: &mut Page, s: &Service) {
    page.element("<tr><th scope=\"row\"><b>", &s.name, "</b> ");
    page.element("<span class=\"quiet\">", s.protocol, " ");
    page.element("", s.kind, "</span>");
    for host in &s.hosts {
        page.element("<span class=\"host\">", host, "</span>");
    }
    page.raw("<td data-label=\"Frontends\"><ul>");
    for (kind, address) in &s.frontends {
        page.element("<li>", address, " ");
        page.element("<span class=\"quiet\">", kind, "</span>");
    }
    page.raw("</ul><td data-label=\"Endpoints\">");
    endpoints(page, s);
    let numbers = [
        ("<td class=\"n\" data-label=\"New/s\">", rate(s.row.connections_per_second)),
        ("<td class=\"n\" data-label=\"Connections\">", count(s.row.connections)),
        ("<td class=\"n\" data-label=\"Live\">", count(s.row.flows)),
        ("<td class=\"n\" data-label=\"Traffic\">", bytes(s.row.bytes_per_second)),
    ];
    for (open, number) in numbers {
        page.element(open, number, "");
    }
    if s.row.bytes_per_second.is_some() {
        page.raw("/s");
    }
    page.raw("</tr>\n");
}

fn endpoints(page: &mut Page, s: &Service) {
    if s.endpoint_count == 0 {
        page.raw("<span class=\"none\">none: refused</span>");
        return;
    }
    page.element("<details data-key=\"", format_args!("{}/{}", s.name, s.protocol), "\"><summary>");
    page.element("", count(s.endpoint_count as u64), "</summary><ul>");
    for (address, share) in &s.endpoints {
        page.element("<li>", address, "");
        page.element(" <span class=\"quiet\">", format_args!("{:.0} %", share * 100.0), "</span>");
    }
    if s.endpoint_count > ENDPOINTS {
        page.element("<li class=\"quiet\">and ", count((s.endpoint_count - ENDPOINTS) as u64), " more");
    }
    page.raw("</ul></details>");
}

fn events(page: &mut Page, facts: &Facts<'_>) {
    page.raw("<section><h2>Events</h2><ol>");
    for event in facts.standing.history.newest_first() {
        page.element("<li><time>", humantime::format_rfc3339_seconds(event.at), "</time> ");
        page.element("<b>", event.kind.name(), "</b> ");
        page.text(&event.text);
        if event.times > 1 {
            page.element(" <span class=\"quiet\">(", event.times, " times in a row)</span>");
        }
    }
    page.raw("</ol></section>");
}

/// How long ago, without fractions of a second.
fn age(at: SystemTime) -> String {
    let age = SystemTime::now().duration_since(at).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(age.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::Query;
    use super::*;
    use crate::agent::history::Kind;
    use crate::agent::status::Status;
    use crate::image::Image;
    use crate::source::{ServiceBuf, TableBuf};
    use natlet_core::table::Frontend;
    use natlet_core::{FrontendKind, ServiceTable};

    fn page(status: &Status, query: &str) -> String {
        let standing = status.standing();
        html(&Facts::new(&standing, &status.metrics, Err("no <i>right</i>".into()), Query::read(query)))
    }

    /// Sources refuse such names; a program may come from elsewhere.
    #[test]
    fn names_hosts_and_messages_are_text() {
        let hostile = "<script>alert('1')</script>";
        let mut table = TableBuf::default();
        let frontend = Frontend { kind: FrontendKind::ClusterIp, address: [10, 96, 0, 7].into(), port: 80 };
        table.push(&ServiceBuf {
            name: format!("\"{hostile}"),
            frontends: vec![frontend],
            hosts: vec![format!("<img src=x>{hostile}")],
            ..ServiceBuf::default()
        });
        let status = Status::new().unwrap();
        status.update(|s| {
            s.image = Some(Image::compile(&table.as_table()).unwrap());
            s.failure = Some(format!("EPERM {hostile}"));
            s.history.add(Kind::Failed, hostile);
        });
        let page = page(&status, "");
        assert!(!page.contains("<script>alert") && !page.contains("<img") && !page.contains("<i>"), "{page}");
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("&lt;script&gt;alert(&#39;1&#39;)").count(), 4, "{page}");
    }

    #[test]
    fn it_says_how_the_agent_stands() {
        let status = Status::new().unwrap();
        assert!(page(&status, "").contains("nothing in force"));
        status.update(|s| {
            s.image = Some(Image::compile(&ServiceTable::default()).unwrap());
            s.last_sync = Some(SystemTime::now());
        });
        assert!(page(&status, "").contains(">in force<"));
        status.update(|s| s.refusal = Some("no table".into()));
        assert!(page(&status, "").contains(">in force, see below<"));
        status.update(|s| s.failure = Some("EPERM".into()));
        assert!(page(&status, "").contains(">not as wanted<"));
    }

    #[test]
    fn the_policy_names_style_and_script() {
        assert!(policy().contains("style-src 'sha256-") && !policy().contains("unsafe"));
        assert!(!STYLE.contains('\\') && !SCRIPT.contains("</"), "either would end where it stands");
    }
}
