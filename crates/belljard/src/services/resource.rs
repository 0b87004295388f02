//! Names of blobs in REAPI: in `ByteStream` resource names and in digests.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::{Digest, Invalid, ObjectId, ProjectId, bounds};
use reapi::digest_function::Value as DigestFunction;

/// The digest functions by which a resource name may be qualified (REAPI v2, `DigestFunction`), but one.
const OTHER_FUNCTIONS: [&str; 8] = [
    "sha1",
    "md5",
    "vso",
    "sha384",
    "sha512",
    "murmur3",
    "sha256tree",
    "blake3",
];

/// An object out of a REAPI digest.
pub(super) fn object(digest: &reapi::Digest) -> Result<ObjectId, Invalid> {
    let size = u64::try_from(digest.size_bytes).map_err(|_| {
        Invalid::field(
            "size_bytes",
            format!("{} is not a length", digest.size_bytes),
        )
    })?;
    Ok(ObjectId {
        digest: Digest::from_hex(&digest.hash).map_err(|e| e.within("hash"))?,
        size,
    })
}

/// Words that a resource name goes on with after the instance, or begins with if there is none.
const KINDS: [&str; 3] = ["blobs", "uploads", "compressed-blobs"];

/// What every REAPI request says beside its digests: the instance, which is a project, none for the only one
/// of the caller; and the one digest function.
pub(super) fn instance(name: &str, function: i32) -> Result<Option<ProjectId>, Invalid> {
    let project = match name {
        "" => None,
        name => Some(ProjectId::new(name).map_err(|e| e.within("instance_name"))?),
    };
    match DigestFunction::try_from(function) {
        Ok(DigestFunction::Unknown | DigestFunction::Sha256) => Ok(project),
        _ => Err(Invalid::field(
            "digest_function",
            "only SHA256 is supported",
        )),
    }
}

/// The instance of a resource name, and what follows it. Instances are projects, whose names have no `/` and
/// are none of [`KINDS`].
pub(super) fn of_instance(name: &str) -> Result<(Option<ProjectId>, &str), Invalid> {
    match name.split_once('/') {
        Some((first, rest)) if !KINDS.contains(&first) => {
            let project = ProjectId::new(first).map_err(|e| {
                Invalid::field("resource_name", format!("the instance is no project: {e}"))
            })?;
            Ok((Some(project), rest))
        }
        _ => Ok((None, name)),
    }
}

/// How a blob travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Identity,
    /// Packed by zstd.
    Zstd,
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Download {
    pub(super) object: ObjectId,
    pub(super) form: Form,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    /// The client's own name for it.
    pub(super) uuid: String,
    pub(super) object: ObjectId,
    pub(super) form: Form,
}

/// Reads `blobs/{hash}/{size}` or `compressed-blobs/zstd/{hash}/{size}`.
pub(super) fn to_read(name: &str) -> Result<Download, Invalid> {
    let parts: Vec<&str> = name.split('/').collect();
    let (form, object) = match parts[..] {
        ["blobs", hash, size] => (Form::Identity, blob(hash, size)?),
        ["compressed-blobs", "zstd", hash, size] => (Form::Zstd, blob(hash, size)?),
        _ => {
            return Err(unfit(
                &parts,
                "blobs/{hash}/{size}` or `compressed-blobs/zstd/{hash}/{size}",
            ));
        }
    };
    Ok(Download { object, form })
}

/// Reads `uploads/{uuid}/blobs/{hash}/{size}` or `uploads/{uuid}/compressed-blobs/zstd/{hash}/{size}`; what
/// follows after a further slash is the client's own.
pub(super) fn to_write(name: &str) -> Result<Upload, Invalid> {
    let parts: Vec<&str> = name.splitn(7, '/').collect();
    let (uuid, form, hash, size) = match parts[..] {
        ["uploads", uuid, "blobs", hash, size, ..] if !OTHER_FUNCTIONS.contains(&hash) => {
            (uuid, Form::Identity, hash, size)
        }
        ["uploads", uuid, "compressed-blobs", "zstd", hash, size, ..]
            if !OTHER_FUNCTIONS.contains(&hash) =>
        {
            (uuid, Form::Zstd, hash, size)
        }
        _ => {
            return Err(unfit(
                &parts,
                "uploads/{uuid}/blobs/{hash}/{size}` or \
                 `uploads/{uuid}/compressed-blobs/zstd/{hash}/{size}",
            ));
        }
    };
    if uuid.is_empty() || uuid.len() > bounds::NAME_BYTES {
        let reason = format!("its uuid must have 1 to {} bytes", bounds::NAME_BYTES);
        return Err(Invalid::field("resource_name", reason));
    }
    Ok(Upload {
        uuid: uuid.to_owned(),
        object: blob(hash, size)?,
        form,
    })
}

fn blob(hash: &str, size: &str) -> Result<ObjectId, Invalid> {
    let refused = |e: Invalid| Invalid::field("resource_name", e.reason);
    // One text form only: no sign, no leading zero.
    let canonical = size == "0" || !size.starts_with(['0', '+']);
    let size = size.parse().ok().filter(|_| canonical);
    Ok(ObjectId {
        digest: Digest::from_hex(hash).map_err(refused)?,
        size: size.ok_or_else(|| refused(Invalid::new("the size is not a number of bytes")))?,
    })
}

fn unfit(parts: &[&str], due: &str) -> Invalid {
    let packed = parts.iter().position(|part| *part == "compressed-blobs");
    let reason = if let Some(at) = packed
        && parts.get(at + 1) != Some(&"zstd")
    {
        "the only compressor is zstd".to_owned()
    } else if parts.iter().any(|part| OTHER_FUNCTIONS.contains(part)) {
        "only the digest function SHA256 is supported, and is not named in a resource name"
            .to_owned()
    } else {
        format!("`{due}` is due, with the project and `/` before it or without")
    };
    Invalid::field("resource_name", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_of_blobs() {
        let object = ObjectId::of(b"");
        let read = |form| Ok(Download { object, form });
        assert_eq!(to_read(&format!("blobs/{HASH}/0")), read(Form::Identity));
        assert_eq!(
            to_read(&format!("compressed-blobs/zstd/{HASH}/0")),
            read(Form::Zstd)
        );
        for (name, form) in [
            (format!("uploads/1-2-3/blobs/{HASH}/0"), Form::Identity),
            (
                format!("uploads/1-2-3/blobs/{HASH}/0/main.c/x"),
                Form::Identity,
            ),
            (
                format!("uploads/1-2-3/compressed-blobs/zstd/{HASH}/0"),
                Form::Zstd,
            ),
            (
                format!("uploads/1-2-3/compressed-blobs/zstd/{HASH}/0/x/y"),
                Form::Zstd,
            ),
        ] {
            let uuid = "1-2-3".to_owned();
            assert_eq!(to_write(&name), Ok(Upload { uuid, object, form }), "{name}");
        }
        for (bad, why) in [
            (format!("main/blobs/{HASH}/0"), "is due"),
            (format!("blobs/{HASH}/00"), "number of bytes"),
            (format!("blobs/{HASH}/+1"), "number of bytes"),
            (format!("blobs/{HASH}/-1"), "number of bytes"),
            (format!("blobs/{}/1", &HASH[1..]), "hexadecimal"),
            (format!("blobs/../{HASH}/1"), "is due"),
            (format!("blobs/blake3/{HASH}/1"), "SHA256"),
            (format!("compressed-blobs/deflate/{HASH}/1"), "zstd"),
            (format!("compressed-blobs/{HASH}/1"), "zstd"),
            (String::new(), "is due"),
        ] {
            let invalid = to_read(&bad).unwrap_err();
            assert!(
                invalid.field == "resource_name" && invalid.reason.contains(why),
                "{bad}: {invalid}"
            );
        }
        for bad in [
            format!("uploads//blobs/{HASH}/0"),
            format!("uploads/u/blobs/blake3/{HASH}/0"),
            format!("uploads/u/compressed-blobs/brotli/{HASH}/0"),
            format!("uploads/u/compressed-blobs/zstd/blake3/{HASH}/0"),
            format!(
                "uploads/{}/blobs/{HASH}/0",
                "u".repeat(bounds::NAME_BYTES + 1)
            ),
            format!("main/uploads/u/blobs/{HASH}/0"),
            format!("blobs/{HASH}/0"),
        ] {
            assert!(to_write(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instances_are_projects_and_there_is_one_function() {
        let web = ProjectId::new("web").unwrap();
        assert_eq!(instance("", 0), Ok(None));
        assert_eq!(
            instance("web", DigestFunction::Sha256.into()),
            Ok(Some(web.clone()))
        );
        assert!(instance("a/b", 0).is_err() && instance("..", 0).is_err());
        assert!(instance("", DigestFunction::Blake3.into()).is_err());
        assert!(instance("", 4711).is_err());
        for kind in KINDS {
            let name = format!("{kind}/x/1");
            assert_eq!(of_instance(&name), Ok((None, name.as_str())));
            let named = format!("web/{name}");
            assert_eq!(of_instance(&named), Ok((Some(web.clone()), name.as_str())));
        }
        assert_eq!(of_instance(""), Ok((None, "")));
        for bad in ["/blobs/x/1", "../blobs/x/1", "W/blobs/x/1", "blobs:/x"] {
            assert!(of_instance(bad).is_err(), "{bad}");
        }
    }
}
