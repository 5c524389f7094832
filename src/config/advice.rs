//! One line for people: what the first request's failure means and what to do about it. Every kind has its line.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::Clock;
use crate::store::{Error, Kind};

/// What to tell the user who tried to mount from `endpoint`: what is wrong, and what to do.
pub fn advice(error: &Error, endpoint: &str) -> String {
    advise_at(error, endpoint, &Clock::system())
}

fn advise_at(error: &Error, endpoint: &str, clock: &Clock) -> String {
    let subject = if error.subject.is_empty() { "the account" } else { error.subject.as_str() };
    let line = match error.kind {
        Kind::UnknownAccessKey => {
            format!("{endpoint} does not know this access key. Check the key, and that --endpoint is its store")
        }
        Kind::BadSignature => {
            "the secret key is wrong. Check it, and that it was copied whole (or --region, if the store is strict)"
                .to_owned()
        }
        Kind::ExpiredCredentials => "these temporary credentials have run out. Get new ones".to_owned(),
        Kind::ClockSkewed => {
            let now = OffsetDateTime::from(clock.now()).format(&Rfc3339).unwrap_or_default();
            format!("the store finds this machine's clock wrong. Set it: timedatectl set-ntp true (now {now})")
        }
        Kind::NoSuchBucket | Kind::NotFound => format!(
            "there is no bucket {subject} at {endpoint}. Check the name, or run: dreamfs mount MOUNTPOINT and mkdir \
             MOUNTPOINT/{subject} to make it"
        ),
        Kind::AccessDenied => format!(
            "{endpoint} refuses these credentials access to {subject}. Check the keys and who owns it (public \
             buckets: --anonymous)"
        ),
        Kind::Unresolvable => {
            format!("the host of {endpoint} is not known. Check --endpoint for a typing error, and the network")
        }
        Kind::Unreachable => format!("nothing answers at {endpoint}. Check --endpoint with its port, and the network"),
        Kind::UntrustedCertificate => {
            format!("the certificate of {endpoint} is not trusted. Name its authority with --ca FILE.pem")
        }
        Kind::TimedOut => format!("{endpoint} does not answer. Check the network, or give it longer with --timeout"),
        Kind::Throttled => format!("{endpoint} asks to slow down. Try again, or use fewer with --max-requests"),
        Kind::ServerError => format!("{endpoint} has trouble of its own{}. Try again later", said(error)),
        Kind::Interrupted => {
            format!("the connection to {endpoint} broke off. Try again; check the network if it stays")
        }
        Kind::Malformed => format!("{endpoint} does not answer like an S3 store{}. Check --endpoint", said(error)),
        Kind::Unsupported => format!("{endpoint} does not offer {}{}. Check --endpoint", error.operation, said(error)),
        Kind::BadRequest => {
            format!("{endpoint} refuses the request{}. Check --endpoint, --region and --addressing", said(error))
        }
        Kind::QuotaExceeded => "the account's quota is used up. Delete something or ask for more".to_owned(),
        Kind::AlreadyExists
        | Kind::NotEmpty
        | Kind::PreconditionFailed
        | Kind::BadRange
        | Kind::TooLarge
        | Kind::Archived
        | Kind::LocalDisk => {
            format!("{endpoint} refuses {}{}. Try again with --log debug", error.operation, said(error))
        }
    };
    // The store's own words may have line breaks.
    line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn said(error: &Error) -> String {
    if error.message.is_empty() { String::new() } else { format!(" ({})", error.message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn line(kind: Kind) -> String {
        let error = Error::new(kind, "HeadBucket", "photos", "words\nof the store");
        let clock = Clock::fixed(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        advise_at(&error, "https://s3.example.com", &clock)
    }

    #[test]
    fn each_failure_has_one_line_that_says_what_to_do() {
        for (kind, words) in [
            (Kind::UnknownAccessKey, "does not know this access key"),
            (Kind::BadSignature, "the secret key is wrong"),
            (Kind::ClockSkewed, "(now 2023-11-14T22:13:20Z)"),
            (Kind::NoSuchBucket, "mkdir MOUNTPOINT/photos"),
            (Kind::AccessDenied, "photos"),
            (Kind::Unresolvable, "Check --endpoint"),
            (Kind::Unreachable, "https://s3.example.com"),
            (Kind::UntrustedCertificate, "--ca"),
            (Kind::TimedOut, "--timeout"),
            (Kind::ExpiredCredentials, "run out"),
            (Kind::ServerError, "words of the store"),
        ] {
            let line = line(kind);
            assert!(line.contains(words) && !line.contains('\n') && line.contains(". "), "{line}");
        }
    }
}
