//! A model hub on the loopback address: just enough of HTTP, and every way in which it goes wrong.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sd_conditioner::hub::HubOptions;

use super::{COMMIT, CONTENT, options, sha256};

/// As all tests here are set up, with this server as the hub.
pub(super) fn online(cache: &Path, server: &Server) -> HubOptions {
    HubOptions {
        endpoint: Some(server.endpoint()),
        ..options(cache)
    }
}

/// No test asks more often than this; the server ends after it.
const REQUESTS_AT_MOST: usize = 64;

/// What a client asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    /// `/owner/name/resolve/revision/path`.
    pub(super) path: String,
    /// The bearer token.
    pub(super) token: Option<String>,
    /// The first byte wanted.
    pub(super) start: usize,
    /// Whether only the first byte is wanted, to learn the size.
    pub(super) is_probe: bool,
}

/// How the server behaves towards a request.
#[derive(Clone)]
pub(super) enum Answer {
    /// The file as it should be.
    Good,
    /// As if the file were these bytes, under the right name.
    Bytes(Vec<u8>),
    /// Another file than the usual one, under its own name.
    File(Arc<Vec<u8>>),
    /// Promises the file and closes after this many bytes.
    Truncated(usize),
    /// Sends these many bytes, and the rest when [`Server::let_go`] says so, or after half a minute.
    Stuck(usize),
    /// Sends a few bytes at a time.
    Drip,
    /// Only this status.
    Status(u16),
    /// The file, with other values for etag and commit.
    Names { etag: String, commit: String },
    /// Sends the client to another address for the bytes, as the hub does for large files.
    Redirect(String),
    /// These very bytes.
    Raw(Vec<u8>),
}

/// Where answers wait that are stuck.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    waiting: AtomicUsize,
}

impl Gate {
    /// Waits until it opens, but not forever: nothing that is tested waits so long.
    fn pass<T>(&self, then: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        for _ in 0..1500 {
            if self.open.load(Ordering::SeqCst) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let done = then();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        done
    }
}

/// The server; it ends when this is dropped.
pub(super) struct Server {
    address: SocketAddr,
    gate: Arc<Gate>,
    seen: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers each request as `answer` says.
    pub(super) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (log, end) = (Arc::clone(&seen), Arc::clone(&ended));
        let gate = Arc::new(Gate::default());
        let waits = Arc::clone(&gate);
        let answer = Arc::new(answer);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten().take(REQUESTS_AT_MOST) {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                let gate = Arc::clone(&waits);
                thread::spawn(move || serve(&stream, (&log, &gate), &*answer));
            }
        });
        Server {
            address,
            gate,
            seen,
            ended,
            thread: Some(thread),
        }
    }

    /// What to give as the endpoint.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends what was held back, and returns when it is sent.
    pub(super) fn let_go(&self) {
        self.gate.open.store(true, Ordering::SeqCst);
        while self.gate.waiting.load(Ordering::SeqCst) > 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// All requests so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.gate.open.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    stream: &TcpStream,
    (log, gate): (&Mutex<Vec<Request>>, &Gate),
    answer: &dyn Fn(&Request) -> Answer,
) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let Some(request) = read(stream) else { return };
    log.lock().unwrap().push(request.clone());
    // A client that was given up closes first; that is no fault of the test.
    let _ = reply(stream, &request, answer(&request), gate);
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut request = Request {
        path,
        ..Request::default()
    };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            "range" => {
                let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
                request.start = start.parse().ok()?;
                request.is_probe = end == "0";
            }
            _ => {}
        }
    }
    Some(request)
}

fn reply(
    stream: &TcpStream,
    request: &Request,
    answer: Answer,
    gate: &Gate,
) -> std::io::Result<()> {
    let good = sha256(CONTENT);
    match answer {
        Answer::Good => send(stream, request, CONTENT, &good, COMMIT, |out, body| {
            out.write_all(body)
        }),
        Answer::Bytes(bytes) => send(stream, request, &bytes, &good, COMMIT, |out, body| {
            out.write_all(body)
        }),
        Answer::File(bytes) => {
            let own = sha256(&bytes);
            send(stream, request, &bytes, &own, COMMIT, |out, body| {
                out.write_all(body)
            })
        }
        Answer::Names { etag, commit } => {
            send(stream, request, CONTENT, &etag, &commit, |out, body| {
                out.write_all(body)
            })
        }
        Answer::Truncated(count) => send(stream, request, CONTENT, &good, COMMIT, |out, body| {
            out.write_all(&body[..count.min(body.len())])
        }),
        Answer::Stuck(count) => send(stream, request, CONTENT, &good, COMMIT, |out, body| {
            let (now, later) = body.split_at(count.min(body.len()));
            out.write_all(now)?;
            gate.pass(|| out.write_all(later))
        }),
        Answer::Drip => send(stream, request, CONTENT, &good, COMMIT, |out, body| {
            for piece in body.chunks(4) {
                out.write_all(piece)?;
                out.flush()?;
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }),
        Answer::Status(status) => refuse(stream, status),
        Answer::Redirect(to) => {
            let head = format!(
                "HTTP/1.1 302 Found\r\nLocation: {to}\r\nX-Linked-ETag: \"{good}\"\r\n\
                 X-Repo-Commit: {COMMIT}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            (&*stream).write_all(head.as_bytes())
        }
        Answer::Raw(bytes) => (&*stream).write_all(&bytes),
    }
}

fn refuse(stream: &TcpStream, status: u16) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    (&*stream).write_all(head.as_bytes())
}

/// The headers of a file on the hub, and the part of it that was asked for.
fn send(
    stream: &TcpStream,
    request: &Request,
    file: &[u8],
    etag: &str,
    commit: &str,
    write: impl Fn(&mut &TcpStream, &[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let total = file.len();
    if request.start >= total {
        return refuse(stream, 416);
    }
    let end = if request.is_probe {
        request.start + 1
    } else {
        total
    };
    let body = &file[request.start..end];
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/{total}\r\n\
         ETag: \"{etag}\"\r\nX-Linked-ETag: \"{etag}\"\r\nX-Linked-Size: {total}\r\nX-Repo-Commit: {commit}\r\n\
         Connection: close\r\n\r\n",
        body.len(),
        request.start,
        end - 1,
    );
    let mut out = stream;
    out.write_all(head.as_bytes())?;
    if request.is_probe {
        out.write_all(body)
    } else {
        write(&mut out, body)
    }
}
