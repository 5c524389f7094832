//! GETs of objects over plain connections of our own, which receive bytes where they stay.
//!
//! The HTTP library receives into buffers of its own and hands them over from task to task: of a fast store's bytes each
//! costs one copy more and every few of them a change of threads, which together is a quarter of what reading takes. Here
//! whoever reads the body receives it, in pieces that end where the object's MiBs end and need no further copy.
//!
//! It refuses whatever is not an ordinary answer of known length: then the library asks again, and says what is wrong.
//! So it does for TLS and where a proxy is configured.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream};
use hyper::http;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use reqwest::{StatusCode, Url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::store::{Buffers, PIECE_BYTES};

/// How long a connection may take to come up.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept: shorter than the servers' own patience.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Idle connections that are kept.
const CONNECTIONS_MAX: usize = 64;

/// What the store hears who asks.
pub(super) const USER_AGENT: &str = concat!("dreamfs/", env!("CARGO_PKG_VERSION"));

/// The head of an answer at most, as in the library.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Header fields of an answer at most.
const FIELDS_MAX: usize = 100;

/// A piece that is not full is handed over this long after its first byte, so that a slow store is seen to live.
const PIECE_TIME_MAX: Duration = Duration::from_secs(1);

/// The connections that nobody uses now.
#[derive(Clone, Default)]
pub(super) struct Direct {
    idle: Arc<Mutex<Vec<Connection>>>,
    /// When the host could not be connected to.
    unreachable: Arc<Mutex<Option<Instant>>>,
}

/// A connection that may be used again.
struct Connection {
    authority: String,
    socket: TcpStream,
    since: Instant,
}

/// An answer whose body has not been read.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    length: u64,
    reusable: bool,
    /// What came of the body with the head.
    early: BytesMut,
}

/// A body that is being received.
struct Receiving {
    connection: Connection,
    direct: Direct,
    buffers: Buffers,
    early: BytesMut,
    reusable: bool,
    missing: u64,
    /// Where the next byte lies in the object.
    at: u64,
}

impl Direct {
    /// For a store at this address; `None` where the road to it is not plain.
    pub(super) fn to(endpoint: &str) -> Option<Self> {
        let uri: http::Uri = endpoint.parse().ok()?;
        let plain = uri.scheme_str() == Some("http") && Matcher::from_system().intercept(&uri).is_none();
        plain.then(Direct::default)
    }

    /// Asks for the bytes of an object from `start` on, to be received in `buffers`. `None` if anything is out of the
    /// ordinary.
    pub(super) async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        (start, buffers): (u64, &Buffers),
    ) -> Option<reqwest::Response> {
        let (connection, answer) = self.ask(url, headers).await.ok()?;
        let Answer { status, headers, length, reusable, early } = answer;
        let (direct, buffers) = (self.clone(), buffers.clone());
        let body = Receiving { connection, direct, buffers, early, reusable, missing: length, at: start };
        let mut response = http::Response::new(reqwest::Body::wrap_stream(body.into_stream()));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Some(response.into())
    }

    async fn ask(&self, url: &Url, headers: &HeaderMap) -> io::Result<(Connection, Answer)> {
        let authority = url.authority();
        let head = head_of(url, headers);
        // One that was idle may have been closed meanwhile.
        while let Some(mut connection) = self.take_idle(authority) {
            match exchange(&mut connection.socket, &head).await {
                Ok(answer) => return Ok((connection, answer)),
                // It was answered: another connection would tell the same.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                Err(_) => {}
            }
        }
        if lock(&self.unreachable).is_some_and(|since| since.elapsed() < IDLE_TIMEOUT) {
            // The library tries the addresses of a host side by side.
            return Err(io::ErrorKind::NotConnected.into());
        }
        let mut socket = connect(url).await.inspect_err(|_| *lock(&self.unreachable) = Some(Instant::now()))?;
        let answer = exchange(&mut socket, &head).await?;
        Ok((Connection { authority: authority.to_owned(), socket, since: Instant::now() }, answer))
    }

    /// The connection that was used last and is still open, with nothing in it.
    fn take_idle(&self, authority: &str) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        idle.retain(|connection| {
            let silent =
                matches!(connection.socket.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            silent && connection.since.elapsed() < IDLE_TIMEOUT
        });
        let index = idle.iter().rposition(|connection| connection.authority == authority)?;
        Some(idle.remove(index))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connect(url: &Url) -> io::Result<TcpStream> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let connecting = async {
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => TcpStream::connect((address, port)).await,
            Err(_) => TcpStream::connect((host, port)).await,
        }
    };
    let socket = timeout(CONNECT_TIMEOUT, connecting).await??;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// The bytes of a request.
fn head_of(url: &Url, headers: &HeaderMap) -> BytesMut {
    let mut head = BytesMut::with_capacity(1024);
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| head.put_slice(part));
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    put(&[
        b"GET ",
        url.path().as_bytes(),
        query.as_bytes(),
        b" HTTP/1.1\r\nuser-agent: ",
        USER_AGENT.as_bytes(),
        b"\r\n",
    ]);
    if !headers.contains_key(HOST) {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        put(&[b"host: ", url.host_str().unwrap_or_default().as_bytes(), port.as_bytes(), b"\r\n"]);
    }
    headers.iter().for_each(|(name, value)| put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]));
    put(&[b"\r\n"]);
    head
}

/// Sends a request and receives the answer's head.
async fn exchange(socket: &mut TcpStream, head: &[u8]) -> io::Result<Answer> {
    socket.write_all(head).await?;
    let mut received = BytesMut::with_capacity(16 << 10);
    loop {
        if socket.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((mut answer, length)) = parse(&received)? {
            received.advance(length);
            answer.early = received;
            return Ok(answer);
        }
        if received.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// An answer's head and its length, once all of it is there.
fn parse(received: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let odd = |_| io::Error::from(io::ErrorKind::InvalidData);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_length) = parsed.parse(received).map_err(|_| odd(()))? else { return Ok(None) };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| odd(()))?;
        headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| odd(()))?);
    }
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(|_| odd(()))?;
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = match (lengths.next().and_then(|length| length.to_str().ok()?.parse().ok()), lengths.next()) {
        (Some(length), None) if !status.is_informational() && !headers.contains_key(TRANSFER_ENCODING) => length,
        _ => return Err(odd(())),
    };
    let closes = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.eq_ignore_ascii_case("keep-alive"));
    let reusable = parsed.version == Some(1) && headers.get_all(CONNECTION).iter().all(closes);
    Ok(Some((Answer { status, headers, length, reusable, early: BytesMut::new() }, head_length)))
}

impl Receiving {
    fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(Some(self), |receiving| async move {
            let mut receiving = receiving?;
            if receiving.missing == 0 {
                receiving.end();
                return None;
            }
            match receiving.piece().await {
                Ok(piece) if receiving.missing > 0 => Some((Ok(piece), Some(receiving))),
                Ok(piece) => {
                    receiving.end();
                    Some((Ok(piece), None))
                }
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The next bytes, to the end of a MiB of the object where they come fast enough.
    async fn piece(&mut self) -> io::Result<Bytes> {
        let wanted = self.missing.min(PIECE_BYTES - self.at % PIECE_BYTES) as usize;
        let lent = if wanted as u64 == PIECE_BYTES { self.buffers.take() } else { None };
        let mut bytes = lent.unwrap_or_else(|| Vec::with_capacity(wanted));
        let early = self.early.len().min(wanted);
        bytes.extend_from_slice(&self.early.split_to(early));
        let mut due = None;
        while bytes.len() < wanted {
            if !bytes.is_empty() {
                due.get_or_insert_with(|| Instant::now() + PIECE_TIME_MAX);
            }
            let mut rest = (&mut self.connection.socket).take((wanted - bytes.len()) as u64);
            tokio::select! {
                biased;
                count = rest.read_buf(&mut bytes) => match count {
                    Ok(count) if count > 0 => {}
                    // What came before counts.
                    _ if !bytes.is_empty() => break,
                    count => return Err(count.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => break,
            }
        }
        self.missing -= bytes.len() as u64;
        self.at += bytes.len() as u64;
        Ok(bytes.into())
    }

    /// The body has come: the connection can be used again.
    fn end(self) {
        if self.reusable && self.early.is_empty() {
            let connection = Connection { since: Instant::now(), ..self.connection };
            let mut idle = lock(&self.direct.idle);
            idle.push(connection);
            let surplus = idle.len().saturating_sub(CONNECTIONS_MAX);
            idle.drain(..surplus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use tokio::net::TcpListener;

    const PLAIN: &str = "HTTP/1.1 206 Partial Content\r\ncontent-length: ";

    /// A server that sends, for each request that comes on one connection, all of an answer with a pause after each
    /// part, and closes the connection after the last; then the same on the next.
    async fn server(connections: Vec<Vec<Vec<Vec<u8>>>>) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/bucket/key?a=b", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answers in connections {
                let (mut socket, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let mut request = BytesMut::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        assert!(socket.read_buf(&mut request).await.unwrap() > 0);
                    }
                    assert!(
                        request.starts_with(b"GET /bucket/key?a=b HTTP/1.1\r\nuser-agent: dreamfs/"),
                        "{request:?}"
                    );
                    let mut parts = answer.iter();
                    socket.write_all(parts.next().unwrap()).await.unwrap();
                    for part in parts {
                        tokio::time::sleep(PIECE_TIME_MAX * 3 / 2).await;
                        socket.write_all(part).await.unwrap();
                    }
                }
            }
        });
        url.parse().unwrap()
    }

    fn answer(body: &[u8]) -> Vec<u8> {
        [format!("{PLAIN}{}\r\n\r\n", body.len()).as_bytes(), body].concat()
    }

    async fn get(direct: &Direct, url: &Url, start: u64, buffers: Buffers) -> Option<Vec<Result<Bytes, ()>>> {
        let response = direct.get(url, &HeaderMap::new(), (start, &buffers)).await?;
        Some(response.bytes_stream().map(|piece| piece.map_err(|_| ())).collect().await)
    }

    fn lengths(pieces: &[Result<Bytes, ()>]) -> Vec<usize> {
        pieces.iter().map(|piece| piece.as_ref().map_or(0, Bytes::len)).collect()
    }

    #[tokio::test]
    async fn pieces_end_with_the_objects_mebibytes_and_lie_in_the_buffers_that_were_lent() {
        let body: Vec<u8> = (0..(5 << 19)).map(|at: u32| (at / 1000) as u8).collect();
        let url = server(vec![vec![vec![answer(&body)], vec![answer(b"again")]]]).await;
        let direct = Direct::default();
        let buffer = Vec::with_capacity(PIECE_BYTES as usize);
        let place = buffer.as_ptr();
        let pieces = get(&direct, &url, PIECE_BYTES / 2, Buffers::new(vec![buffer])).await.unwrap();
        assert_eq!(lengths(&pieces), [1 << 19, 1 << 20, 1 << 20]);
        assert_eq!(pieces[1].as_ref().unwrap().as_ptr(), place);
        assert!(pieces.concat_all() == body);
        // The server takes no other connection.
        assert_eq!(get(&direct, &url, 0, Buffers::default()).await.unwrap().concat_all(), b"again");
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_is_replaced() {
        let url = server(vec![vec![vec![answer(b"one")]], vec![vec![answer(b"two")]]]).await;
        let direct = Direct::default();
        for body in [b"one", b"two"] {
            assert_eq!(get(&direct, &url, 0, Buffers::default()).await.unwrap().concat_all(), body);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_seen_and_a_cut_keeps_what_came() {
        let (head, rest) = (format!("{PLAIN}9\r\n\r\nabc").into_bytes(), b"def".to_vec());
        let url = server(vec![vec![vec![head, rest]]]).await;
        let pieces = get(&Direct::default(), &url, 0, Buffers::default()).await.unwrap();
        assert_eq!(lengths(&pieces), [3, 3, 0]);
        assert!(pieces[2].is_err());
    }

    #[tokio::test]
    async fn what_is_out_of_the_ordinary_is_left_to_the_library() {
        for odd in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nto the end",
            "HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ncontent",
            "nonsense\r\n\r\n",
        ] {
            let url = server(vec![vec![vec![odd.as_bytes().to_vec()]]]).await;
            assert!(get(&Direct::default(), &url, 0, Buffers::default()).await.is_none(), "{odd}");
        }
        assert!(Direct::to("https://127.0.0.1:1").is_none() && Direct::to("http://127.0.0.1:1").is_some());
    }

    /// All bytes of pieces that came.
    trait Concat {
        fn concat_all(&self) -> Vec<u8>;
    }

    impl Concat for Vec<Result<Bytes, ()>> {
        fn concat_all(&self) -> Vec<u8> {
            self.iter().flat_map(|piece| piece.as_ref().unwrap().to_vec()).collect()
        }
    }
}
