//! Follows one kind of object: a list, then watches from where the list ended, for ever.

use super::backoff::Backoff;
use super::client::Link;
use super::feed::Shared;
use super::lines::{Lines, whole};
use super::metrics::{Because, OfKind};
use crate::agent::status::unix;
use crate::source::cluster::{Event, Kind, List, Object, Page, Reader, Taken};
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::Request;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// Objects of a page: a page of 500 Services is a megabyte or two.
const PAGE: u32 = 500;
/// After this time of a list without a byte the connection counts as dead.
const LIST_SILENCE: Duration = Duration::from_secs(60);
/// The same of a watch: two bookmarks are missing then, which the server sends every minute.
const WATCH_SILENCE: Duration = Duration::from_secs(2 * 60);
/// How long a watch is asked to last; kube's client takes less than 295 s.
const WATCH: Duration = Duration::from_secs(280);
/// A watch that the server ends sooner was not ended for its age.
const SHORTEST: Duration = Duration::from_secs(30);
/// How often to look whether a server that does not know a kind has learnt it.
const UNKNOWN: Duration = Duration::from_secs(10 * 60);
/// Remarks on objects that are logged of one answer; the rest is counted.
const LOGGED: usize = 10;

/// Why a request did not give what it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No client can be made.
    #[error("no way to the API server: {0}")]
    Config(String),
    /// No connection, or it broke.
    #[error("the connection to the API server failed: {0}")]
    Connection(String),
    /// Nothing came.
    #[error("the API server was silent for {0:?}")]
    Silence(Duration),
    /// A status that is not 200: its number, its words, and how long the server asks to be left alone.
    #[error("the API server answers {0}: {1}")]
    Status(u16, String, Option<Duration>),
    /// What came is no answer of the API.
    #[error("the API server's answer is not understood")]
    Json,
    /// What came has no end.
    #[error("the API server's answer is too long")]
    TooLong,
    /// Events came in an order that leaves open what holds.
    #[error("the API server's events are out of order")]
    Order,
    /// A watch ended as soon as it began.
    #[error("the API server ended a watch after {0:?}")]
    Short(Duration),
}

impl Failure {
    /// An error of the client, with its causes.
    pub fn connection(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let words = inner.to_string();
            if !text.contains(&words) {
                text = format!("{text}: {words}");
            }
            cause = inner.source();
        }
        Self::Connection(text)
    }

    /// A word for the metric.
    fn reason(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Connection(_) => "connection",
            Self::Silence(_) => "silence",
            Self::Status(401 | 403, ..) => "unauthorized",
            Self::Status(410, ..) => "gone",
            Self::Status(..) => "status",
            Self::Json | Self::TooLong => "json",
            Self::Order => "order",
            Self::Short(_) => "short",
        }
    }

    /// Only a list can say what holds now.
    fn needs_list(&self) -> bool {
        matches!(self, Self::Status(400 | 404 | 410, ..) | Self::Json | Self::TooLong | Self::Order)
    }

    /// The client may be made of what is no longer right.
    fn needs_client(&self) -> bool {
        matches!(self, Self::Status(401 | 403, ..) | Self::Connection(_) | Self::Silence(_))
    }
}

/// Follows a kind for ever.
pub async fn follow(kind: Kind, node: String, link: Arc<Link>, shared: Arc<Shared>) {
    let follower = Follower { kind, node, link, shared, reader: Reader::new(kind) };
    let mut backoff = Backoff::new();
    // Where the next watch goes on; without it a list is due.
    let mut at: Option<String> = None;
    let mut paged = true;
    let mut served = kind != Kind::ServiceCidr;
    let mut failed = false;
    loop {
        let started = Instant::now();
        let result = match &mut at {
            None => follower.list(paged).await.map(|version| {
                info!(kind = kind.name(), version, "the list is complete");
                (at, served) = (Some(version), true);
            }),
            Some(at) => follower.watch(at, backoff.spread(WATCH), std::mem::take(&mut failed)).await,
        };
        backoff.credit(started.elapsed());
        let Err(failure) = result else { continue };
        follower.count(&failure);
        // ServiceCIDRs are there since 1.33, and nothing but stray packets depends on them
        if let (false, Failure::Status(404 | 403, why, _)) = (served, &failure) {
            info!(why, "the API server gives no ServiceCIDRs: what is sent to free service addresses is not dropped");
            follower.replace(List::default(), "");
            sleep(UNKNOWN).await;
            continue;
        }
        // A list whose pages outlive the server's memory (a slow line) comes in one piece.
        paged = !matches!((&at, &failure), (None, Failure::Status(410, ..)));
        if at.is_some() && failure.needs_list() {
            follower.shared.metrics.relists.get_or_create(&follower.of_kind()).inc();
            at = None;
        }
        failed = true;
        if failure.needs_client() {
            follower.link.forget().await;
        }
        let asked = if let Failure::Status(.., asked) = &failure { *asked } else { None };
        let wait = backoff.wait(asked);
        warn!(kind = kind.name(), "{failure}; next try in {wait:.1?}, what is in force stays");
        sleep(wait).await;
    }
}

struct Follower {
    kind: Kind,
    node: String,
    link: Arc<Link>,
    shared: Arc<Shared>,
    reader: Reader,
}

impl Follower {
    /// Reads a complete list and puts it in the place of what was known. Returns its version.
    async fn list(&self, paged: bool) -> Result<String, Failure> {
        let mut list = List::default();
        let mut next: Option<String> = None;
        loop {
            let mut params =
                ListParams { field_selector: self.fields(), label_selector: self.labels(), ..ListParams::default() };
            if paged {
                params = params.limit(PAGE);
            }
            if let Some(token) = &next {
                params = params.continue_token(token);
            }
            let request = Request::new(self.path()).list(&params).map_err(|e| Failure::Config(e.to_string()))?;
            let body = self.ask(request.map(Body::from)).await?;
            let bytes = whole(body, LIST_SILENCE).await?;
            let text = str::from_utf8(&bytes).map_err(|_| Failure::Json)?;
            let Page { version, next: token, objects } = self.reader.page(text).ok_or(Failure::Json)?;
            self.heard();
            self.remark(&objects);
            list.add(objects);
            next = token;
            if next.is_none() {
                self.shared.metrics.lists.get_or_create(&self.of_kind()).inc();
                self.replace(list, &version);
                return Ok(version);
            }
        }
    }

    /// Watches from a version on, which follows what is heard. `failed`: what was done before did.
    async fn watch(&self, at: &mut String, life: Duration, failed: bool) -> Result<(), Failure> {
        let seconds = u32::try_from(life.as_secs()).unwrap_or(u32::MAX);
        let params = WatchParams {
            field_selector: self.fields(),
            label_selector: self.labels(),
            ..WatchParams::default().timeout(seconds)
        };
        let request = Request::new(self.path()).watch(&params, at).map_err(|e| Failure::Config(e.to_string()))?;
        let started = Instant::now();
        let mut lines = Lines::new(self.ask(request.map(Body::from)).await?, WATCH_SILENCE);
        if failed {
            info!(kind = self.kind.name(), version = %at, "watching again");
        }
        while let Some(line) = lines.next().await? {
            let text = str::from_utf8(line).map_err(|_| Failure::Json)?;
            let event = self.reader.event(text).ok_or(Failure::Json)?;
            self.heard();
            self.shared.metrics.events.get_or_create(&self.of_kind()).inc();
            let (taken, version) = match event {
                Event::Bookmark(version) => (Taken::Known, version),
                Event::Failed(code, words) => return Err(Failure::Status(code, words, None)),
                Event::Set(object) => {
                    self.remark(std::slice::from_ref(&object));
                    let (triggered, version) = (object.triggered, object.version.clone());
                    (self.shared.change(triggered, |cluster| cluster.set(self.kind, object)), version)
                }
                Event::Removed(object) => {
                    let version = object.version.clone();
                    (self.shared.change(None, |cluster| cluster.remove(self.kind, object)), version)
                }
            };
            if taken == Taken::Doubtful {
                return Err(Failure::Order);
            }
            // an event that comes late sets it back: what is told twice then is known
            *at = version;
        }
        let lived = started.elapsed();
        if lived > SHORTEST { Ok(()) } else { Err(Failure::Short(lived)) }
    }

    /// Sends a request; the answer's body, if its status is 200.
    async fn ask(&self, mut request: http::Request<Body>) -> Result<Body, Failure> {
        let client = self.link.client().await?;
        if let Ok(agent) = concat!("natlet/", env!("CARGO_PKG_VERSION")).parse() {
            request.headers_mut().insert("user-agent", agent);
        }
        let answer = timeout(LIST_SILENCE, client.send(request)).await.map_err(|_| Failure::Silence(LIST_SILENCE))?;
        let (head, body) = answer.map_err(|e| Failure::connection(&e))?.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let asked =
            head.headers.get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let said = whole(body, LIST_SILENCE).await.unwrap_or_default();
        let status: Option<kube::core::Status> = serde_json::from_slice(&said).ok();
        let words = status.map(|s| s.message).filter(|m| !m.is_empty());
        let words = words.unwrap_or_else(|| head.status.canonical_reason().unwrap_or("no reason").to_owned());
        Err(Failure::Status(head.status.as_u16(), words, asked))
    }

    fn path(&self) -> &'static str {
        match self.kind {
            Kind::Service => "/api/v1/services",
            Kind::EndpointSlice => "/apis/discovery.k8s.io/v1/endpointslices",
            Kind::Node => "/api/v1/nodes",
            Kind::ServiceCidr => "/apis/networking.k8s.io/v1/servicecidrs",
        }
    }

    /// kube-proxy's selector: none of another proxy, none that is headless.
    fn labels(&self) -> Option<String> {
        let selects = matches!(self.kind, Kind::Service | Kind::EndpointSlice);
        selects.then(|| "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name".to_owned())
    }

    /// Of all Nodes only this one.
    fn fields(&self) -> Option<String> {
        (self.kind == Kind::Node).then(|| format!("metadata.name={}", self.node))
    }

    fn replace(&self, list: List, version: &str) {
        let replace = |cluster: &mut crate::source::cluster::Cluster| {
            cluster.replace(self.kind, list, version);
            Taken::Changed
        };
        self.shared.change(None, replace);
    }

    fn of_kind(&self) -> OfKind {
        OfKind { kind: self.kind.name() }
    }

    fn heard(&self) {
        self.shared.metrics.heard.get_or_create(&self.of_kind()).set(unix(SystemTime::now()));
    }

    fn count(&self, failure: &Failure) {
        let because = Because { kind: self.kind.name(), reason: failure.reason() };
        self.shared.metrics.errors.get_or_create(&because).inc();
    }

    /// Says what was left out of an answer.
    fn remark(&self, objects: &[Object]) {
        let remarks: Vec<&String> = objects.iter().flat_map(|o| &o.remarks).collect();
        let Some(count) = u64::try_from(remarks.len()).ok().filter(|n| *n > 0) else { return };
        let because = Because { kind: self.kind.name(), reason: "object" };
        self.shared.metrics.errors.get_or_create(&because).inc_by(count);
        for remark in remarks.iter().take(LOGGED) {
            warn!("left out: {remark}");
        }
        if remarks.len() > LOGGED {
            warn!("left out: {} more like these", remarks.len() - LOGGED);
        }
    }
}
