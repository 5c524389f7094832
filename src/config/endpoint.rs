//! Which store, and which region: from the flag, the environment, or DreamObjects' own.

use crate::format::url::{BadEndpoint, Endpoint};

use super::Environment;

/// DreamObjects' cluster for new accounts.
const ENDPOINT_DEFAULT: &str = "https://s3.us-east-005.dream.io";

/// The region of a store that names none.
const REGION_DEFAULT: &str = "us-east-1";

/// The endpoint, checked.
pub fn endpoint(flag: Option<&str>, environment: &Environment) -> Result<String, String> {
    let names = ["DREAMFS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    let told = flag.map(str::to_owned).or_else(|| names.iter().find_map(|name| environment.get(name)));
    let told = told.unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
    match Endpoint::parse(&told) {
        Ok(endpoint) => Ok(endpoint.to_string()),
        Err(BadEndpoint::Scheme) => Err(format!("--endpoint {told} has no scheme. Write https://{told}")),
        Err(why) => Err(format!("--endpoint {told}: {why}. Write for example {ENDPOINT_DEFAULT}")),
    }
}

/// The region to sign for.
pub fn region(flag: Option<&str>, environment: &Environment, endpoint: &str) -> String {
    let told = flag.map(str::to_owned).or_else(|| environment.get("AWS_REGION"));
    told.or_else(|| environment.get("AWS_DEFAULT_REGION")).unwrap_or_else(|| region_of_host(endpoint).to_owned())
}

/// `us-east-005` of `https://s3.us-east-005.dream.io`, `us-east-1` of `https://objects-us-east-1.dream.io`.
fn region_of_host(endpoint: &str) -> &str {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    let host = host.split(':').next().unwrap_or(host);
    let labels: Vec<&str> = host.split('.').collect();
    match labels.as_slice() {
        ["s3", region, "dream", "io"] | ["s3", region, "amazonaws", "com"] | ["s3", region, "backblazeb2", "com"] => {
            region
        }
        [cluster, "dream", "io"] => cluster.strip_prefix("objects-").unwrap_or(REGION_DEFAULT),
        _ => REGION_DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_from_hosts() {
        assert_eq!(region_of_host("https://s3.us-east-005.dream.io"), "us-east-005");
        assert_eq!(region_of_host("https://objects-us-east-1.dream.io"), "us-east-1");
        assert_eq!(region_of_host("https://s3.eu-west-3.amazonaws.com"), "eu-west-3");
        assert_eq!(region_of_host("http://127.0.0.1:7480"), "us-east-1");
    }

    #[test]
    fn the_flag_outranks_the_environment_and_bad_ones_are_told() {
        let environment = Environment::of(&[("AWS_ENDPOINT_URL", "http://env:1")]);
        assert_eq!(endpoint(None, &environment), Ok("http://env:1".to_owned()));
        assert_eq!(endpoint(Some("https://flag"), &environment), Ok("https://flag".to_owned()));
        assert!(endpoint(Some("store.example.com"), &environment).is_err_and(|why| why.contains("https://store")));
        assert_eq!(endpoint(None, &Environment::of(&[])), Ok(ENDPOINT_DEFAULT.to_owned()));
    }
}
