//! The tables that every peer gets: services with one ClusterIP each, endpoints in another network.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// How many services, and endpoints in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub services: u32,
    pub endpoints: u32,
}

impl Size {
    /// 100,000 elements in the kernel.
    pub const HUNDRED_THOUSAND: Self = Self::new(5_000, 45_000);
    /// Those that public reports say take kube-proxy's nftables mode 16 min 44 s and 13 to 20 min (kubernetes/kubernetes
    /// #139513, #135639).
    pub const MOST_SERVICES: Self = Self::new(44_125, 44_125);
    pub const MOST_ENDPOINTS: Self = Self::new(5_006, 250_011);
    /// In the order in which they are tried: what is late at one is not tried at those behind it.
    pub const ALL: [Self; 5] = [
        Self::new(1_000, 5_000),
        Self::new(10_000, 20_000),
        Self::HUNDRED_THOUSAND,
        Self::MOST_SERVICES,
        Self::MOST_ENDPOINTS,
    ];
    pub const QUICK: [Self; 2] = [Self::new(10, 20), Self::new(100, 500)];

    pub const fn new(services: u32, endpoints: u32) -> Self {
        Self { services, endpoints }
    }

    /// What natlet puts into the kernel's sets and maps for it: a frontend, a ClusterIP, an endpoint, a pair for the endpoint
    /// that reaches itself; the range of pods, and what is loaded.
    pub const fn elements(self) -> u32 {
        2 * (self.services + self.endpoints) + 2
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} services, {} endpoints", thousands(self.services), thousands(self.endpoints))
    }
}

/// 44125 as 44,125.
pub fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub struct Service {
    pub namespace: String,
    pub name: String,
    pub address: Ipv4Addr,
    pub endpoints: Vec<Ipv4Addr>,
}

/// A service table in the form that all peers' forms are made of.
pub struct Table {
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    pub services: Vec<Service>,
}

pub const PORT: u16 = 80;
pub const TARGET: u16 = 8080;
/// Every endpoint is a pod: connections from elsewhere are masqueraded, as kube-proxy does it with a cluster CIDR.
pub const PODS: &str = "11.0.0.0/8";

impl Table {
    /// The same size gives the same table. The first endpoint of the first service is 11.`first`.0.0, so that two tables
    /// differ in it alone.
    pub fn new(size: Size, protocol: &'static str, first: u8) -> Self {
        let mut at = u32::from(Ipv4Addr::new(11, 0, 0, 0));
        let services = (0..size.services).map(|i| {
            let count = size.endpoints / size.services + u32::from(i < size.endpoints % size.services);
            let endpoints = (0..count).map(|j| {
                let address = at;
                at += 1;
                if (i, j) == (0, 0) { Ipv4Addr::new(11, first, 0, 0) } else { address.into() }
            });
            Service {
                endpoints: endpoints.collect(),
                namespace: format!("ns{}", i % 200),
                name: format!("svc{i}"),
                address: (u32::from(Ipv4Addr::new(10, 0, 1, 0)) + i).into(),
            }
        });
        Self { services: services.collect(), protocol }
    }

    /// As natlet's services.toml.
    pub fn toml(&self) -> String {
        let mut text = format!("[node]\ncluster-cidr = [\"{PODS}\"]\n");
        for s in &self.services {
            let endpoints: Vec<String> = s.endpoints.iter().map(|e| format!("\"{e}:{TARGET}\"")).collect();
            let _ = write!(
                text,
                "[[service]]\nname = \"{}/{}:http\"\nprotocol = \"{}\"\nport = {PORT}\ncluster-ip = \"{}\"\nendpoints = [{}]\n",
                s.namespace,
                s.name,
                self.protocol.to_lowercase(),
                s.address,
                endpoints.join(", ")
            );
        }
        text
    }

    /// As `kubectl get svc,endpointslices -A -o json` prints it, without what only the API server reads.
    pub fn manifests(&self) -> String {
        let mut items = Vec::new();
        for s in &self.services {
            let (namespace, name, protocol) = (&s.namespace, &s.name, self.protocol);
            let meta = format!("\"namespace\":\"{namespace}\",\"creationTimestamp\":\"2026-01-01T00:00:00Z\"");
            items.push(format!(
                "{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{{\"name\":\"{name}\",{meta}}},\"spec\":{{\"type\":\"ClusterIP\",\
                 \"clusterIP\":\"{0}\",\"clusterIPs\":[\"{0}\"],\"ipFamilies\":[\"IPv4\"],\"internalTrafficPolicy\":\"Cluster\",\
                 \"sessionAffinity\":\"None\",\"ports\":[{{\"name\":\"http\",\"port\":{PORT},\"protocol\":\"{protocol}\",\"targetPort\":{TARGET}}}]}}}}",
                s.address
            ));
            for (number, chunk) in s.endpoints.chunks(100).enumerate() {
                let endpoints: Vec<String> = chunk
                    .iter()
                    .map(|e| {
                        format!(
                            "{{\"addresses\":[\"{e}\"],\"conditions\":{{\"ready\":true,\"serving\":true,\"terminating\":false}},\
                             \"nodeName\":\"edge-1\",\"targetRef\":{{\"kind\":\"Pod\",\"namespace\":\"{namespace}\",\"name\":\"{name}-{e}\"}}}}"
                        )
                    })
                    .collect();
                items.push(format!(
                    "{{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\",\"addressType\":\"IPv4\",\"metadata\":{{\
                     \"name\":\"{name}-{number}\",{meta},\"labels\":{{\"kubernetes.io/service-name\":\"{name}\"}}}},\"ports\":[{{\
                     \"name\":\"http\",\"port\":{TARGET},\"protocol\":\"{protocol}\"}}],\"endpoints\":[{}]}}",
                    endpoints.join(",")
                ));
            }
        }
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n{}\n]}}\n", items.join(",\n"))
    }
}
