//! What a request asks for: `?q=TEXT` picks services, `?services=N` bounds them, `all` lifts the bound.

use crate::view::ServicePort;

/// The query of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Words that a service's name, hosts, frontends or endpoints must all hold; lower case.
    pub words: String,
    /// How many services are told; `None`: the usual number.
    pub limit: Option<usize>,
}

impl Query {
    /// Reads `q=web&services=10`. What it does not know it passes over.
    pub fn read(text: &str) -> Self {
        let mut query = Self::default();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            match (key.as_ref(), value.as_ref()) {
                ("q", words) => query.words = words.to_lowercase(),
                ("services", "all") => query.limit = Some(usize::MAX),
                ("services", number) => query.limit = number.parse().ok(),
                _ => {}
            }
        }
        query
    }

    /// Whether it picks a service.
    pub fn picks(&self, port: &ServicePort<'_>) -> bool {
        self.words.split_whitespace().all(|word| {
            port.name.to_lowercase().contains(word)
                || port.protocol.name() == word
                || port.hosts.iter().any(|h| h.to_lowercase().contains(word))
                || port.frontends.iter().any(|f| super::frontend(f).1.contains(word))
                || port.records.iter().any(|r| r.endpoints().iter().any(|e| e.address.to_string().contains(word)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read() {
        let read = Query::read("x=1&q=Web%20%3Cb%3E+443&services=7");
        assert_eq!(read, Query { words: "web <b> 443".into(), limit: Some(7) });
        assert_eq!(Query::read("services=all").limit, Some(usize::MAX));
        assert_eq!(Query::read("services=many&q=%ff%"), Query { words: "\u{fffd}%".into(), limit: None });
    }
}
