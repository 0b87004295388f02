//! Places at a registry (OCI distribution-spec v1.1, "Endpoints").

/// Whether a path and query is that of a manifest or a blob of the repository `name`, in the one form that nobody could
/// take for something else: `/v2/NAME/manifests/WHAT` or `/v2/NAME/blobs/WHAT`.
pub(super) fn is_of(name: &str, target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let below = path.strip_prefix("/v2/");
    let below = below.and_then(|path| path.strip_prefix(name)?.strip_prefix('/'));
    let Some((sort, what)) = below.and_then(|path| path.split_once('/')) else {
        return false;
    };
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    matches!(sort, "manifests" | "blobs")
        && !what.is_empty()
        && !what.starts_with('.')
        && what.bytes().all(fine)
}

/// Whether content of the repository `name` may be sent there, as the registry says: to a place for that below its name, or to
/// one that is no repository's. Only written so that nobody could take it for something else.
pub(super) fn takes_for(name: &str, target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let plain = path.split('/').skip(1).all(|part| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:~=+".contains(&byte);
        !part.starts_with('.') && part.bytes().all(fine)
    });
    let below = path.strip_prefix("/v2/");
    let own = below.is_none_or(|path| {
        let rest = path.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with("/blobs/upload"))
    });
    plain && !path.contains("//") && own
}

/// Whether it is something of any repository.
pub(super) fn is_any(target: &str) -> bool {
    target.starts_with("/v2/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_sent_to_no_other_repository() {
        for target in [
            "/v2/team/c/blobs/uploads/0?_state=a%2Fb",
            "/v2/team/c/blobs/upload/1b4e28ba-2fa1",
            "/uploads/x~y=",
        ] {
            assert!(takes_for("team/c", target), "{target}");
        }
        for target in [
            "/v2/team/d/blobs/uploads/0",
            "/v2/team/c/d/blobs/uploads/0",
            "/v2/team/c/manifests/1",
            "/v2/team/c/blobs/uploads/../../../d/blobs/uploads/0",
            "/v2/team/c/blobs/uploads/%2e%2e/0",
            "//v2/team/d/blobs/uploads/0",
            "/%76%32/team/d/blobs/uploads/0",
            "/./v2/team/d/blobs/uploads/0",
            "/v2/",
        ] {
            assert!(!takes_for("team/c", target), "{target}");
        }
    }

    #[test]
    fn only_what_is_of_the_repository_itself_is() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for target in [
            "/v2/team/c/manifests/1",
            "/v2/team/c/manifests/v1.2_3-x?ns=r.example",
            &format!("/v2/team/c/blobs/{digest}"),
        ] {
            assert!(is_of("team/c", target), "{target}");
        }
        for target in [
            "/",
            "/v2/",
            "/v2/team/c",
            "/v2/team/c/",
            "/v2/team/c/manifests/",
            "/v2/team/c/tags/list",
            "/v2/team/c/d/manifests/1",
            "/v2/team/cd/manifests/1",
            "/v2/team/c/manifests/../../d/manifests/1",
            "/v2/team/c/manifests/%2e%2e/1",
            "/v2/team/c/manifests/..",
            "/v2/team/c/../c/manifests/1",
            "/v2//team/c/manifests/1",
            "/v2/team/c/manifests//1",
            "/v2/secret/private/manifests/1?/v2/team/c/manifests/1",
            "/v2/Team/c/manifests/1",
            "/V2/team/c/manifests/1",
            "/v2/team%2Fc/manifests/1",
            "/v2/team/c/manifests/1;x",
            "/token/v2/team/c/manifests/1",
        ] {
            assert!(!is_of("team/c", target), "{target}");
        }
    }
}
