//! Who is let in from elsewhere, and with which certificates.

use std::os::unix::fs::PermissionsExt as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::HandshakeKind;

use super::tls::{Authority, Pair, Served, early, expired, write};
use super::*;
use crate::remote::{Certificates, TlsFiles};

const MEMBERS: &str = r#"
    [[project]]
    name = "web"
    [[project.member]]
    principal = "spiffe://td/web/*"
    rights = ["submit", "cancel", "read", "administer"]
    [[project.member]]
    principal = "x509:CN=ops"
    rights = ["read"]
"#;

async fn principal(channel: Channel) -> Result<String, Status> {
    let mut builds = BuildServiceClient::new(channel);
    let info = builds.get_server_info(v1::GetServerInfoRequest {}).await?;
    Ok(info.into_inner().principal)
}

/// What came of trying, whether the connection or the call was refused.
async fn tried(served: &Served, pair: Option<&Pair>, protocols: &[&[u8]]) -> Result<String, Code> {
    match served.connect_as(pair, protocols).await {
        Ok(channel) => principal(channel).await.map_err(|status| status.code()),
        Err(_) => Err(Code::Unavailable),
    }
}

async fn refusals(daemon: &Daemon) -> Vec<(String, i64)> {
    let mut builds = daemon.builds();
    let info = builds.get_server_info(v1::GetServerInfoRequest {}).await;
    let door = info.unwrap().into_inner().door.unwrap();
    let counted = door.refusals.into_iter().filter(|one| one.count > 0);
    counted.map(|one| (one.reason, one.count)).collect()
}

/// Waits until so many were turned away for this reason.
async fn until(daemon: &Daemon, reason: &str, count: i64) {
    for _ in 0..2000 {
        if refusals(daemon).await.contains(&(reason.to_owned(), count)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{reason}: {:?}, {count} are due", refusals(daemon).await);
}

#[tokio::test]
async fn only_who_has_a_certificate_of_a_client_authority_is_let_in() {
    let (directory, site) = site().await;
    let served = Served::new(directory.path());
    let daemon = start(
        &site,
        &format!("{MEMBERS}{}", served.table(directory.path())),
    )
    .await;
    let clients = &served.clients;
    for (pair, due) in [
        (clients.spiffe("spiffe://td/web/ci"), "spiffe://td/web/ci"),
        (clients.subject("ops"), "x509:CN=ops"),
    ] {
        let channel = served.connect(&pair).await.unwrap();
        assert_eq!(principal(channel).await.unwrap(), due);
    }
    // Known, but a member of nothing: told so.
    for pair in [clients.spiffe("spiffe://td/webx"), clients.subject("ops2")] {
        assert_eq!(
            tried(&served, Some(&pair), &[b"h2"]).await,
            Err(Code::PermissionDenied)
        );
    }
    let foreign = Authority::new("clients");
    let uri = "spiffe://td/web/ci";
    let handshakes = [
        None,
        Some(foreign.spiffe(uri)),
        Some(served.authority.spiffe(uri)),
        Some(clients.client("late", &[uri], expired)),
        Some(clients.client("server", &[uri], |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        })),
        Some(clients.client("authority", &[uri], |params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        })),
    ];
    for (count, pair) in (1..).zip(&handshakes) {
        let result = tried(&served, pair.as_ref(), &[b"h2"]).await;
        assert!(
            matches!(result, Err(Code::Unavailable | Code::Unknown)),
            "{result:?}"
        );
        until(&daemon, "HANDSHAKE", count).await;
    }
    let mut count = handshakes.len() as i64;
    // Another protocol, and none.
    for protocols in [&[&b"http/1.1"[..]][..], &[]] {
        let result = tried(&served, Some(&clients.subject("ops")), protocols).await;
        assert!(result.is_err(), "{result:?}");
        count += 1;
        until(&daemon, "HANDSHAKE", count).await;
    }
    // No TLS at all.
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(
        !answer.windows(2).any(|two| two == b"h2") && answer.len() < 64,
        "{answer:?}"
    );
    until(&daemon, "HANDSHAKE", count + 1).await;
    assert!(
        refusals(&daemon)
            .await
            .contains(&("STRANGER".to_owned(), 2))
    );
}

#[tokio::test]
async fn a_certificate_that_is_about_nobody_is_refused() {
    let (directory, site) = site().await;
    let served = Served::new(directory.path());
    let daemon = start(
        &site,
        &format!("{MEMBERS}{}", served.table(directory.path())),
    )
    .await;
    let long = format!("spiffe://td/web/{}", "a".repeat(bounds::PRINCIPAL_BYTES));
    let forged: Vec<(&str, Vec<&str>)> = vec![
        ("ops", vec!["spiffe://td/web/a", "spiffe://td/web/b"]),
        ("ops", vec!["spiffe://td/web/a", "https://td/web"]),
        ("ops", vec!["https://td/web/a"]),
        ("ops", vec!["unix:uid=0"]),
        ("ops", vec!["spiffe://td/web/\0a"]),
        ("ops", vec!["spiffe://td/web/../a"]),
        ("ops", vec!["spiffe://td"]),
        ("ops", vec!["spiffe://td/"]),
        ("ops", vec!["spiffe://td/web/"]),
        ("ops", vec!["spiffe://td/web/ci/"]),
        ("ops", vec!["spiffe://td/web//ci"]),
        ("ops", vec!["spiffe://td//web/ci"]),
        ("ops", vec!["spiffe://td/web/./ci"]),
        ("ops", vec!["spiffe://td/web/%63i"]),
        ("ops", vec!["spiffe://td/web%2fci"]),
        ("ops", vec!["spiffe://td/web/*"]),
        ("ops", vec!["spiffe://TD/web/ci"]),
        ("ops", vec!["Spiffe://td/web/ci"]),
        ("ops", vec!["spiffe:/td/web/ci"]),
        ("ops", vec!["spiffe://td:443/web/ci"]),
        ("ops", vec!["spiffe://ops@td/web/ci"]),
        ("ops", vec!["spiffe://td/web/ci?a=b"]),
        ("ops", vec!["spiffe://td/web/ci#a"]),
        ("ops", vec![" spiffe://td/web/ci"]),
        ("ops", vec!["spiffe://td/web/ci\n"]),
        ("ops", vec!["spiffe://td/web/ci", "spiffe://td/web/ci"]),
        ("ops", vec![""]),
        ("ops", vec![&long]),
        ("", vec![]),
    ];
    for (count, (name, uris)) in (1..).zip(&forged) {
        let pair = served.clients.client(name, uris, |_| ());
        let result = tried(&served, Some(&pair), &[b"h2"]).await;
        assert!(result.is_err(), "{name} {uris:?}: {result:?}");
        until(&daemon, "IDENTITY", count).await;
    }
    // A subject that looks like somebody else's name is its own: escaped, it is another text.
    for name in [
        "ops\0",
        "ops,O=x",
        "unix:uid=0",
        "ops\nx509:CN=ops",
        "ops+CN=ops",
    ] {
        let pair = served.clients.subject(name);
        let result = tried(&served, Some(&pair), &[b"h2"]).await;
        assert_eq!(result, Err(Code::PermissionDenied), "{name:?}");
    }
}

#[tokio::test]
async fn a_chain_counts_as_far_as_authorities_go() {
    let (directory, site) = site().await;
    let served = Served::new(directory.path());
    let daemon = start(
        &site,
        &format!("{MEMBERS}{}", served.table(directory.path())),
    )
    .await;
    let root = &served.clients;
    let unconstrained = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let last = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let between = root.below("between", unconstrained, |_| ());
    let lowest = root.below("lowest", last, |_| ());
    for vouched in [between.subject("ops"), lowest.subject("ops")] {
        let told = tried(&served, Some(&vouched), &[b"h2"]).await;
        assert_eq!(told.as_deref(), Ok("x509:CN=ops"));
    }
    let first_of = |pair: Pair| {
        let end = "-----END CERTIFICATE-----\n";
        let at = pair.certificate.find(end).unwrap() + end.len();
        Pair {
            certificate: pair.certificate[..at].to_owned(),
            ..pair
        }
    };
    let mut deep = root.below("1", unconstrained, |_| ());
    for depth in 2..12 {
        deep = deep.below(&depth.to_string(), unconstrained, |_| ());
    }
    let for_servers = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    };
    let only_other = |params: &mut rcgen::CertificateParams| {
        let other = rcgen::GeneralSubtree::DnsName("example.org".to_owned());
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![other],
            excluded_subtrees: Vec::new(),
        });
    };
    let padded = |by: usize| {
        let pair = root.subject("ops");
        let certificate = pair.certificate.clone() + &root.subject("other").certificate.repeat(by);
        Pair {
            certificate,
            ..pair
        }
    };
    let cases = [
        ("not valid yet", root.client("ops", &[], early)),
        ("the authority itself", root.itself()),
        (
            "one between that did not come",
            first_of(between.subject("ops")),
        ),
        (
            "of somebody who is no authority",
            root.below("ops", rcgen::IsCa::NoCa, |_| ()).subject("ops"),
        ),
        (
            "of somebody who says that it is none",
            root.below("ops", rcgen::IsCa::ExplicitNoCa, |_| ())
                .subject("ops"),
        ),
        (
            "below one that may have none below it",
            lowest.below("x", unconstrained, |_| ()).subject("ops"),
        ),
        (
            "of one that has expired",
            root.below("old", unconstrained, expired).subject("ops"),
        ),
        (
            "of one that may vouch for servers only",
            root.below("servers", unconstrained, for_servers)
                .subject("ops"),
        ),
        (
            "of one that may vouch for other names only",
            root.below("example.org", unconstrained, only_other)
                .client("ops", &[], |params| {
                    let name = rcgen::string::Ia5String::try_from("example.net").unwrap();
                    params.subject_alt_names.push(rcgen::SanType::DnsName(name));
                }),
        ),
        ("a chain that is too long", deep.subject("ops")),
        ("a thousand more of no use", padded(1000)),
    ];
    for (count, (what, pair)) in (1..).zip(&cases) {
        let result = tried(&served, Some(pair), &[b"h2"]).await;
        assert!(result.is_err(), "{what}: {result:?}");
        until(&daemon, "HANDSHAKE", count).await;
    }
    // The verifier does not look for what keys may be used.
    let no_sign = |params: &mut rcgen::CertificateParams| {
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    };
    let only_agree = |params: &mut rcgen::CertificateParams| {
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyAgreement];
    };
    let unused = [
        root.below("seal", unconstrained, no_sign).subject("ops"),
        root.client("ops", &[], only_agree),
        padded(bounds::CALLER_CERTIFICATES),
    ];
    for (count, pair) in (1..).zip(&unused) {
        let result = tried(&served, Some(pair), &[b"h2"]).await;
        assert!(result.is_err(), "{result:?}");
        until(&daemon, "IDENTITY", count).await;
    }
    for pair in [root.subject("ops"), root.client("ops", &[], no_sign)] {
        let told = tried(&served, Some(&pair), &[b"h2"]).await;
        assert_eq!(told.as_deref(), Ok("x509:CN=ops"));
    }
}

#[tokio::test]
async fn no_session_is_taken_up_again() {
    let (directory, site) = site().await;
    let served = Served::new(directory.path());
    let _daemon = start(
        &site,
        &format!("{MEMBERS}{}", served.table(directory.path())),
    )
    .await;
    let kinds = served.handshakes(&served.clients.subject("ops")).await;
    assert_eq!(kinds, [HandshakeKind::Full; 2]);
}

#[tokio::test]
async fn certificates_change_together_or_not_at_all() {
    let (directory, site) = site().await;
    let at = directory.path();
    let served = Served::new(at);
    let _daemon = start(&site, &format!("{MEMBERS}{}", served.table(at))).await;
    let ops = served.clients.subject("ops");
    let open = served.connect(&ops).await.unwrap();
    let files = TlsFiles {
        listen: served.address,
        certificate: at.join("cert"),
        key: at.join("key"),
        client_ca: at.join("ca"),
    };
    let certificates = Certificates::load(files).unwrap();
    let first = certificates.certificate();
    assert_eq!(belljar_core::Digest::of(&served.shown(&ops).await), first);
    // Nothing new: nothing happens.
    certificates.reload();
    assert_eq!(
        (certificates.certificate(), certificates.error()),
        (first, None)
    );
    // A certificate without its key, damaged files, missing ones, a key that others can read.
    let good = std::fs::read_to_string(at.join("key")).unwrap();
    let authorities = std::fs::read_to_string(at.join("ca")).unwrap();
    for (name, text, due) in [
        (
            "key",
            served.authority.server("x").key.as_str(),
            "cannot be used together",
        ),
        ("key", "-----BEGIN PRIVATE KEY-----\n", "private key"),
        ("key", "", "private key"),
        ("ca", "no certificate", "at least one certificate"),
        ("ca", "", "at least one certificate"),
    ] {
        write(at, name, text);
        certificates.reload();
        let error = certificates.error().unwrap();
        assert!(error.contains(due), "{error}");
        assert_eq!(certificates.certificate(), first);
        write(at, "key", &good);
        write(at, "ca", &authorities);
        certificates.reload();
        assert_eq!(certificates.error(), None, "as before again");
    }
    for mode in [0o604, 0o640 | 0o020, 0o666, 0o601] {
        std::fs::set_permissions(at.join("key"), std::fs::Permissions::from_mode(mode)).unwrap();
        certificates.reload();
        let error = certificates.error().unwrap();
        assert!(
            error.contains("can reach the private key"),
            "{mode:o}: {error}"
        );
    }
    std::fs::set_permissions(at.join("key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    certificates.reload();
    assert_eq!(certificates.error(), None);
    std::fs::remove_file(at.join("cert")).unwrap();
    certificates.reload();
    assert!(certificates.error().unwrap().contains("cannot be read"));
    // What can be used is; the daemon, which looks for itself, comes to the same, and nobody was cut off.
    served.renew(at, "second");
    certificates.reload();
    let second = certificates.certificate();
    assert!(second != first && certificates.error().is_none());
    for _ in 0..2000 {
        if belljar_core::Digest::of(&served.shown(&ops).await) == second {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(belljar_core::Digest::of(&served.shown(&ops).await), second);
    assert_eq!(principal(open).await.unwrap(), "x509:CN=ops");
    // Another authority for clients: those of the former are strangers from the next handshake on.
    let others = Authority::new("others");
    write(at, "ca", &others.pem);
    let theirs = others.subject("ops");
    for _ in 0..2000 {
        if tried(&served, Some(&theirs), &[b"h2"]).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        tried(&served, Some(&theirs), &[b"h2"]).await.as_deref(),
        Ok("x509:CN=ops")
    );
    assert!(tried(&served, Some(&ops), &[b"h2"]).await.is_err());
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate_and_when_nothing_comes() {
    let (directory, site) = site().await;
    let served = Served::new(directory.path());
    let _daemon = start(
        &site,
        &format!("{MEMBERS}{}", served.table(directory.path())),
    )
    .await;
    let brief = served.clients.client("ops", &[], |params| {
        params.not_after = (std::time::SystemTime::now() + Duration::from_secs(4)).into();
    });
    let channel = served.connect(&brief).await.unwrap();
    assert_eq!(principal(channel.clone()).await.unwrap(), "x509:CN=ops");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(
        principal(channel).await.is_err(),
        "neither goes on nor comes again"
    );
    // A handshake that is never finished does not keep others out, and is ended.
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(&[0x16, 3, 1]).await.unwrap();
    let ops = served.clients.subject("ops");
    assert!(tried(&served, Some(&ops), &[b"h2"]).await.is_ok());
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), slow.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "still open after a minute");
}
