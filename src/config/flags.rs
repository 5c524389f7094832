//! The flags of `dreamfs mount` as typed. One list for everything: the command line, its help, and the names that
//! `-o` takes come from here. What the flags mean together is decided in [`super::Typed::meant`].

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args};

use super::units::{parse_duration, parse_mode, parse_size};
use crate::fs::Attrs;
use crate::store::s3::{Addressing, Integrity, Signature};

/// Not a doc comment, which would want marks around the URL that help should not show.
const ENDPOINT_HELP: &str = "The store [default: https://s3.us-east-005.dream.io] \
                             [env: DREAMFS_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL]";

/// How to reach a store, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Its address.
    #[arg(long, value_name = "URL", help = ENDPOINT_HELP, help_heading = "Store")]
    pub endpoint: Option<String>,
    /// The region to sign for [default: what the host's name says] [env: AWS_REGION]
    #[arg(long, value_name = "NAME", help_heading = "Store")]
    pub region: Option<String>,
    /// Where a bucket's name goes in a URL
    #[arg(long, value_name = "STYLE", default_value = "auto", value_parser = addressing_parser(), help_heading = "Store")]
    pub addressing: Addressing,
    /// How requests are signed: v2 for stores that lack v4
    #[arg(long, value_name = "VERSION", default_value = "v4", value_parser = signature_parser(), help_heading = "Store")]
    pub signature: Signature,
    /// Trust the root certificates in this file too [env: AWS_CA_BUNDLE]
    #[arg(long, value_name = "FILE.pem", help_heading = "Store")]
    pub ca: Option<PathBuf>,
    /// Send at most so many requests at once
    #[arg(long, value_name = "N", default_value = "64", help_heading = "Store")]
    pub max_requests: NonZeroUsize,
    /// Give up when the store has been silent for so long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_timeout, help_heading = "Store")]
    pub timeout: Duration,
    /// What protects bodies on their way
    #[arg(long, hide = true, default_value = "auto", value_parser = integrity_parser(), help_heading = "Store")]
    pub integrity: Integrity,

    /// A file with the keys: of s3fs, the AWS command line, boto or s3cmd
    #[arg(long, value_name = "FILE", help_heading = "Credentials")]
    pub credentials: Option<PathBuf>,
    /// The profile in ~/.aws/credentials and ~/.aws/config [env: AWS_PROFILE]
    #[arg(long, value_name = "NAME", help_heading = "Credentials")]
    pub profile: Option<String>,
    /// Sign nothing: public buckets only
    #[arg(long, help_heading = "Credentials")]
    pub anonymous: bool,
}

/// The flags of `dreamfs mount`.
#[derive(Clone, Debug, Args)]
pub struct Flags {
    /// The store.
    #[command(flatten)]
    pub connection: Connection,

    /// Refuse all changes
    #[arg(long, help_heading = "Files")]
    pub read_only: bool,
    /// Let other users in, as far as the modes of the files allow
    #[arg(long, help_heading = "Files")]
    pub allow_other: bool,
    /// The owner of objects that name none [default: you]
    #[arg(long, value_name = "UID", help_heading = "Files")]
    pub uid: Option<u32>,
    /// The group of objects that name none [default: yours]
    #[arg(long, value_name = "GID", help_heading = "Files")]
    pub gid: Option<u32>,
    /// The mode of files that carry none
    #[arg(long, value_name = "OCTAL", default_value = "0644", value_parser = parse_mode, help_heading = "Files")]
    pub file_mode: u32,
    /// The mode of directories that carry none
    #[arg(long, value_name = "OCTAL", default_value = "0755", value_parser = parse_mode, help_heading = "Files")]
    pub dir_mode: u32,
    /// Take these bits from both modes
    #[arg(long, value_name = "OCTAL", default_value = "0", value_parser = parse_mode, help_heading = "Files")]
    pub umask: u32,
    /// Where modes, owners and times come from: the listing, a HEAD of each object, or what suits the directory
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = attrs_parser(), help_heading = "Files")]
    pub attrs: Attrs,
    /// Whether directories get objects of their own where nothing else would tell of them
    #[arg(long, value_name = "auto|never", default_value = "auto", value_parser = markers_parser(), action = ArgAction::Set, help_heading = "Files")]
    pub markers: bool,
    /// Whether FILE@VERSIONID and .versions/ show what a bucket with versions kept
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = on_off_parser(), action = ArgAction::Set, help_heading = "Files")]
    pub versions: bool,
    /// How long names and attributes are believed before the store is asked again
    /// [default: 3s to 60s, by how long a directory has not changed]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Files")]
    pub ttl: Option<Duration>,
    /// Do not let mkdir and rmdir create and delete buckets
    #[arg(long, help_heading = "Files")]
    pub no_bucket_ops: bool,
    /// The canned ACL of new files, such as public-read
    #[arg(long, value_name = "CANNED", help_heading = "Files")]
    pub acl: Option<String>,
    /// The storage class of new files
    #[arg(long, value_name = "CLASS", help_heading = "Files")]
    pub storage_class: Option<String>,

    /// Have the store encrypt what is written, with its own keys or those of its
    /// key management service [default: as the bucket says]
    #[arg(long, value_name = "AES256|aws:kms", value_parser = ["AES256", "aws:kms"], help_heading = "Files")]
    pub sse: Option<String>,
    /// The key for --sse aws:kms [default: the store's]
    #[arg(long, value_name = "ID", help_heading = "Files")]
    pub sse_kms_key_id: Option<String>,

    /// The memory for contents and names
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size, help_heading = "This machine")]
    pub memory: u64,
    /// Names remembered at most, as far as half the memory has room for them;
    /// the longest unused are forgotten first
    #[arg(long, value_name = "N", default_value = "1000000", help_heading = "This machine")]
    pub max_names: NonZeroUsize,
    /// Where staged bytes and records lie
    /// [default: ~/.local/state/dreamfs; root: /var/lib/dreamfs]
    #[arg(long, value_name = "DIR", help_heading = "This machine")]
    pub state: Option<PathBuf>,
    /// Keep contents in this folder too, for later mounts and other ones
    #[arg(long, value_name = "DIR", help_heading = "This machine")]
    pub cache: Option<PathBuf>,
    /// How much of the disk these may take [default: 10GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "This machine")]
    pub cache_size: Option<u64>,
    /// Let close, and every change of names and attributes, return when it is in
    /// a journal under --state; the store gets it in the background. The journal
    /// survives a killed daemon and is stored by the next mount
    #[arg(long, help_heading = "This machine")]
    pub write_back: bool,
    /// With --write-back: have it on the disk before the call returns, so that
    /// it survives a loss of power too
    #[arg(long, requires = "write_back", help_heading = "This machine")]
    pub journal_sync: bool,
    /// How much of the disk what is not stored yet may take: bytes that are being written, and as much again for the
    /// journal [default: 10GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "This machine")]
    pub stage_size: Option<u64>,
    /// How much to log, and where: error, warn, info, debug or trace, to the terminal or (in the background) the
    /// system's log, or to a file
    #[arg(long, value_name = "LEVEL[:FILE]", default_value = "warn", help_heading = "This machine")]
    pub log: String,

    /// The name that df shows; `-o fsname=NAME`
    #[arg(long, hide = true, value_name = "NAME")]
    pub fsname: Option<String>,
    /// An option of mount(8) for the kernel; `-o noexec` and its kind
    #[arg(long, hide = true, value_name = "OPT")]
    pub kernel_option: Vec<String>,
    /// An `-o` option that was accepted and means nothing here, for the log
    #[arg(long, hide = true, value_name = "OPT")]
    pub without_effect: Vec<String>,
    /// The largest single copy in bytes; lowered by tests
    #[arg(long, hide = true, value_name = "SIZE", value_parser = parse_size)]
    pub test_copy_bytes_max: Option<u64>,
    /// The size of parts in bytes; lowered by tests
    #[arg(long, hide = true, value_name = "SIZE", value_parser = parse_size)]
    pub test_part_bytes: Option<u64>,
}

fn addressing_parser() -> impl TypedValueParser<Value = Addressing> {
    PossibleValuesParser::new(["auto", "path", "virtual"]).map(|name| match name.as_str() {
        "path" => Addressing::Path,
        "virtual" => Addressing::Virtual,
        _ => Addressing::Auto,
    })
}

fn signature_parser() -> impl TypedValueParser<Value = Signature> {
    PossibleValuesParser::new(["v4", "v2"]).map(|name| if name == "v2" { Signature::V2 } else { Signature::V4 })
}

fn integrity_parser() -> impl TypedValueParser<Value = Integrity> {
    PossibleValuesParser::new(["auto", "none", "sha256", "md5"]).map(|name| match name.as_str() {
        "none" => Integrity::None,
        "sha256" => Integrity::Sha256,
        "md5" => Integrity::Md5,
        _ => Integrity::Auto,
    })
}

fn on_off_parser() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["on", "off"]).map(|name| name == "on")
}

fn markers_parser() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["auto", "never"]).map(|name| name == "auto")
}

fn attrs_parser() -> impl TypedValueParser<Value = Attrs> {
    PossibleValuesParser::new(["auto", "list", "full"]).map(|name| match name.as_str() {
        "list" => Attrs::List,
        "full" => Attrs::Full,
        _ => Attrs::Auto,
    })
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.is_zero() { Err("write at least 1s".to_owned()) } else { Ok(timeout) }
}
