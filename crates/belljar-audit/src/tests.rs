use belljar_core::{
    AttemptId, BuildId, Digest, FetchDigest, InputName, LimitKind, ObjectId, Outcome, ProjectId,
    RelPath, RequestId, Timestamp, bounds,
};
use proptest::prelude::*;

use crate::{AppendError, AuditEvent, FetchTry, Found, Trail, VerifyError, verify, verify_prefix};

const BUILD: &str = "01jd8q6z8r4x7j2m5t9v0w3y6b";
const OTHER: &str = "01jd8q6z8r4x7j2m5t9v0w3y6c";

fn build(text: &str) -> BuildId {
    BuildId::new(text).unwrap()
}

fn attempt(of: &str) -> AttemptId {
    AttemptId::new(build(of), 1).unwrap()
}

/// One of every kind, in the order of a build that succeeds, with the rest behind it.
fn events() -> Vec<AuditEvent> {
    let attempt = attempt(BUILD);
    vec![
        AuditEvent::Submitted {
            project: Some(ProjectId::new("web").unwrap()),
            by: "unix:uid=0".into(),
            authenticated_by: "SO_PEERCRED".into(),
            request_id: Some(RequestId::new("r-1").unwrap()),
            spec: Digest::of(b"spec"),
        },
        AuditEvent::Decided {
            admitted: true,
            reasons: vec!["uid 0 is allowed".into()],
        },
        AuditEvent::AttemptStarted {
            attempt: attempt.clone(),
        },
        AuditEvent::Staged {
            attempt: attempt.clone(),
            tree: ObjectId::of(b"tree"),
        },
        AuditEvent::Launched {
            attempt: attempt.clone(),
        },
        AuditEvent::Ended {
            attempt: attempt.clone(),
            outcome: Outcome::Succeeded,
        },
        AuditEvent::Collected {
            attempt: attempt.clone(),
            receipt: Digest::of(b"receipt"),
            outputs: 3,
            outcome: Outcome::Succeeded,
        },
        AuditEvent::AttestationRequested {
            attempt: attempt.clone(),
        },
        AuditEvent::Signed {
            attempt: attempt.clone(),
            bundle: Digest::of(b"bundle"),
            key_id: "SHA256:abc".into(),
        },
        AuditEvent::SigningRefused {
            attempt: attempt.clone(),
            reasons: vec!["no receipt".into()],
        },
        AuditEvent::Destroyed {
            attempt: attempt.clone(),
        },
        AuditEvent::Recovered {
            attempt,
            state: "running".into(),
        },
        AuditEvent::CancelRequested {
            by: "unix:uid=0".into(),
            reason: Some("no longer needed".to_owned()),
        },
        AuditEvent::Finished {
            outcome: Outcome::Cancelled {
                by: "ü\n\"".into(),
                reason: Some("no longer needed".into()),
            },
        },
    ]
}

fn lines() -> (Trail, Vec<Vec<u8>>) {
    let mut trail = Trail::new(build(BUILD));
    let lines = (0_u64..)
        .zip(events())
        .map(|(at, event)| {
            trail
                .append(Timestamp::from_millis(1_763_771_400_000 + at), event)
                .unwrap()
        })
        .collect();
    (trail, lines)
}

#[test]
fn what_was_appended_is_read_back() {
    let (trail, lines) = lines();
    let bytes = lines.concat();
    let entries = verify(&bytes).unwrap();
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.event.clone())
            .collect::<Vec<_>>(),
        events()
    );
    assert_eq!(
        (trail.digest(), trail.entries()),
        (Digest::of(&bytes), lines.len() as u64)
    );
    assert_eq!(entries[0].previous, Digest::of(BUILD.as_bytes()));
    assert_eq!(
        entries[1].previous,
        Digest::of(lines[0].strip_suffix(b"\n").unwrap())
    );
}

/// Trails of before there were projects are read as they are, and say nothing of one.
#[test]
fn a_line_without_a_project_is_as_good() {
    let line = String::from_utf8(lines().1[0].clone()).unwrap();
    let before = line
        .replace("\"event.project\",", "")
        .replace("\"project\":\"web\",", "");
    let entries = verify(before.as_bytes()).unwrap();
    assert!(matches!(
        entries[0].event,
        AuditEvent::Submitted { project: None, .. }
    ));
    // Neither hides that the other is only asserted.
    let hidden = line.replace("\"event.project\",", "");
    assert_eq!(
        verify(hidden.as_bytes()),
        Err(VerifyError::Asserted { line: 1 })
    );
}

#[test]
fn the_first_line_is_what_the_documentation_says() {
    let (_, lines) = lines();
    let expected = concat!(
        r#"{"asserted":["event.authenticated_by","event.by","event.project","event.request_id","time"],"#,
        r#""build":"01jd8q6z8r4x7j2m5t9v0w3y6b","event":{"authenticated_by":"SO_PEERCRED","by":"unix:uid=0","#,
        r#""kind":"submitted","project":"web","request_id":"r-1","#,
        r#""spec":"sha256:39e3d7c9bd96f68bd4edc38507b5765d7ddb35a3e8a0c0f2c3ab6a1fdb2e26fb"},"#,
        r#""previous":"sha256:PREVIOUS","sequence":1,"time":"2025-11-22T00:30:00.000Z"}"#,
    )
    .replace("sha256:PREVIOUS", &Digest::of(BUILD.as_bytes()).to_string())
    .replace("sha256:39e3d7c9bd96f68bd4edc38507b5765d7ddb35a3e8a0c0f2c3ab6a1fdb2e26fb", &Digest::of(b"spec").to_string());
    assert_eq!(
        String::from_utf8(lines[0].clone()).unwrap(),
        expected + "\n"
    );
}

#[test]
fn a_trail_goes_on_after_a_torn_write() {
    let (_, lines) = lines();
    let whole = lines.concat();
    let torn = [&whole[..], &lines[3][..20]].concat();
    let (mut trail, intact) = Trail::resume(build(BUILD), &torn).unwrap();
    assert_eq!(intact, whole.len());
    let next = trail
        .append(
            Timestamp::from_millis(0),
            AuditEvent::CancelRequested {
                by: "x".into(),
                reason: None,
            },
        )
        .unwrap();
    let entries = verify(&[&torn[..intact], &next].concat()).unwrap();
    assert_eq!(entries.len(), lines.len() + 1);
    let (empty, none) = Trail::resume(build(BUILD), &lines[0][..10]).unwrap();
    assert_eq!((empty.entries(), none), (0, 0));
}

#[test]
fn a_trail_does_not_go_on_from_a_bad_or_foreign_file() {
    let (_, mut lines) = lines();
    let foreign = Trail::resume(build(OTHER), &lines.concat()).err();
    assert_eq!(foreign, Some(VerifyError::OtherBuild { line: 1 }));
    lines.remove(2);
    assert_eq!(
        Trail::resume(build(BUILD), &lines.concat()).err(),
        Some(VerifyError::Sequence { line: 3, found: 4 })
    );
}

#[test]
fn each_kind_of_damage_has_its_name() {
    let (_, lines) = lines();
    let edit = |line: usize, from: &str, to: &str| {
        let mut lines = lines.clone();
        let text = String::from_utf8(lines[line].clone()).unwrap();
        assert!(text.contains(from), "{text}");
        lines[line] = text.replacen(from, to, 1).into_bytes();
        verify(&lines.concat()).unwrap_err()
    };
    assert_eq!(verify(b""), Err(VerifyError::Empty));
    assert_eq!(
        edit(1, "allowed", "refused"),
        VerifyError::Chain { line: 3 }
    );
    assert_eq!(edit(1, "{", "{ "), VerifyError::NotCanonical { line: 2 });
    assert_eq!(
        edit(1, r#"["event","time"]"#, r#"["time"]"#),
        VerifyError::Asserted { line: 2 }
    );
    assert_eq!(edit(4, BUILD, OTHER), VerifyError::OtherBuild { line: 5 });
    assert_eq!(edit(12, BUILD, OTHER), VerifyError::OtherBuild { line: 13 });
    assert_eq!(edit(13, "\n", ""), VerifyError::Incomplete { line: 14 });
    assert!(matches!(
        edit(5, "succeeded", "perfect"),
        VerifyError::Malformed { line: 6, .. }
    ));
    let long = [vec![b'x'; bounds::AUDIT_ENTRY_BYTES], b"\n".to_vec()].concat();
    assert_eq!(verify(&long), Err(VerifyError::LineTooLong { line: 1 }));
}

#[test]
fn a_missing_or_rewritten_end_is_found_only_against_a_digest() {
    let (trail, lines) = lines();
    let (digest, count) = (trail.digest(), trail.entries());
    let short = lines[..lines.len() - 1].concat();
    assert!(
        verify(&short).is_ok(),
        "known: nothing in the file names its end"
    );
    let missing = verify_prefix(&short, count, digest);
    assert_eq!(
        missing,
        Err(VerifyError::Truncated {
            found: count - 1,
            due: count
        })
    );

    let text = String::from_utf8(lines.concat()).unwrap();
    let rewritten = text.replace('ü', "u");
    assert!(
        verify(rewritten.as_bytes()).is_ok(),
        "known: nothing in the file names its last line"
    );
    assert!(matches!(
        verify_prefix(rewritten.as_bytes(), count, digest),
        Err(VerifyError::Digest { .. })
    ));
    assert!(verify_prefix(text.as_bytes(), count, digest).is_ok());
}

#[test]
fn a_prefix_is_vouched_for_while_the_trail_goes_on() {
    let (_, lines) = lines();
    let known = Digest::of(&lines[..8].concat());
    assert_eq!(
        verify_prefix(&lines.concat(), 8, known).map(|entries| entries.len()),
        Ok(lines.len())
    );
    assert!(matches!(
        verify_prefix(&lines.concat(), 7, known),
        Err(VerifyError::Digest { .. })
    ));
    assert!(matches!(
        verify_prefix(&lines.concat(), u64::MAX, known),
        Err(VerifyError::Truncated { .. })
    ));
}

#[test]
fn hostile_texts_are_cut_visibly_and_never_keep_a_fact_out() {
    let reasons = vec!["\u{0}".repeat(20_000); 40];
    let mut trail = Trail::new(build(BUILD));
    for event in [
        AuditEvent::SigningRefused {
            attempt: attempt(BUILD),
            reasons: reasons.clone(),
        },
        AuditEvent::Finished {
            outcome: Outcome::Refused { reasons },
        },
        AuditEvent::Finished {
            outcome: Outcome::OutputRejected {
                why: "ü".repeat(60_000),
            },
        },
    ] {
        let line = trail.append(Timestamp::from_millis(0), event).unwrap();
        assert!(line.len() <= bounds::AUDIT_ENTRY_BYTES);
        assert!(String::from_utf8(line).unwrap().contains("bytes cut]"));
    }
}

#[test]
fn the_name_of_an_output_is_kept_whole() {
    let longest = vec!["\"".repeat(bounds::NAME_BYTES); 16].join("/");
    assert_eq!(longest.len(), bounds::PATH_BYTES);
    let event = AuditEvent::Finished {
        outcome: Outcome::LimitExceeded {
            limit: LimitKind::OutputEntries,
            figure: u64::MAX,
            used: u64::MAX,
            output: Some(RelPath::new(longest.as_str()).unwrap()),
        },
    };
    let line = Trail::new(build(BUILD)).append(Timestamp::from_millis(0), event);
    let line = line.unwrap();
    assert!(line.len() <= bounds::AUDIT_ENTRY_BYTES);
    let text = String::from_utf8(line).unwrap().replace("\\\"", "\"");
    assert!(text.contains(&longest), "{text}");
}

#[test]
fn all_mirrors_in_two_forms_with_all_that_servers_said_fit_one_entry() {
    let url = format!("https://a.example/{}", "x".repeat(bounds::FETCH_URL_BYTES));
    let url = &url[..bounds::FETCH_URL_BYTES];
    let told = FetchTry {
        url: url.to_owned(),
        final_url: Some(url.to_owned()),
        address: Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".to_owned()),
        status: Some(599),
        bytes: u64::MAX,
        digest: Some(Digest::of(b"")),
        millis: u64::MAX,
        shared: true,
        refused: Some("\u{0}".repeat(20_000)),
    };
    let event = AuditEvent::Fetched {
        attempt: attempt(BUILD),
        name: InputName::new("x").unwrap(),
        submodule: Some(RelPath::new("s".repeat(255)).unwrap()),
        digest: FetchDigest::Sha256(Digest::of(b"")),
        found: Found::Nothing {},
        refused: Some("\u{0}".repeat(20_000)),
        tries: vec![told; bounds::FETCH_MIRRORS + 1],
    };
    let line = Trail::new(build(BUILD)).append(Timestamp::from_millis(0), event);
    assert!(line.unwrap().len() <= bounds::AUDIT_ENTRY_BYTES);
}

#[test]
fn an_event_of_another_build_is_not_taken() {
    let mut trail = Trail::new(build(BUILD));
    let foreign = AuditEvent::Launched {
        attempt: attempt(OTHER),
    };
    assert_eq!(
        trail.append(Timestamp::from_millis(0), foreign),
        Err(AppendError::OtherBuild(format!("{OTHER}-1")))
    );
    assert_eq!(trail.entries(), 0);
}

#[test]
fn a_trail_is_bounded() {
    let mut trail = Trail::new(build(BUILD));
    let event = || AuditEvent::CancelRequested {
        by: "x".into(),
        reason: None,
    };
    let mut bytes = Vec::new();
    for _ in 0..bounds::AUDIT_ENTRIES {
        bytes.extend(trail.append(Timestamp::from_millis(0), event()).unwrap());
    }
    assert_eq!(
        trail.append(Timestamp::from_millis(0), event()),
        Err(AppendError::Full)
    );
    assert!(verify(&bytes).is_ok());
    bytes.extend_from_slice(b"{}\n");
    assert_eq!(verify(&bytes), Err(VerifyError::TooLong));
}

proptest! {
    /// Any changed byte: found by the chain, except in the last line, where a digest is needed.
    #[test]
    fn a_changed_byte_is_found(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (trail, lines) = lines();
        let mut bytes = lines.concat();
        let held = bytes.len() - lines[lines.len() - 1].len();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(at >= held || verify(&bytes).is_err());
        prop_assert!(verify_prefix(&bytes, trail.entries(), trail.digest()).is_err());
    }

    #[test]
    fn a_dropped_or_doubled_line_is_found(at in 0_usize..13) {
        let (_, lines) = lines();
        let mut fewer = lines.clone();
        fewer.remove(at);
        prop_assert!(verify(&fewer.concat()).is_err());
        let mut more = lines.clone();
        more.insert(at, lines[at].clone());
        prop_assert!(verify(&more.concat()).is_err());
    }

    #[test]
    fn a_moved_line_is_found(from in 0_usize..14, to in 0_usize..14) {
        prop_assume!(from != to);
        let (_, mut lines) = lines();
        let line = lines.remove(from);
        lines.insert(to, line);
        prop_assert!(verify(&lines.concat()).is_err());
    }

    /// Bytes missing anywhere but at the very end of a line's worth of end.
    #[test]
    fn a_hole_is_found(from in any::<prop::sample::Index>(), length in 1_usize..400) {
        let (_, lines) = lines();
        let mut bytes = lines.concat();
        let held = bytes.len() - lines[lines.len() - 1].len();
        let from = from.index(held);
        bytes.drain(from..(from + length).min(held));
        prop_assert!(verify(&bytes).is_err());
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = verify(&bytes);
        let _ = Trail::resume(build(BUILD), &bytes);
        let _ = verify_prefix(&bytes, 3, Digest::of(b""));
    }
}
