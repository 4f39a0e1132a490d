//! A receiver of OpenTelemetry that stores every log record and metric, and that can refuse requests.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use prost::Message as _;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Identity;

/// How the receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Accept,
    /// Refuses a request with this status, and with a header `Retry-After` if there is a number of seconds.
    Refuse(u16, Option<u64>),
    /// Accepts a request but refuses this number of log records. None of the records of such a request is stored.
    Partial(i64),
    /// Refuses a request with more log records than this with status 413.
    AtMost(usize),
    /// Does not answer.
    Hang,
}

/// A log record with the attributes of its resource.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) record: LogRecord,
}

impl Received {
    /// The text of the record.
    pub(crate) fn body(&self) -> &str {
        match self
            .record
            .body
            .as_ref()
            .and_then(|body| body.value.as_ref())
        {
            Some(Value::StringValue(text)) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    pub(crate) fn attributes(&self) -> BTreeMap<String, String> {
        shown(&self.record.attributes)
    }
}

/// A point of a metric.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) value: f64,
    pub(crate) start: u64,
    pub(crate) time: u64,
}

#[derive(Default)]
struct Store {
    records: Vec<Received>,
    /// The points of the newest request.
    points: Vec<Point>,
    /// The time of each request, with its path and the headers in lower case.
    requests: Vec<(Instant, String, String)>,
}

/// The receiver. Its threads end with the test.
pub(crate) struct Receiver {
    address: SocketAddr,
    store: Arc<Mutex<Store>>,
    reply: Arc<Mutex<Reply>>,
    is_tls: bool,
    closed: Arc<AtomicBool>,
}

impl Receiver {
    /// A receiver on a free port.
    pub(crate) fn start() -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)), None)
    }

    /// A receiver with TLS.
    pub(crate) fn with_tls(identity: &Identity) -> Self {
        let config = tls(&identity.certificate, &identity.key);
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)), Some(config))
    }

    fn on(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).expect("cannot listen");
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            store: Arc::default(),
            reply: Arc::new(Mutex::new(Reply::Accept)),
            is_tls: tls.is_some(),
            closed: Arc::default(),
        };
        receiver.accept(listener, tls);
        receiver
    }

    fn accept(&self, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        let (store, reply) = (Arc::clone(&self.store), Arc::clone(&self.reply));
        let closed = Arc::clone(&self.closed);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (store, reply) = (Arc::clone(&store), Arc::clone(&reply));
                let (closed, tls) = (Arc::clone(&closed), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &store, &reply, &closed),
                    Some(config) => {
                        let server = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(server, stream), &store, &reply, &closed);
                    }
                });
            }
        });
    }

    /// Closes the port and all connections. They end with their next request.
    pub(crate) fn go_away(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // The thread of the listener ends with its next connection.
        let _ = TcpStream::connect(self.address);
    }

    /// Opens the port again.
    pub(crate) fn come_back(&mut self) {
        self.closed = Arc::default();
        let listener = super::wait::until("the port to be free", super::DEADLINE, || {
            TcpListener::bind(self.address).ok()
        });
        self.accept(listener, None);
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn reply(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// All log records so far.
    pub(crate) fn records(&self) -> Vec<Received> {
        self.store().records.clone()
    }

    /// The log lines of a container, without events.
    pub(crate) fn lines(&self, container: &str) -> Vec<Received> {
        let store = self.store();
        let of_container = |one: &&Received| {
            let name = one.resource.get("container.name");
            name.is_some_and(|name| name == container)
        };
        store.records.iter().filter(of_container).cloned().collect()
    }

    /// The points of the newest request.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.store().points.clone()
    }

    /// The times of the requests with this path.
    pub(crate) fn requests(&self, path: &str) -> Vec<Instant> {
        let store = self.store();
        let of_path = store.requests.iter().filter(|(_, one, _)| one == path);
        of_path.map(|(at, _, _)| *at).collect()
    }

    /// The headers of the newest request, in lower case.
    pub(crate) fn headers(&self) -> String {
        let newest = self.store().requests.last().cloned();
        newest.map(|(_, _, headers)| headers).unwrap_or_default()
    }
}

/// A server's TLS configuration with this certificate and key.
pub(crate) fn tls(certificate: &Path, key: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key);
    Arc::new(config.unwrap())
}

/// Answers the requests of one connection.
fn serve<S: Read + Write>(
    stream: S,
    store: &Mutex<Store>,
    reply: &Mutex<Reply>,
    closed: &AtomicBool,
) {
    let mut stream = BufReader::new(stream);
    while let Some((path, headers, body)) = read_request(&mut stream) {
        if closed.load(Ordering::Relaxed) {
            return;
        }
        let reply = *reply.lock().unwrap();
        let headers = headers.to_ascii_lowercase();
        let body = unpacked(&headers, body);
        let mut store = store.lock().unwrap();
        store.requests.push((Instant::now(), path.clone(), headers));
        let (status, more, answer) = decide(reply, &path, &body, &mut store);
        drop(store);
        if reply == Reply::Hang {
            // The agent gives up earlier, and closes the connection.
            thread::sleep(Duration::from_secs(600));
            return;
        }
        let head = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n{more}\r\n",
            answer.len()
        );
        let whole = [head.as_bytes(), &answer].concat();
        if stream.get_mut().write_all(&whole).is_err() || stream.get_mut().flush().is_err() {
            return;
        }
    }
}

/// Stores the contents of a request, unless the receiver refuses it. Returns the status, further headers, and the answer.
fn decide(reply: Reply, path: &str, body: &[u8], store: &mut Store) -> (u16, String, Vec<u8>) {
    let nothing = (200, String::new(), Vec::new());
    match reply {
        Reply::Hang => nothing,
        Reply::Refuse(status, after) => {
            let after = after.map(|seconds| format!("Retry-After: {seconds}\r\n"));
            (
                status,
                after.unwrap_or_default(),
                b"refused by the test".to_vec(),
            )
        }
        _ if path == "/v1/metrics" => {
            store.points = points_of(body);
            nothing
        }
        _ => {
            let request = ExportLogsServiceRequest::decode(body).expect("not a request with logs");
            let records = records_of(request);
            match reply {
                Reply::AtMost(most) if records.len() > most => (413, String::new(), Vec::new()),
                Reply::Partial(rejected_log_records) if !records.is_empty() => {
                    let partial = ExportLogsPartialSuccess {
                        rejected_log_records,
                        error_message: "too old".to_owned(),
                    };
                    let partial_success = Some(partial);
                    let answer = ExportLogsServiceResponse { partial_success };
                    (200, String::new(), answer.encode_to_vec())
                }
                _ => {
                    store.records.extend(records);
                    nothing
                }
            }
        }
    }
}

/// Reads a request. Returns its path, its headers and its body.
fn read_request(stream: &mut impl std::io::BufRead) -> Option<(String, String, Vec<u8>)> {
    let (mut first, mut headers) = (String::new(), String::new());
    stream.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
        headers += &line;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((path, headers, body))
}

fn unpacked(headers: &str, body: Vec<u8>) -> Vec<u8> {
    let mut unpacked = Vec::new();
    if headers.contains("content-encoding: gzip") {
        let mut decoder = flate2::read::GzDecoder::new(&*body);
        decoder.read_to_end(&mut unpacked).expect("not gzip");
    } else if headers.contains("content-encoding: zstd") {
        unpacked = zstd::stream::decode_all(&*body).expect("not zstd");
    } else {
        unpacked = body;
    }
    unpacked
}

fn shown(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| match one.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = attributes.iter().map(|one| (one.key.clone(), text(one)));
    pairs.collect()
}

fn records_of(request: ExportLogsServiceRequest) -> Vec<Received> {
    let mut records = Vec::new();
    for logs in request.resource_logs {
        let resource = shown(&logs.resource.expect("no resource").attributes);
        for record in logs
            .scope_logs
            .into_iter()
            .flat_map(|scope| scope.log_records)
        {
            let resource = resource.clone();
            records.push(Received { resource, record });
        }
    }
    records
}

fn points_of(body: &[u8]) -> Vec<Point> {
    let request = ExportMetricsServiceRequest::decode(body).expect("not a request with metrics");
    let mut points = Vec::new();
    for metrics in request.resource_metrics {
        let resource = shown(&metrics.resource.expect("no resource").attributes);
        for metric in metrics
            .scope_metrics
            .into_iter()
            .flat_map(|scope| scope.metrics)
        {
            let data = match metric.data.expect("no data") {
                Data::Gauge(gauge) => gauge.data_points,
                Data::Sum(sum) => sum.data_points,
                other => panic!("unexpected: {other:?}"),
            };
            points.extend(data.into_iter().map(|point| Point {
                resource: resource.clone(),
                name: metric.name.clone(),
                attributes: shown(&point.attributes),
                value: match point.value.expect("no value") {
                    Number::AsInt(value) => value as f64,
                    Number::AsDouble(value) => value,
                },
                start: point.start_time_unix_nano,
                time: point.time_unix_nano,
            }));
        }
    }
    points
}
