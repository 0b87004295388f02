//! What must hold once builds have ended, whatever happened meanwhile.

use std::collections::BTreeSet;
use std::fs;

use belljar_attest::{verify, verify_receipt_of};
use belljar_audit::{AuditEvent, Entry};
use belljar_core::{AttemptId, BuildId, Digest, ObjectId, Outcome, RelPath};
use belljar_plan::Receipt;
use belljar_tests::Part;
use belljar_tree::Leaf;
use belljar_wire::{Artifact, ArtifactKind, BuildRecord};
use serde_json::Value;

use crate::site::{Order, Site};

/// Namespaces that a spawner without a build has open at most: those it keeps ready, two for each slot, its own.
const NAMESPACES: usize = 4 + 2 * 64 + 4;

/// Nothing accepted is lost, nothing succeeds or is signed twice, what is told is true, nothing is left.
pub(crate) fn check(site: &Site, orders: &[Order]) {
    site.repeat(orders);
    for order in orders {
        let record = order.ended.as_ref().unwrap();
        assert_eq!(record.outcome, Some(Outcome::Succeeded), "{record:?}");
        let entries = trail(site, &record.id);
        let signed = follow(&entries, record);
        artifacts(site, record, &order.output);
        evidence(site, record, signed);
    }
    receipts(site, orders);
    let bundles = names(site, "evidence");
    let temporary = |names: &[String]| names.iter().any(|name| name.ends_with(".tmp"));
    assert!(!temporary(&bundles), "{bundles:?}");
    assert_eq!(site.instance.left_of_builds(), Vec::<String>::new());
    let open = fs::read_dir(format!("/proc/{}/fd", site.instance.pid_of(Part::Spawner))).unwrap();
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let namespace = |path: &std::path::PathBuf| {
        let path = path.to_string_lossy();
        path.contains(":[") && !path.starts_with("socket") && !path.starts_with("pipe")
    };
    let namespaces = links.filter(namespace).count();
    assert!(namespaces <= NAMESPACES, "{namespaces} namespaces are open");
}

fn trail(site: &Site, build: &BuildId) -> Vec<Entry> {
    let path = site
        .instance
        .state()
        .join(format!("daemon/audit/{build}.jsonl"));
    belljar_audit::verify(&fs::read(path).unwrap()).unwrap()
}

/// The last of an attempt.
const DESTROYED: usize = 8;

/// Where an entry stands in the life of an attempt, as `belljar_engine::life` has it.
fn place(event: &AuditEvent) -> Option<(&AttemptId, usize)> {
    Some(match event {
        AuditEvent::AttemptStarted { attempt } => (attempt, 0),
        AuditEvent::Fetched { attempt, .. } => (attempt, 1),
        AuditEvent::Staged { attempt, .. } => (attempt, 2),
        AuditEvent::Launched { attempt } => (attempt, 3),
        AuditEvent::Ended { attempt, .. } => (attempt, 4),
        AuditEvent::Collected { attempt, .. } => (attempt, 5),
        AuditEvent::AttestationRequested { attempt } => (attempt, 6),
        AuditEvent::Signed { attempt, .. } => (attempt, 7),
        AuditEvent::Destroyed { attempt } => (attempt, DESTROYED),
        _ => return None,
    })
}

/// The trail is a life that the engine's model allows, of this build, to its end. Gives what was signed.
fn follow(entries: &[Entry], record: &BuildRecord) -> Digest {
    let told = || format!("{entries:#?}");
    assert!(
        matches!(entries[0].event, AuditEvent::Submitted { .. }),
        "{}",
        told()
    );
    assert!(
        matches!(entries[1].event, AuditEvent::Decided { admitted: true, .. }),
        "{}",
        told()
    );
    let (mut attempt, mut at, mut signed) = (0, DESTROYED, BTreeSet::new());
    let mut succeeded = BTreeSet::new();
    for entry in &entries[2..entries.len() - 1] {
        let Some((named, place)) = place(&entry.event) else {
            let restart = matches!(entry.event, AuditEvent::Recovered { .. });
            assert!(restart, "{}", told());
            continue;
        };
        if place == 0 {
            assert_eq!((named.number(), at), (attempt + 1, DESTROYED), "{}", told());
            attempt += 1;
        } else {
            // Whatever was being done may have been done, and is told once more, after a restart.
            assert_eq!(named.number(), attempt, "{}", told());
            assert!(place >= at, "{}", told());
        }
        at = place;
        match &entry.event {
            AuditEvent::Signed { bundle, .. } => drop(signed.insert((attempt, *bundle))),
            AuditEvent::Collected { outcome, .. } if outcome.is_success() => {
                succeeded.insert(attempt);
            }
            _ => {}
        }
    }
    assert_eq!(at, DESTROYED, "destroyed before the end: {}", told());
    let last = &entries.last().unwrap().event;
    let due = AuditEvent::Finished {
        outcome: Outcome::Succeeded,
    };
    assert_eq!(*last, due);
    assert_eq!(attempt, record.attempt, "{}", told());
    assert!(succeeded.contains(&attempt), "{}", told());
    let signed: Vec<_> = signed.into_iter().collect();
    let [(of, bundle)] = signed[..] else {
        panic!("signed once: {}", told());
    };
    assert_eq!(of, attempt, "{}", told());
    bundle
}

/// What it left is the file, and a directory with the same file in it.
fn artifacts(site: &Site, record: &BuildRecord, due: &str) {
    let object = ObjectId::of(due.as_bytes());
    let leaf = Leaf::File {
        object,
        executable: false,
    };
    let built = belljar_tree::build([(RelPath::new("out").unwrap(), leaf)]).unwrap();
    let message = built.tree();
    let directory = ArtifactKind::Directory {
        root: Some(built.root),
        tree: Some(ObjectId::of(&message)),
    };
    let file = || ArtifactKind::File {
        object,
        executable: false,
    };
    let all = [("out", file()), ("outs", directory), ("outs/out", file())];
    let all = all.map(|(path, kind)| Artifact {
        path: RelPath::new(path).unwrap(),
        kind,
    });
    assert_eq!(record.artifacts, all);
    assert_eq!(site.client.read(object).unwrap(), due.as_bytes());
    assert_eq!(site.client.read(ObjectId::of(&message)).unwrap(), message);
}

/// All that was published is there, and there is one statement about this build, which anybody can verify.
fn evidence(site: &Site, record: &BuildRecord, signed: Digest) {
    let evidence = &record.evidence;
    let published = [
        evidence.spec,
        evidence.plan,
        evidence.audit_trail,
        evidence.receipt,
        evidence.log,
        evidence.bundle,
        evidence.receipt_bundle,
    ];
    let content: Vec<_> = published
        .iter()
        .map(|object| {
            let object = object.expect("all of it");
            let bytes = site.client.read(object).unwrap();
            assert_eq!(ObjectId::of(&bytes), object);
            bytes
        })
        .collect();
    assert_eq!(content[4], b"said\n");
    assert_eq!(Digest::of(&content[5]), signed);
    let key = fs::read_to_string(site.instance.state().join("evidence/builder.pub")).unwrap();
    let ArtifactKind::File { object, .. } = &record.artifacts[0].kind else {
        panic!("{record:?}");
    };
    let verdict = verify(&content[5], &key, &object.digest).unwrap();
    verify_receipt_of(&verdict, &content[6], &key).unwrap();
    let prefix = format!("{}-", record.id);
    let bundles = names(site, "evidence").into_iter();
    let mut bundles: Vec<_> = bundles.filter(|name| name.starts_with(&prefix)).collect();
    bundles.sort();
    let due = ["receipt.sigstore.json", "sigstore.json"];
    assert_eq!(
        bundles,
        due.map(|end| format!("{prefix}{}.{end}", record.attempt))
    );
}

/// All receipts are one chain, which the signer has seen.
fn receipts(site: &Site, orders: &[Order]) {
    let directory = site.instance.state().join("receipts");
    let (mut chain, mut head) = (Vec::new(), Value::Null);
    for name in names(site, "receipts") {
        let bytes = fs::read(directory.join(&name)).unwrap();
        if name == "head.json" {
            head = serde_json::from_slice(&bytes).unwrap();
            continue;
        }
        let receipt = Receipt::from_canonical(&bytes).unwrap();
        assert_eq!(name, format!("{}.json", receipt.attempt));
        assert!(receipt.clean_room.is_clean(), "{receipt:?}");
        chain.push((receipt.sequence, receipt.previous, Digest::of(&bytes)));
    }
    chain.sort();
    let mut previous = None;
    for (at, (sequence, before, digest)) in chain.iter().enumerate() {
        assert_eq!((*sequence, *before), (at as u64 + 1, previous));
        previous = Some(*digest);
    }
    assert_eq!(head["digest"], serde_json::to_value(previous).unwrap());
    let seen = fs::read_to_string(site.instance.state().join("evidence/receipts.seen")).unwrap();
    let seen: Vec<_> = seen.lines().collect();
    let chain: Vec<_> = chain
        .iter()
        .map(|(.., digest)| digest.to_string())
        .collect();
    assert_eq!(seen, chain[..seen.len()]);
    // What was attested is among it.
    for order in orders {
        let receipt = order.ended.as_ref().unwrap().evidence.receipt.unwrap();
        assert!(
            seen.contains(&receipt.digest.to_string().as_str()),
            "{seen:?}"
        );
    }
}

fn names(site: &Site, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(site.instance.state().join(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}
