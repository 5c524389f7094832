//! One line for people: what the first request's failure means and what to do about it.

use crate::store::{Error, Kind};

/// What to tell the user who tried to mount.
pub fn advice(error: &Error, endpoint: &str) -> String {
    let said = &error.message;
    match error.kind {
        Kind::UnknownAccessKey => "the store does not know this access key. Check AWS_ACCESS_KEY_ID or the \
                                   credentials file, and that it belongs to this endpoint"
            .to_owned(),
        Kind::BadSignature => {
            "the secret key is wrong (SignatureDoesNotMatch). Check AWS_SECRET_ACCESS_KEY or the credentials file"
                .to_owned()
        }
        Kind::ExpiredCredentials => "the temporary credentials have run out. Fetch new ones".to_owned(),
        Kind::ClockSkewed => {
            "this machine's clock is too far from the store's. Set it (timedatectl set-ntp true)".to_owned()
        }
        Kind::NoSuchBucket | Kind::NotFound => {
            format!("{} does not exist. Check the name, or mount without a bucket and mkdir it", error.subject)
        }
        Kind::AccessDenied => {
            format!("access denied to {}: {said}. Check the keys and the bucket's owner", error.subject)
        }
        Kind::Unresolvable => format!("the host of {endpoint} cannot be found. Check --endpoint and the name service"),
        Kind::Unreachable => format!("nothing answers at {endpoint}. Check --endpoint, the port and the network"),
        Kind::UntrustedCertificate => {
            format!("the certificate of {endpoint} is not trusted. Trust its authority with --ca FILE.pem")
        }
        Kind::TimedOut => format!("{endpoint} did not answer in time. Check the network, or raise --timeout"),
        _ => format!("{endpoint} refused: {error}"),
    }
}
