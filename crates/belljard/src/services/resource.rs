//! Names of blobs in REAPI: in `ByteStream` resource names and in digests.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::{Blake3Digest, BlobDigest, BlobName, Digest, Invalid, ProjectId, bounds};
use reapi::digest_function::Value as DigestFunction;

/// The digest functions by which a resource name may be qualified (REAPI v2, `DigestFunction`), but those of
/// [`Function`].
const OTHER_FUNCTIONS: [&str; 7] = [
    "sha1",
    "md5",
    "vso",
    "sha384",
    "sha512",
    "murmur3",
    "sha256tree",
];

/// By what a request names blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// As objects are named. It is meant where no function is named: digests of both have one length.
    Sha256,
    /// What a client may prefer.
    Blake3,
}

impl Function {
    /// As resource names have it, where REAPI wants it there.
    const BLAKE3: &str = "blake3";

    fn digest(self, hex: &str) -> Result<BlobDigest, Invalid> {
        match self {
            Self::Sha256 => Digest::from_hex(hex).map(BlobDigest::Sha256),
            Self::Blake3 => Blake3Digest::from_hex(hex).map(BlobDigest::Blake3),
        }
    }
}

/// A blob out of a REAPI digest.
pub(super) fn blob(digest: &reapi::Digest, function: Function) -> Result<BlobName, Invalid> {
    let size = u64::try_from(digest.size_bytes).map_err(|_| {
        Invalid::field(
            "size_bytes",
            format!("{} is not a length", digest.size_bytes),
        )
    })?;
    let digest = function.digest(&digest.hash);
    Ok(BlobName {
        digest: digest.map_err(|e| e.within("hash"))?,
        size,
    })
}

/// Words that a resource name goes on with after the instance, or begins with if there is none.
const KINDS: [&str; 3] = ["blobs", "uploads", "compressed-blobs"];

/// What every REAPI request says beside its digests: the instance, which is a project, none for the only one
/// of the caller; and the digest function.
pub(super) fn instance(
    name: &str,
    function: i32,
) -> Result<(Option<ProjectId>, Function), Invalid> {
    let project = match name {
        "" => None,
        name => Some(ProjectId::new(name).map_err(|e| e.within("instance_name"))?),
    };
    match DigestFunction::try_from(function) {
        Ok(DigestFunction::Unknown | DigestFunction::Sha256) => Ok((project, Function::Sha256)),
        Ok(DigestFunction::Blake3) => Ok((project, Function::Blake3)),
        _ => Err(Invalid::field(
            "digest_function",
            "only SHA256 and BLAKE3 are supported",
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
    pub(super) blob: BlobName,
    pub(super) form: Form,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    /// The client's own name for it.
    pub(super) uuid: String,
    pub(super) blob: BlobName,
    pub(super) form: Form,
}

/// What the end of a resource name says, and what stands behind it.
struct Named<'a> {
    form: Form,
    function: Function,
    hash: &'a str,
    size: &'a str,
    more: &'a [&'a str],
}

impl<'a> Named<'a> {
    /// Reads `blobs/{hash}/{size}` or `compressed-blobs/zstd/{hash}/{size}`, with `blake3/` before the hash or without.
    fn parse(parts: &'a [&'a str]) -> Option<Self> {
        let (form, parts) = match parts {
            ["blobs", parts @ ..] => (Form::Identity, parts),
            ["compressed-blobs", "zstd", parts @ ..] => (Form::Zstd, parts),
            _ => return None,
        };
        let (function, parts) = match parts {
            [Function::BLAKE3, parts @ ..] => (Function::Blake3, parts),
            parts => (Function::Sha256, parts),
        };
        match parts {
            [hash, size, more @ ..] if !OTHER_FUNCTIONS.contains(hash) => Some(Self {
                form,
                function,
                hash,
                size,
                more,
            }),
            _ => None,
        }
    }

    fn blob(&self) -> Result<BlobName, Invalid> {
        let refused = |e: Invalid| Invalid::field("resource_name", e.reason);
        // One text form only: no sign, no leading zero.
        let canonical = self.size == "0" || !self.size.starts_with(['0', '+']);
        let size = self.size.parse().ok().filter(|_| canonical);
        Ok(BlobName {
            digest: self.function.digest(self.hash).map_err(refused)?,
            size: size.ok_or_else(|| refused(Invalid::new("the size is not a number of bytes")))?,
        })
    }
}

/// Reads `blobs/{hash}/{size}` or `compressed-blobs/zstd/{hash}/{size}`.
pub(super) fn to_read(name: &str) -> Result<Download, Invalid> {
    let parts: Vec<&str> = name.split('/').collect();
    match Named::parse(&parts).filter(|named| named.more.is_empty()) {
        Some(named) => Ok(Download {
            blob: named.blob()?,
            form: named.form,
        }),
        None => Err(unfit(
            &parts,
            "blobs/{hash}/{size}` or `compressed-blobs/zstd/{hash}/{size}",
        )),
    }
}

/// Reads `uploads/{uuid}/blobs/{hash}/{size}` or `uploads/{uuid}/compressed-blobs/zstd/{hash}/{size}`; what
/// follows after a further slash is the client's own.
pub(super) fn to_write(name: &str) -> Result<Upload, Invalid> {
    let parts: Vec<&str> = name.splitn(8, '/').collect();
    let named = match &parts[..] {
        ["uploads", uuid, rest @ ..] => Named::parse(rest).map(|named| (*uuid, named)),
        _ => None,
    };
    let Some((uuid, named)) = named else {
        return Err(unfit(
            &parts,
            "uploads/{uuid}/blobs/{hash}/{size}` or \
             `uploads/{uuid}/compressed-blobs/zstd/{hash}/{size}",
        ));
    };
    if uuid.is_empty() || uuid.len() > bounds::NAME_BYTES {
        let reason = format!("its uuid must have 1 to {} bytes", bounds::NAME_BYTES);
        return Err(Invalid::field("resource_name", reason));
    }
    Ok(Upload {
        uuid: uuid.to_owned(),
        blob: named.blob()?,
        form: named.form,
    })
}

fn unfit(parts: &[&str], due: &str) -> Invalid {
    let packed = parts.iter().position(|part| *part == "compressed-blobs");
    let reason = if let Some(at) = packed
        && parts.get(at + 1) != Some(&"zstd")
    {
        "the only compressor is zstd".to_owned()
    } else if parts.iter().any(|part| OTHER_FUNCTIONS.contains(part)) {
        "only the digest functions SHA256, which is not named in a resource name, and BLAKE3 are supported"
            .to_owned()
    } else {
        format!(
            "`{due}` is due, `blake3/` before a hash by BLAKE3, and the project and `/` before it all or not"
        )
    };
    Invalid::field("resource_name", reason)
}

#[cfg(test)]
mod tests {
    use belljar_core::ObjectId;
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn by_blake3(hash: &str, size: u64) -> BlobName {
        let digest = BlobDigest::Blake3(Blake3Digest::from_hex(hash).unwrap());
        BlobName { digest, size }
    }

    #[test]
    fn names_of_blobs() {
        let object = ObjectId::of(b"").into();
        let other = by_blake3(HASH, 7);
        for (name, blob, form) in [
            (format!("blobs/{HASH}/0"), object, Form::Identity),
            (
                format!("compressed-blobs/zstd/{HASH}/0"),
                object,
                Form::Zstd,
            ),
            (format!("blobs/blake3/{HASH}/7"), other, Form::Identity),
            (
                format!("compressed-blobs/zstd/blake3/{HASH}/7"),
                other,
                Form::Zstd,
            ),
        ] {
            assert_eq!(to_read(&name), Ok(Download { blob, form }), "{name}");
            let uuid = "1-2-3".to_owned();
            let due = Ok(Upload { uuid, blob, form });
            for more in ["", "/", "/main.c/x", "/x/y/z/blake3/b"] {
                let name = format!("uploads/1-2-3/{name}{more}");
                assert_eq!(to_write(&name), due, "{name}");
            }
        }
        for (bad, why) in [
            (format!("main/blobs/{HASH}/0"), "is due"),
            (format!("blobs/{HASH}/00"), "number of bytes"),
            (format!("blobs/{HASH}/+1"), "number of bytes"),
            (format!("blobs/{HASH}/-1"), "number of bytes"),
            (format!("blobs/{}/1", &HASH[1..]), "hexadecimal"),
            (format!("blobs/../{HASH}/1"), "is due"),
            (format!("blobs/blake3/{HASH}/01"), "number of bytes"),
            (
                format!("blobs/blake3/{}/1", HASH.to_uppercase()),
                "hexadecimal",
            ),
            (format!("blobs/blake3/blake3/{HASH}/1"), "is due"),
            (format!("blobs/BLAKE3/{HASH}/1"), "is due"),
            (format!("blobs/blake3/{HASH}"), "is due"),
            (format!("blobs/blake3/{HASH}/1/x"), "is due"),
            (format!("blake3/blobs/{HASH}/1"), "is due"),
            (format!("blobs/sha1/{HASH}/1"), "SHA256"),
            (format!("compressed-blobs/zstd/sha512/{HASH}/1"), "SHA256"),
            (format!("compressed-blobs/blake3/zstd/{HASH}/1"), "zstd"),
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
            format!("uploads/u/blobs/sha1/{HASH}/0"),
            format!("uploads/u/blobs/blake3/{HASH}"),
            format!("uploads/u/compressed-blobs/brotli/{HASH}/0"),
            format!("uploads/u/compressed-blobs/zstd/md5/{HASH}/0"),
            format!("uploads/u/compressed-blobs/zstd/blake3/0/{HASH}"),
            format!(
                "uploads/{}/blobs/{HASH}/0",
                "u".repeat(bounds::NAME_BYTES + 1)
            ),
            format!("main/uploads/u/blobs/{HASH}/0"),
            format!("blobs/{HASH}/0"),
            format!("blobs/blake3/{HASH}/0"),
        ] {
            assert!(to_write(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_mean_what_the_request_says() {
        let digest = |hash: &str, size_bytes| reapi::Digest {
            hash: hash.to_owned(),
            size_bytes,
        };
        let good = digest(HASH, 7);
        let sha256 = blob(&good, Function::Sha256).unwrap();
        assert_eq!(sha256.object().unwrap().digest.to_hex(), HASH);
        assert_eq!(blob(&good, Function::Blake3), Ok(by_blake3(HASH, 7)));
        for function in [Function::Sha256, Function::Blake3] {
            for (bad, field) in [
                (digest(HASH, -1), "size_bytes"),
                (digest(&HASH[2..], 1), "hash"),
                (digest("", 1), "hash"),
            ] {
                assert_eq!(blob(&bad, function).unwrap_err().field, field);
            }
        }
    }

    #[test]
    fn instances_are_projects_and_there_are_two_functions() {
        let web = ProjectId::new("web").unwrap();
        let (sha256, blake3) = (Function::Sha256, Function::Blake3);
        assert_eq!(instance("", 0), Ok((None, sha256)));
        for (named, due) in [
            (DigestFunction::Unknown, sha256),
            (DigestFunction::Sha256, sha256),
            (DigestFunction::Blake3, blake3),
        ] {
            let found = instance("web", named.into());
            assert_eq!(found, Ok((Some(web.clone()), due)));
        }
        assert!(instance("a/b", 0).is_err() && instance("..", 0).is_err());
        assert!(instance("", DigestFunction::Sha1.into()).is_err());
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

    /// The one text that a name has, without what is the client's own.
    fn written(blob: BlobName, form: Form) -> String {
        let kind = match form {
            Form::Identity => "blobs",
            Form::Zstd => "compressed-blobs/zstd",
        };
        let function = match blob.digest {
            BlobDigest::Sha256(_) => "",
            BlobDigest::Blake3(_) => "blake3/",
        };
        format!("{kind}/{function}{}/{}", blob.digest.to_hex(), blob.size)
    }

    fn part() -> impl Strategy<Value = String> {
        let words = [
            "blobs",
            "compressed-blobs",
            "zstd",
            "blake3",
            "uploads",
            "u",
            "sha1",
            "sha256",
            HASH,
            "0",
            "7",
            "00",
            "+1",
            "18446744073709551616",
            "",
            "..",
            "BLAKE3",
        ];
        prop_oneof![
            4 => prop::sample::select(words.to_vec()).prop_map(str::to_owned),
            1 => "[0-9a-f]{63,65}",
            1 => "\\PC{0,8}",
        ]
    }

    proptest! {
        #[test]
        fn a_name_is_taken_in_one_form_or_refused(parts in prop::collection::vec(part(), 0..10)) {
            let name = parts.join("/");
            if let Ok(Download { blob, form }) = to_read(&name) {
                prop_assert_eq!(written(blob, form), name);
            } else if let Ok(Upload { uuid, blob, form }) = to_write(&name) {
                let due = format!("uploads/{uuid}/{}", written(blob, form));
                let rest = name.strip_prefix(&due);
                prop_assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')), "{name}");
            }
        }
    }
}
