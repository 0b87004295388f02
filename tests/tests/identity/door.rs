use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use belljar_tests::Part;

use crate::certificates::Authority;
use crate::site::Site;

#[test]
fn who_has_no_good_certificate_is_refused_and_recorded() {
    let site = Site::new();
    let dir = site.dir.path();
    let ops = site.clients.subject(dir, "ops");
    let came = site.belljar(&ops, &["doctor"]);
    assert!(matches!(came.code, 0 | 11), "{came:?}");
    assert_eq!(came.json["daemon"], site.url());

    let foreign = Authority::new("clients").subject(dir, "foreign-ops");
    let expired = site.clients.expired(dir, "late-ops");
    for pair in [&foreign, &expired] {
        let came = site.belljar(pair, &["list"]);
        assert_ne!(came.code, 0, "{came:?}");
        assert!(came.json["error"].is_string(), "{came:?}");
    }
    // A member of nothing is told who it is, so that the operator can be told.
    let stranger = site.clients.subject(dir, "stranger");
    let came = site.belljar(&stranger, &["list"]);
    assert_eq!(came.code, 7, "{came:?}");
    assert!(came.said.contains("x509:CN=stranger"), "{came:?}");

    // No certificate; no TLS 1.3; no TLS.
    let good = site.openssl(Some(&ops), &["-tls1_3", "-verify_return_error"]);
    assert!(
        good.contains("TLSv1.3") && good.contains("ALPN protocol: h2"),
        "{good}"
    );
    site.openssl(None, &["-tls1_3"]);
    let old = site.openssl(Some(&ops), &["-tls1_2"]);
    assert!(old.contains("alert protocol version"), "{old}");
    let mut plain = TcpStream::connect(site.address).unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    for due in [
        "BadSignature",
        "certificate expired",
        "peer sent no certificates",
        "peer is incompatible",
        "received corrupt message",
        "reason=\"STRANGER\"",
        "x509:CN=stranger",
    ] {
        site.until_said(due);
    }
}

#[test]
fn certificates_are_renewed_under_way_and_bad_ones_change_nothing() {
    let site = Site::new();
    let dir = site.dir.path();
    let ops = site.clients.subject(dir, "ops");
    let shown = |site: &Site| {
        let said = site.openssl(Some(&ops), &["-tls1_3"]);
        let subject = said.lines().find(|line| line.starts_with("subject="));
        subject.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let before = shown(&site);
    let pid = site.instance.pid_of(Part::Belljard);
    site.install("server.pem", "no certificate at all");
    site.hang_up();
    site.until_said("new certificates cannot be used");
    assert_eq!(shown(&site), before);
    site.renew("renewed");
    site.hang_up();
    site.until_said("new certificates are in use");
    let after = shown(&site);
    assert!(after != before && after.contains("renewed"), "{after}");
    assert_eq!(site.instance.pid_of(Part::Belljard), pid);
    let came = site.belljar(&ops, &["list"]);
    assert_eq!(came.code, 0, "{came:?}");
}

#[test]
fn a_key_that_others_can_read_keeps_belljard_from_starting() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut site = Site::new();
    let key = site.instance.state().join("tls/server.key");
    site.instance.end_part(Part::Belljard);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ended = Part::Belljard
        .command(site.instance.state())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        !ended.status.success() && said.contains("chmod 0600"),
        "{said}"
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    site.instance.start_part(Part::Belljard);
}
