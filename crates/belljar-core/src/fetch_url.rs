use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Invalid, bounds};

/// Where something can be fetched: an absolute `http` or `https` URL (RFC 3986) without user, password and fragment, in
/// printable ASCII, at most [`bounds::FETCH_URL_BYTES`] long. Scheme and host are lower-case; a host that ends in figures
/// is an IPv4 address in its one usual form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FetchUrl(String);

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The word before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where the URL names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// How much of a scheme that is none of these is shown.
const SCHEME_CHARS: usize = 32;

/// Characters that RFC 3986 has no place for, beside those that are not printable.
const FORBIDDEN: &[u8] = b"\"<>\\^`{|}#";

impl FetchUrl {
    /// Takes `text` if it has the shape above. Scheme and host may come in capitals, and the path may be missing.
    ///
    /// # Errors
    /// Says which rule was broken, without the text where that may hold a password.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        if text.len() > bounds::FETCH_URL_BYTES {
            let (has, most) = (text.len(), bounds::FETCH_URL_BYTES);
            return Err(Invalid::new(format!(
                "the URL has {has} bytes; {most} are allowed"
            )));
        }
        let bad = |byte: u8| !byte.is_ascii_graphic() || FORBIDDEN.contains(&byte);
        if text.bytes().any(bad) {
            return Err(Invalid::new(
                "the URL has a character that URLs cannot have, or a fragment; write it percent-encoded, and a host by its \
                 ASCII form",
            ));
        }
        let (scheme, rest) = scheme(text)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.contains('@') {
            return Err(Invalid::new(
                "the URL has a user or a password in it; nothing secret may stand in a specification",
            ));
        }
        let (host, port) = split_authority(authority)?;
        let host = checked_host(host)?;
        let port = match port {
            Some(port) if port != scheme.default_port() => format!(":{port}"),
            _ => String::new(),
        };
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let scheme = scheme.as_str();
        Ok(Self(format!("{scheme}://{host}{port}{slash}{rest}")))
    }

    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        if self.0.starts_with("https:") {
            Scheme::Https
        } else {
            Scheme::Http
        }
    }

    /// The host: a name in lower case, or an address, of version 6 without brackets.
    pub fn host(&self) -> &str {
        let authority = self.authority();
        match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => authority.split(':').next().unwrap_or(authority),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        let after = self.authority().rsplit(']').next().unwrap_or_default();
        let port = after
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        port.unwrap_or(self.scheme().default_port())
    }

    /// Host and port, as the header `Host` gives them (RFC 9110, section 7.2).
    pub fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// Path and query: what is asked for.
    pub fn target(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.find('/').map_or("/", |at| &rest[at..])
    }

    /// The last component of its path; none where the path ends in a slash.
    pub fn file_name(&self) -> Option<&str> {
        let path = self.target().split('?').next()?;
        path.rsplit('/').next().filter(|name| !name.is_empty())
    }

    /// Where the answer to this URL sends to by `Location` (RFC 9110, section 10.2.2).
    ///
    /// # Errors
    /// When that is no URL that may be fetched, or one by `http` from `https`.
    pub fn redirected(&self, location: &str) -> Result<Self, Invalid> {
        // A fragment is for whoever shows it.
        let location = location.split('#').next().unwrap_or_default();
        if location.is_empty() {
            return Err(Invalid::new("it does not say where to"));
        }
        let scheme = self.scheme().as_str();
        let absolute = if has_scheme(location) {
            location.to_owned()
        } else if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{}{}", self.authority(), without_dots(location))
        } else {
            let path = self.target().split('?').next().unwrap_or("/");
            let base = match location.starts_with('?') {
                true => path,
                false => &path[..=path.rfind('/').unwrap_or(0)],
            };
            let target = without_dots(&format!("{base}{location}"));
            format!("{scheme}://{}{target}", self.authority())
        };
        let next = Self::new(&absolute)?;
        if self.scheme() == Scheme::Https && next.scheme() == Scheme::Http {
            return Err(Invalid::new(
                "it sends from https to http, where anybody on the way could answer",
            ));
        }
        Ok(next)
    }
}

/// A path, with query, without the segments `.` and `..` (RFC 3986, section 5.2.4).
fn without_dots(target: &str) -> String {
    let end = target.find('?').unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
        if is_last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
}

/// Whether a reference begins with a scheme (RFC 3986, section 4.1).
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else {
        return false;
    };
    let begins = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    begins && scheme.bytes().all(inner)
}

fn scheme(text: &str) -> Result<(Scheme, &str), Invalid> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| {
        Invalid::new("not an absolute URL; write it from `https://` or `http://`")
    })?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Ok((Scheme::Https, rest)),
        "http" => Ok((Scheme::Http, rest)),
        other => {
            let later = match other.starts_with("git") || other == "ssh" {
                true => "; commits of git repositories are fetched over these, too",
                false => "",
            };
            Err(Invalid::new(format!(
                "`{}` URLs are not fetched, only `https` and `http`{later}",
                other
                    .chars()
                    .take(SCHEME_CHARS)
                    .collect::<String>()
                    .escape_debug()
            )))
        }
    }
}

fn split_authority(authority: &str) -> Result<(&str, Option<u16>), Invalid> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let bad = || Invalid::new("the URL's host begins with `[`, but is no IPv6 address");
            let (_, after) = rest.split_once(']').ok_or_else(bad)?;
            let host = &authority[..authority.len() - after.len()];
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(bad()),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let Some(port) = port else {
        return Ok((host, None));
    };
    let figures = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number) if figures && number != 0 => Ok((host, Some(number))),
        _ => Err(Invalid::new("the URL's port is not between 1 and 65535")),
    }
}

/// The host in its one form.
fn checked_host(host: &str) -> Result<String, Invalid> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').unwrap_or(inner);
        let address = inner.parse::<Ipv6Addr>();
        let address = address.map_err(|_| Invalid::new("the URL's host is no IPv6 address"))?;
        return Ok(format!("[{address}]"));
    }
    let host = host.to_ascii_lowercase();
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let ends = label.starts_with('-') || label.ends_with('-');
        (1..=63).contains(&label.len()) && !ends && label.bytes().all(|b| inner(b) || b == b'_')
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err(Invalid::new(
            "the URL's host is no name of letters, figures and hyphens between dots",
        ));
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    // Resolvers read `127.1`, `0x7f000001` and `2130706433` as addresses, each in its own way.
    if last.starts_with(|first: char| first.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return Err(Invalid::new(
            "the URL's host ends in figures, but is no IPv4 address of four decimal numbers",
        ));
    }
    Ok(host)
}

impl TryFrom<String> for FetchUrl {
    type Error = Invalid;

    /// Takes only the one form, so that a specification has one encoding.
    fn try_from(text: String) -> Result<Self, Invalid> {
        let url = Self::new(&text)?;
        match url.0 == text {
            true => Ok(url),
            false => Err(Invalid::new("the URL is not in its one form")),
        }
    }
}

impl From<FetchUrl> for String {
    fn from(url: FetchUrl) -> Self {
        url.0
    }
}

impl fmt::Display for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> FetchUrl {
        FetchUrl::new(text).unwrap()
    }

    #[test]
    fn urls_are_taken_apart() {
        for (text, shown, host, port, target, name) in [
            (
                "https://a.example/x.tgz",
                "https://a.example/x.tgz",
                "a.example",
                443,
                "/x.tgz",
                Some("x.tgz"),
            ),
            (
                "HTTP://A.Example",
                "http://a.example/",
                "a.example",
                80,
                "/",
                None,
            ),
            (
                "https://a.example:443?x=1",
                "https://a.example/?x=1",
                "a.example",
                443,
                "/?x=1",
                None,
            ),
            (
                "http://127.0.0.1:8080/a/b?c/d",
                "http://127.0.0.1:8080/a/b?c/d",
                "127.0.0.1",
                8080,
                "/a/b?c/d",
                Some("b"),
            ),
            (
                "http://[::1]:81/a",
                "http://[::1]:81/a",
                "::1",
                81,
                "/a",
                Some("a"),
            ),
            (
                "https://[2001:DB8:0:0::1]/",
                "https://[2001:db8::1]/",
                "2001:db8::1",
                443,
                "/",
                None,
            ),
        ] {
            let url = url(text);
            assert_eq!(url.as_str(), shown);
            let parts = (url.host(), url.port(), url.target(), url.file_name());
            assert_eq!(parts, (host, port, target, name), "{text}");
            assert_eq!(FetchUrl::try_from(shown.to_owned()), Ok(url));
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        for (text, due) in [
            ("a.example/x", "not an absolute URL"),
            ("ftp://a.example/x", "`ftp` URLs"),
            ("git+https://a.example/x", "git repositories"),
            ("file:///etc/passwd", "`file` URLs"),
            ("https://user:hunter2@a.example/", "a user or a password"),
            ("https://a.example/#x", "a fragment"),
            ("https://a.example/\u{e9}", "a character"),
            ("https://a.example/ x", "a character"),
            ("https://a.example/\r\nHost: b", "a character"),
            ("https:///x", "no name"),
            ("https://a..example/", "no name"),
            ("https://a.example./", "no name"),
            ("https://a%2eexample/", "no name"),
            ("https://a.example:0/", "port"),
            ("https://a.example:/", "port"),
            ("https://a.example:+80/", "port"),
            ("https://a.example:65536/", "port"),
            ("http://127.1/", "figures"),
            ("http://2130706433/", "figures"),
            ("http://0x7f000001/", "figures"),
            ("http://0177.0.0.1/", "figures"),
            ("http://[::1/", "IPv6"),
            ("http://[fe80::1%25eth0]/", "IPv6"),
            ("http://[::1]x/", "IPv6"),
        ] {
            let reason = FetchUrl::new(text).unwrap_err().reason;
            assert!(reason.contains(due), "{text}: {reason}");
            assert!(!reason.contains("hunter2"), "{reason}");
        }
        let long = format!("https://a.example/{}", "a".repeat(bounds::FETCH_URL_BYTES));
        assert!(FetchUrl::new(&long).is_err());
        assert!(FetchUrl::try_from("HTTPS://a.example/".to_owned()).is_err());
    }

    #[test]
    fn redirects_lead_where_they_say_and_never_from_https_to_http() {
        let base = url("https://a.example/d/x?q");
        for (location, due) in [
            ("https://b.example/y", "https://b.example/y"),
            ("//b.example/y", "https://b.example/y"),
            ("/y?z", "https://a.example/y?z"),
            ("y", "https://a.example/d/y"),
            ("?z", "https://a.example/d/x?z"),
            ("y#part", "https://a.example/d/y"),
            (
                "/y?next=http://c.example/",
                "https://a.example/y?next=http://c.example/",
            ),
            (
                "y?next=http://c.example/",
                "https://a.example/d/y?next=http://c.example/",
            ),
            ("./y:1", "https://a.example/d/y:1"),
            ("../y?a=../b", "https://a.example/y?a=../b"),
            ("../../../y", "https://a.example/y"),
            ("..", "https://a.example/"),
            (".", "https://a.example/d/"),
            ("/a//b/../c/.", "https://a.example/a//c/"),
            ("//b.example/../y", "https://b.example/../y"),
        ] {
            assert_eq!(base.redirected(location).unwrap().as_str(), due);
        }
        for (location, due) in [
            ("http://a.example/x", "from https to http"),
            ("file:///etc/passwd", "`file`"),
            ("https://user@b.example/", "a user"),
            ("//", "no name"),
            ("", "does not say where"),
            ("#part", "does not say where"),
            ("///b.example/y", "no name"),
            ("/\\b.example/y", "a character"),
            ("https:b.example/y", "not an absolute URL"),
            ("https:/b.example/y", "not an absolute URL"),
            ("javascript:x", "not an absolute URL"),
            ("//[::ffff:127.0.0.1%25lo]/", "IPv6"),
            ("//2130706433/", "figures"),
            ("\u{0}", "a character"),
        ] {
            let reason = base.redirected(location).unwrap_err().reason;
            assert!(reason.contains(due), "{location}: {reason}");
        }
        let plain = url("http://a.example/");
        assert!(plain.redirected("https://a.example/").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_in_one_form_or_refused(text in "\\PC{0,40}", location in "\\PC{0,40}") {
            for text in [text.clone(), format!("https://{text}"), format!("http://a/{text}")] {
                if let Ok(url) = FetchUrl::new(&text) {
                    prop_assert_eq!(FetchUrl::new(url.as_str()), Ok(url.clone()));
                    prop_assert!(!url.host().is_empty() && url.target().starts_with('/'));
                    let _ = url.redirected(&location);
                }
            }
        }
    }
}
