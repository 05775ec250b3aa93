//! Answers: a status, a type and a body, whole or streamed from a file in pieces.

use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::StatusCode;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderValue};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// What hyper sends.
pub(super) type Response = hyper::Response<Either<Full<Bytes>, Streamed>>;

/// Bytes of a file that are in memory at once are a few of these.
const PIECE: usize = 64 << 10;
/// Pieces that may wait for a slow client.
const PIECES: usize = 2;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// What is answered.
pub(super) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Content,
    /// Whether the answer stays right for ever, as evidence does.
    lasting: bool,
    /// Its right to one of the threads that may wait for slow clients, kept until it is out.
    turn: Option<OwnedSemaphorePermit>,
}

enum Content {
    Whole(Bytes),
    File(File),
}

impl Answer {
    pub(super) fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let body = Content::Whole(body.into());
        Self { status: StatusCode::OK, content_type, body, lasting: false, turn: None }
    }

    pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.push('\n');
        Self { status, ..Self::new(TEXT, text) }
    }

    pub(super) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self::new(JSON, json),
            Err(error) => Self::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::text(StatusCode::NOT_FOUND, what)
    }

    pub(super) fn file(content_type: &'static str, file: File) -> Self {
        Self { body: Content::File(file), ..Self::new(content_type, "") }
    }

    /// For tests: the status, and the bytes of a body that is whole.
    #[cfg(test)]
    pub(super) fn status_and_length(&self) -> (u16, usize) {
        let length = match &self.body {
            Content::Whole(bytes) => bytes.len(),
            Content::File(_) => 0,
        };
        (self.status.as_u16(), length)
    }

    /// The same, which never changes where there is such an answer.
    pub(super) fn lasting(self) -> Self {
        Self { lasting: self.status == StatusCode::OK, ..self }
    }

    /// The same, which keeps `turn` until it is out.
    pub(super) fn keeping(self, turn: OwnedSemaphorePermit) -> Self {
        Self { turn: Some(turn), ..self }
    }

    pub(super) fn into_response(self) -> Response {
        let Self { status, content_type, body, lasting, turn } = self;
        let mut response = hyper::Response::new(match body {
            Content::Whole(bytes) => Either::Left(Full::new(bytes)),
            Content::File(file) => Either::Right(Streamed::start(file, turn)),
        });
        *response.status_mut() = status;
        let caching = if lasting { "private, max-age=86400, immutable" } else { "no-store" };
        let headers = [
            (header::CONTENT_TYPE, content_type),
            (header::CACHE_CONTROL, caching),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CONTENT_SECURITY_POLICY, "default-src 'self'; base-uri 'none'; frame-ancestors 'none'"),
        ];
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// A file on its way out, piece by piece.
pub(super) struct Streamed {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl Streamed {
    fn start(file: File, turn: Option<OwnedSemaphorePermit>) -> Self {
        let left = file.metadata().map_or(0, |metadata| metadata.len());
        let (to, pieces) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            read(file.take(left), &to);
            drop(turn);
        });
        Self { pieces, left }
    }
}

/// Reads until the end, or until nobody listens any more.
fn read(mut file: io::Take<File>, to: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut piece = vec![0; PIECE];
        let read = match file.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                piece.truncate(count);
                Ok(piece.into())
            }
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if to.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        if let Some(Ok(piece)) = &piece {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
