//! dreamfs mounts DreamObjects, or any S3-compatible store, as a folder. This page is the map of its code.
//!
//! *A request enters as a kernel call, becomes one method of [`fs::Fs`] in the file named after the verb, asks memory
//! first (`tree`, `data`), and leaves as few S3 requests as the verb needs; answers return as values, and nothing calls
//! upward.*
//!
//! ```text
//!  kernel ─► fuse/ ─► fs/<verb>.rs ─► tree/   names, attributes   (memory, synchronous, passive)
//!   in       decode,   what it means ─► data/   bytes, local disk ──────────────┐
//!            spawn,    and which        format/ key, headers, ACL, XML (pure)   ▼
//!       ◄─   reply ◄─  errno          ────────────────────────────────────► store/ ─► S3
//!  cli/ ─► config ─► mount.rs (composition root) ─► all of the above
//!                    control/ = status and drain socket;   serve/ = the embedded S3 server
//! ```
//!
//! | folder | what it is for |
//! |---|---|
//! | [`fuse`] | requests come in: thin methods, the session, the notify thread; the only one that names `fuser` |
//! | [`fs`] | what each request means, a file per family of verbs: `lookup list snapshot pages judge walk flat scan names open files ahead sequence read write copy commit conflict finish attr xattr acl tags encryption make marker owed remove rename link statfs versions` |
//! | [`tree`] | names: inodes, children, expiry; one lock, no I/O |
//! | [`data`] | bytes: extents, plan, appends, cache in memory and on disk, staging, upload, and the journal of a write-back mount; the only one that touches local disk for content |
//! | [`mod@format`] | how a file lies in a bucket: pure functions |
//! | [`store`] | requests go out: the trait, the S3 adapter, decorators; the only one that names `s3` and `reqwest` |
//! | [`control`] | the daemon's socket |
//! | [`serve`] | the embedded S3 server |
//! | [`config`], [`cli`] | typed → meant; one file per command |
//!
//! The four flows:
//!
//! | | in | meaning | memory | out |
//! |---|---|---|---|---|
//! | read | `fuse` read | `fs/read.rs` | the kernel's pages, or the cached file itself (`fuse/passthrough.rs`); `data`: staged bytes, blocks ahead of the reader, disk cache | ranged GETs with If-Match |
//! | write | `fuse` write | `fs/write.rs`, then `fs/commit.rs` at close | staging file, extents | parts while it is written (`data/stream.rs`), else PUT, COPY or parts as `data/plan.rs` says, each under a condition; the end of a log alone (`data/append.rs`). With `--write-back` the store below is a journal ([`data::journal`]), which answers once a change is on the disk and shows what waits in it |
//! | list | `fuse` readdir | `fs/list.rs` | `tree`: complete and fresh? | pages of a LIST, of a whole subtree for a walk; HEADs in POSIX directories |
//! | attributes, ACL | `fuse` setattr, setxattr | `fs/attr.rs`, `fs/acl.rs` | ride with a dirty file's upload | else a copy of the object onto itself |
//!
//! Invariants that are absences: nothing below `fuse/` knows the kernel; `tree/` and `format/` never wait; no verb
//! blocks a FUSE thread; no secret is in a log line, an error or a process list.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod data;
pub mod error;
pub mod format;
pub mod fs;
pub mod fuse;
pub mod mount;
pub mod serve;
pub mod store;
pub mod tree;
