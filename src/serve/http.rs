//! The listener: HTTP/1.1 over TCP, and an end that lets requests finish for a while.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::service::S3Service;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::profile::Profile;
use crate::clock::Clock;

/// How long a stop waits for requests that are under way.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a client may take for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// How long to wait after an accept failed, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// hyper's buffer of a connection in bytes: as large as the chunks that are read from files.
const CONNECTION_BUFFER_BYTES: usize = 512 * 1024;

/// Numbers and dates the answers.
pub struct RequestIds {
    /// Whose form they have.
    pub profile: Profile,
    /// Dates them.
    pub clock: Clock,
    /// The number of the next one.
    pub next: AtomicU64,
}

impl RequestIds {
    fn next(&self) -> String {
        let seconds = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.profile.request_id(self.next.fetch_add(1, Ordering::Relaxed), seconds)
    }
}

/// Serves until the token is cancelled, then waits for what is under way.
pub async fn serve(listener: TcpListener, service: S3Service, ids: Arc<RequestIds>, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    log::warn!("a connection was not accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        if let Err(error) = connect(stream, &service, &ids, &graceful) {
            log::debug!("a connection was not set up: {error}");
        }
    }
    drop(listener);
    if tokio::time::timeout(STOP_TIME_MAX, graceful.shutdown()).await.is_err() {
        log::warn!("requests were cut off after {STOP_TIME_MAX:?}");
    }
}

fn connect(
    stream: TcpStream,
    service: &S3Service,
    ids: &Arc<RequestIds>,
    graceful: &GracefulShutdown,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (service, ids) = (service.clone(), ids.clone());
    let handler = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (service, ids) = (service.clone(), ids.clone());
        async move {
            let mut answer = service.call(request.map(s3s::Body::from)).await?;
            if let Ok(id) = HeaderValue::try_from(ids.next()) {
                answer.headers_mut().insert("x-amz-request-id", id);
            }
            Ok::<_, s3s::HttpError>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), handler);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            log::debug!("a connection ended badly: {error}");
        }
    });
    Ok(())
}
