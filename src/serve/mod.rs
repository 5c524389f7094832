//! The embedded S3 server: buckets in a local folder, over HTTP/1.1, for trying dreamfs without an account.
//!
//! The `s3s` crate reads requests, checks signatures and spells answers. This folder decides who may do what, keeps
//! the data and serves the connections. A request runs from `http` through `api` to the file of its verb, which asks
//! `service` for permission and `disk` for the data. Refuses: versions of objects, TLS, and anything else that is
//! not needed to stand in for the two kinds of store that dreamfs is made for.

mod acl;
mod api;
mod attributes;
mod blob;
mod buckets;
mod conditions;
mod disk;
mod files;
mod http;
mod keys;
mod listing;
mod multipart;
mod objects;
mod profile;
mod receive;
mod record;
mod service;
mod uploads;
mod users;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

pub use keys::own_keys;
pub use profile::Profile;
pub use users::{User, UsersError, users_from_file};

/// The largest single copy that S3 allows, in bytes: 5 GiB.
pub const COPY_BYTES_MAX: u64 = 5 << 30;
/// The smallest part but the last that S3 allows, in bytes: 5 MiB.
pub const PART_BYTES_MIN: u64 = 5 << 20;

/// What a server needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the data lies; made where it is missing.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Which store to play.
    pub profile: Profile,
    /// Who may sign requests.
    pub users: Vec<User>,
    /// The largest single copy in bytes; [`COPY_BYTES_MAX`] but in tests.
    pub copy_bytes_max: u64,
    /// The smallest part but the last, in bytes; [`PART_BYTES_MIN`] but in tests.
    pub part_bytes_min: u64,
    /// Dates what is stored. Signatures are always checked against the system's clock.
    pub clock: Clock,
}

/// A server that runs. Dropping it stops it without waiting.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    listener: JoinHandle<()>,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes no more connections, and waits some seconds for the requests that are under way.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.listener).await {
            log::error!("the server ended badly: {error}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Opens the data, listens and serves on the current runtime.
pub async fn start(config: Config) -> io::Result<Server> {
    let data_dir = config.data_dir.clone();
    let disk = tokio::task::spawn_blocking(move || disk::Disk::open(&data_dir)).await.map_err(io::Error::other)??;
    let users = Arc::new(users::Users::new(config.users));
    let mut builder = S3ServiceBuilder::new(service::Service {
        disk: Arc::new(disk),
        users: users.clone(),
        profile: config.profile,
        copy_bytes_max: config.copy_bytes_max,
        part_bytes_min: config.part_bytes_min,
        clock: config.clock.clone(),
    });
    builder.set_auth(users::Secrets(users));
    builder.set_access(service::DateCheck(Clock::system()));
    let ids = http::RequestIds { profile: config.profile, clock: config.clock, next: AtomicU64::new(1) };
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let listener = tokio::spawn(http::serve(listener, builder.build(), Arc::new(ids), stop.clone()));
    Ok(Server { address, stop, listener })
}
