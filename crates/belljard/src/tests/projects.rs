//! Who may do what with which project, and what one project sees of another: nothing.

use belljar_core::{Fact, Platform};
use belljar_engine::ownership::Ownership;
use belljar_tree::{DirectoryNode, FileNode};

use v1::image_service_client::ImageServiceClient;

use super::tls::Served;
use super::*;

const MEMBERS: &str = r#"
    [[project]]
    name = "web"
    [[project.member]]
    principal = "x509:CN=web"
    rights = ["submit", "cancel", "read"]
    [[project.member]]
    principal = "x509:CN=both"
    rights = ["submit", "cancel", "read"]
    [[project.member]]
    principal = "x509:CN=submit"
    rights = ["submit"]
    [[project.member]]
    principal = "x509:CN=cancel"
    rights = ["cancel"]
    [[project.member]]
    principal = "x509:CN=read"
    rights = ["read"]
    [[project.member]]
    principal = "x509:CN=administer"
    rights = ["administer"]
    [[project]]
    name = "app"
    [[project.member]]
    principal = "x509:CN=app"
    rights = ["submit", "cancel", "read"]
    [[project.member]]
    principal = "x509:CN=both"
    rights = ["submit", "cancel", "read"]
"#;

/// One caller, with short words for calls.
struct Somebody(Daemon);

impl std::ops::Deref for Somebody {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

struct Stage {
    _directory: tempfile::TempDir,
    site: Site,
    served: Served,
    _daemon: Daemon,
}

impl Stage {
    async fn new() -> Self {
        let (directory, site) = site().await;
        let served = Served::new(directory.path());
        let daemon = start(
            &site,
            &format!("{MEMBERS}{}", served.table(directory.path())),
        )
        .await;
        Self {
            _directory: directory,
            site,
            served,
            _daemon: daemon,
        }
    }

    async fn caller(&self, name: &str) -> Somebody {
        let pair = self.served.clients.subject(name);
        let (stop, _) = oneshot::channel();
        let (_, result) = oneshot::channel();
        Somebody(Daemon {
            channel: self.served.connect(&pair).await.unwrap(),
            stop,
            result,
            _task: tasks::start("nothing", async {}),
        })
    }
}

impl Somebody {
    async fn submit_to(
        &self,
        project: &str,
        request: &str,
        root: ObjectId,
    ) -> Result<BuildRecord, Status> {
        let request = v1::SubmitBuildRequest {
            request_id: request.to_owned(),
            spec: Some(spec(root)),
            project: project.to_owned(),
        };
        let build = self.builds().submit_build(request).await?;
        Ok(build.into_inner().try_into().unwrap())
    }

    async fn get(&self, name: &str) -> Result<(), Status> {
        let request = v1::GetBuildRequest {
            name: name.to_owned(),
        };
        self.builds().get_build(request).await.map(drop)
    }

    async fn cancel(&self, name: &str) -> Result<(), Status> {
        let request = v1::CancelBuildRequest {
            name: name.to_owned(),
            reason: String::new(),
        };
        self.builds().cancel_build(request).await.map(drop)
    }

    async fn push(&self, name: &str) -> Result<(), Status> {
        let request = v1::PushImageRequest {
            name: name.to_owned(),
            reference: "r.example/out/app:1".to_owned(),
        };
        let mut images = ImageServiceClient::new(self.channel.clone());
        images.push_image(request).await.map(drop)
    }

    async fn watch_named(&self, name: &str) -> Result<(), Status> {
        let request = v1::WatchBuildRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        self.builds().watch_build(request).await.map(drop)
    }

    async fn log(&self, name: &str) -> Result<(), Status> {
        let request = v1::ReadLogRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        self.builds().read_log(request).await.map(drop)
    }

    async fn evidence(&self, name: &str) -> Result<(), Status> {
        let mut client =
            v1::evidence_service_client::EvidenceServiceClient::new(self.channel.clone());
        let request = v1::GetEvidenceRequest {
            name: format!("{name}/evidence"),
        };
        client.get_evidence(request).await.map(drop)
    }

    async fn trail(&self, name: &str) -> Result<(), Status> {
        let mut client =
            v1::evidence_service_client::EvidenceServiceClient::new(self.channel.clone());
        let request = v1::ReadAuditTrailRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        client.read_audit_trail(request).await.map(drop)
    }

    async fn by_artifact(&self, artifact: ObjectId) -> usize {
        let mut client =
            v1::evidence_service_client::EvidenceServiceClient::new(self.channel.clone());
        let request = v1::ListEvidenceRequest {
            artifact_sha256: artifact.digest.to_hex(),
            ..Default::default()
        };
        client
            .list_evidence(request)
            .await
            .unwrap()
            .into_inner()
            .evidence
            .len()
    }

    async fn listed(&self) -> Vec<String> {
        let request = v1::ListBuildsRequest::default();
        let page = self
            .builds()
            .list_builds(request)
            .await
            .unwrap()
            .into_inner();
        page.builds.into_iter().map(|build| build.name).collect()
    }

    async fn put(&self, instance: &str, content: &[u8]) -> Result<ObjectId, Status> {
        let object = ObjectId::of(content);
        let request = reapi::BatchUpdateBlobsRequest {
            instance_name: instance.to_owned(),
            requests: vec![reapi::batch_update_blobs_request::Request {
                digest: Some(digest(object)),
                data: content.to_vec(),
                compressor: 0,
            }],
            ..Default::default()
        };
        let answer = self.blobs().batch_update_blobs(request).await?.into_inner();
        let status = answer.responses[0].status.clone().unwrap();
        match status.code {
            0 => Ok(object),
            code => Err(Status::new(code.into(), status.message)),
        }
    }

    async fn missing(&self, instance: &str, object: ObjectId) -> Result<bool, Status> {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: instance.to_owned(),
            blob_digests: vec![digest(object)],
            ..Default::default()
        };
        let answer = self.blobs().find_missing_blobs(request).await?.into_inner();
        Ok(!answer.missing_blob_digests.is_empty())
    }

    async fn batch(&self, object: ObjectId) -> Result<Vec<u8>, Code> {
        let request = reapi::BatchReadBlobsRequest {
            digests: vec![digest(object)],
            ..Default::default()
        };
        let answer = self.blobs().batch_read_blobs(request).await;
        let response = answer
            .map_err(|e| e.code())?
            .into_inner()
            .responses
            .remove(0);
        match response.status.unwrap().code {
            0 => Ok(response.data),
            code => Err(code.into()),
        }
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn each_right_opens_its_own_calls() {
    let stage = Stage::new().await;
    stage.site.script.lock().unwrap().runs_on = true;
    let web = stage.caller("web").await;
    let root = web.put("web", &tree()).await.unwrap();
    let build = web.submit_to("projects/web", "r", root).await.unwrap();
    assert_eq!(build.project.as_str(), "web");
    assert_eq!(build.submitter, "x509:CN=web");
    let name = belljar_wire::build_name(&build.id);
    let (no, ok) = (Code::PermissionDenied, Code::Ok);
    for (who, submit, cancel, read) in [
        ("submit", ok, no, no),
        ("cancel", no, ok, no),
        ("read", no, no, ok),
        ("administer", no, no, no),
    ] {
        let caller = stage.caller(who).await;
        let found = [
            code(caller.put("", b"content").await),
            code(caller.submit_to("", who, root).await),
            code(caller.cancel(&name).await),
            code(caller.get(&name).await),
            code(caller.watch_named(&name).await),
            code(caller.log(&name).await),
            code(caller.evidence(&name).await),
            code(caller.trail(&name).await),
            caller.batch(root).await.map_or_else(|code| code, |_| ok),
            code(caller.read(root).await),
        ];
        assert_eq!(
            found,
            [
                submit, submit, cancel, read, read, read, read, read, read, read
            ],
            "{who}"
        );
        // Who may push hears that there is no image.
        let pushed = if submit == ok {
            Code::InvalidArgument
        } else {
            no
        };
        assert_eq!(code(caller.push(&name).await), pushed, "{who}");
        let either = if submit == ok || read == ok { ok } else { no };
        assert_eq!(code(caller.missing("", root).await), either, "{who}");
        assert_eq!(caller.listed().await.is_empty(), read == no, "{who}");
        let info = caller
            .builds()
            .get_server_info(v1::GetServerInfoRequest {})
            .await;
        let info = info.unwrap().into_inner();
        assert_eq!(info.door.is_some(), who == "administer");
        assert_eq!(info.memberships[0].rights, [who]);
    }
}

#[tokio::test]
async fn another_projects_build_is_not_there() {
    let stage = Stage::new().await;
    let (web, app) = (stage.caller("web").await, stage.caller("app").await);
    let root = web.put("", &tree()).await.unwrap();
    let build = web.submit_to("", "r", root).await.unwrap();
    let (states, _) = web.watch(&build).await;
    let ended = states.last().unwrap();
    assert!(ended.outcome.as_ref().unwrap().is_success());
    let name = belljar_wire::build_name(&build.id);
    let never = "builds/01jd8q6z8r4x7j2m5t9v0w3y6b";
    // The same words, but for the name, as of a build that never was.
    let told = |status: Status, name: &str| (status.code(), status.message().replace(name, "NAME"));
    for (theirs, nobodys) in [
        (app.get(&name).await, app.get(never).await),
        (app.cancel(&name).await, app.cancel(never).await),
        (app.push(&name).await, app.push(never).await),
        (app.watch_named(&name).await, app.watch_named(never).await),
        (app.log(&name).await, app.log(never).await),
        (app.evidence(&name).await, app.evidence(never).await),
        (app.trail(&name).await, app.trail(never).await),
    ] {
        let (theirs, nobodys) = (theirs.unwrap_err(), nobodys.unwrap_err());
        assert_eq!(theirs.code(), Code::NotFound);
        assert_eq!(told(theirs, &name), told(nobodys, never));
    }
    assert_eq!(app.listed().await, [""; 0]);
    assert_eq!(web.listed().await, [name.as_str()]);
    assert_eq!(app.by_artifact(ObjectId::of(APP)).await, 0);
    assert_eq!(web.by_artifact(ObjectId::of(APP)).await, 1);
    // A project that one is no member of is not there either, and is no other than one that never was.
    let elsewhere = |project: &'static str| app.submit_to(project, "r", root);
    let (theirs, nobodys) = (
        elsewhere("projects/web").await,
        elsewhere("projects/none").await,
    );
    assert_eq!(
        told(theirs.unwrap_err(), "projects/web"),
        told(nobodys.unwrap_err(), "projects/none")
    );
    assert_eq!(code(app.put("web", b"x").await), Code::NotFound);
    // Who belongs to both sees both, and has to say which.
    let both = stage.caller("both").await;
    assert!(both.get(&name).await.is_ok());
    assert_eq!(
        field(&both.submit_to("", "r", root).await.unwrap_err()),
        "project"
    );
    assert_eq!(
        field(&both.put("", b"x").await.unwrap_err()),
        "instance_name"
    );
    assert_eq!(
        field(&both.submit_to("web", "r", root).await.unwrap_err()),
        "project"
    );
    // Request ids are unique within project and submitter.
    both.put("app", &tree()).await.unwrap();
    let one = both.submit_to("projects/web", "r", root).await.unwrap();
    let two = both.submit_to("projects/app", "r", root).await.unwrap();
    assert!(one.id != build.id && one.id != two.id);
    let again = both.submit_to("projects/app", "r", root).await.unwrap();
    assert_eq!(again.id, two.id);
    // Everything of it was noted, with who it was.
    let administer = stage.caller("administer").await;
    let info = administer
        .builds()
        .get_server_info(v1::GetServerInfoRequest {})
        .await;
    let door = info.unwrap().into_inner().door.unwrap();
    let other = door
        .refusals
        .iter()
        .find(|one| one.reason == "OTHER_PROJECT");
    assert_eq!(other.unwrap().count, 10);
}

#[tokio::test]
async fn a_blob_is_there_for_who_has_sent_it() {
    let stage = Stage::new().await;
    let (web, app) = (stage.caller("web").await, stage.caller("app").await);
    let secret = vec![7; 100_000];
    let object = web.put("", &secret).await.unwrap();
    assert_eq!(web.read(object).await.unwrap(), secret);
    // By no call there is a difference to what nobody has.
    let nobodys = ObjectId::of(b"nobody's");
    for blob in [object, nobodys] {
        assert!(app.missing("", blob).await.unwrap());
        assert_eq!(app.batch(blob).await, Err(Code::NotFound));
        assert_eq!(app.read(blob).await.unwrap_err().code(), Code::NotFound);
        let status = stream::QueryWriteStatusRequest {
            resource_name: format!("uploads/u/blobs/{}/{}", blob.digest.to_hex(), blob.size),
        };
        let status = app
            .streams()
            .query_write_status(status)
            .await
            .unwrap()
            .into_inner();
        assert_eq!((status.committed_size, status.complete), (0, false));
    }
    // To have it, one must send all of it: neither nothing, nor something else.
    let name = format!("uploads/u/blobs/{}/{}", object.digest.to_hex(), object.size);
    let nothing = stream::WriteRequest {
        resource_name: name,
        write_offset: 0,
        finish_write: true,
        data: vec![],
    };
    let refused = app
        .streams()
        .write(tokio_stream::iter([nothing]))
        .await
        .unwrap_err();
    assert_eq!(
        Problem::from_status(&refused).reason,
        Reason::DigestMismatch
    );
    let other = vec![8; secret.len()];
    assert!(app.write(object, &other, 65_536).await.is_err());
    assert!(app.missing("", object).await.unwrap());
    let puts = stage.site.script.lock().unwrap().puts;
    assert_eq!(app.write(object, &secret, 65_536).await.unwrap(), 100_000);
    assert!(
        stage.site.script.lock().unwrap().puts > puts,
        "it went to the store"
    );
    assert_eq!(app.read(object).await.unwrap(), secret);
    assert!(!app.missing("app", object).await.unwrap());
    // By the instance's name too.
    let named = format!("app/blobs/{}/{}", object.digest.to_hex(), object.size);
    assert_eq!(app.read_named(named, 0).await.unwrap(), secret);
    let named = format!("web/blobs/{}/{}", object.digest.to_hex(), object.size);
    assert_eq!(code(app.read_named(named, 0).await), Code::NotFound);
}

#[tokio::test]
async fn what_one_has_sent_by_blake3_no_other_finds_by_it() {
    let stage = Stage::new().await;
    let (web, app) = (stage.caller("web").await, stage.caller("app").await);
    let secret = vec![9; 100_000];
    let object = ObjectId::of(&secret);
    let hash = blake3::hash(&secret).to_hex();
    let blob = format!("blobs/blake3/{hash}/{}", secret.len());
    let message = |data: &[u8]| stream::WriteRequest {
        resource_name: format!("uploads/u/{blob}"),
        write_offset: 0,
        finish_write: true,
        data: data.to_vec(),
    };
    let written = |who: &Somebody, data: &[u8]| {
        let (message, mut streams) = (message(data), who.streams());
        async move { streams.write(tokio_stream::iter([message])).await }
    };
    let sent = written(&web, &secret).await.unwrap().into_inner();
    assert_eq!(sent.committed_size, 100_000);
    // Nobody has sent the other one: by no call there is a difference.
    let nobodys = blake3::hash(b"nobody's").to_hex();
    for hash in [hash, nobodys] {
        let digest = reapi::Digest {
            hash: hash.to_string(),
            size_bytes: 100_000,
        };
        let function = reapi::digest_function::Value::Blake3.into();
        let request = reapi::FindMissingBlobsRequest {
            blob_digests: vec![digest.clone()],
            digest_function: function,
            ..Default::default()
        };
        let answer = app.blobs().find_missing_blobs(request).await.unwrap();
        assert_eq!(
            answer.into_inner().missing_blob_digests,
            std::slice::from_ref(&digest)
        );
        let request = reapi::BatchReadBlobsRequest {
            digests: vec![digest.clone()],
            digest_function: function,
            ..Default::default()
        };
        let read = app.blobs().batch_read_blobs(request).await.unwrap();
        let status = read.into_inner().responses[0].status.clone().unwrap();
        assert_eq!(status.code, i32::from(Code::NotFound));
        let request = reapi::GetTreeRequest {
            root_digest: Some(digest),
            digest_function: function,
            ..Default::default()
        };
        let told = app.blobs().get_tree(request).await.unwrap();
        let told = told.into_inner().message().await;
        assert_eq!(told.unwrap_err().code(), Code::NotFound);
        let blob = format!("blobs/blake3/{hash}/100000");
        let read = app.read_named(blob.clone(), 0).await;
        assert_eq!(code(read), Code::NotFound);
        let status = stream::QueryWriteStatusRequest {
            resource_name: format!("uploads/u/{blob}"),
        };
        let status = app.streams().query_write_status(status).await.unwrap();
        let status = status.into_inner();
        assert_eq!((status.committed_size, status.complete), (0, false));
    }
    // To have it, one must send all of it.
    let refused = written(&app, b"").await.unwrap_err();
    let reason = Problem::from_status(&refused).reason;
    assert_eq!(reason, Reason::DigestMismatch);
    assert!(app.missing("", object).await.unwrap());
    let puts = stage.site.script.lock().unwrap().puts;
    written(&app, &secret).await.unwrap();
    let now = stage.site.script.lock().unwrap().puts;
    assert!(now > puts, "it went to the store");
    assert_eq!(app.read_named(blob, 0).await.unwrap(), secret);
    assert!(!app.missing("", object).await.unwrap());
}

#[tokio::test]
async fn a_build_gets_no_tree_that_is_not_its_projects_down_to_the_last_file() {
    let stage = Stage::new().await;
    let (web, app) = (stage.caller("web").await, stage.caller("app").await);
    let name = |text: &str| Name::new(text).unwrap();
    let secret = web.put("", b"a secret of web").await.unwrap();
    let file = FileNode {
        name: name("stolen"),
        object: secret,
        executable: false,
        properties: None,
    };
    let inner = Directory::new(vec![file], vec![], vec![]).unwrap();
    let node = DirectoryNode {
        name: name("sub"),
        object: inner.object_id(),
    };
    let outer = Directory::new(vec![], vec![node], vec![]).unwrap();
    let root = outer.object_id();
    for content in [inner.encode(), outer.encode()] {
        web.put("", &content).await.unwrap();
    }
    assert!(web.submit_to("", "r", root).await.is_ok());
    // The root is another's, then a directory, then a file: each refused as one that is missing.
    let refused = async |due: ObjectId| {
        let status = app.submit_to("", "r", root).await.unwrap_err();
        let problem = Problem::from_status(&status);
        assert_eq!(problem.reason, Reason::InputMissing, "{status:?}");
        let subject = format!("blobs/{}/{}", due.digest.to_hex(), due.size);
        assert_eq!(problem.unmet[0].subject, subject);
    };
    refused(root).await;
    app.put("", &outer.encode()).await.unwrap();
    refused(inner.object_id()).await;
    app.put("", &inner.encode()).await.unwrap();
    refused(secret).await;
    app.put("", b"a secret of web").await.unwrap();
    app.submit_to("", "r", root).await.unwrap();
    // Bytes that are no directory are told as such.
    let noise = app.put("", b"\xff noise").await.unwrap();
    let status = app.submit_to("", "s", noise).await.unwrap_err();
    assert_eq!(field(&status), "spec.source");
}

#[tokio::test]
async fn what_an_image_is_laid_on_is_its_projects_with_all_its_layers() {
    let stage = Stage::new().await;
    let (web, app) = (stage.caller("web").await, stage.caller("app").await);
    let root = app.put("", &tree()).await.unwrap();
    let parts = [&b"a manifest"[..], b"a configuration", b"a layer"];
    let [manifest, config, layer] = parts.map(ObjectId::of);
    let mut record = fakes::record(&Recipe::Tar { archive: manifest });
    record.recipe = Recipe::Oci {
        index: manifest,
        platform: Platform::LinuxAmd64,
    };
    record.tree = root;
    let plain = record.canonical().unwrap();
    record.facts = vec![Fact::OciImage {
        manifest,
        config,
        layers: vec![layer],
    }];
    let submit = async |name: &str, record: &[u8]| {
        let derivation = Some(app.put("", record).await.unwrap().into());
        let mut spec = spec(root);
        spec.image_output = Some(v1::ImageOutput {
            base: Some(v1::image_output::Base::Image(v1::Input {
                tree: Some(root.into()),
                derivation,
            })),
            ..Default::default()
        });
        let request = v1::SubmitBuildRequest {
            request_id: name.to_owned(),
            spec: Some(spec),
            project: String::new(),
        };
        app.builds().submit_build(request).await
    };
    let status = submit("none", &plain).await.unwrap_err();
    assert_eq!(field(&status), "spec.image_output.base.derivation");
    let record = record.canonical().unwrap();
    // Another project has all of it, and each part is refused as one that is missing.
    for part in parts {
        web.put("", part).await.unwrap();
    }
    for part in parts {
        let status = submit("based", &record).await.unwrap_err();
        let problem = Problem::from_status(&status);
        assert_eq!(problem.reason, Reason::InputMissing, "{status:?}");
        let due = ObjectId::of(part);
        let subject = format!("blobs/{}/{}", due.digest.to_hex(), due.size);
        assert_eq!(problem.unmet[0].subject, subject);
        app.put("", part).await.unwrap();
    }
    submit("based", &record).await.unwrap();
}

#[tokio::test]
async fn what_builds_left_is_given_to_their_projects_again_when_the_index_is_lost() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let root = ObjectId::of(&tree());
    daemon.write(root, &tree(), 10).await.unwrap();
    let build = daemon.submit("r1", spec(root)).await.unwrap();
    let evidence = daemon
        .watch(&build)
        .await
        .0
        .last()
        .unwrap()
        .evidence
        .clone();
    let Daemon {
        channel,
        stop,
        result,
        ..
    } = daemon;
    stop.send(()).unwrap();
    result.await.unwrap().unwrap();
    drop(channel);
    let index = site.root.join("daemon/ownership.sqlite");
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{ending}", index.display()));
    }
    let daemon = start(&site, "").await;
    assert_eq!(daemon.read(ObjectId::of(APP)).await.unwrap(), APP);
    for object in [
        evidence.bundle,
        evidence.receipt,
        evidence.log,
        evidence.audit_trail,
    ] {
        assert!(!daemon.read(object.unwrap()).await.unwrap().is_empty());
    }
    // What was sent is not known any more: it is sent again.
    assert_eq!(daemon.read(root).await.unwrap_err().code(), Code::NotFound);
    daemon.write(root, &tree(), 10).await.unwrap();
    assert_eq!(daemon.read(root).await.unwrap(), tree());
    drop(daemon);
    assert!(!Ownership::open(&index).unwrap().is_new());
}
