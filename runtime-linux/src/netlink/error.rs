//! What the kernel said, the object it was about, and what to do.

use std::fmt;

use super::owner::Owner;
use nix::errno::Errno;

/// Why the kernel's ruleset could not be read or changed. Nothing was changed by the transaction that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A system call on the socket failed.
    #[error("cannot {doing}: {source}{}", remedy(.source))]
    Socket {
        /// What was tried.
        doing: &'static str,
        /// The error.
        source: std::io::Error,
    },
    /// The kernel refused an object.
    #[error("{0}")]
    Refused(Refusal),
    /// The tables belong to another process.
    #[error(
        "natlet's tables belong to {0}, and the kernel lets nobody else change them: change the files that it reads, or \
         end it first (the rules stay in force) and start it with --no-owner if others are to change them"
    )]
    Owned(Owner),
    /// Somebody changed the ruleset since it was read: read it again and plan again.
    #[error("the ruleset was changed by another program meanwhile; try again")]
    Stale,
    /// The ruleset never stood still for as long as a read takes.
    #[error("other programs change the ruleset faster than it can be read; try again later")]
    Changing,
    /// No answer came, and the generation says that nothing happened.
    #[error("the kernel did not answer the transaction and did not apply it")]
    NoAnswer,
    /// A transaction does not fit the socket's buffer.
    #[error(
        "a transaction of {len} bytes does not fit the socket's {max}: run as root of the host, or raise sysctl \
         net.core.wmem_max"
    )]
    BatchTooLong {
        /// Its bytes.
        len: usize,
        /// What the socket takes.
        max: usize,
    },
    /// One object is larger than a netlink attribute can be (65,535 bytes).
    #[error("{object} is larger than netlink can say (65,535 bytes)")]
    MessageTooLong {
        /// The object in words.
        object: String,
    },
}

impl LoadError {
    /// The kernel's error number, if the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(refusal) => Some(refusal.errno),
            _ => None,
        }
    }
}

/// A refusal of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Error number.
    pub errno: i32,
    /// The kernel's own text (extended acknowledgement); nf_tables seldom gives one.
    pub text: Option<String>,
    /// What it was about, in words: `element 192.168.5.65 . tcp . 443 of map services`.
    pub object: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(errno: i32, text: Option<String>, object: Option<String>, options: &[&str]) -> Self {
        Self { errno, text, object, hint: hint(Errno::from_raw(errno), options) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel refused {}: {}", self.object.as_deref().unwrap_or("the request"), self.name())?;
        if let Some(text) = &self.text {
            write!(f, " ({text})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl Refusal {
    fn name(&self) -> String {
        let errno = Errno::from_raw(self.errno);
        match errno {
            Errno::UnknownErrno => format!("error {}", self.errno),
            _ => format!("{} ({errno:?})", errno.desc()),
        }
    }
}

/// What to do about a system call that failed, after a semicolon.
fn remedy(error: &std::io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => {
            "; the kernel lacks netfilter netlink (CONFIG_NETFILTER_NETLINK), or a sandbox forbids it; `natlet gateway` does \
             without"
        }
        Some(Errno::EPERM | Errno::EACCES) => "; natlet needs CAP_NET_ADMIN in this network namespace: run it as root",
        Some(Errno::EMFILE | Errno::ENFILE) => "; raise the limit of open files (ulimit -n, LimitNOFILE=)",
        _ => "",
    }
}

fn hint(errno: Errno, options: &[&str]) -> Option<String> {
    Some(match errno {
        Errno::EPERM => {
            "natlet needs CAP_NET_ADMIN in this network namespace: run it as root; a table that another process \
                         owns can be changed by that process only"
                .into()
        }
        Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EINVAL if !options.is_empty() => {
            let mut needed = options.to_vec();
            needed.sort_unstable();
            needed.dedup();
            format!("the rule needs a kernel with {}", needed.join(", "))
        }
        Errno::EOPNOTSUPP => {
            "the kernel lacks nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_IPV4, CONFIG_NF_TABLES_IPV6) or \
                              NAT chains (CONFIG_NFT_NAT)"
                .into()
        }
        Errno::EMSGSIZE => "run as root of the host, or raise sysctl net.core.wmem_max".into(),
        Errno::ENOMEM => {
            "the kernel is out of memory, or the memory limit of this cgroup is too low: about 80 bytes for \
                          each element, twice during an update"
                .into()
        }
        Errno::ENFILE => "the set is full: it was created for fewer elements".into(),
        Errno::EBUSY => "something else in the table still uses it".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_what_to_do() {
        let object = || Some("rule 3 of chain postrouting of family ip".to_owned());
        let text = Refusal::new(Errno::EPERM as i32, None, object(), &[]).to_string();
        assert!(text.contains("rule 3 of chain postrouting") && text.contains("CAP_NET_ADMIN"), "{text}");
        let text = Refusal::new(Errno::ENOENT as i32, None, object(), &["CONFIG_NFT_NUMGEN"]).to_string();
        assert!(text.ends_with("the rule needs a kernel with CONFIG_NFT_NUMGEN"), "{text}");
        let text = Refusal::new(Errno::ERANGE as i32, Some("Attribute failed policy validation".into()), None, &[]);
        assert!(text.to_string().ends_with("(ERANGE) (Attribute failed policy validation)"), "{text}");
    }
}
