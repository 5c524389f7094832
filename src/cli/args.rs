//! The command line, as typed. What it means is decided in [`crate::config`].

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::flags::{Connection, Flags};
use crate::config::units::{parse_duration, parse_size};

/// Mounts DreamObjects, Ceph or any S3-compatible store as a folder.
#[derive(Debug, Parser)]
#[command(name = "dreamfs", version, max_term_width = 80, args_override_self = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  dreamfs mount photos /mnt/photos           one bucket is a folder
  dreamfs mount /mnt/objects                 every bucket is a directory
  setfattr -n user.s3.acl -v public-read /mnt/photos/cat.jpg
  dreamfs url /mnt/photos/cat.jpg            a link that works for an hour
  dreamfs umount /mnt/photos                 store what is left, then unmount
  dreamfs demo                               try it all without an account";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a bucket, a folder of one, or without BUCKET every bucket of the account
    Mount(Box<Mount>),
    /// Finish what is not stored yet, then unmount
    Umount(Umount),
    /// What mounts are doing
    Status(Status),
    /// All that is known of files
    Stat(Stat),
    /// Show or change ACLs
    Acl(Acl),
    /// Links to files, signed or public
    Url(Url),
    /// Wait until paths are in the store
    Wait(Wait),
    /// Forget what is cached of paths
    Refresh(Refresh),
    /// List or copy out what lies on this machine and not in the store
    Recover(Recover),
    /// Delete a bucket with all that it holds, versions and uploads too
    Purge(Box<Purge>),
    /// Try everything without an account: embedded store and mount
    Demo(Demo),
    /// Run the embedded S3 server alone
    Serve(Serve),
}

/// `dreamfs mount`.
#[derive(Debug, Args)]
#[command(
    override_usage = "dreamfs mount [OPTIONS] [BUCKET[/PREFIX]] MOUNTPOINT",
    after_help = MOUNT_EXAMPLES
)]
pub struct Mount {
    /// `[BUCKET[/PREFIX]] MOUNTPOINT`; the line of usage shows it better than a list of arguments.
    #[arg(required = true, num_args = 1..=2, value_name = "BUCKET MOUNTPOINT", hide = true)]
    pub places: Vec<OsString>,
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// Options as in fstab: the names of these flags, or s3fs's
    #[arg(short = 'o', value_name = "OPT[,OPT…]", action = ArgAction::Append)]
    pub options: Vec<String>,
    /// What a mount is like.
    #[command(flatten)]
    pub flags: Flags,
    /// Set by dreamfs itself for the process in the background
    #[arg(long, hide = true)]
    pub daemon: bool,
}

const MOUNT_EXAMPLES: &str = "Examples:
  dreamfs mount /mnt/objects                 every bucket is a directory
  dreamfs mount photos /mnt/photos           one bucket
  dreamfs mount photos/2024 /mnt/2024 -o ro  a folder of it, read-only
  dreamfs mount data /mnt --endpoint https://s3.example.com --profile work
  dreamfs mount data /mnt -o url=https://s3.example.com,passwd_file=/etc/keys

Keys are taken from the first place that has any: --credentials, the variables
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, ~/.passwd-s3fs,
/etc/passwd-s3fs, ~/.boto, ~/.s3cfg. --profile looks in ~/.aws alone.";

/// `dreamfs umount`.
#[derive(Debug, Args)]
pub struct Umount {
    /// Where it is mounted
    pub mountpoint: PathBuf,
    /// Detach it even while files are open
    #[arg(long)]
    pub force: bool,
}

/// `dreamfs status`.
#[derive(Debug, Args)]
pub struct Status {
    /// One mount [default: all of yours]
    pub mountpoint: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    pub json: bool,
    /// Again every second
    #[arg(long)]
    pub watch: bool,
}

/// `dreamfs stat`.
#[derive(Debug, Args)]
pub struct Stat {
    /// For programs: an object a line
    #[arg(long)]
    pub json: bool,
    /// Files and directories in a mount
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// `dreamfs acl`.
#[derive(Debug, Args)]
pub struct Acl {
    /// What to do
    #[command(subcommand)]
    pub action: AclAction,
}

/// What to do with ACLs.
#[derive(Debug, Subcommand)]
pub enum AclAction {
    /// Show owner, canned name and grants
    Get {
        /// And everything below
        #[arg(short = 'R', long)]
        recursive: bool,
        /// Files and directories in a mount
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Set a canned ACL, or grants such as 'READ id=bob'
    Set {
        /// And everything below
        #[arg(short = 'R', long)]
        recursive: bool,
        /// Change nothing, show what would be changed
        #[arg(long)]
        dry_run: bool,
        /// The ACL or grants, then the paths
        #[arg(required = true, num_args = 2.., value_name = "ACL|GRANT… PATH")]
        arguments: Vec<String>,
    },
}

/// `dreamfs url`.
#[derive(Debug, Args)]
pub struct Url {
    /// To get the file, or to store it under a name that need not be there
    #[arg(long, value_enum, value_name = "GET|PUT", hide_possible_values = true, ignore_case = true)]
    #[arg(default_value = "GET", conflicts_with = "public")]
    pub method: Method,
    /// How long a signed link works, at most seven days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration, conflicts_with = "public")]
    pub expires: Duration,
    /// The plain link, for files whose ACL is public
    #[arg(long)]
    pub public: bool,
    /// Have browsers keep it under this name, not show it
    #[arg(long, value_name = "NAME", conflicts_with = "public", value_parser = NonEmptyStringValueParser::new())]
    pub download_name: Option<String>,
    /// Files in a mount
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Method {
    /// To get the file.
    Get,
    /// To store it.
    Put,
}

/// `dreamfs wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// Files, or directories with all below them, in a mount
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// `dreamfs refresh`.
#[derive(Debug, Args)]
pub struct Refresh {
    /// Files and directories in a mount
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// `dreamfs recover`.
#[derive(Debug, Args)]
pub struct Recover {
    /// Where state lies [default: as for mount]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// What to do [default: list]
    #[command(subcommand)]
    pub action: Option<RecoverAction>,
}

/// What to do with what is found.
#[derive(Debug, Subcommand)]
pub enum RecoverAction {
    /// Show length, reason and name: waiting (the next mount stores it), aside
    /// (another client was first), parked (open when its mount ended)
    List,
    /// Copy all of it below an empty folder, as BUCKET/KEY
    Export {
        /// Where to
        folder: PathBuf,
    },
}

/// `dreamfs purge`.
#[derive(Debug, Args)]
pub struct Purge {
    /// The bucket, which is deleted too
    pub bucket: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// The store.
    #[command(flatten)]
    pub connection: Connection,
}

/// `dreamfs demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep the data here [default: a temporary folder, removed at the end]
    pub directory: Option<PathBuf>,
    /// End after the walk through the examples
    #[arg(long)]
    pub once: bool,
}

/// `dreamfs serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where the data lies
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// Which kind of store to play
    #[arg(long, value_enum, default_value = "rgw")]
    pub profile: ServeProfile,
    /// A file of users, a line each: ID ACCESS_KEY SECRET_KEY EMAIL|- [NAME…]
    /// [default: one user, whose keys are made and shown]
    #[arg(long, value_name = "FILE")]
    pub users: Option<PathBuf>,
    /// Lowers the largest single copy, for tests
    #[arg(long, hide = true, value_parser = parse_size)]
    pub test_copy_bytes_max: Option<u64>,
    /// Lowers the smallest part, for tests
    #[arg(long, hide = true, value_parser = parse_size)]
    pub test_part_bytes_min: Option<u64>,
}

/// Which kind of store to play.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ServeProfile {
    /// Ceph RGW.
    Rgw,
    /// Backblaze B2 and stores built on it.
    B2,
}
