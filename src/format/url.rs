//! Percent-encoding as S3 wants it, and the parts of an endpoint's address. Pure.
//!
//! Everything but `A-Za-z0-9-._~` is escaped, since what one library leaves alone another escapes, and a signature
//! holds only when both sides spell the path alike. Dot segments pass unharmed: a [`crate::format::key::Key`] has
//! none. Sources: Amazon S3 API reference, "Signature Calculations for the Authorization Header", `UriEncode`.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a query's name or value escapes: all but the unreserved characters of RFC 3986.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a path escapes: the same, but the slash stays.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Escapes a key for the path of a URL or for `x-amz-copy-source`; slashes stay.
pub fn encode_path(raw: &str) -> String {
    utf8_percent_encode(raw, PATH).to_string()
}

/// Escapes a name or value of a query.
pub fn encode_query(raw: &str) -> String {
    utf8_percent_encode(raw, QUERY).to_string()
}

/// The `Content-Disposition` that has browsers keep what they get under this name (RFC 6266, appendix D): plain for old
/// ones, and as it is for those that know UTF-8.
pub fn attachment(name: &str) -> String {
    let plain = |letter: char| if matches!(letter, ' '..='~') && !r#""\%/"#.contains(letter) { letter } else { '_' };
    let plain: String = name.chars().map(plain).collect();
    match plain == name {
        true => format!("attachment; filename=\"{name}\""),
        false => format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", encode_query(name)),
    }
}

/// Undoes [`encode_path`] and [`encode_query`]. `None` when the bytes are no UTF-8; a `%` that begins no escape stays.
pub fn decode(escaped: &str) -> Option<String> {
    percent_decode_str(escaped).decode_utf8().ok().map(Cow::into_owned)
}

/// Undoes `encoding-type=url` of a listing: a blank comes as `%20` or `+`, a plus sign always as `%2B`.
pub fn decode_listed(escaped: &str) -> Option<String> {
    if escaped.contains('+') { decode(&escaped.replace('+', "%20")) } else { decode(escaped) }
}

/// The address of a store: `scheme://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS protects what is sent.
    pub secure: bool,
    /// The host as a URL spells it: lower case, an IPv6 address in brackets.
    pub host: String,
    /// The port, where it is not the scheme's own.
    pub port: Option<u16>,
}

/// Why a text is not the address of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEndpoint {
    /// It does not begin with `http://` or `https://`.
    Scheme,
    /// There is no host, or one with characters that a host cannot have.
    Host,
    /// The port is no number from 1 to 65535.
    Port,
    /// A path, query or user name is in it.
    Excess,
}

impl fmt::Display for BadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadEndpoint::Scheme => "an endpoint begins with https:// or http://",
            BadEndpoint::Host => "the endpoint's host is missing or misspelled",
            BadEndpoint::Port => "the endpoint's port is not a number from 1 to 65535",
            BadEndpoint::Excess => "an endpoint is scheme://host[:port] and nothing more",
        })
    }
}

impl std::error::Error for BadEndpoint {}

impl Endpoint {
    /// Splits `scheme://host[:port]`; one closing slash is forgiven.
    pub fn parse(raw: &str) -> Result<Self, BadEndpoint> {
        let (scheme, rest) = raw.split_once("://").ok_or(BadEndpoint::Scheme)?;
        let (secure, own_port) = match scheme.to_ascii_lowercase().as_str() {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return Err(BadEndpoint::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(BadEndpoint::Excess);
        }
        let host_bytes = if rest.starts_with('[') {
            rest.find(']').map(|at| at + 1).ok_or(BadEndpoint::Host)?
        } else {
            rest.find(':').unwrap_or(rest.len())
        };
        let (host, port) = rest.split_at(host_bytes);
        let host = host.to_ascii_lowercase();
        if !is_host(&host) {
            return Err(BadEndpoint::Host);
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(BadEndpoint::Host),
            Some(digits) => Some(digits.parse().ok().filter(|&port| port != 0).ok_or(BadEndpoint::Port)?),
        };
        Ok(Endpoint { secure, host, port: port.filter(|&port| port != own_port) })
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// `host[:port]` with `bucket.` before the host, where buckets are addressed by host.
    pub fn authority(&self, bucket: Option<&str>) -> String {
        let mut authority = bucket.map(|bucket| format!("{bucket}.")).unwrap_or_default();
        authority.push_str(&self.host);
        if let Some(port) = self.port {
            authority.push_str(&format!(":{port}"));
        }
        authority
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority(None))
    }
}

/// Whether a host is this machine, so that nobody can listen on the way to it.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let by_name = bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost");
    by_name || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !host.is_empty() && host.bytes().all(allowed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(encode_path("a/b c+d~é%2e"), "a/b%20c%2Bd~%C3%A9%252e");
        assert_eq!(encode_query("a/b=c&d"), "a%2Fb%3Dc%26d");
        assert_eq!(decode_listed("a+b%2Bc%20d"), Some("a b+c d".into()));
        assert_eq!(decode("a+b%2Bc"), Some("a+b+c".into()));
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode("100%"), Some("100%".into()));
    }

    #[test]
    fn the_name_of_a_download_is_told_to_old_browsers_too() {
        assert_eq!(attachment("a b.pdf"), "attachment; filename=\"a b.pdf\"");
        let encoded = "attachment; filename=\"_ber_.pdf\"; filename*=UTF-8''%C3%BCber%22.pdf";
        assert_eq!(attachment("über\".pdf"), encoded);
    }

    #[test]
    fn endpoints_are_split_and_bad_ones_refused() {
        let endpoint = Endpoint::parse("https://S3.us-east-005.dream.io/").unwrap();
        assert_eq!(endpoint.to_string(), "https://s3.us-east-005.dream.io");
        assert!(endpoint.secure);
        assert_eq!(Endpoint::parse("http://localhost:80").unwrap().port, None);
        assert_eq!(Endpoint::parse("http://[::1]:7480").unwrap().authority(None), "[::1]:7480");
        assert_eq!(Endpoint::parse("http://h:9").unwrap().authority(Some("b")), "b.h:9");
        for (raw, why) in [
            ("s3.example.com", BadEndpoint::Scheme),
            ("ftp://host", BadEndpoint::Scheme),
            ("https://", BadEndpoint::Host),
            ("https://[::1", BadEndpoint::Host),
            ("https://[::1]x", BadEndpoint::Host),
            ("https://ho st", BadEndpoint::Host),
            ("https://host:", BadEndpoint::Port),
            ("https://host:0", BadEndpoint::Port),
            ("https://host:99999", BadEndpoint::Port),
            ("https://host/path", BadEndpoint::Excess),
            ("https://user@host", BadEndpoint::Excess),
        ] {
            assert_eq!(Endpoint::parse(raw), Err(why), "{raw}");
        }
    }

    #[test]
    fn loopback_is_this_machine_only() {
        for host in ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1", "[::2]", "notlocalhost", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_comes_back(raw in any::<String>()) {
            prop_assert_eq!(decode(&encode_path(&raw)), Some(raw.clone()));
            prop_assert_eq!(decode(&encode_query(&raw)), Some(raw.clone()));
            prop_assert_eq!(decode_listed(&encode_query(&raw)), Some(raw.clone()));
            prop_assert_eq!(decode_listed(&encode_query(&raw).replace("%20", "+")), Some(raw));
        }

        #[test]
        fn escaped_text_holds_only_what_no_library_bends(raw in any::<String>()) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
            prop_assert!(encode_query(&raw).bytes().all(plain));
            prop_assert!(encode_path(&raw).bytes().all(|byte| plain(byte) || byte == b'/'));
        }

        #[test]
        fn no_endpoint_panics_and_good_ones_come_back(raw in "[a-z]{0,6}(://)?[a-z.\\[\\]:0-9/@]{0,20}") {
            if let Ok(endpoint) = Endpoint::parse(&raw) {
                prop_assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint));
            }
        }
    }
}
