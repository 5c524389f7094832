//! The formats that keys are kept in, as pure parsers: s3fs's lines, and the ini files of the AWS command line, boto and
//! s3cmd. A text that fits none of them has no keys, which is not an error here.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::store::s3::Credentials;

/// What a file says.
pub enum Found {
    /// The keys.
    Keys(Credentials),
    /// A command line that prints them.
    Process(String),
}

type Section = BTreeMap<String, String>;

/// Any of the formats, told by what is in the text.
pub fn any(text: &str, profile: &str, bucket: Option<&str>) -> Option<Found> {
    if let Some(keys) = process_answer(text.as_bytes()) {
        return Some(Found::Keys(keys));
    }
    if !text.lines().any(|line| line.trim_start().starts_with('[')) {
        return passwd(text, bucket).map(Found::Keys);
    }
    aws(text, profile).or_else(|| boto(text).or_else(|| s3cfg(text)).map(Found::Keys))
}

/// A profile of `~/.aws/credentials` (`[NAME]`) or `~/.aws/config` (`[profile NAME]`, but `[default]`).
pub fn aws(text: &str, profile: &str) -> Option<Found> {
    let all = sections(text);
    let section = all.get(profile).or_else(|| all.get(&format!("profile {profile}")))?;
    let keys = keys(section, ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"]);
    keys.map(Found::Keys).or_else(|| section.get("credential_process").cloned().map(Found::Process))
}

/// `[Credentials]` of `~/.boto`.
pub fn boto(text: &str) -> Option<Credentials> {
    let all = sections(text);
    keys(all.get("Credentials")?, ["aws_access_key_id", "aws_secret_access_key", "aws_security_token"])
}

/// `[default]` of `~/.s3cfg`.
pub fn s3cfg(text: &str) -> Option<Credentials> {
    let all = sections(text);
    keys(all.get("default")?, ["access_key", "secret_key", "access_token"])
}

/// s3fs's lines, `KEY:SECRET` or `BUCKET:KEY:SECRET`; the bucket's own line goes before the general one.
pub fn passwd(text: &str, bucket: Option<&str>) -> Option<Credentials> {
    let mut general = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut fields = line.split(':');
        match (fields.next(), fields.next(), fields.next(), fields.next()) {
            (Some(name), Some(key), Some(secret), None) if Some(name) == bucket => return pair(key, secret),
            (Some(key), Some(secret), None, None) => general = general.or_else(|| pair(key, secret)),
            _ => {}
        }
    }
    general
}

/// What a `credential_process` prints.
pub fn process_answer(text: &[u8]) -> Option<Credentials> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        version: u32,
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(text).ok()?;
    let keys = pair(&answer.access_key_id, &answer.secret_access_key).filter(|_| answer.version == 1)?;
    Some(Credentials { session_token: answer.session_token.filter(|token| !token.is_empty()), ..keys })
}

fn pair(access_key: &str, secret_key: &str) -> Option<Credentials> {
    let (access_key, secret_key) = (access_key.trim().to_owned(), secret_key.trim().to_owned());
    let both = !access_key.is_empty() && !secret_key.is_empty();
    both.then_some(Credentials { access_key, secret_key, session_token: None })
}

fn keys(section: &Section, [access_key, secret_key, token]: [&str; 3]) -> Option<Credentials> {
    let keys = pair(section.get(access_key)?, section.get(secret_key)?)?;
    Some(Credentials { session_token: section.get(token).filter(|token| !token.is_empty()).cloned(), ..keys })
}

/// The sections of an ini file. Indented lines below a name without a value are that value's own, and left out.
fn sections(text: &str) -> BTreeMap<String, Section> {
    let mut all: BTreeMap<String, Section> = BTreeMap::new();
    let mut name = String::new();
    let mut nested = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            name = header.0.split_whitespace().collect::<Vec<_>>().join(" ");
            nested = false;
        } else if let Some((key, value)) = trimmed.split_once('=') {
            if nested && line.starts_with([' ', '\t']) {
                continue;
            }
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
            nested = value.is_empty();
            all.entry(name.clone()).or_default().insert(key, value);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(found: Option<Found>) -> String {
        match found {
            None => "none".to_owned(),
            Some(Found::Process(command)) => format!("run {command}"),
            Some(Found::Keys(keys)) => {
                format!("{} {} {}", keys.access_key, keys.secret_key, keys.session_token.unwrap_or_default())
            }
        }
    }

    #[test]
    fn aws_profiles_are_found_in_both_spellings() {
        let text = "# mine\n[default]\naws_access_key_id = K\naws_secret_access_key = S=+/\ns3 =\n  \
                    aws_access_key_id = nested\n[ profile  work ]\nAWS_ACCESS_KEY_ID=W\naws_secret_access_key=X\n\
                    aws_session_token=T\n[profile run]\ncredential_process = /bin/keys --for me\n[half]\n\
                    aws_access_key_id=H\n";
        assert_eq!(shown(aws(text, "default")), "K S=+/ ");
        assert_eq!(shown(aws(text, "work")), "W X T");
        assert_eq!(shown(aws(text, "run")), "run /bin/keys --for me");
        assert_eq!(shown(aws(text, "half")), "none");
        assert_eq!(shown(aws(text, "other")), "none");
    }

    #[test]
    fn lines_of_s3fs_prefer_the_bucket() {
        let text = "# keys\n\nother:K1:S1\nK3:S3\nK4:S4\nphotos:K2:S2\n:\n";
        assert_eq!(shown(passwd(text, Some("photos")).map(Found::Keys)), "K2 S2 ");
        assert_eq!(shown(passwd(text, Some("unknown")).map(Found::Keys)), "K3 S3 ");
        assert_eq!(shown(passwd(text, None).map(Found::Keys)), "K3 S3 ");
        assert_eq!(shown(passwd("photos:K2:S2", None).map(Found::Keys)), "none");
    }

    #[test]
    fn any_format_is_told_by_its_content() {
        for (text, expected) in [
            ("K:S", "K S "),
            ("[Credentials]\naws_access_key_id = B\naws_secret_access_key = C", "B C "),
            ("[default]\naccess_key = A\nsecret_key = D\naccess_token = E", "A D E"),
            ("[default]\naws_access_key_id=K\naws_secret_access_key=S", "K S "),
            ("{\"Version\":1,\"AccessKeyId\":\"J\",\"SecretAccessKey\":\"S\",\"SessionToken\":\"T\"}", "J S T"),
            ("{\"Version\":2,\"AccessKeyId\":\"J\",\"SecretAccessKey\":\"S\"}", "none"),
            ("[default]\nregion = x", "none"),
            ("a letter to my aunt", "none"),
            ("", "none"),
        ] {
            assert_eq!(shown(any(text, "default", None)), expected, "{text}");
        }
    }
}
