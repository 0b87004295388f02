//! Lock files of package managers, read into exact lists of packages: what each must hash to, and how the
//! package manager wants them laid out to be content without a network.
//!
//! The idea: a package whose bytes match the digest in the lock file is the package that was locked, whoever
//! supplied it. So an entry without a digest that can be relied on is refused by name, and so is whatever
//! is no package of a registry: git and path dependencies.
//!
//! Pure: the text of a lock file is hostile input, and the answer depends on it alone. Both the command
//! line, which finds the packages, and the store, which checks and lays them out, read it with this.
//!
//! | file | versions | digest |
//! |---|---|---|
//! | `Cargo.lock` | 1 to 4 | SHA-256 of the `.crate` |
//! | `package-lock.json`, `npm-shrinkwrap.json` | 2 and 3 | SHA-512 of the tarball (SRI) |

pub mod cargo;
mod ecosystem;
pub mod npm;
mod purl;
pub mod sri;

pub use ecosystem::Ecosystem;

use belljar_core::{Invalid, bounds};

/// The text of a lock file, if it is small enough and UTF-8.
fn text(bytes: &[u8]) -> Result<&str, Invalid> {
    if bytes.len() > bounds::LOCK_BYTES {
        return Err(Invalid::new(format!(
            "the file has {} bytes; {} are allowed",
            bytes.len(),
            bounds::LOCK_BYTES
        )));
    }
    str::from_utf8(bytes).map_err(|_| Invalid::new("the file is not UTF-8"))
}

/// Refuses to list more packages.
fn bounded(count: usize) -> Result<(), Invalid> {
    if count > bounds::LOCK_PACKAGES {
        return Err(Invalid::new(format!(
            "the file names {count} packages; {} are allowed",
            bounds::LOCK_PACKAGES
        )));
    }
    Ok(())
}

/// A version as semver.org and its elders write it, looked at only as far as it goes into file names: 1 to
/// 128 characters of `[0-9A-Za-z.+-]`, the first a letter or digit, without `..`.
fn is_version(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-');
    text.len() <= 128
        && text.bytes().all(fine)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("..")
}

/// Printable ASCII without quotes, backslashes and blanks, at most 2048 characters: what a URL is made of
/// that is going to stand in a configuration file and in a statement.
fn is_location(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\' | b'<' | b'>');
    !text.is_empty() && text.len() <= 2048 && text.bytes().all(fine)
}

/// Whether the authority at the beginning of `rest`, which is a URL without its scheme, has a user in it.
fn names_user(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.contains('@')
}

/// The beginning of a text of the file, safe to print.
fn excerpt(text: &str) -> String {
    let start: String = text.chars().take(120).collect();
    start.escape_debug().to_string()
}
