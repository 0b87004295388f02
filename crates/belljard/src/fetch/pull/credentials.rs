use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_core::bounds;
use hyper::header::HeaderValue;
use tokio::task::spawn_blocking;

use super::Trouble;

/// What others than the owner and, reading, the group may not do with the file.
const FOR_OTHERS: u32 = 0o037;

/// User and password as a header (RFC 7617). What goes wrong is told without a word of what is in the file.
pub(super) async fn basic(file: &Path) -> Result<HeaderValue, Trouble> {
    let path = file.to_owned();
    let read = spawn_blocking(move || read(&path)).await;
    let read = read.unwrap_or_else(|e| Err(io::Error::other(e)));
    read.map_err(|e| {
        Trouble::passing(format!(
            "the operator's credentials for it cannot be used: {}: {e}",
            file.display()
        ))
    })
}

fn read(path: &Path) -> io::Result<HeaderValue> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    let mode = about.mode() & 0o7777;
    if mode & FOR_OTHERS != 0 {
        return Err(io::Error::other(format!(
            "others than its owner and group can reach it (mode {mode:04o}); run `chmod 0600` on it"
        )));
    }
    let uid = about.uid();
    if uid != 0 && uid != belljar_sys::process::effective_uid() {
        return Err(io::Error::other(format!(
            "it is user {uid}'s; it must be root's or belljard's own"
        )));
    }
    let mut text = String::new();
    file.take(bounds::TOKEN_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let fits = line.len() <= bounds::TOKEN_BYTES
        && line
            .split_once(':')
            .is_some_and(|(user, _)| !user.is_empty())
        && !line.contains(char::is_control);
    if !fits {
        return Err(io::Error::other("one line `user:password` is due"));
    }
    secret(&format!("Basic {}", STANDARD.encode(line)))
        .map_err(|_| io::Error::other("one line `user:password` is due"))
}

/// A header that no log shows.
pub(super) fn secret(text: &str) -> Result<HeaderValue, hyper::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_of_one_line_that_is_closed_to_others_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry");
        let with = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).unwrap();
            read(&path)
        };
        let value = with("user:pass:word\n", 0o600).unwrap();
        assert_eq!(
            value,
            format!("Basic {}", STANDARD.encode("user:pass:word"))
        );
        assert!(value.is_sensitive());
        assert!(with("user:", 0o440).is_ok());
        for (text, mode, due) in [
            ("user:hunter2", 0o644, "chmod 0600"),
            ("user:hunter2", 0o620, "chmod 0600"),
            ("hunter2", 0o600, "one line"),
            (":hunter2", 0o600, "one line"),
            ("user:hunter2\nmore", 0o600, "one line"),
            ("user:hunter2\r\nX: y", 0o600, "one line"),
            ("", 0o600, "one line"),
            (
                &format!("u:{}", "x".repeat(bounds::TOKEN_BYTES)),
                0o600,
                "one line",
            ),
        ] {
            let refused = with(text, mode).unwrap_err().to_string();
            assert!(refused.contains(due), "{text}: {refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read(&path).is_err());
    }
}
