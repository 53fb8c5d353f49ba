//! One connection as a state machine without a socket: bytes in, gRPC calls out; answers in, bytes out.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};

use crate::budget::{Account, Budget, Outgoing};
use crate::message::{Inbox, Message, Refusal, timeout_s};
use crate::pipe::Pipe;

/// Codes of `grpc-status`.
pub mod code {
    /// The client's mistake.
    pub const INVALID_ARGUMENT: u32 = 3;
    /// Too late.
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// A limit was met.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// Not served.
    pub const UNIMPLEMENTED: u32 = 12;
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const DETAILS: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const NOT_GRPC: &[u8] = b"over HTTP/2 this port speaks gRPC; REST is HTTP/1.1\n";

/// What one connection may do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls at a time, those that were cancelled and are still being answered among them.
    pub calls: usize,
    /// Bytes of one message.
    pub message_bytes: usize,
    /// Bytes of a call's headers, as HPACK counts them.
    pub header_bytes: u32,
    /// Bytes that a stream may send ahead, and a connection.
    pub window_bytes: (u32, u32),
    /// Bytes held of messages that are not whole and of answers that are not sent.
    pub held_bytes: usize,
    /// Calls that may be cancelled at once, and each tick.
    pub resets: (u32, u32),
    /// Ticks within which a message must be whole.
    pub message_ticks: u32,
    /// Paths of methods whose requests are streams.
    pub streaming: Vec<String>,
    /// Name of the header without which headers are not handed over.
    pub marker: Option<HeaderName>,
}

/// What a client says besides its message.
#[derive(Debug)]
pub struct Head {
    /// The target; its path is the method.
    pub uri: Uri,
    /// `grpc-timeout`, in seconds.
    pub timeout_s: Option<f64>,
    /// All headers, if the marker is among them.
    pub headers: Option<Box<HeaderMap>>,
    /// Whether answers may be compressed.
    pub takes_gzip: bool,
}

/// What happened; streams are HTTP/2's numbers.
#[derive(Debug)]
pub enum Event {
    /// A call; without a message if its messages follow.
    Call(u32, Head, Option<Message>),
    /// The next message of a stream; None at its end.
    Message(u32, Option<Message>),
    /// A call was cancelled; whoever answers it may stop.
    Cancelled(u32),
}

enum Wire {
    Greeting(Handshake<Pipe, Outgoing>),
    Open(Connection<Pipe, Outgoing>),
    Closed,
}

enum Answering {
    Nothing(SendResponse<Outgoing>),
    Messages(SendStream<Outgoing>),
}

struct Receiving {
    stream: u32,
    body: RecvStream,
    inbox: Inbox,
    /// None once the call was handed over.
    unary: Option<(Head, SendResponse<Outgoing>)>,
    ticks: u32,
}

/// A connection.
pub struct Engine {
    wire: Wire,
    pipe: Pipe,
    desk: Desk,
}

/// What is being received and answered.
struct Desk {
    limits: Limits,
    account: Arc<Account>,
    receiving: Vec<Receiving>,
    answering: HashMap<u32, Answering>,
    resets_left: u32,
}

impl Engine {
    /// Wait for a client's first bytes.
    #[must_use]
    pub fn new(limits: Limits, process: Arc<Budget>) -> Self {
        let pipe = Pipe::default();
        let streams = u32::try_from(limits.calls).unwrap_or(u32::MAX);
        let handshake = Builder::new()
            .max_concurrent_streams(streams)
            .max_pending_accept_reset_streams(limits.calls)
            .max_concurrent_reset_streams(limits.calls.min(64))
            .max_local_error_reset_streams(Some(1024))
            .max_header_list_size(limits.header_bytes)
            .initial_window_size(limits.window_bytes.0)
            .initial_connection_window_size(limits.window_bytes.1)
            .handshake(pipe.clone());
        let desk = Desk {
            account: Account::new(limits.held_bytes, process),
            receiving: Vec::new(),
            answering: HashMap::new(),
            resets_left: limits.resets.0,
            limits,
        };
        Self { wire: Wire::Greeting(handshake), pipe, desk }
    }

    /// Take bytes of the client's; empty ones go on with what could not be done before `take`.
    pub fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        self.pipe.receive(bytes);
        let mut context = Context::from_waker(Waker::noop());
        if let Wire::Greeting(handshake) = &mut self.wire {
            match Pin::new(handshake).poll(&mut context) {
                Poll::Pending => return,
                Poll::Ready(Ok(connection)) => self.wire = Wire::Open(connection),
                Poll::Ready(Err(_)) => {
                    self.wire = Wire::Closed;
                    return;
                }
            }
        }
        let Wire::Open(connection) = &mut self.wire else { return };
        let closed = loop {
            match connection.poll_accept(&mut context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.desk.accept(request, respond, events, &mut context);
                }
                Poll::Ready(_) => break true,
                Poll::Pending => break false,
            }
        };
        if closed {
            self.wire = Wire::Closed;
            return;
        }
        self.desk.receive(events, &mut context);
        self.desk.forget_cancelled(events, &mut context);
        if self.desk.resets_left == 0 {
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }

    /// Answer a call with its only message; false if it was cancelled.
    pub fn reply(
        &mut self,
        stream: u32,
        message: &[u8],
        compressed: bool,
        extra: &[(HeaderName, HeaderValue)],
    ) -> bool {
        match self.desk.answering.remove(&stream) {
            Some(Answering::Nothing(respond)) => {
                self.desk.count(&reply(respond, &self.desk.account, message, compressed, extra))
            }
            Some(other) => {
                self.desk.answering.insert(stream, other);
                false
            }
            None => false,
        }
    }

    /// Send a message of a stream; false if it was cancelled, or there is no room for what its client does not read.
    pub fn send(&mut self, stream: u32, message: &[u8]) -> bool {
        let Some(claim) = self.desk.account.claim(message.len()) else { return false };
        let outgoing = Outgoing::new(framed(message, false), Some(claim));
        match self.desk.answering.remove(&stream) {
            Some(Answering::Nothing(mut respond)) => {
                let Ok(mut body) = respond.send_response(head(false, &[]), false) else { return false };
                let sent = body.send_data(outgoing, false).is_ok();
                self.desk.answering.insert(stream, Answering::Messages(body));
                sent
            }
            Some(Answering::Messages(mut body)) => {
                let sent = body.send_data(outgoing, false).is_ok();
                self.desk.answering.insert(stream, Answering::Messages(body));
                sent
            }
            None => false,
        }
    }

    /// End a call with a status; `text` is percent-encoded already.
    pub fn finish(&mut self, stream: u32, status: u32, text: &str, extra: &[(HeaderName, HeaderValue)]) -> bool {
        self.desk.receiving.retain(|other| other.stream != stream);
        match self.desk.answering.remove(&stream) {
            Some(Answering::Nothing(respond)) => self.desk.count(&refuse(respond, status, text, extra)),
            Some(Answering::Messages(mut body)) => self.desk.count(&body.send_trailers(trailers(status, text, extra))),
            None => false,
        }
    }

    /// Give what is to be sent to `use_bytes`, at most a little more than 1 MiB at a time.
    pub fn take<R>(&mut self, use_bytes: impl FnOnce(&[u8]) -> R) -> R {
        if let Wire::Open(connection) = &mut self.wire {
            let mut context = Context::from_waker(Waker::noop());
            if connection.poll_closed(&mut context).is_ready() {
                self.wire = Wire::Closed;
            }
        }
        self.pipe.take(use_bytes)
    }

    /// Let a tick of time pass.
    pub fn tick(&mut self) {
        let limits = &self.desk.limits;
        self.desk.resets_left = limits.resets.0.min(self.desk.resets_left + limits.resets.1);
        let most = limits.message_ticks;
        let mut late = Vec::new();
        for receiving in &mut self.desk.receiving {
            receiving.ticks += 1;
        }
        self.desk.receiving.retain_mut(|receiving| {
            let keep = receiving.unary.is_none() || receiving.ticks <= most;
            if !keep {
                late.extend(receiving.unary.take());
            }
            keep
        });
        for (_, respond) in late {
            let _ = refuse(respond, code::DEADLINE_EXCEEDED, "the message did not arrive in time", &[]);
        }
    }

    /// Ask the client to open no more streams (GOAWAY); the connection closes once all are answered.
    pub fn shutdown(&mut self) {
        if let Wire::Open(connection) = &mut self.wire {
            connection.graceful_shutdown();
        }
    }

    /// Whether nothing more is received or answered.
    #[must_use]
    pub fn closed(&self) -> bool {
        matches!(self.wire, Wire::Closed)
    }

    /// Whether the client has greeted as HTTP/2 clients do.
    #[must_use]
    pub fn greeted(&self) -> bool {
        !matches!(self.wire, Wire::Greeting(_))
    }

    /// Whether no call is being received or answered.
    #[must_use]
    pub fn idle(&self) -> bool {
        let streams = matches!(&self.wire, Wire::Open(connection) if connection.has_streams());
        !streams && self.desk.receiving.is_empty() && self.desk.answering.is_empty()
    }

    /// Whether `feed` should be called again once what is to be sent was taken.
    #[must_use]
    pub fn stalled(&self) -> bool {
        self.pipe.stalled()
    }
}

impl Desk {
    fn accept(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Outgoing>,
        events: &mut Vec<Event>,
        context: &mut Context<'_>,
    ) {
        let stream = respond.stream_id().as_u32();
        if self.answering.len() + self.receiving.len() >= 2 * self.limits.calls {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let (parts, body) = request.into_parts();
        let is_grpc = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()));
        if parts.method != Method::POST || !is_grpc {
            let _ = refuse_http(respond);
            return;
        }
        let head = match self.head(parts.uri, parts.headers) {
            Ok(head) => head,
            Err((status, text)) => {
                let _ = refuse(respond, status, text, &[]);
                return;
            }
        };
        let mut receiving =
            Receiving { stream, body, inbox: Inbox::new(self.limits.message_bytes), unary: None, ticks: 0 };
        if self.limits.streaming.iter().any(|path| path == head.uri.path()) {
            self.answering.insert(stream, Answering::Nothing(respond));
            events.push(Event::Call(stream, head, None));
        } else {
            receiving.unary = Some((head, respond));
        }
        if !self.advance(&mut receiving, events, context) {
            self.receiving.push(receiving);
        }
    }

    fn head(&self, uri: Uri, headers: HeaderMap) -> Result<Head, (u32, &'static str)> {
        let timeout = match headers.get(TIMEOUT) {
            None => None,
            Some(value) => {
                let seconds = timeout_s(value.as_bytes());
                Some(seconds.ok_or((code::INVALID_ARGUMENT, "grpc-timeout is no number with a unit"))?)
            }
        };
        match headers.get(ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity" | b"gzip") => {}
            Some(_) => return Err((code::UNIMPLEMENTED, "grpc-encoding must be identity or gzip")),
        }
        let takes_gzip = headers
            .get(ACCEPTED)
            .is_some_and(|names| names.as_bytes().split(|&byte| byte == b',').any(|name| name.trim_ascii() == b"gzip"));
        let marked = self.limits.marker.as_ref().is_some_and(|marker| headers.contains_key(marker));
        Ok(Head { uri, timeout_s: timeout, headers: marked.then(|| Box::new(headers)), takes_gzip })
    }

    fn receive(&mut self, events: &mut Vec<Event>, context: &mut Context<'_>) {
        let mut place = self.receiving.len();
        while place > 0 {
            place -= 1;
            let mut receiving = self.receiving.swap_remove(place);
            if !self.advance(&mut receiving, events, context) {
                self.receiving.push(receiving);
            }
        }
    }

    /// Read what has arrived of a stream; true once nothing more is to be read.
    fn advance(&mut self, receiving: &mut Receiving, events: &mut Vec<Event>, context: &mut Context<'_>) -> bool {
        loop {
            let ended = match receiving.body.poll_data(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(payload))) => {
                    let size = payload.len();
                    let _ = receiving.body.flow_control().release_capacity(size);
                    if let Err(refusal) = receiving.inbox.push(payload) {
                        return self.refuse(receiving, refusal);
                    }
                    receiving.body.is_end_stream()
                }
                Poll::Ready(None) => true,
                Poll::Ready(Some(Err(_))) => {
                    if receiving.unary.is_some() {
                        self.resets_left = self.resets_left.saturating_sub(1);
                    }
                    return true;
                }
            };
            if receiving.unary.is_none() {
                if let Err(refusal) = hand_over(receiving, events) {
                    return self.refuse(receiving, refusal);
                }
                if ended {
                    events.push(Event::Message(receiving.stream, None));
                }
            }
            if ended {
                return receiving.unary.is_none() || self.whole(receiving, events);
            }
        }
        match receiving.inbox.hold(&self.account) {
            Ok(()) => false,
            Err(refusal) => self.refuse(receiving, refusal),
        }
    }

    fn whole(&mut self, receiving: &mut Receiving, events: &mut Vec<Event>) -> bool {
        match receiving.inbox.only() {
            Ok(message) => {
                if let Some((head, respond)) = receiving.unary.take() {
                    self.answering.insert(receiving.stream, Answering::Nothing(respond));
                    events.push(Event::Call(receiving.stream, head, Some(message)));
                }
                true
            }
            Err(refusal) => self.refuse(receiving, refusal),
        }
    }

    fn refuse(&mut self, receiving: &mut Receiving, refusal: Refusal) -> bool {
        let (status, text) = match refusal {
            Refusal::Malformed => (code::INVALID_ARGUMENT, "the stream is no gRPC message".to_owned()),
            Refusal::TooLarge => (
                code::RESOURCE_EXHAUSTED,
                format!("the message is too large; send at most {} bytes", self.limits.message_bytes),
            ),
            Refusal::NoRoom => (
                code::RESOURCE_EXHAUSTED,
                "too much is being received at once; send fewer or smaller messages at a time".to_owned(),
            ),
        };
        match (receiving.unary.take(), self.answering.remove(&receiving.stream)) {
            (Some((_, respond)), _) | (None, Some(Answering::Nothing(respond))) => {
                let _ = refuse(respond, status, &text, &[]);
            }
            (None, Some(Answering::Messages(mut body))) => {
                let _ = body.send_trailers(trailers(status, &text, &[]));
            }
            (None, None) => {}
        }
        true
    }

    fn forget_cancelled(&mut self, events: &mut Vec<Event>, context: &mut Context<'_>) {
        let before = self.answering.len();
        self.answering.retain(|&stream, answering| {
            let polled = match answering {
                Answering::Nothing(respond) => respond.poll_reset(context),
                Answering::Messages(body) => body.poll_reset(context),
            };
            if polled.is_ready() {
                events.push(Event::Cancelled(stream));
            }
            polled.is_pending()
        });
        let cancelled = u32::try_from(before - self.answering.len()).unwrap_or(u32::MAX);
        self.resets_left = self.resets_left.saturating_sub(cancelled);
    }

    /// Tell whether an answer was sent; if not, its call was cancelled.
    fn count(&mut self, sent: &Result<(), h2::Error>) -> bool {
        if sent.is_err() {
            self.resets_left = self.resets_left.saturating_sub(1);
        }
        sent.is_ok()
    }
}

fn hand_over(receiving: &mut Receiving, events: &mut Vec<Event>) -> Result<(), Refusal> {
    while let Some(message) = receiving.inbox.pop()? {
        events.push(Event::Message(receiving.stream, Some(message)));
    }
    Ok(())
}

fn head(compressed: bool, extra: &[(HeaderName, HeaderValue)]) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    if compressed {
        headers.insert(ENCODING, GZIP);
    }
    headers.extend(extra.iter().cloned());
    response
}

fn framed(message: &[u8], compressed: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(compressed.into());
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

fn trailers(status: u32, text: &str, extra: &[(HeaderName, HeaderValue)]) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2 + extra.len());
    trailers.insert(STATUS, if status == 0 { HeaderValue::from_static("0") } else { HeaderValue::from(status) });
    if let (false, Ok(details)) = (text.is_empty(), HeaderValue::from_str(text)) {
        trailers.insert(DETAILS, details);
    }
    trailers.extend(extra.iter().cloned());
    trailers
}

fn reply(
    mut respond: SendResponse<Outgoing>,
    account: &Arc<Account>,
    message: &[u8],
    compressed: bool,
    extra: &[(HeaderName, HeaderValue)],
) -> Result<(), h2::Error> {
    let Some(claim) = account.claim(message.len()) else {
        return refuse(respond, code::RESOURCE_EXHAUSTED, "too many answers wait for the client to read them", &[]);
    };
    let mut body = respond.send_response(head(compressed, extra), false)?;
    body.send_data(Outgoing::new(framed(message, compressed), Some(claim)), false)?;
    body.send_trailers(trailers(0, "", extra))
}

fn refuse(
    mut respond: SendResponse<Outgoing>,
    status: u32,
    text: &str,
    extra: &[(HeaderName, HeaderValue)],
) -> Result<(), h2::Error> {
    let mut response = head(false, &[]);
    response.headers_mut().extend(trailers(status, text, extra));
    respond.send_response(response, true).map(|_| ())
}

fn refuse_http(mut respond: SendResponse<Outgoing>) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let mut body = respond.send_response(response, false)?;
    body.send_data(Outgoing::new(Bytes::from_static(NOT_GRPC), None), true)
}
