//! The command line, as typed. What it means is decided in [`crate::config`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::units::{parse_duration, parse_mode, parse_size};

/// Mounts DreamObjects, Ceph or any S3-compatible store as a folder.
#[derive(Debug, Parser)]
#[command(name = "dreamfs", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  dreamfs mount /mnt/objects                 every bucket of the account is a directory
  dreamfs mount photos /mnt/photos           one bucket
  dreamfs mount photos/2024 /mnt/2024 -o ro  a folder of a bucket, read-only
  setfattr -n user.s3.acl -v public-read /mnt/photos/cat.jpg
  getfattr --only-values -n user.s3.signed_url /mnt/photos/cat.jpg
  dreamfs umount /mnt/photos
  dreamfs demo                               try it all without an account";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a bucket, a folder of one, or all buckets of the account
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
    /// Forget what is cached of paths
    Refresh(Refresh),
    /// Try everything without an account: embedded store and mount
    Demo(Demo),
    /// Run the embedded S3 server alone
    Serve(Serve),
}

/// `dreamfs mount`.
#[derive(Debug, Args)]
pub struct Mount {
    /// [BUCKET[/PREFIX]] MOUNTPOINT; without a bucket every bucket is a directory
    #[arg(required = true, num_args = 1..=2, value_name = "BUCKET MOUNTPOINT")]
    pub places: Vec<String>,
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// Options as in fstab, by the names of these flags or s3fs's
    #[arg(short = 'o', value_name = "OPT[,OPT…]")]
    pub options: Vec<String>,
    /// The store [default: `https://s3.us-east-005.dream.io`; env DREAMFS_ENDPOINT, AWS_ENDPOINT_URL_S3]
    #[arg(long, value_name = "URL", help_heading = "Store")]
    pub endpoint: Option<String>,
    /// The region to sign for [default: as the host says]
    #[arg(long, help_heading = "Store")]
    pub region: Option<String>,
    /// How buckets are addressed
    #[arg(long, value_enum, default_value = "auto", help_heading = "Store")]
    pub addressing: Addressing,
    /// Trust these root certificates too
    #[arg(long, value_name = "FILE.pem", help_heading = "Store")]
    pub ca: Option<PathBuf>,
    /// What protects bodies where TLS does not
    #[arg(long, value_enum, default_value = "auto", help_heading = "Store")]
    pub integrity: Integrity,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Store")]
    pub max_requests: usize,
    /// How long the store may be silent before an operation fails
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration, help_heading = "Store")]
    pub timeout: Duration,
    /// A file with the keys, in the format of s3fs, the AWS CLI, boto or s3cmd
    #[arg(long, value_name = "FILE", help_heading = "Credentials")]
    pub credentials: Option<PathBuf>,
    /// The section of ~/.aws/credentials [env: AWS_PROFILE]
    #[arg(long, value_name = "NAME", help_heading = "Credentials")]
    pub profile: Option<String>,
    /// Sign nothing: public buckets only
    #[arg(long, help_heading = "Credentials")]
    pub anonymous: bool,
    /// Refuse all changes
    #[arg(long, help_heading = "Files")]
    pub read_only: bool,
    /// Let other users in, held to the modes
    #[arg(long, help_heading = "Files")]
    pub allow_other: bool,
    /// Owner of objects that name none [default: you]
    #[arg(long, help_heading = "Files")]
    pub uid: Option<u32>,
    /// Group of objects that name none [default: yours]
    #[arg(long, help_heading = "Files")]
    pub gid: Option<u32>,
    /// Permissions of files that carry none
    #[arg(long, value_name = "OCTAL", default_value = "0644", value_parser = parse_mode, help_heading = "Files")]
    pub file_mode: u32,
    /// Permissions of directories that carry none
    #[arg(long, value_name = "OCTAL", default_value = "0755", value_parser = parse_mode, help_heading = "Files")]
    pub dir_mode: u32,
    /// Taken from both
    #[arg(long, value_name = "OCTAL", default_value = "0", value_parser = parse_mode, help_heading = "Files")]
    pub umask: u32,
    /// Do not create or delete buckets by mkdir and rmdir
    #[arg(long, help_heading = "Files")]
    pub no_bucket_ops: bool,
    /// Where attributes come from: HEAD where a directory says so, the listing, or HEAD always
    #[arg(long, value_enum, default_value = "auto", help_heading = "Files")]
    pub attrs: Attrs,
    /// How long names and attributes are believed
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, help_heading = "Files")]
    pub ttl: Duration,
    /// Canned ACL of what this mount creates
    #[arg(long, value_name = "CANNED", help_heading = "Files")]
    pub acl: Option<String>,
    /// Storage class of what this mount creates
    #[arg(long, value_name = "CLASS", help_heading = "Files")]
    pub storage_class: Option<String>,
    /// Memory for content and names
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size, help_heading = "Machine")]
    pub memory: u64,
    /// Where staged bytes and records lie [default: ~/.local/state/dreamfs; root: /var/lib/dreamfs]
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    pub state: Option<PathBuf>,
    /// What to log, and where: LEVEL or LEVEL:FILE
    #[arg(long, value_name = "LEVEL[:FILE]", default_value = "warn", help_heading = "Machine")]
    pub log: String,
    /// Set by dreamfs itself for the process in the background
    #[arg(long, hide = true)]
    pub daemon: bool,
    /// Lowers the largest single copy, for tests
    #[arg(long, hide = true, value_parser = parse_size)]
    pub test_copy_bytes_max: Option<u64>,
    /// Lowers the size of parts, for tests
    #[arg(long, hide = true, value_parser = parse_size)]
    pub test_part_bytes: Option<u64>,
}

/// How buckets are addressed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Addressing {
    /// What works everywhere.
    Auto,
    /// In the path.
    Path,
    /// In the host's name.
    Virtual,
}

/// What protects bodies.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Integrity {
    /// TLS, else SHA-256.
    Auto,
    /// Nothing.
    None,
    /// SHA-256 always.
    Sha256,
    /// MD5 always.
    Md5,
}

/// Where attributes come from.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Attrs {
    /// As each directory says.
    Auto,
    /// From listings.
    List,
    /// From HEAD.
    Full,
}

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
        /// The ACL or grants, then the paths
        #[arg(required = true, num_args = 2.., value_name = "ACL|GRANT… PATH")]
        arguments: Vec<String>,
    },
}

/// `dreamfs url`.
#[derive(Debug, Args)]
pub struct Url {
    /// How long a signed link works
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub expires: Duration,
    /// The plain link, for files whose ACL is public
    #[arg(long)]
    pub public: bool,
    /// Files in a mount
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
    /// A file of users, a line each: see the documentation of `dreamfs serve`
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
