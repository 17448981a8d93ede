//! What is answered: bytes from bytes and the agent's standing.

use super::{REQUEST, Subject};
use crate::agent::page::{self, Facts, Query};
use crate::agent::reconcile::BEAT;
use crate::agent::status::{Standing, Status};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::SystemTime;

/// Header fields of a request; more are refused.
const FIELDS: usize = 48;
const JSON: &str = "application/json";

/// Whether the head of a request is there, or can never be.
pub fn is_complete(request: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    !matches!(httparse::Request::new(&mut fields).parse(request), Ok(httparse::Status::Partial))
}

/// The answer to a request; `None` while the counters are being read for it.
pub fn to(request: &[u8], subject: &Subject, status: &Status) -> Option<Vec<u8>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if request.len() > REQUEST => {
            return Some(text("431 Request Header Fields Too Large", "the request is too long\n").bytes(true));
        }
        _ => return Some(text("400 Bad Request", "this is no HTTP/1.1 request\n").bytes(true)),
    }
    let with_body = match head.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => {
            let refusal = text("405 Method Not Allowed", "GET and HEAD are allowed\n").with("Allow: GET, HEAD");
            return Some(refusal.bytes(true));
        }
    };
    let (path, query) = head.path.map_or(("", ""), |p| p.split_once('?').unwrap_or((p, "")));
    let standing = status.standing();
    let answer = match subject {
        Subject::Service(port) => service(&standing, *port),
        Subject::Agent => match path {
            "/healthz" => health(&standing, standing.is_healthy(BEAT * 3)),
            "/livez" => health(&standing, standing.is_alive(BEAT * 3)),
            "/metrics" => {
                let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                Answer { kind: openmetrics, ..text("200 OK", &status.metrics.text()) }
            }
            "/" => {
                let facts = Facts::new(&standing, &status.metrics, status.counts.ask()?, Query::read(query));
                let kind = "text/html; charset=utf-8";
                Answer { kind, ..text("200 OK", &page::html(&facts)) }.with(page::policy())
            }
            "/status" => {
                let facts = Facts::new(&standing, &status.metrics, status.counts.ask()?, Query::read(query));
                Answer { kind: JSON, ..text("200 OK", &facts.document().to_string()) }
            }
            "/counters" => match status.counts.ask()? {
                Ok(report) => Answer { kind: JSON, ..text("200 OK", &json!(report.as_ref()).to_string()) },
                Err(why) => text("503 Service Unavailable", &format!("{why}\n")),
            },
            _ => text("404 Not Found", "there are /, /status, /counters, /healthz, /livez and /metrics\n"),
        },
    };
    Some(answer.bytes(with_body))
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    field: Option<String>,
    body: String,
}

fn text(status: &'static str, body: &str) -> Answer {
    Answer { status, kind: "text/plain; charset=utf-8", field: None, body: body.into() }
}

fn document(healthy: bool, body: &Value) -> Answer {
    let status = if healthy { "200 OK" } else { "503 Service Unavailable" };
    Answer { status, kind: JSON, field: None, body: format!("{body}\n") }
}

impl Answer {
    fn with(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    fn bytes(self, with_body: bool) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {}\r\nContent-Type: {}\r\n", self.status, self.kind);
        if let Some(field) = &self.field {
            let _ = write!(out, "{field}\r\n");
        }
        let _ = write!(
            out,
            "Content-Length: {}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
            self.body.len()
        );
        if with_body {
            out.push_str(&self.body);
        }
        out.into_bytes()
    }
}

fn health(standing: &Standing, healthy: bool) -> Answer {
    let time = |t: SystemTime| humantime::format_rfc3339_seconds(t).to_string();
    let body = json!({
        "healthy": healthy,
        "lastUpdated": standing.last_sync.map(time),
        "currentTime": time(SystemTime::now()),
        "contentId": standing.content_id,
        "failure": standing.failure,
        "refusal": standing.refusal,
    });
    document(healthy, &body)
}

/// As kube-proxy answers: 200 where an endpoint of this node is ready and the rules are in force.
fn service(standing: &Standing, port: u16) -> Answer {
    let Some(check) = standing.health_checks.iter().find(|c| c.port == port) else {
        return text("404 Not Found", "the service is gone\n");
    };
    let healthy = standing.is_healthy(BEAT * 3);
    let body = json!({
        "service": { "namespace": check.namespace, "name": check.name },
        "localEndpoints": check.local_endpoints,
        "serviceProxyHealthy": healthy,
    });
    document(healthy && check.local_endpoints > 0, &body)
        .with(format!("X-Load-Balancing-Endpoint-Weight: {}", check.local_endpoints))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::status::HealthCheck;

    fn ask(request: &str, subject: &Subject, status: &Status) -> String {
        String::from_utf8(to(request.as_bytes(), subject, status).unwrap()).unwrap()
    }

    fn get(path: &str, status: &Status) -> String {
        ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"), &Subject::Agent, status)
    }

    #[test]
    fn health_follows_the_last_sync() {
        let status = Status::new().unwrap();
        assert!(get("/livez", &status).starts_with("HTTP/1.1 200"));
        assert!(get("/healthz", &status).starts_with("HTTP/1.1 503"), "nothing is in force yet");
        status.update(|s| s.last_sync = Some(SystemTime::now()));
        assert!(get("/healthz?verbose", &status).starts_with("HTTP/1.1 200"));
        status.update(|s| s.failure = Some("EPERM \"x\"".into()));
        let answer = get("/healthz", &status);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(r#""failure":"EPERM \"x\"""#), "{answer}");
        let late = std::time::Instant::now().checked_sub(BEAT * 4).unwrap();
        status.update(|s| s.beat = late);
        assert!(get("/livez", &status).starts_with("HTTP/1.1 503"), "the loop is stuck");
    }

    /// The first question has the counters read; until then there is no answer.
    #[test]
    fn what_shows_counters_waits_for_them() {
        let status = Status::new().unwrap();
        for path in ["/", "/status?services=0", "/counters"] {
            assert_eq!(to(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes(), &Subject::Agent, &status), None, "{path}");
        }
    }

    #[test]
    fn metrics_carry_both_names() {
        let status = Status::new().unwrap();
        status.metrics.drift.inc();
        let text = get("/metrics", &status);
        for line in ["natlet_drift_total 1", "kubeproxy_sync_proxy_rules_last_timestamp_seconds 0.0", "# EOF"] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn a_service_is_healthy_with_endpoints_on_this_node() {
        let status = Status::new().unwrap();
        let check = |port, n| HealthCheck { port, namespace: "shop".into(), name: "web".into(), local_endpoints: n };
        status.update(|s| {
            s.last_sync = Some(SystemTime::now());
            s.health_checks = vec![check(32000, 2), check(32001, 0)];
        });
        let request = "GET / HTTP/1.0\r\n\r\n";
        let with = ask(request, &Subject::Service(32000), &status);
        assert!(with.starts_with("HTTP/1.1 200") && with.contains("X-Load-Balancing-Endpoint-Weight: 2\r\n"), "{with}");
        assert!(with.contains(r#""localEndpoints":2"#) && with.contains(r#""namespace":"shop""#), "{with}");
        assert!(ask(request, &Subject::Service(32001), &status).starts_with("HTTP/1.1 503"));
        assert!(ask(request, &Subject::Service(1), &status).starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let status = Status::new().unwrap();
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(REQUEST));
        for (request, code) in [
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
            ("hello\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\n\r\n", "405"),
            ("GET /secret HTTP/1.1\r\n\r\n", "404"),
            (&long, "431"),
        ] {
            let answer = ask(request, &Subject::Agent, &status);
            assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{request}: {answer}");
        }
        assert!(!is_complete(b"GET / HTTP/1.1\r\nHost: x\r\n") && is_complete(b"\x16\x03\x01"));
        assert!(ask("HEAD /livez HTTP/1.1\r\n\r\n", &Subject::Agent, &status).ends_with("\r\n\r\n"));
    }
}
