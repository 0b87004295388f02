//! From upload to evidence, and what is refused on the way.

use super::*;

#[tokio::test]
async fn from_upload_to_evidence() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (big, root) = (ObjectId::of(&content), ObjectId::of(&tree()));
    let asked = reapi::FindMissingBlobsRequest {
        blob_digests: vec![digest(big), digest(root)],
        ..reapi::FindMissingBlobsRequest::default()
    };
    let missing = daemon
        .blobs()
        .find_missing_blobs(asked.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(missing.missing_blob_digests.len(), 2);
    assert_eq!(
        daemon.write(big, &content, 200_000).await.unwrap(),
        3_000_000
    );
    let batch = reapi::BatchUpdateBlobsRequest {
        requests: vec![reapi::batch_update_blobs_request::Request {
            digest: Some(digest(root)),
            data: tree(),
            compressor: 0,
        }],
        ..reapi::BatchUpdateBlobsRequest::default()
    };
    let updated = daemon
        .blobs()
        .batch_update_blobs(batch)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(updated.responses[0].status.as_ref().unwrap().code, 0);
    let missing = daemon
        .blobs()
        .find_missing_blobs(asked)
        .await
        .unwrap()
        .into_inner();
    assert!(missing.missing_blob_digests.is_empty());
    assert_eq!(daemon.read(big).await.unwrap(), content);
    // What is there is not transferred again.
    let puts = site.script.lock().unwrap().puts;
    assert_eq!(
        daemon.write(big, &content, 200_000).await.unwrap(),
        3_000_000
    );
    assert_eq!(site.script.lock().unwrap().puts, puts);

    let build = daemon.submit("r1", spec(root)).await.unwrap();
    let (states, logs) = daemon.watch(&build).await;
    let last = states.last().unwrap();
    assert_eq!(last.state, BuildState::Ended);
    assert!(
        last.outcome.as_ref().unwrap().is_success(),
        "{:?}",
        last.outcome
    );
    assert!(states.is_sorted_by_key(|state| state.sequence));
    let attempt = site.script.lock().unwrap().staged[0].clone();
    assert_eq!(logs, [fakes::log(&attempt)]);
    assert_eq!(last.artifacts.len(), 1);
    assert_eq!(daemon.read(ObjectId::of(APP)).await.unwrap(), APP);
    let evidence = &last.evidence;
    let canonical = BuildSpec::try_from(spec(root))
        .unwrap()
        .canonical()
        .unwrap();
    assert_eq!(
        daemon.read(evidence.spec.unwrap()).await.unwrap(),
        canonical
    );
    assert_eq!(
        daemon.read(evidence.log.unwrap()).await.unwrap(),
        fakes::log(&attempt)
    );
    let bundle = daemon.read(evidence.bundle.unwrap()).await.unwrap();
    assert_eq!(
        bundle,
        format!("the bundle {attempt}.sigstore.json").into_bytes()
    );
    for object in [evidence.receipt, evidence.plan, evidence.audit_trail] {
        assert!(!daemon.read(object.unwrap()).await.unwrap().is_empty());
    }
    assert_eq!(evidence.key_id.as_deref(), Some("SHA256:key"));

    // The same submission is the same build; watching it after its end tells all of it once more.
    assert_eq!(daemon.submit("r1", spec(root)).await.unwrap().id, build.id);
    let (states, again) = daemon.watch(&build).await;
    assert_eq!((states.len(), again), (1, logs));
    let mut other = spec(root);
    other.run = vec!["make all".to_owned()];
    let reused = daemon.submit("r1", other).await.unwrap_err();
    assert_eq!(
        (reused.code(), Problem::from_status(&reused).reason),
        (Code::AlreadyExists, Reason::RequestIdReused)
    );
}

#[tokio::test]
async fn a_restart_finds_what_was_there() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let root = ObjectId::of(&tree());
    daemon.write(root, &tree(), 10).await.unwrap();
    site.script.lock().unwrap().runs_on = true;
    let build = daemon.submit("r1", spec(root)).await.unwrap();
    while site.script.lock().unwrap().staged.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let Daemon {
        channel,
        stop,
        result,
        ..
    } = daemon;
    stop.send(()).unwrap();
    result.await.unwrap().unwrap();
    drop(channel);
    site.script.lock().unwrap().runs_on = false;
    let daemon = start(&site, "").await;
    let (states, _) = daemon.watch(&build).await;
    let last = states.last().unwrap();
    assert!(last.outcome.as_ref().unwrap().is_success());
    assert_eq!(site.script.lock().unwrap().attested.len(), 1);
}

#[tokio::test]
async fn a_spawner_that_hangs_up_costs_an_attempt() {
    let (_directory, site) = site().await;
    site.script.lock().unwrap().hangs_up = 1;
    let daemon = start(&site, "").await;
    let root = ObjectId::of(&tree());
    daemon.write(root, &tree(), 10).await.unwrap();
    let build = daemon.submit("r1", spec(root)).await.unwrap();
    let (states, logs) = daemon.watch(&build).await;
    let last = states.last().unwrap();
    assert_eq!(
        (last.attempt, last.outcome.as_ref().unwrap().is_success()),
        (2, true)
    );
    let second = site.script.lock().unwrap().staged[1].clone();
    assert_eq!(logs, [vec![], fakes::log(&second)]);
}

#[tokio::test]
async fn cancelling_ends_a_build_that_runs() {
    let (_directory, site) = site().await;
    site.script.lock().unwrap().runs_on = true;
    let daemon = start(&site, "").await;
    let root = ObjectId::of(&tree());
    daemon.write(root, &tree(), 10).await.unwrap();
    let build = daemon.submit("r1", spec(root)).await.unwrap();
    let name = belljar_wire::build_name(&build.id);
    loop {
        let request = v1::GetBuildRequest { name: name.clone() };
        let build: BuildRecord = daemon
            .builds()
            .get_build(request)
            .await
            .unwrap()
            .into_inner()
            .try_into()
            .unwrap();
        if build.state == BuildState::Running {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let request = v1::CancelBuildRequest {
        name,
        reason: "a typo".to_owned(),
    };
    daemon.builds().cancel_build(request.clone()).await.unwrap();
    let (states, _) = daemon.watch(&build).await;
    assert_eq!(
        states.last().unwrap().outcome.as_ref().unwrap().kind(),
        "cancelled"
    );
    assert!(states.last().unwrap().artifacts.is_empty());
    daemon.builds().cancel_build(request).await.unwrap();
    let endless = v1::CancelBuildRequest {
        name: belljar_wire::build_name(&build.id),
        reason: "x".repeat(bounds::CANCEL_REASON_BYTES + 1),
    };
    assert_eq!(
        field(&daemon.builds().cancel_build(endless).await.unwrap_err()),
        "reason"
    );
}

#[tokio::test]
async fn submissions_are_refused_by_field() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "[caps]\npids = 64").await;
    let root = ObjectId::of(&tree());
    let absent = daemon.submit("r1", greedy(root, 10)).await.unwrap_err();
    assert_eq!(
        Problem::from_status(&absent).reason,
        Reason::InputMissing,
        "{absent:?}"
    );
    assert!(absent.message().contains(&root.digest.to_hex()));
    daemon.write(root, &tree(), 10).await.unwrap();
    let denied = daemon.submit("r1", greedy(root, 65)).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(
        denied.message().contains("limits.pids"),
        "{}",
        denied.message()
    );
    let bad = v1::BuildSpec {
        outputs: vec!["../app".to_owned()],
        ..greedy(root, 10)
    };
    assert_eq!(
        field(&daemon.submit("r1", bad).await.unwrap_err()),
        "spec.outputs[0]"
    );
    assert_eq!(
        field(&daemon.submit("a b", greedy(root, 10)).await.unwrap_err()),
        "request_id"
    );
    let nothing = v1::SubmitBuildRequest {
        request_id: "r1".to_owned(),
        spec: None,
        project: String::new(),
    };
    assert_eq!(
        field(&daemon.builds().submit_build(nothing).await.unwrap_err()),
        "spec"
    );
    let name = "builds/01jd8q6z8r4x7j2m5t9v0w3y6b".to_owned();
    let missing = daemon
        .builds()
        .get_build(v1::GetBuildRequest { name })
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let name = "01jd8q6z8r4x7j2m5t9v0w3y6b".to_owned();
    assert_eq!(
        field(
            &daemon
                .builds()
                .get_build(v1::GetBuildRequest { name })
                .await
                .unwrap_err()
        ),
        "name"
    );
}

fn greedy(root: ObjectId, pids: i64) -> v1::BuildSpec {
    v1::BuildSpec {
        limits: Some(v1::Limits {
            pids: Some(pids),
            ..v1::Limits::default()
        }),
        ..spec(root)
    }
}

#[tokio::test]
async fn blobs_are_refused_by_reason() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let object = ObjectId::of(b"content");
    let other = daemon.write(object, b"contend", 4).await.unwrap_err();
    assert_eq!(
        Problem::from_status(&other).reason,
        Reason::DigestMismatch,
        "{other:?}"
    );
    for content in [&b"conten"[..], b"content!"] {
        assert!(daemon.write(object, content, 4).await.is_err());
    }
    assert_eq!(
        daemon.read(object).await.unwrap_err().code(),
        Code::NotFound
    );
    daemon.write(object, b"content", 4).await.unwrap();
    let whole = format!("blobs/{}/7", object.digest.to_hex());
    assert_eq!(daemon.read_named(whole.clone(), 3).await.unwrap(), b"tent");
    let elsewhere = daemon.read_named(format!("main/{whole}"), 0).await;
    assert_eq!(elsewhere.unwrap_err().code(), Code::NotFound);
    let named = daemon.read_named(format!("default/{whole}"), 0).await;
    assert_eq!(named.unwrap(), b"content");
    for bad in ["Main", "..", ""] {
        let refused = daemon.read_named(format!("{bad}/{whole}"), 0).await;
        assert_eq!(field(&refused.unwrap_err()), "resource_name");
    }
    let gap = stream::WriteRequest {
        resource_name: format!(
            "uploads/u/blobs/{}/9",
            ObjectId::of(b"otherwise").digest.to_hex()
        ),
        write_offset: 4,
        finish_write: true,
        data: vec![],
    };
    assert_eq!(
        field(
            &daemon
                .streams()
                .write(tokio_stream::iter([gap]))
                .await
                .unwrap_err()
        ),
        "write_offset"
    );
    let mut blobs = daemon.blobs();
    let tree = blobs.get_tree(reapi::GetTreeRequest::default()).await;
    assert_eq!(field(&tree.unwrap_err()), "root_digest");
    let split = blobs.split_blob(reapi::SplitBlobRequest::default()).await;
    assert_eq!(split.unwrap_err().code(), Code::Unimplemented);
    let sha1 = reapi::FindMissingBlobsRequest {
        digest_function: reapi::digest_function::Value::Sha1.into(),
        ..reapi::FindMissingBlobsRequest::default()
    };
    assert_eq!(
        field(&daemon.blobs().find_missing_blobs(sha1).await.unwrap_err()),
        "digest_function"
    );
    let huge = reapi::BatchReadBlobsRequest {
        digests: vec![digest(ObjectId {
            size: bounds::BATCH_BYTES as u64 + 1,
            ..object
        })],
        ..reapi::BatchReadBlobsRequest::default()
    };
    assert_eq!(
        field(&daemon.blobs().batch_read_blobs(huge).await.unwrap_err()),
        "digests"
    );
    let status = stream::QueryWriteStatusRequest {
        resource_name: format!("uploads/u/{whole}"),
    };
    let status = daemon
        .streams()
        .query_write_status(status)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((status.committed_size, status.complete), (7, true));
}

#[tokio::test]
async fn trees_are_made_and_refusals_come_out_by_reason() {
    let (_dir, site) = site().await;
    let daemon = start(&site, "").await;
    let derive = async |content: &[u8]| {
        let archive = ObjectId::of(content);
        // What the project has not sent is not there for it.
        if content != b"absent" {
            daemon.write(archive, content, 100).await.unwrap();
        }
        let request = v1::DeriveTreeRequest::try_from(&Recipe::Tar { archive }).unwrap();
        let mut inputs = InputServiceClient::new(daemon.channel.clone());
        let answer = inputs.derive_tree(request).await;
        answer.map_err(|status| Problem::from_status(&status))
    };
    let derived = derive(b"good").await.unwrap().into_inner();
    let derived = DerivedTree::try_from(derived).unwrap();
    let archive = ObjectId::of(b"good");
    let record = fakes::record(&Recipe::Tar { archive }).canonical().unwrap();
    assert_eq!(derived.input.derivation, Some(ObjectId::of(&record)));
    assert_eq!((derived.entries, derived.bytes), (2, 3));
    let cases = [
        (&b"bad"[..], Reason::DerivationRefused, "the archive is bad"),
        (b"busy", Reason::Exhausted, "being made already"),
        (b"full", Reason::Exhausted, "for a reason"),
        // Its own trouble is nobody else's business.
        (b"broken", Reason::Internal, "the daemon's log says more"),
        (b"absent", Reason::InputMissing, "is not in the store"),
    ];
    for (content, reason, due) in cases {
        let problem = derive(content).await.unwrap_err();
        assert_eq!(problem.reason, reason);
        assert!(problem.message.contains(due), "{problem}");
    }
    let mut inputs = InputServiceClient::new(daemon.channel.clone());
    let empty = v1::DeriveTreeRequest::default();
    let problem = Problem::from_status(&inputs.derive_tree(empty).await.unwrap_err());
    assert_eq!(problem.fields[0].field, "recipe");
}

#[tokio::test]
async fn a_damaged_object_is_never_read_to_its_end() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let content = vec![7; 2 * bounds::READ_CHUNK_BYTES + 5];
    let object = ObjectId::of(&content);
    daemon.write(object, &content, 100_000).await.unwrap();
    let hex = object.digest.to_hex();
    let path = site
        .root
        .join(format!("store/objects/sha256/{}/{}", &hex[..2], &hex[2..]));
    let mut damaged = content.clone();
    damaged[0] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, damaged).unwrap();
    let error = daemon.read(object).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    let batch = reapi::BatchReadBlobsRequest {
        digests: vec![digest(object)],
        ..reapi::BatchReadBlobsRequest::default()
    };
    let read = daemon
        .blobs()
        .batch_read_blobs(batch)
        .await
        .unwrap()
        .into_inner()
        .responses
        .remove(0);
    assert!(read.data.is_empty() && read.status.unwrap().code != 0);
}

#[tokio::test]
async fn the_server_tells_what_it_is_and_refuses_what_the_host_cannot_hold() {
    let (_directory, site) = site().await;
    site.script.lock().unwrap().lacks = true;
    let daemon = start(&site, "").await;
    let info = daemon
        .builds()
        .get_server_info(v1::GetServerInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(!info.can_build && info.key_id == "SHA256:key" && info.slots == 2);
    assert_eq!(info.layers[0].hint, "boot a newer kernel");
    // The daemon of this test is not confined, and says so.
    let processes: Vec<_> = info.layers[1..]
        .iter()
        .map(|layer| (&*layer.name, &*layer.found, layer.verdict()))
        .collect();
    let (missing, enforced) = (v1::layer::Verdict::Missing, v1::layer::Verdict::Enforced);
    let due = [
        ("process belljard", "it does not tell", missing),
        ("process belljar-store", "seccomp: 7 instructions", enforced),
        (
            "process belljar-signer",
            "seccomp: 7 instructions",
            enforced,
        ),
    ];
    assert_eq!(processes, due);
    let refused = daemon
        .submit("r1", spec(ObjectId::of(&tree())))
        .await
        .unwrap_err();
    let problem = Problem::from_status(&refused);
    assert_eq!(
        (problem.reason, problem.unmet[0].subject.as_str()),
        (Reason::HostLacksLayer, "landlock")
    );
    let capabilities = CapabilitiesClient::new(daemon.channel.clone())
        .get_capabilities(reapi::GetCapabilitiesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(capabilities.execution_capabilities.is_none());
    let cache = capabilities.cache_capabilities.unwrap();
    let functions = [
        reapi::digest_function::Value::Sha256,
        reapi::digest_function::Value::Blake3,
    ];
    assert_eq!(cache.digest_functions, functions.map(i32::from));
}

#[tokio::test]
async fn who_is_not_listed_is_turned_away() {
    let request = |peer: Option<Peer>| {
        let mut request = Request::new(());
        peer.map(|peer| request.extensions_mut().insert(peer));
        request
    };
    let somebody = |text: &str| Peer(Some(Arc::new(text.parse().unwrap())));
    let access = Access::of_users([7]).unwrap();
    let policy = Policy::new(access, [ImageKind::Host], belljar_core::Limits::CEILING).unwrap();
    let rules = Rules::new("b.toml".into(), policy);
    let mut gate = Gate::new(rules, Door::default());
    assert!(gate.call(request(Some(somebody("unix:uid=7")))).is_ok());
    // Whoever is not known is nobody, and so is who is not listed, also one whom a certificate vouches for.
    for peer in [
        None,
        Some(Peer(None)),
        Some(somebody("unix:uid=8")),
        Some(somebody("x509:CN=unix:uid\\=7")),
        Some(somebody("spiffe://td/unix")),
    ] {
        let refused = gate.call(request(peer.clone())).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{peer:?}");
    }
    // What a caller says of itself in headers counts for nothing.
    let mut forged = request(Some(somebody("unix:uid=8")));
    forged
        .metadata_mut()
        .insert("x-belljar-principal", "unix:uid=7".parse().unwrap());
    assert!(gate.call(forged).is_err());
}
