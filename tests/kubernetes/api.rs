//! A double of the Kubernetes API server: lists in pages and watches over HTTP/1.1, chunked, and misbehaving on command.
//!
//! It knows what the agent asks of it and no more: four kinds, label and field selectors, `limit` and `continue`,
//! `resourceVersion`, bookmarks and time-outs of watches; over TLS too.

use libtest_mimic::Failed;
use natlet::lab::Namespace;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Kinds by the path that lists them.
const KINDS: [(&str, &str, &str); 4] = [
    ("/api/v1/services", "v1", "Service"),
    ("/apis/discovery.k8s.io/v1/endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
    ("/api/v1/nodes", "v1", "Node"),
    ("/apis/networking.k8s.io/v1/servicecidrs", "networking.k8s.io/v1", "ServiceCIDR"),
];

/// What the server does wrong. Those that name no kind concern every request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Answers with this status.
    Status(u16),
    /// Answers requests about this kind with this status.
    StatusOf(&'static str, u16),
    /// Waits before each answer and each event.
    Slow(Duration),
    /// Sends every event twice, the second time after the next one.
    Twice,
    /// Sends every two events in the wrong order.
    Swapped,
}

/// What the server does wrong once, with the next opportunity.
#[derive(Clone, Debug, PartialEq)]
pub enum Slip {
    /// The next watch of this kind is told by HTTP that its version is gone.
    Gone(&'static str),
    /// The next watch of this kind is told so by an event.
    GoneByEvent(&'static str),
    /// The next continuation of a list is gone.
    GoneOnContinue,
    /// The next event of this kind breaks off in the middle, and the connection with it.
    Cut(&'static str),
    /// The next event of this kind is no JSON.
    Garbled(&'static str),
}

/// An event in the history of a kind.
struct Entry {
    version: u64,
    kind: &'static str,
    object: Arc<Value>,
    what: &'static str,
}

#[derive(Default)]
struct Inner {
    version: u64,
    objects: BTreeMap<(&'static str, String), Arc<Value>>,
    history: Vec<Entry>,
    faults: Vec<Fault>,
    slips: VecDeque<Slip>,
    token: Option<String>,
    requests: Vec<String>,
    snapshots: HashMap<(&'static str, u64), Vec<Arc<Value>>>,
    /// Watches of an older generation end.
    generation: u64,
}

struct State {
    inner: Mutex<Inner>,
    news: Condvar,
    down: AtomicBool,
}

/// A running server; it ends when this is dropped.
pub struct Api {
    address: SocketAddr,
    state: Arc<State>,
    tls: Option<Arc<ServerConfig>>,
}

impl Api {
    /// Listens on the loopback of a host.
    pub fn start(host: &Namespace) -> Result<Self, Failed> {
        Self::listen(host, None)
    }

    /// The same over TLS, with a certificate of its own making, which is returned as PEM.
    pub fn start_tls(host: &Namespace) -> Result<(Self, String), Failed> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key)?;
        Ok((Self::listen(host, Some(Arc::new(config)))?, made.cert.pem()))
    }

    fn listen(host: &Namespace, tls: Option<Arc<ServerConfig>>) -> Result<Self, Failed> {
        let listener = host.run(|| TcpListener::bind("127.0.0.1:0"))?;
        let state = Arc::new(State { inner: Mutex::default(), news: Condvar::new(), down: AtomicBool::new(false) });
        state.lock().version = 100;
        let api = Self { address: listener.local_addr()?, state, tls };
        api.serve(listener)?;
        Ok(api)
    }

    fn serve(&self, listener: TcpListener) -> Result<(), Failed> {
        listener.set_nonblocking(true)?;
        let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
        thread::spawn(move || {
            while !state.down.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (state, tls) = (Arc::clone(&state), tls.clone());
                        // a client that hangs up is the agent's right
                        thread::spawn(move || _ = state.accept(stream, tls));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Ok(())
    }

    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Closes the port and all connections.
    pub fn down(&self) {
        self.state.down.store(true, Ordering::Relaxed);
        self.cut_watches();
        thread::sleep(Duration::from_millis(50));
    }

    /// Listens again.
    pub fn up(&self, host: &Namespace) -> Result<(), Failed> {
        self.state.down.store(false, Ordering::Relaxed);
        self.serve(host.run(|| TcpListener::bind(self.address))?)
    }

    /// Ends all watches.
    pub fn cut_watches(&self) {
        self.state.lock().generation += 1;
        self.state.news.notify_all();
    }

    /// Adds or changes an object. Returns its version.
    pub fn put(&self, kind: &'static str, mut object: Value) -> u64 {
        let mut inner = self.state.lock();
        inner.version += 1;
        let version = inner.version;
        let name = key(&object);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object["apiVersion"] = json!(KINDS.iter().find(|k| k.2 == kind).expect("a kind").1);
        object["kind"] = json!(kind);
        let object = Arc::new(object);
        let old = inner.objects.insert((kind, name), Arc::clone(&object));
        let what = if old.is_some() { "MODIFIED" } else { "ADDED" };
        inner.history.push(Entry { version, kind, object, what });
        self.state.news.notify_all();
        version
    }

    pub fn delete(&self, kind: &'static str, name: &str) {
        let mut inner = self.state.lock();
        inner.version += 1;
        let version = inner.version;
        let Some(object) = inner.objects.remove(&(kind, name.to_owned())) else { return };
        let mut object = Value::clone(&object);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        inner.history.push(Entry { version, kind, object: Arc::new(object), what: "DELETED" });
        self.state.news.notify_all();
    }

    /// Misbehaves from now on.
    pub fn fault(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Misbehaves once.
    pub fn slip(&self, slip: Slip) {
        self.state.lock().slips.push_back(slip);
    }

    /// Slips that had no opportunity yet.
    pub fn slips(&self) -> usize {
        self.state.lock().slips.len()
    }

    /// Behaves again.
    pub fn heal(&self) {
        let mut inner = self.state.lock();
        inner.faults.clear();
        inner.slips.clear();
    }

    /// Takes this bearer token and no other.
    pub fn require(&self, token: &str) {
        self.state.lock().token = Some(token.to_owned());
    }

    /// Paths and queries that were asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }

    /// What `kubectl get -o json` would print of everything.
    pub fn manifest(&self) -> String {
        let inner = self.state.lock();
        let items: Vec<&Value> = inner.objects.values().map(|o| &**o).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.state.down.store(true, Ordering::Relaxed);
        self.cut_watches();
    }
}

fn key(object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

/// A request: the kind, and what the query says.
struct Query {
    kind: &'static str,
    fields: HashMap<String, String>,
}

impl Query {
    fn of(target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let kind = KINDS.iter().find(|(p, ..)| *p == path)?.2;
        let pair = |part: &str| part.split_once('=').map(|(k, v)| (decode(k), decode(v)));
        Some(Self { kind, fields: query.split('&').filter_map(pair).collect() })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn selects(&self, kind: &str, object: &Value) -> bool {
        let labels = self.get("labelSelector").unwrap_or_default().split(',').filter_map(|term| term.strip_prefix('!'));
        let name = self.get("fieldSelector").and_then(|f| f.strip_prefix("metadata.name="));
        kind == self.kind
            && labels.into_iter().all(|label| object["metadata"]["labels"].get(label).is_none())
            && name.is_none_or(|name| object["metadata"]["name"] == name)
    }
}

fn decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().replace('+', " ");
    for part in parts {
        let (hex, rest) = part.split_at(part.len().min(2));
        out.push(u8::from_str_radix(hex, 16).map_or('?', char::from));
        out.push_str(&rest.replace('+', " "));
    }
    out
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test failed with the lock held")
    }

    fn accept(&self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        match tls {
            None => self.connection(stream),
            Some(tls) => {
                let session = ServerConnection::new(tls).map_err(std::io::Error::other)?;
                self.connection(StreamOwned::new(session, stream))
            }
        }
    }

    /// Serves one request after the other.
    fn connection(&self, stream: impl Read + Write) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut target, mut token, mut line) = (String::new(), None, String::new());
            loop {
                line.clear();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                if target.is_empty() {
                    target = line.split(' ').nth(1).unwrap_or_default().to_owned();
                } else if let Some(bearer) = line.strip_prefix("authorization: Bearer ") {
                    token = Some(bearer.to_owned());
                }
            }
            if self.down.load(Ordering::Relaxed) || !self.answer(reader.get_mut(), &target, token.as_deref())? {
                return Ok(());
            }
        }
    }

    /// Answers; whether the connection may go on.
    fn answer(&self, stream: &mut dyn Write, target: &str, token: Option<&str>) -> std::io::Result<bool> {
        let Some(query) = Query::of(target) else {
            return match discovery(target) {
                Some(text) => body(stream, "200 OK", &text.to_string()).map(|()| true),
                None => status(stream, 404, "no such path").map(|()| true),
            };
        };
        let (refusal, slow, generation) = {
            let mut inner = self.lock();
            inner.requests.push(target.to_owned());
            (inner.refusal(&query, token), inner.slowness(), inner.generation)
        };
        thread::sleep(slow);
        if let Some(code) = refusal {
            return status(stream, code, "as the test wants it").map(|()| true);
        }
        if query.get("watch").is_some() {
            self.watch(stream, &query, generation)?;
            return Ok(false);
        }
        let page = self.lock().page(&query);
        match page {
            Some(page) => body(stream, "200 OK", &page).map(|()| true),
            None => status(stream, 410, "The provided continue parameter is too old").map(|()| true),
        }
    }

    fn watch(&self, stream: &mut dyn Write, query: &Query, generation: u64) -> std::io::Result<()> {
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let life = Duration::from_secs(query.get("timeoutSeconds").and_then(|v| v.parse().ok()).unwrap_or(600));
        let bookmarks = query.get("allowWatchBookmarks") == Some("true");
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let (started, mut marked) = (Instant::now(), Instant::now());
        // where history goes on
        let mut at = self.lock().history.partition_point(|entry| entry.version <= from);
        let mut held: Option<String> = None;
        loop {
            let mut inner = self.lock();
            if inner.history.len() == at && inner.generation == generation {
                inner = self.news.wait_timeout(inner, Duration::from_millis(200)).expect("no poison").0;
            }
            if inner.generation != generation {
                return Ok(()); // the connection ends without the last chunk
            }
            let (faults, slow, version) = (inner.faults.clone(), inner.slowness(), inner.version);
            let gone = inner.take(&[Slip::GoneByEvent(query.kind)]).is_some();
            let news: Vec<(String, Option<Slip>)> = (at..inner.history.len())
                .filter(|i| query.selects(inner.history[*i].kind, &inner.history[*i].object))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|i| {
                    let entry = &inner.history[i];
                    let line = json!({"type": entry.what, "object": *entry.object}).to_string();
                    (line, inner.take(&[Slip::Cut(query.kind), Slip::Garbled(query.kind)]))
                })
                .collect();
            at = inner.history.len();
            drop(inner);
            if gone {
                let object = json!({"kind": "Status", "code": 410, "message": "too old resource version"});
                chunk(stream, &json!({"type": "ERROR", "object": object}).to_string())?;
                return write!(stream, "0\r\n\r\n");
            }
            for (line, slip) in news {
                thread::sleep(slow);
                match slip {
                    Some(Slip::Cut(_)) => {
                        let half = &line[..line.len() / 2];
                        return write!(stream, "{:x}\r\n{half}", line.len() + 1);
                    }
                    // the client closes the connection, which this thread would see too late to leave it the next slip
                    Some(_) => return chunk(stream, "<html>this is not the API</html>"),
                    None if faults.contains(&Fault::Swapped) => match held.take() {
                        Some(earlier) => [line, earlier].iter().try_for_each(|l| chunk(stream, l))?,
                        None => held = Some(line),
                    },
                    None => {
                        chunk(stream, &line)?;
                        if let Some(again) = held.take() {
                            chunk(stream, &again)?;
                        }
                        held = faults.contains(&Fault::Twice).then_some(line);
                    }
                }
            }
            if let Some(last) = held.take_if(|_| faults.is_empty()) {
                chunk(stream, &last)?;
            }
            if bookmarks && held.is_none() && marked.elapsed() > Duration::from_secs(1) {
                marked = Instant::now();
                let object = json!({"kind": query.kind, "metadata": {"resourceVersion": version.to_string()}});
                chunk(stream, &json!({"type": "BOOKMARK", "object": object}).to_string())?;
            }
            if started.elapsed() > life {
                return write!(stream, "0\r\n\r\n");
            }
        }
    }
}

impl Inner {
    fn refusal(&mut self, query: &Query, token: Option<&str>) -> Option<u16> {
        if self.token.is_some() && self.token.as_deref() != token {
            return Some(401);
        }
        let of = |fault: &Fault| match fault {
            Fault::Status(code) => Some(*code),
            Fault::StatusOf(kind, code) if *kind == query.kind => Some(*code),
            _ => None,
        };
        if let Some(code) = self.faults.iter().find_map(of) {
            return Some(code);
        }
        let watch = query.get("watch").is_some() && self.take(&[Slip::Gone(query.kind)]).is_some();
        let list = query.get("continue").is_some() && self.take(&[Slip::GoneOnContinue]).is_some();
        (watch || list).then_some(410)
    }

    fn slowness(&self) -> Duration {
        let slow = |fault: &Fault| if let Fault::Slow(time) = fault { Some(*time) } else { None };
        self.faults.iter().find_map(slow).unwrap_or_default()
    }

    /// Takes the first slip if it is one of these.
    fn take(&mut self, of: &[Slip]) -> Option<Slip> {
        self.slips.front().filter(|slip| of.contains(slip))?;
        self.slips.pop_front()
    }

    /// A page of a list; `None` for a continuation of a list that is not known.
    fn page(&mut self, query: &Query) -> Option<String> {
        let (version, offset) = match query.get("continue") {
            None => {
                let all =
                    self.objects.iter().filter(|((kind, _), o)| query.selects(kind, o)).map(|(_, o)| Arc::clone(o));
                let all = all.collect();
                self.snapshots.insert((query.kind, self.version), all);
                (self.version, 0)
            }
            Some(token) => {
                let (version, offset) = token.split_once('-')?;
                (version.parse().ok()?, offset.parse().ok()?)
            }
        };
        let snapshot = self.snapshots.get(&(query.kind, version))?;
        let limit = query.get("limit").and_then(|l| l.parse().ok()).unwrap_or(usize::MAX);
        let items: Vec<&Value> = snapshot.iter().skip(offset).take(limit).map(|o| &**o).collect();
        let end = offset + items.len();
        let next = if end < snapshot.len() { format!("{version}-{end}") } else { String::new() };
        let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
        let kind = format!("{}List", query.kind);
        Some(json!({"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items}).to_string())
    }
}

/// What kubectl asks before anything else: the groups, and their resources.
fn discovery(target: &str) -> Option<Value> {
    let resources = |group: &str, all: &[(&str, &str, bool)]| {
        let one = |(name, kind, namespaced): &(&str, &str, bool)| json!({"name": name, "kind": kind, "namespaced": namespaced, "singularName": "", "verbs": ["create", "get"]});
        let all: Vec<Value> = all.iter().map(one).collect();
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": all})
    };
    let group = |name: &str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    Some(match target.split('?').next()? {
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => {
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group("apps"), group("rbac.authorization.k8s.io")]})
        }
        "/api/v1" => resources("v1", &[("configmaps", "ConfigMap", true), ("serviceaccounts", "ServiceAccount", true)]),
        "/apis/apps/v1" => resources("apps/v1", &[("daemonsets", "DaemonSet", true)]),
        "/apis/rbac.authorization.k8s.io/v1" => resources(
            "rbac.authorization.k8s.io/v1",
            &[("clusterroles", "ClusterRole", false), ("clusterrolebindings", "ClusterRoleBinding", false)],
        ),
        _ => return None,
    })
}

fn chunk(stream: &mut dyn Write, line: &str) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n{line}\n\r\n", line.len() + 1).as_bytes())
}

fn status(stream: &mut dyn Write, code: u16, message: &str) -> std::io::Result<()> {
    let text = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message});
    body(stream, &format!("{code} Test"), &text.to_string())
}

fn body(stream: &mut dyn Write, status: &str, text: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
    stream.write_all((head + text).as_bytes())
}
