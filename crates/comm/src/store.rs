//! A small key-value store over TCP, through which ranks find each other before they have any other way.
//!
//! ```text
//! frame    length u32 | bytes …                                   all numbers little-endian
//! hello    "DRCSTORE" version u8 | token …                        first frame of a connection
//! request  operation u8 | key length u32 | key … | argument …
//! reply    status u8 | bytes …
//! ```
//! A connection carries one request at a time. The server keeps a thread for each connection, a client as many connections
//! as it has calls at the same time, so that a long [`wait`](Store::wait) holds nobody up.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    str::FromStr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{Deadline, Error, Result};

const HELLO: &[u8] = b"DRCSTORE\x01";
/// A longer frame is refused: nothing that ranks tell each other to meet comes near.
const LONGEST: usize = 16 << 20;
/// A request that the server answers at once may take this long on a bad network.
const PATIENCE: Duration = Duration::from_secs(10);
/// The server answers a waiting client at least this often, so that the client notices when it was called off.
const SLICE: Duration = Duration::from_millis(50);
/// Between attempts to reach a server that is not there yet: first soon, then less often.
const RETRY: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

const SET: u8 = 1;
const GET: u8 = 2;
const WAIT: u8 = 3;
const ADD: u8 = 4;

const FOUND: u8 = 0;
const NOTHING: u8 = 1;
const REFUSED: u8 = 2;

/// Where a store is, and the secret that it wants to hear. Written `host:port` or `host:port/token`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreAddress {
    /// A name or a number; IPv6 numbers without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What a client says first; empty when the server asks for none.
    pub token: String,
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())?;
        if self.token.is_empty() { Ok(()) } else { write!(f, "/{}", self.token) }
    }
}

/// Without the token, which does not belong into logs.
impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreAddress").field(&self.place()).finish_non_exhaustive()
    }
}

impl FromStr for StoreAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (place, token) = text.split_once('/').unwrap_or((text, ""));
        let parsed = place.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        match parsed {
            Some((host, port)) if !host.is_empty() => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Ok(StoreAddress { host, port, token: token.to_owned() })
            }
            _ => Err(Error::Store {
                action: "find a host and a port".to_owned(),
                address: place.to_owned(),
                reason: "it is not written host:port or host:port/token".to_owned(),
            }),
        }
    }
}

impl StoreAddress {
    /// Host and port.
    fn place(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn error(&self, action: impl Into<String>, reason: impl fmt::Display) -> Error {
        Error::Store { action: action.into(), address: self.place(), reason: reason.to_string() }
    }
}

/// Serves a store from threads of this process until it is dropped.
#[derive(Debug)]
pub struct StoreServer {
    address: StoreAddress,
    listening: SocketAddr,
    shared: Arc<Served>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the threads of a server have in common.
#[derive(Debug)]
struct Served {
    token: String,
    stopped: AtomicBool,
    values: Mutex<HashMap<String, Bytes>>,
    changed: Condvar,
    /// By a number, to end their threads.
    connections: Mutex<HashMap<u64, TcpStream>>,
}

impl StoreServer {
    /// Listens at an address; with port 0 at a free one. Clients must know the token, if it is not empty.
    ///
    /// # Errors
    /// [`Error::Store`] when the address cannot be listened at.
    pub fn start(at: SocketAddr, token: &str) -> Result<Self> {
        let wanted = StoreAddress { host: at.ip().to_string(), port: at.port(), token: token.to_owned() };
        let failed = |error: io::Error| wanted.error("listen", error);
        let listener = TcpListener::bind(at).map_err(failed)?;
        let listening = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Served {
            token: token.to_owned(),
            stopped: AtomicBool::new(false),
            values: Mutex::default(),
            changed: Condvar::new(),
            connections: Mutex::default(),
        });
        let acceptor = Builder::new().name("deeprc-store".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.accept(&listener)
        });
        let address = StoreAddress { port: listening.port(), ..wanted.clone() };
        Ok(StoreServer { address, listening, shared, acceptor: Some(acceptor.map_err(failed)?) })
    }

    /// The address it listens at, with the token.
    pub fn address(&self) -> &StoreAddress {
        &self.address
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts; a server that listens everywhere is reached at home.
        let mut own = self.listening;
        if own.ip().is_unspecified() {
            own.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let woken = TcpStream::connect_timeout(&own, PATIENCE).is_ok();
        for connection in lock(&self.shared.connections).values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let (true, Some(acceptor)) = (woken, self.acceptor.take()) {
            let _ = acceptor.join();
        }
    }
}

impl Served {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        let mut number = 0;
        for connection in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            // Out of descriptors, most likely: clients try again, and a pause keeps this loop from spinning.
            let Ok(connection) = connection else {
                thread::sleep(RETRY[1]);
                continue;
            };
            number += 1;
            let served = self.clone();
            let spawned = Builder::new().name("deeprc-store".to_owned()).spawn(move || {
                if let Ok(handle) = connection.try_clone() {
                    lock(&served.connections).insert(number, handle);
                    // The end of the server may have come between its acceptance and its entry here.
                    if served.stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    // A client that goes away, or speaks another language, ends its own connection only.
                    let _ = served.serve(connection);
                    lock(&served.connections).remove(&number);
                }
            });
            drop(spawned);
        }
    }

    fn serve(&self, mut connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let hello = read_frame(&mut connection)?;
        connection.set_read_timeout(None)?;
        match hello.strip_prefix(HELLO) {
            Some(token) if token == self.token.as_bytes() => reply(&mut connection, FOUND, b"")?,
            Some(_) => return reply(&mut connection, REFUSED, b"the token is wrong\nhint: was the task started again meanwhile?"),
            None => return reply(&mut connection, REFUSED, b"the client is of another version\nhint: start all ranks from the same build"),
        }
        while !self.stopped.load(Ordering::SeqCst) {
            let request = read_frame(&mut connection)?;
            let (operation, key, argument) = parse(&request).ok_or(io::ErrorKind::InvalidData)?;
            match self.answer(operation, key, argument) {
                Ok(Some(value)) => reply(&mut connection, FOUND, &value)?,
                Ok(None) => reply(&mut connection, NOTHING, b"")?,
                Err(refusal) => reply(&mut connection, REFUSED, refusal.as_bytes())?,
            }
        }
        Ok(())
    }

    fn answer(&self, operation: u8, key: &str, argument: &[u8]) -> Result<Option<Bytes>, &'static str> {
        let mut values = lock(&self.values);
        let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_le_bytes);
        match operation {
            SET => _ = values.insert(key.to_owned(), Bytes::copy_from_slice(argument)),
            GET => return Ok(values.get(key).cloned()),
            WAIT => {
                let milliseconds = number(argument).ok_or("a wait needs its time")?;
                let until = Instant::now() + Duration::from_millis(milliseconds.unsigned_abs()).min(PATIENCE);
                loop {
                    let left = until.saturating_duration_since(Instant::now());
                    match values.get(key) {
                        Some(value) => return Ok(Some(value.clone())),
                        None if left.is_zero() || self.stopped.load(Ordering::SeqCst) => return Ok(None),
                        None => values = self.changed.wait_timeout(values, left).unwrap_or_else(PoisonError::into_inner).0,
                    }
                }
            }
            ADD => {
                let delta = number(argument).ok_or("an addition needs a number")?;
                let before = values.get(key).map_or(Some(0), |value| number(value)).ok_or("the value there is no number")?;
                let sum = Bytes::copy_from_slice(&before.wrapping_add(delta).to_le_bytes());
                values.insert(key.to_owned(), sum.clone());
                self.changed.notify_all();
                return Ok(Some(sum));
            }
            _ => return Err("there is no such operation\nhint: start all ranks from the same build"),
        }
        self.changed.notify_all();
        Ok(Some(Bytes::new()))
    }
}

/// A client of a store. A clone, and what [`within`](Store::within) gives, share their connections; all may be used at the
/// same time.
#[derive(Debug, Clone)]
pub struct Store {
    address: Arc<StoreAddress>,
    /// Connections that no call uses at the moment.
    idle: Arc<Mutex<Vec<TcpStream>>>,
    prefix: String,
}

impl Store {
    /// Reaches a server; tries again until it is there.
    ///
    /// # Errors
    /// [`Error::Store`] when nobody answered before the deadline, or the token was wrong; [`Error::Cancelled`].
    pub fn connect(at: &StoreAddress, deadline: Deadline<'_>) -> Result<Store> {
        let store = Store { address: Arc::new(at.clone()), idle: Arc::default(), prefix: String::new() };
        let [mut pause, longest] = RETRY;
        loop {
            let left = deadline.left().unwrap_or(Duration::from_millis(1));
            let error = match store.open(left) {
                Ok(connection) => {
                    lock(&store.idle).push(connection);
                    return Ok(store);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(at.error("get in", error)),
                Err(error) => error,
            };
            let tell = |left: Error| match left {
                Error::Timeout { after, .. } => at.error("reach a server", format!("{error} (tried for {} s)", after.as_secs_f64())),
                other => other,
            };
            thread::sleep(pause.min(deadline.remaining(None).map_err(tell)?));
            pause = (pause * 2).min(longest);
        }
    }

    /// The same store as seen from below `<prefix>/`: all keys are there.
    pub fn within(&self, prefix: &str) -> Store {
        Store { prefix: format!("{}{prefix}/", self.prefix), ..self.clone() }
    }

    /// Where the server is.
    pub fn address(&self) -> &StoreAddress {
        &self.address
    }

    /// Sets a key, whatever it was before.
    ///
    /// # Errors
    /// [`Error::Store`] when the server does not answer.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        self.ask("set", SET, key, value, PATIENCE).map(drop)
    }

    /// The value of a key, if it was set.
    ///
    /// # Errors
    /// [`Error::Store`] when the server does not answer.
    pub fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.ask("get", GET, key, &[], PATIENCE)
    }

    /// Waits until a key is set.
    ///
    /// # Errors
    /// [`Error::Timeout`] at the deadline, [`Error::Cancelled`], [`Error::Store`] when the server does not answer.
    pub fn wait(&self, key: &str, deadline: Deadline<'_>) -> Result<Bytes> {
        loop {
            let left = deadline.remaining(None)?;
            let slice = left.min(SLICE);
            // Rounded up: a wait of no time would ask again and again in the last millisecond.
            let milliseconds = slice.as_millis() as u64 + 1;
            if let Some(value) = self.ask("wait for", WAIT, key, &milliseconds.to_le_bytes(), left + PATIENCE)? {
                return Ok(value);
            }
        }
    }

    /// Adds to the number at a key, 0 before the first time; the sum.
    ///
    /// # Errors
    /// [`Error::Store`] when the server does not answer, or the value is no number of [`add`](Store::add).
    pub fn add(&self, key: &str, delta: i64) -> Result<i64> {
        let sum = self.ask("add to", ADD, key, &delta.to_le_bytes(), PATIENCE)?;
        let sum = sum.and_then(|bytes| Some(i64::from_le_bytes(bytes.as_ref().try_into().ok()?)));
        sum.ok_or_else(|| self.address.error(format!("add to key {}{key}", self.prefix), "the answer is no number"))
    }

    fn ask(&self, action: &str, operation: u8, key: &str, argument: &[u8], patience: Duration) -> Result<Option<Bytes>> {
        let key = format!("{}{key}", self.prefix);
        let failed = |reason: String| self.address.error(format!("{action} key {key}"), reason);
        let mut request = vec![operation];
        request.extend_from_slice(&(key.len() as u32).to_le_bytes());
        request.extend_from_slice(key.as_bytes());
        request.extend_from_slice(argument);
        let idle = lock(&self.idle).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.open(PATIENCE).map_err(|error| failed(error.to_string()))?,
        };
        let mut call = || {
            connection.set_read_timeout(Some(patience))?;
            write_frame(&mut connection, &[&request])?;
            read_frame(&mut connection)
        };
        let answer = call().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => failed(format!("no answer within {} s", patience.as_secs_f64())),
            io::ErrorKind::UnexpectedEof => failed("the server ended".to_owned()),
            _ => failed(error.to_string()),
        })?;
        lock(&self.idle).push(connection);
        match answer.first() {
            Some(&FOUND) => Ok(Some(Bytes::from(answer).slice(1..))),
            Some(&NOTHING) => Ok(None),
            _ => Err(failed(String::from_utf8_lossy(answer.get(1..).unwrap_or_default()).into_owned())),
        }
    }

    /// A new connection on which the server has heard the token. `PermissionDenied` when it did not like it.
    fn open(&self, left: Duration) -> io::Result<TcpStream> {
        let patience = left.min(PATIENCE).max(Duration::from_millis(1));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in (self.address.host.as_str(), self.address.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(mut connection) => {
                    connection.set_nodelay(true)?;
                    connection.set_read_timeout(Some(patience))?;
                    connection.set_write_timeout(Some(PATIENCE))?;
                    write_frame(&mut connection, &[HELLO, self.address.token.as_bytes()])?;
                    let answer = read_frame(&mut connection)?;
                    return match answer.split_first() {
                        Some((&FOUND, _)) => Ok(connection),
                        Some((_, reason)) => Err(io::Error::new(io::ErrorKind::PermissionDenied, String::from_utf8_lossy(reason))),
                        None => Err(io::ErrorKind::InvalidData.into()),
                    };
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn parse(request: &[u8]) -> Option<(u8, &str, &[u8])> {
    let (&operation, rest) = request.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (key, argument) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((operation, std::str::from_utf8(key).ok()?, argument))
}

fn reply(connection: &mut TcpStream, status: u8, bytes: &[u8]) -> io::Result<()> {
    write_frame(connection, &[&[status], bytes])
}

/// In one piece, so that a frame is one packet.
fn write_frame(connection: &mut TcpStream, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the value is too long for the store"));
    }
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&(length as u32).to_le_bytes());
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    connection.write_all(&frame)
}

fn read_frame(connection: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    connection.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    connection.read_exact(&mut frame)?;
    Ok(frame)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CancelToken;

    fn serve(token: &str) -> (StoreServer, Store) {
        let server = StoreServer::start((Ipv4Addr::LOCALHOST, 0).into(), token).unwrap();
        let store = Store::connect(server.address(), soon()).unwrap();
        (server, store)
    }

    fn soon() -> Deadline<'static> {
        Deadline::new("test", Duration::from_secs(60))
    }

    fn short() -> Deadline<'static> {
        Deadline::new("connect", Duration::from_millis(20))
    }

    #[test]
    fn values_are_set_counted_and_kept_apart_by_prefix() {
        let (_server, store) = serve("secret");
        assert_eq!(store.get("a").unwrap(), None);
        store.set("a", b"1").unwrap();
        store.within("t/0").set("a", b"").unwrap();
        assert_eq!(store.get("a").unwrap().unwrap(), "1");
        assert_eq!(store.get("t/0/a").unwrap().unwrap(), "");
        assert_eq!([store.add("n", 5).unwrap(), store.add("n", -7).unwrap()], [5, -2]);
        let error = store.add("a", 1).unwrap_err().to_string();
        assert!(error.starts_with("failed to add to key a in the store at 127.0.0.1:"), "{error}");
        assert!(error.ends_with("the value there is no number"), "{error}");
    }

    #[test]
    fn a_wait_ends_with_the_value_the_deadline_or_the_token() {
        let (_server, store) = serve("");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| store.wait("late", soon()));
            // On another connection meanwhile.
            store.set("late", &[7; 100_000]).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), vec![7; 100_000]);
        });
        assert_eq!(store.wait("never", short()).unwrap_err().to_string(), "timed out in connect after 0.02 s");
        let token = CancelToken::new();
        token.cancel();
        let error = store.wait("never", soon().with_cancel(Some(&token))).unwrap_err();
        assert!(matches!(error, Error::Cancelled { operation: "test" }), "{error:?}");
    }

    #[test]
    fn a_client_waits_for_its_server_but_not_for_ever() {
        let (server, _) = serve("");
        let at = server.address().clone();
        drop(server);
        let error = Store::connect(&at, short()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("failed to reach a server in the store at {at}: ")), "{error}");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| Store::connect(&at, soon()).and_then(|store| store.wait("key", soon())));
            let listening = SocketAddr::from((Ipv4Addr::LOCALHOST, at.port));
            let _server = StoreServer::start(listening, "").unwrap();
            Store::connect(&at, soon()).unwrap().set("key", b"x").unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), "x");
        });
    }

    #[test]
    fn a_wrong_token_is_refused_and_an_ended_server_noticed() {
        let (server, store) = serve("right");
        let wrong = StoreAddress { token: "wrong".to_owned(), ..server.address().clone() };
        let error = Store::connect(&wrong, soon()).unwrap_err().to_string();
        assert!(error.contains("the token is wrong\nhint:"), "{error}");
        assert!(!format!("{:?}", server.address()).contains("right"), "a secret in a log");
        drop(server);
        assert!(matches!(store.get("a"), Err(Error::Store { .. })));
    }

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for text in ["localhost:80", "10.0.0.1:5/abc", "[::1]:9/x"] {
            assert_eq!(text.parse::<StoreAddress>().unwrap().to_string(), text);
        }
        for text in ["", "host", ":7", "host:port", "host:70000/t"] {
            assert!(text.parse::<StoreAddress>().is_err(), "{text}");
        }
    }
}
