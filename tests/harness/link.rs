//! A TCP connection to a store that breaks where a test wants it to. It ends with its guard.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// What happens to the connections of a link.
type Break = dyn Fn(u64) -> Option<u64> + Send + Sync;

/// A listener that passes everything on to a store.
pub struct Link {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    resets: Arc<AtomicU64>,
}

impl Link {
    /// A link to `endpoint`. `breaks` is asked for each connection, by its number from 0 on, after how many bytes of
    /// the store's answers it is reset, if ever.
    pub fn new(endpoint: &str, breaks: impl Fn(u64) -> Option<u64> + Send + Sync + 'static) -> Link {
        let store = endpoint.strip_prefix("http://").expect("plain HTTP").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (ended, resets) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (end, count, breaks): (_, _, Arc<Break>) = (ended.clone(), resets.clone(), Arc::new(breaks));
        std::thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                if let (Ok(client), Ok(store)) = (client, TcpStream::connect(&store)) {
                    carry(client, store, breaks(number), &count);
                }
            }
        });
        Link { address, ended, resets }
    }

    /// Where it listens, as an endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were reset.
    pub fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener; it may be gone.
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes bytes both ways until one side ends, or so many have been answered.
fn carry(client: TcpStream, store: TcpStream, reset_after: Option<u64>, resets: &Arc<AtomicU64>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
    let (mut asking, mut passing) = (clone(&client), clone(&store));
    std::thread::spawn(move || {
        // Whichever way it ends, the other side is told.
        let _ = std::io::copy(&mut asking, &mut passing);
        let _ = passing.shutdown(Shutdown::Write);
    });
    let (resets, mut client, mut store) = (resets.clone(), client, store);
    std::thread::spawn(move || {
        let (mut left, mut buffer) = (reset_after, vec![0; 65_536]);
        while let Ok(length @ 1..) = store.read(&mut buffer) {
            let passed = left.map_or(length, |left| length.min(left as usize));
            if client.write_all(&buffer[..passed]).is_err() {
                break;
            }
            left = left.map(|left| left - passed as u64);
            if left == Some(0) {
                resets.fetch_add(1, Ordering::Relaxed);
                // With no time to linger the end is a reset, and what is on its way is lost.
                rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("an open socket");
                return;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = store.shutdown(Shutdown::Both);
    });
}

/// What becomes of the first request that comes too late for a [`Gate`]. All others wait for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes no further.
    Held,
    /// It reaches the store, whose answer goes no further.
    Unanswered,
}

/// A listener that passes so many requests on to a store.
pub struct Gate {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    state: Arc<GateState>,
}

struct GateState {
    left: AtomicI64,
    loses_answer: AtomicBool,
    holds: AtomicBool,
}

impl Gate {
    /// A gate before `endpoint`, open.
    pub fn new(endpoint: &str) -> Gate {
        let store = endpoint.strip_prefix("http://").expect("plain HTTP").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (left, loses_answer, holds) = (AtomicI64::new(i64::MAX), AtomicBool::new(false), AtomicBool::new(false));
        let state = Arc::new(GateState { left, loses_answer, holds });
        let ended = Arc::<AtomicBool>::default();
        let (end, seen) = (ended.clone(), state.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                if let (Ok(client), Ok(store)) = (client, TcpStream::connect(&store)) {
                    admit(client, store, &seen);
                }
            }
        });
        Gate { address, ended, state }
    }

    /// Where it listens, as an endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets all requests pass again.
    pub fn open(&self) {
        self.state.left.store(i64::MAX, Ordering::SeqCst);
        self.state.holds.store(false, Ordering::SeqCst);
    }

    /// Closes it after so many more requests.
    pub fn close_after(&self, requests: i64, fate: Fate) {
        self.state.loses_answer.store(fate == Fate::Unanswered, Ordering::SeqCst);
        self.state.left.store(requests, Ordering::SeqCst);
    }

    /// Whether a request waits before it, or its answer behind it.
    pub fn holds(&self) -> bool {
        self.state.holds.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener; it may be gone.
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes bytes both ways, up to the request that comes too late. A client writes the head of a request in one go.
fn admit(client: TcpStream, store: TcpStream, state: &Arc<GateState>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
    let (mut asking, mut passing, gate) = (clone(&client), clone(&store), state.clone());
    let is_unanswered = Arc::<AtomicBool>::default();
    let loses = is_unanswered.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length @ 1..) = asking.read(&mut buffer) {
            let is_head = ["GET /", "PUT /", "POST /", "HEAD /", "DELETE /"]
                .iter()
                .any(|line| buffer.starts_with(line.as_bytes()));
            let left = if is_head { gate.left.fetch_sub(1, Ordering::SeqCst) } else { i64::MAX };
            if left == 0 && gate.loses_answer.load(Ordering::SeqCst) {
                loses.store(true, Ordering::SeqCst);
            } else if left <= 0 {
                gate.holds.store(true, Ordering::SeqCst);
                // Until the client is killed.
                while let Ok(1..) = asking.read(&mut buffer) {}
                break;
            }
            if passing.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = passing.shutdown(Shutdown::Write);
    });
    let (mut answering, mut client, gate) = (store, client, state.clone());
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length @ 1..) = answering.read(&mut buffer) {
            if is_unanswered.load(Ordering::SeqCst) {
                gate.holds.store(true, Ordering::SeqCst);
            } else if client.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // Whichever way it ends, the other side is told.
        let _ = client.shutdown(Shutdown::Both);
    });
}
