//! What calls cost before any service has seen them, and as long as they last: bounded for each principal.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use belljar_core::bounds;
use belljar_policy::Identity;
use belljar_wire::Problem;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, StdError, http};
use tonic::server::NamedService;

use super::{unknown, unreadable};
use crate::listen::Peer;
use crate::places::{Full, Place, Places};
use crate::remote::{Door, Refusal};

/// How long a client may need for the next [`bounds::PACE_BYTES`] of a request, or its end.
const PATIENCE: Duration = Duration::from_secs(bounds::PACE_SECONDS);
/// When somebody who has too many calls should come again.
const LATER: Duration = Duration::from_secs(1);
/// Methods whose requests are streams, which may last: who serves them looks at their pace, if it matters.
const STREAMS: [&str; 3] = [
    "/google.bytestream.ByteStream/Write",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// How many calls there are, and how much of their requests waits for the rest. Cheap to clone; all clones count
/// together.
#[derive(Clone, Debug)]
pub(crate) struct Reception {
    calls: Places<Option<Identity>>,
    bytes: Places<Option<Identity>>,
    door: Door,
}

/// A service whose calls are counted, from the first byte of their requests to the last of their answers.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S> {
    service: S,
    reception: Reception,
}

impl Reception {
    pub(crate) fn new(door: Door) -> Self {
        Self {
            calls: Places::new(bounds::CALLS, bounds::CALLS_PER_PRINCIPAL),
            bytes: Places::new(bounds::REQUEST_BYTES, bounds::REQUEST_BYTES_PER_PRINCIPAL),
            door,
        }
    }

    pub(crate) fn before<S>(&self, service: S) -> Counted<S> {
        let reception = self.clone();
        Counted { service, reception }
    }

    /// A place for one more call of this caller, and its request, which is counted while it comes.
    fn take(
        &self,
        request: http::Request<Body>,
    ) -> Result<(Place<Option<Identity>>, http::Request<Body>), Problem> {
        let peer = request.extensions().get::<Peer>();
        // Whom nobody knows is turned away behind this, and until then counts with others of that kind.
        let caller = peer.and_then(|peer| peer.0.as_deref().cloned());
        let place = self.calls.take(caller.clone()).map_err(|full| {
            let what = format!("too many calls: {full}");
            match &caller {
                Some(identity) => self.door.refused(Refusal::Busy, identity, &what),
                None => self.door.refused(Refusal::Busy, &"nobody", &what),
            }
            Problem::exhausted(what, Some(LATER))
        })?;
        let held = self.bytes.none(caller);
        let is_stream = STREAMS.contains(&request.uri().path());
        let patience = (!is_stream).then_some(PATIENCE);
        let request = request.map(|body| Body::new(Incoming::new(body, held, patience)));
        Ok((place, request))
    }
}

fn too_much(full: Full) -> Problem {
    let what = format!("too many bytes of requests that are not complete: {full}");
    Problem::exhausted(what, Some(LATER))
}

impl<S: NamedService> NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<Body>> for Counted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let called = request.uri().clone();
        match self.reception.take(request) {
            Ok((place, request)) => {
                let answered = self.service.call(request);
                Box::pin(async move {
                    let answer = answered.await?;
                    let instead = unreadable::told_to_the_caller(&answer)
                        .or_else(|| unknown::no_method(called.path(), &answer));
                    if let Some(status) = instead {
                        return Ok(status.into_http());
                    }
                    Ok(answer.map(|body| {
                        let body = Body::new(body);
                        Body::new(Outgoing {
                            body,
                            _place: place,
                        })
                    }))
                })
            }
            Err(problem) => {
                let refused = Status::from(problem).into_http();
                Box::pin(async move { Ok(refused) })
            }
        }
    }
}

/// A request while it comes. One message of gRPC is kept until all of it is there, so its bytes count as long as
/// this lives.
struct Incoming {
    body: Body,
    held: Place<Option<Identity>>,
    pace: Option<Pace>,
}

/// How fast a request must come.
struct Pace {
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    bytes: u64,
}

impl Incoming {
    /// With how long the client may need for each piece, if that is looked at here.
    fn new(body: Body, held: Place<Option<Identity>>, patience: Option<Duration>) -> Self {
        let pace = patience.map(|patience| Pace {
            patience,
            deadline: Box::pin(sleep(patience)),
            bytes: 0,
        });
        Self { body, held, pace }
    }

    /// Counts what has come.
    fn came(&mut self, bytes: usize) -> Result<(), Full> {
        let Some(pace) = &mut self.pace else {
            // What has come of a message waits for its rest; those before are in somebody's hands.
            let missing = bounds::GRPC_MESSAGE_BYTES - self.held.count();
            return self.held.more(missing);
        };
        pace.bytes = pace.bytes.saturating_add(bytes as u64);
        if pace.bytes >= bounds::PACE_BYTES {
            pace.bytes = 0;
            pace.deadline.as_mut().reset(Instant::now() + pace.patience);
        }
        self.held.more(bytes)
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
                && let Err(full) = self.came(data.len())
            {
                return Poll::Ready(Some(Err(too_much(full).into())));
            }
            return Poll::Ready(frame);
        }
        let Some(pace) = &mut self.pace else {
            return Poll::Pending;
        };
        ready!(pace.deadline.as_mut().poll(context));
        let why = format!(
            "less than {} bytes of the request came in {} seconds, and not its end",
            bounds::PACE_BYTES,
            pace.patience.as_secs()
        );
        Poll::Ready(Some(Err(Problem::unavailable(why).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer while it goes. The call has its place until all of it is gone.
struct Outgoing {
    body: Body,
    _place: Place<Option<Identity>>,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// A client that sends a piece each time, after a while; then nothing, and no end.
    struct Client {
        pieces: usize,
        of: usize,
        each: Duration,
        wait: Pin<Box<Sleep>>,
    }

    impl http_body::Body for Client {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            if self.pieces == 0 || self.wait.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.pieces -= 1;
            let next = Instant::now() + self.each;
            self.wait.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(vec![0; self.of].into()))))
        }
    }

    /// How many pieces are taken of such a client, and why no more.
    async fn taken(pieces: usize, of: usize, each: u64, most: usize) -> (usize, Status) {
        let each = Duration::from_millis(each);
        let wait = Box::pin(sleep(each));
        let body = Body::new(Client {
            pieces,
            of,
            each,
            wait,
        });
        let places = Places::new(2 * most, most);
        let mut incoming = Incoming::new(body, places.none(None), Some(Duration::from_secs(1)));
        let mut taken = 0;
        loop {
            let frame =
                poll_fn(|context| http_body::Body::poll_frame(Pin::new(&mut incoming), context));
            match frame.await.unwrap() {
                Ok(_) => taken += 1,
                Err(status) => return (taken, status),
            }
        }
    }

    #[tokio::test]
    async fn a_request_that_drips_or_never_ends_is_given_up() {
        let (pieces, status) = taken(0, 1, 1, 1 << 20).await;
        assert_eq!((pieces, status.code()), (0, tonic::Code::Unavailable));
        let (pieces, status) = taken(1000, 1, 100, 1 << 20).await;
        assert!((1..=10).contains(&pieces), "{pieces}");
        assert_eq!(status.code(), tonic::Code::Unavailable);
        // Whoever sends enough has its time again.
        let enough = usize::try_from(bounds::PACE_BYTES).unwrap();
        let (pieces, _) = taken(15, enough, 100, usize::MAX / 4).await;
        assert_eq!(pieces, 15);
    }

    #[tokio::test]
    async fn what_has_not_come_whole_is_bounded() {
        let (pieces, status) = taken(1000, 1000, 0, 10_500).await;
        assert_eq!(
            (pieces, status.code()),
            (10, tonic::Code::ResourceExhausted)
        );
    }
}
