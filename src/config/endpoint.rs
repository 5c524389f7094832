//! Which store, and which region: from the flag, the environment, or DreamObjects' own. Refuses an endpoint with a
//! path, a user name or no scheme: guessing `http` would send requests in the clear.

use super::Environment;
use crate::format::url::{BadEndpoint, Endpoint};

/// DreamObjects' cluster for new accounts.
pub const ENDPOINT_DEFAULT: &str = "https://s3.us-east-005.dream.io";

/// The region of a store that names none; stores without regions take it.
const REGION_DEFAULT: &str = "us-east-1";

/// Where the endpoint may be named, in order.
const VARIABLES: [&str; 3] = ["DREAMFS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];

/// The endpoint as `scheme://host[:port]`, or one line that says what is wrong with it and where it was named.
pub fn endpoint(flag: Option<&str>, environment: &Environment) -> Result<String, String> {
    let from_variable = || VARIABLES.iter().find_map(|name| Some((*name, environment.get(name)?)));
    let (place, told) = match flag {
        Some(told) => ("--endpoint", told.to_owned()),
        None => from_variable().unwrap_or(("--endpoint", ENDPOINT_DEFAULT.to_owned())),
    };
    match Endpoint::parse(&told) {
        Ok(endpoint) => Ok(endpoint.to_string()),
        // Never shown with a user name in it: a password may stand there too.
        Err(BadEndpoint::Scheme) if !told.contains(['@', '/']) => {
            Err(format!("{place} {told} has no scheme. Write https://{told}"))
        }
        Err(why) => Err(format!("{place}: {why}. Write for example {ENDPOINT_DEFAULT}")),
    }
}

/// The region to sign for.
pub fn region(flag: Option<&str>, environment: &Environment, endpoint: &str) -> String {
    let told = flag.map(str::to_owned).or_else(|| environment.get("AWS_REGION"));
    told.or_else(|| environment.get("AWS_DEFAULT_REGION")).unwrap_or_else(|| region_of(endpoint).to_owned())
}

/// `us-east-005` of `https://s3.us-east-005.dream.io`, `us-east-1` of `https://objects-us-east-1.dream.io`.
///
/// A region stands after the label `s3` (perhaps with `dualstack` between), or in one label with `s3-` or `objects-`.
fn region_of(endpoint: &str) -> &str {
    let authority = endpoint.split_once("://").map_or(endpoint, |(_, authority)| authority);
    let mut labels = authority.split([':', '/']).next().unwrap_or_default().split('.');
    let named = match labels.next() {
        Some("s3") => labels.find(|label| *label != "dualstack"),
        Some(label) => label.strip_prefix("s3-").or_else(|| label.strip_prefix("objects-")),
        None => None,
    };
    named.filter(|name| is_region(name)).unwrap_or(REGION_DEFAULT)
}

/// Whether a label looks like `us-east-005`: words, then a number.
fn is_region(label: &str) -> bool {
    let Some((words, number)) = label.rsplit_once('-') else { return false };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.contains('-') && words.split('-').all(is_word) && number.parse::<u32>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_from_hosts() {
        for (endpoint, region) in [
            (ENDPOINT_DEFAULT, "us-east-005"),
            ("https://objects-us-east-1.dream.io", "us-east-1"),
            ("https://s3.eu-west-3.amazonaws.com", "eu-west-3"),
            ("https://s3.dualstack.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("https://s3-ap-southeast-2.amazonaws.com", "ap-southeast-2"),
            ("https://s3.us-west-004.backblazeb2.com:443", "us-west-004"),
            ("https://s3.amazonaws.com", "us-east-1"),
            ("https://s3.example.com", "us-east-1"),
            ("http://ceph-node-1:7480", "us-east-1"),
            ("http://127.0.0.1:7480", "us-east-1"),
            ("http://[::1]:7480", "us-east-1"),
        ] {
            assert_eq!(region_of(endpoint), region, "{endpoint}");
        }
    }

    #[test]
    fn the_flag_outranks_the_environment() {
        let environment = Environment::of(&[("AWS_ENDPOINT_URL", "http://all:1"), ("AWS_REGION", "eu-1")]);
        assert_eq!(endpoint(None, &environment), Ok("http://all:1".to_owned()));
        assert_eq!(endpoint(Some("https://flag/"), &environment), Ok("https://flag".to_owned()));
        assert_eq!(region(None, &environment, ENDPOINT_DEFAULT), "eu-1");
        assert_eq!(region(Some("mine"), &environment, ENDPOINT_DEFAULT), "mine");
        let environment = Environment::of(&[
            ("AWS_ENDPOINT_URL", "http://all"),
            ("AWS_ENDPOINT_URL_S3", "http://s3"),
            ("DREAMFS_ENDPOINT", "http://ours"),
        ]);
        assert_eq!(endpoint(None, &environment), Ok("http://ours".to_owned()));
        assert_eq!(endpoint(None, &Environment::of(&[])), Ok(ENDPOINT_DEFAULT.to_owned()));
    }

    #[test]
    fn bad_endpoints_are_refused_where_they_were_named() {
        let none = Environment::of(&[]);
        let why = endpoint(Some("store.example.com"), &none).unwrap_err();
        assert!(why.ends_with("Write https://store.example.com"), "{why}");
        let why = endpoint(Some("https://KEY:TOPSECRET@host"), &none).unwrap_err();
        assert!(!why.contains("TOPSECRET"), "{why}");
        let why = endpoint(Some("KEY:TOPSECRET@host"), &none).unwrap_err();
        assert!(!why.contains("TOPSECRET"), "{why}");
        let why = endpoint(None, &Environment::of(&[("AWS_ENDPOINT_URL", "https://h/path")])).unwrap_err();
        assert!(why.starts_with("AWS_ENDPOINT_URL"), "{why}");
    }
}
