//! What is answered to calls of what is not here. The codec's own answer has no words, and clients show them.

use belljar_core::bounds;
use belljar_wire::Problem;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};

/// The answer to a call of a service that there is none of.
pub(crate) async fn no_service(uri: http::Uri) -> http::Response<Body> {
    not_offered(uri.path()).into_http()
}

/// The answer that is due in the place of one without words, to a call of a method that its service does not have; none
/// for any other.
pub(super) fn no_method<B>(path: &str, answer: &http::Response<B>) -> Option<Status> {
    let status = Status::from_header_map(answer.headers())?;
    let is_wordless = status.code() == Code::Unimplemented && status.message().is_empty();
    is_wordless.then(|| not_offered(path))
}

fn not_offered(path: &str) -> Status {
    let method = path.strip_prefix('/').unwrap_or(path);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/".contains(c);
    let is_method = method.len() <= bounds::NAME_BYTES && method.chars().all(is_plain);
    let what = if is_method { method } else { "what was called" };
    Problem::unsupported(format!("{what} is not offered by this server")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_method_is_named() {
        let long = format!("/{}", "a".repeat(bounds::NAME_BYTES + 1));
        for (path, due) in [
            ("/x.v1.Y/Z_0", "x.v1.Y/Z_0"),
            ("/x/%0a", "what was called"),
            ("/x y", "what was called"),
            ("/\u{202e}", "what was called"),
            (long.as_str(), "what was called"),
        ] {
            let status = not_offered(path);
            assert_eq!(status.code(), Code::Unimplemented);
            assert_eq!(
                status.message(),
                format!("{due} is not offered by this server")
            );
        }
    }

    #[test]
    fn an_answer_with_words_stays() {
        let said = Status::unimplemented("not yet").into_http::<Body>();
        assert!(no_method("/x.Y/Z", &said).is_none());
        let other = Status::internal("").into_http::<Body>();
        assert!(no_method("/x.Y/Z", &other).is_none());
        let bare = Status::unimplemented("").into_http::<Body>();
        assert!(no_method("/x.Y/Z", &bare).is_some());
    }
}
