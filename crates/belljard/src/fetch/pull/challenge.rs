//! How a registry wants to be convinced (RFC 9110, section 11.6.1; distribution's token authentication).

use belljar_core::{FetchUrl, Repository, Scheme};
use belljar_policy::Way;

use super::Trouble;

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token that is given at this place.
    Token(FetchUrl),
    /// User and password.
    Basic,
}

impl Challenge {
    /// What the headers `WWW-Authenticate` ask for, to go this way with this repository. What is asked for beside that is left
    /// out: the token is good for nothing else.
    pub(super) fn read<'a>(
        headers: impl Iterator<Item = &'a str>,
        repository: &Repository,
        way: Way,
    ) -> Result<Self, Trouble> {
        let mut basic = false;
        for header in headers {
            // What cannot be read may stand beside what can.
            for challenge in http_auth::parse_challenges(header).unwrap_or_default() {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let named = |name: &str| {
                        let mut params = challenge.params.iter();
                        let found = params.find(|(key, _)| key.eq_ignore_ascii_case(name));
                        found.map(|(_, value)| value.to_unescaped())
                    };
                    let realm = named("realm").unwrap_or_default();
                    let service = named("service");
                    return place(&realm, service.as_deref(), (repository, way)).map(Self::Token);
                }
                basic |= challenge.scheme.eq_ignore_ascii_case("basic");
            }
        }
        match basic {
            true => Ok(Self::Basic),
            false => {
                let why =
                    "it wants to be convinced, and neither by a token nor by user and password";
                Err(Trouble::lasting(why))
            }
        }
    }
}

/// Where to ask for a token, and what for.
fn place(
    realm: &str,
    service: Option<&str>,
    (repository, way): (&Repository, Way),
) -> Result<FetchUrl, Trouble> {
    let wrong = |e| Trouble::refused(format!("it sends for a token to where nobody goes: {e}"));
    if realm
        .split_once('?')
        .is_some_and(|(_, query)| names_scope(query))
    {
        return Err(Trouble::refused(
            "it sends for a token to a place that says itself what the token is good for; it is asked for the one repository only",
        ));
    }
    let mut text = realm.to_owned();
    text.push(if text.contains('?') { '&' } else { '?' });
    if let Some(service) = service {
        text.push_str(&format!("service={}&", encoded(service)));
    }
    let may = match way {
        Way::Pull => "pull",
        // What is there already is not pushed again.
        Way::Push => "pull,push",
    };
    let scope = format!("repository:{}:{may}", repository.name());
    text.push_str(&format!("scope={}", encoded(&scope)));
    let url = FetchUrl::new(&text).map_err(wrong)?;
    match url.scheme() {
        Scheme::Https => Ok(url),
        Scheme::Http => Err(Trouble::refused(format!(
            "it sends for a token to `{}` by http, where anybody on the way could read the credentials",
            url.host()
        ))),
    }
}

/// Whether a query may name a scope, beside the one that is asked for: who gives tokens would take it for another wish. However
/// it is written: a name that is encoded can be any.
fn names_scope(query: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        name.contains(['%', '+']) || name.to_ascii_lowercase().starts_with("scope")
    })
}

/// As part of a query (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(headers: &[&str]) -> Result<Challenge, Trouble> {
        let repository = "r.example/team/c".parse().unwrap();
        Challenge::read(headers.iter().copied(), &repository, Way::Pull)
    }

    #[test]
    fn what_a_registry_wants_is_read() {
        let scope = "scope=repository%3Ateam%2Fc%3Apull";
        for (headers, due) in [
            (
                &[
                    "Bearer realm=\"https://auth.example/token\",service=\"r.example\",scope=\"repository:other:pull,push\"",
                ][..],
                format!("https://auth.example/token?service=r.example&{scope}"),
            ),
            (
                &[
                    "Basic realm=\"x\"",
                    "bearer Realm=\"https://auth.example/t?a=b\"",
                ],
                format!("https://auth.example/t?a=b&{scope}"),
            ),
            (
                &[
                    "Basic realm=\"x\", Bearer realm=\"https://auth.example/t\",service=\"a b&scope=\\\"c\"",
                ],
                format!("https://auth.example/t?service=a%20b%26scope%3D%22c&{scope}"),
            ),
        ] {
            let due = Challenge::Token(FetchUrl::new(&due).unwrap());
            assert_eq!(read(headers), Ok(due));
        }
        assert_eq!(read(&["Basic realm=\"x\""]), Ok(Challenge::Basic));
        for (headers, due) in [
            (&[][..], "wants to be convinced"),
            (
                &["Digest realm=\"x\", nonce=\"y\""],
                "wants to be convinced",
            ),
            (&["\"\"\""], "wants to be convinced"),
            (&["Bearer service=\"x\""], "where nobody goes"),
            (&["Bearer realm=\"http://auth.example/t\""], "by http"),
            (
                &["Bearer realm=\"file:///etc/shadow\""],
                "where nobody goes",
            ),
            (
                &["Bearer realm=\"https://u:p@auth.example/\""],
                "where nobody goes",
            ),
            (
                &["Bearer realm=\"https://auth.example/t?a=b&scope=registry:catalog:*\""],
                "what the token is good for",
            ),
            (
                &["Bearer realm=\"https://auth.example/t?a=b;SCOPE[]=x\""],
                "what the token is good for",
            ),
            (
                &["Bearer realm=\"https://auth.example/t?s%63ope=x\""],
                "what the token is good for",
            ),
        ] {
            let why = read(headers).unwrap_err().why;
            assert!(why.contains(due), "{headers:?}: {why}");
        }
    }

    #[test]
    fn who_pushes_asks_for_no_more_than_that() {
        let repository = "r.example/team/c".parse().unwrap();
        let header = "Bearer realm=\"https://auth.example/t\",scope=\"registry:catalog:*\"";
        let read = Challenge::read([header].into_iter(), &repository, Way::Push);
        let due = "https://auth.example/t?scope=repository%3Ateam%2Fc%3Apull%2Cpush";
        assert_eq!(read, Ok(Challenge::Token(FetchUrl::new(due).unwrap())));
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in "\\PC{0,80}", realm in "\\PC{0,40}", service in "\\PC{0,40}") {
            let bearer = format!("Bearer realm=\"https://a.example/{realm}\",service=\"{service}\"");
            for header in [text.as_str(), bearer.as_str()] {
                if let Ok(Challenge::Token(url)) = read(&[header]) {
                    prop_assert!(url.scheme() == Scheme::Https);
                    prop_assert!(url.as_str().ends_with("scope=repository%3Ateam%2Fc%3Apull"));
                }
            }
        }
    }
}
