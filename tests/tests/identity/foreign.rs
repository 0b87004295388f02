//! Every way by which a member of one project could come at what belongs to another: each answers as if that
//! were not there, and says so in the log.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use belljar_core::{
    BuildSpec, Digest, Image, Input, InputName, ObjectId, Outcome, Platform, Recipe,
};
use belljar_tests::{Client, Part};
use belljar_tree::{Directory, DirectoryNode, FileNode, Name};
use belljar_wire::{BuildState, Problem, build_name, v1};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::site::Site;

/// What a caller was told, without the name of what it was about.
#[derive(Debug, PartialEq, Eq)]
struct Told(Result<String, (Code, String, Vec<u8>)>);

impl Told {
    fn of<T: std::fmt::Debug>(answer: Result<T, Status>, about: &str) -> Self {
        let unnamed = |text: &str| text.replace(about, "NAME");
        Self(match answer {
            Ok(answer) => Ok(unnamed(&format!("{answer:?}"))),
            Err(status) => {
                let details = String::from_utf8_lossy(status.details()).into_owned();
                let message = unnamed(status.message());
                Err((status.code(), message, unnamed(&details).into_bytes()))
            }
        })
    }
}

fn digest(object: ObjectId) -> reapi::Digest {
    reapi::Digest {
        hash: object.digest.to_hex(),
        size_bytes: i64::try_from(object.size).unwrap(),
    }
}

fn resource(object: ObjectId) -> String {
    format!("blobs/{}/{}", object.digest.to_hex(), object.size)
}

fn file(object: ObjectId) -> Directory {
    file_called("stolen-1.0.0.crate", object)
}

fn file_called(name: &str, object: ObjectId) -> Directory {
    let node = FileNode {
        name: Name::new(name).unwrap(),
        object,
        executable: false,
        properties: None,
    };
    Directory::new(vec![node], vec![], vec![]).unwrap()
}

fn directory(object: ObjectId) -> Directory {
    directory_called("stolen", object)
}

fn directory_called(name: &str, object: ObjectId) -> Directory {
    let node = DirectoryNode {
        name: Name::new(name).unwrap(),
        object,
    };
    Directory::new(vec![], vec![node], vec![]).unwrap()
}

fn put(client: &Client, directory: &Directory) -> ObjectId {
    client.put(&directory.encode())
}

fn blob(object: ObjectId, kind: &str) -> Value {
    let media = format!("application/vnd.oci.image.{kind}");
    json!({"mediaType": media, "digest": object.digest.to_string(), "size": object.size})
}

const INDEX: &str = "index.v1+json";
const MANIFEST: &str = "manifest.v1+json";
const CONFIG: &str = "config.v1+json";
const LAYER: &str = "layer.v1.tar";

fn config() -> Value {
    json!({"os": "linux", "architecture": "amd64"})
}

/// An index of one manifest with this configuration and these layers, all put.
fn image(client: &Client, config: ObjectId, layers: &[ObjectId]) -> ObjectId {
    let layers: Vec<Value> = layers.iter().map(|layer| blob(*layer, LAYER)).collect();
    let manifest = json!({"schemaVersion": 2, "config": blob(config, CONFIG), "layers": layers});
    let manifest = client.put(manifest.to_string().as_bytes());
    index(client, blob(manifest, MANIFEST))
}

fn index(client: &Client, of: Value) -> ObjectId {
    let index = json!({"schemaVersion": 2, "manifests": [of]});
    client.put(index.to_string().as_bytes())
}

fn derive(client: &Client, recipe: &Recipe) -> Result<impl std::fmt::Debug + use<>, Status> {
    client
        .wait(
            client
                .inputs()
                .derive_tree(v1::DeriveTreeRequest::try_from(recipe).unwrap()),
        )
        .map(tonic::Response::into_inner)
}

fn derive_oci(client: &Client, index: ObjectId) -> Result<impl std::fmt::Debug + use<>, Status> {
    let platform = Platform::LinuxAmd64;
    derive(client, &Recipe::Oci { index, platform })
}

fn submit(client: &Client, change: impl FnOnce(&mut BuildSpec)) -> Result<String, Status> {
    let mut spec = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    change(&mut spec);
    let request = v1::SubmitBuildRequest {
        request_id: "of-app".to_owned(),
        spec: Some((&spec).into()),
        project: String::new(),
    };
    let build = client.wait(client.builds().submit_build(request))?;
    Ok(build.into_inner().name)
}

fn tree(client: &Client, root: ObjectId) -> Result<Vec<reapi::Directory>, Status> {
    let request = reapi::GetTreeRequest {
        root_digest: Some(digest(root)),
        ..Default::default()
    };
    client.wait(async {
        let mut pages = client.blobs().get_tree(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(page) = pages.message().await? {
            all.extend(page.directories);
        }
        Ok(all)
    })
}

type Way = (&'static str, fn(&Client, ObjectId) -> Told);

/// What can be done with a blob that one has only heard of.
const BLOBS: &[Way] = &[
    ("FindMissingBlobs", |client, object| {
        let told: Result<_, Status> = Ok(client.missing(&[object]));
        Told::of(told, &object.digest.to_hex())
    }),
    ("ByteStream.Read", |client, object| {
        Told::of(client.read(object), &object.digest.to_hex())
    }),
    (
        "ByteStream.Read, packed, from a position",
        |client, object| {
            let request = ReadRequest {
                resource_name: format!(
                    "compressed-{}",
                    resource(object).replacen('/', "/zstd/", 1)
                ),
                read_offset: 1,
                ..Default::default()
            };
            let told = client.wait(client.streams().read(request)).map(drop);
            Told::of(told, &object.digest.to_hex())
        },
    ),
    ("BatchReadBlobs", |client, object| {
        let request = reapi::BatchReadBlobsRequest {
            digests: vec![digest(object)],
            ..Default::default()
        };
        let told = client.wait(client.blobs().batch_read_blobs(request));
        let told = told.map(|answer| answer.into_inner().responses);
        Told::of(told, &object.digest.to_hex())
    }),
    ("GetTree of it", |client, object| {
        Told::of(tree(client, object), &object.digest.to_hex())
    }),
    ("GetTree of what names it", |client, object| {
        let told = tree(client, put(client, &directory(object)));
        assert_eq!(told.as_ref().unwrap().len(), 1, "nothing but what was sent");
        Told::of(told, &object.digest.to_hex())
    }),
    ("QueryWriteStatus", |client, object| {
        let request = QueryWriteStatusRequest {
            resource_name: format!("uploads/of-web/{}", resource(object)),
        };
        let told = client.wait(client.streams().query_write_status(request));
        Told::of(
            told.map(tonic::Response::into_inner),
            &object.digest.to_hex(),
        )
    }),
    ("ByteStream.Write of nothing of it", |client, object| {
        let request = WriteRequest {
            resource_name: format!("uploads/of-web/{}", resource(object)),
            finish_write: true,
            ..Default::default()
        };
        let told = client.wait(client.streams().write(tokio_stream::iter([request])));
        Told::of(told, &object.digest.to_hex())
    }),
    ("a build on it", |client, object| {
        let told = submit(client, |spec| spec.source = object);
        Told::of(told, &object.digest.to_hex())
    }),
    (
        "a build on a directory with it as a file",
        |client, object| {
            let root = put(client, &file(object));
            let told = submit(client, |spec| spec.source = root);
            Told::of(told, &object.digest.to_hex())
        },
    ),
    (
        "a build on a directory with it as a directory",
        |client, object| {
            let root = put(client, &directory(object));
            let told = submit(client, |spec| spec.source = root);
            Told::of(told, &object.digest.to_hex())
        },
    ),
    ("a build with it as the image", |client, object| {
        let input = Input {
            tree: object,
            derivation: None,
        };
        let told = submit(client, |spec| spec.image = Image::Tree(input));
        Told::of(told, &object.digest.to_hex())
    }),
    ("a build with it as the image's record", |client, object| {
        let tree = client.upload(&[("bin/sh", "")]);
        let input = Input {
            tree,
            derivation: Some(object),
        };
        let told = submit(client, |spec| spec.image = Image::Tree(input));
        Told::of(told, &object.digest.to_hex())
    }),
    ("a build with it as a further input", |client, object| {
        let told = submit(client, |spec| {
            let input = Input {
                tree: object,
                derivation: None,
            };
            spec.inputs = [(InputName::new("cargo").unwrap(), input)]
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>()
                .try_into()
                .unwrap();
        });
        Told::of(told, &object.digest.to_hex())
    }),
    ("a tree of it", |client, object| {
        let told = derive(client, &Recipe::Tar { archive: object });
        Told::of(told, &object.digest.to_hex())
    }),
    ("an image by it as an index", |client, object| {
        Told::of(derive_oci(client, object), &object.digest.to_hex())
    }),
    (
        "an image by it as an index in an index",
        |client, object| {
            let index = index(client, blob(object, INDEX));
            Told::of(derive_oci(client, index), &object.digest.to_hex())
        },
    ),
    ("an image with it as the manifest", |client, object| {
        let index = index(client, blob(object, MANIFEST));
        Told::of(derive_oci(client, index), &object.digest.to_hex())
    }),
    ("an image with it as the configuration", |client, object| {
        let layer = client.put(&[0; 1024]);
        let index = image(client, object, &[layer]);
        Told::of(derive_oci(client, index), &object.digest.to_hex())
    }),
    ("an image with it as a layer", |client, object| {
        let config = client.put(config().to_string().as_bytes());
        let index = image(client, config, &[object]);
        Told::of(derive_oci(client, index), &object.digest.to_hex())
    }),
    (
        "an image with it between a layer and one that nobody has",
        |client, object| {
            let config = client.put(config().to_string().as_bytes());
            let layer = client.put(&[0; 1024]);
            let index = image(
                client,
                config,
                &[layer, object, ObjectId::of(b"nobody's layer")],
            );
            Told::of(derive_oci(client, index), &object.digest.to_hex())
        },
    ),
    ("packages by it as Cargo.lock", |client, object| {
        let packages = put(client, &file(client.put(b"x")));
        let lock = object;
        let told = derive(client, &Recipe::CargoLock { lock, packages });
        Told::of(told, &object.digest.to_hex())
    }),
    ("packages of it as a directory", |client, object| {
        let (lock, packages) = (client.put(b"version = 4\n"), object);
        let told = derive(client, &Recipe::CargoLock { lock, packages });
        Told::of(told, &object.digest.to_hex())
    }),
    ("packages with it as a crate", |client, object| {
        let lock = format!(
            "version = 4\n[[package]]\nname = \"stolen\"\nversion = \"1.0.0\"\n\
             source = \"registry+https://example.org/index\"\nchecksum = \"{}\"\n",
            object.digest.to_hex()
        );
        let lock = client.put(lock.as_bytes());
        let packages = put(client, &file(object));
        let told = derive(client, &Recipe::CargoLock { lock, packages });
        Told::of(told, &object.digest.to_hex())
    }),
    ("packages with it as a tarball", |client, object| {
        let lock = json!({"name": "x", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"name": "x"}}});
        let lock = client.put(lock.to_string().as_bytes());
        let packages = put(client, &file(object));
        let told = derive(client, &Recipe::NpmLock { lock, packages });
        Told::of(told, &object.digest.to_hex())
    }),
];

#[test]
fn by_no_way_does_another_projects_blob_come_or_show() {
    let site = Site::new();
    let dir = site.dir.path();
    let ci = site
        .clients
        .spiffe(dir, "ci", "spiffe://example.org/web/ci");
    let web = site.client(&ci);
    let app = site.client(&site.clients.subject(dir, "app"));
    let tar = |name: &str, content: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
        builder.into_inner().unwrap()
    };
    let secret = web.put(b"a secret of web's");
    let theirs = json!({"os": "linux", "architecture": "amd64", "author": "web"});
    let theirs = web.put(theirs.to_string().as_bytes());
    // As many kinds as there are ways to read one.
    let kinds = [
        secret,
        put(&web, &file_called("web's", secret)),
        put(
            &web,
            &directory_called("web's", put(&web, &file_called("web's", secret))),
        ),
        web.put(&tar("secret", b"a secret of web's")),
        theirs,
        web.put(b"version = 4\n# web's\n"),
        image(&web, theirs, &[web.put(&tar("etc/secret", b"1"))]),
    ];
    for (number, theirs) in kinds.into_iter().enumerate() {
        let nobodys = ObjectId {
            digest: Digest::of(format!("nobody's {number}").as_bytes()),
            size: theirs.size,
        };
        for (way, go) in BLOBS {
            let (theirs, nobodys) = (go(&app, theirs), go(&app, nobodys));
            assert_eq!(theirs, nobodys, "{way}, kind {number}");
        }
    }
    // What the caller was not told stands in the log, with who it was.
    site.until_said("reason=\"BLOB\"");
    let said = site.instance.said(Part::Belljard);
    let noted = said.lines().filter(|line| line.contains("reason=\"BLOB\""));
    let noted: Vec<&str> = noted.collect();
    assert!(noted.len() > 100, "{}", noted.len());
    for line in noted {
        assert!(line.contains("who=x509:CN=app"), "{line}");
        assert!(line.contains("which projects/app does not have"), "{line}");
    }
    assert!(said.contains(&secret.digest.to_hex()));
    // Web's own ways lead there.
    assert!(matches!(web.read(secret), Ok(content) if content == b"a secret of web's"));
    assert!(derive_oci(&web, kinds[6]).is_ok());
}

type Call = (&'static str, fn(&Client, &str) -> Told);

/// What can be done with a build whose name one has heard of.
const BUILDS: &[Call] = &[
    ("GetBuild", |client, name| {
        let request = v1::GetBuildRequest {
            name: name.to_owned(),
        };
        Told::of(client.wait(client.builds().get_build(request)), name)
    }),
    ("CancelBuild", |client, name| {
        let request = v1::CancelBuildRequest {
            name: name.to_owned(),
            reason: "not mine".to_owned(),
        };
        Told::of(client.wait(client.builds().cancel_build(request)), name)
    }),
    ("WatchBuild", |client, name| {
        let request = v1::WatchBuildRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        Told::of(
            client.wait(client.builds().watch_build(request)).map(drop),
            name,
        )
    }),
    ("ReadLog", |client, name| {
        let request = v1::ReadLogRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        Told::of(client.wait(client.builds().read_log(request)), name)
    }),
    ("ReadLog of an attempt", |client, name| {
        let request = v1::ReadLogRequest {
            name: name.to_owned(),
            attempt: 1,
            ..Default::default()
        };
        Told::of(client.wait(client.builds().read_log(request)), name)
    }),
    ("GetEvidence", |client, name| {
        let request = v1::GetEvidenceRequest {
            name: format!("{name}/evidence"),
        };
        Told::of(client.wait(client.evidence().get_evidence(request)), name)
    }),
    ("ReadAuditTrail", |client, name| {
        let request = v1::ReadAuditTrailRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        Told::of(
            client.wait(client.evidence().read_audit_trail(request)),
            name,
        )
    }),
];

fn list(client: &Client, filter: &str, page_token: &str) -> Result<(Vec<String>, String), Status> {
    let request = v1::ListBuildsRequest {
        page_size: 1,
        page_token: page_token.to_owned(),
        filter: filter.to_owned(),
    };
    let page = client
        .wait(client.builds().list_builds(request))?
        .into_inner();
    let names = page.builds.into_iter().map(|build| build.name);
    Ok((names.collect(), page.next_page_token))
}

fn by_artifact(
    client: &Client,
    artifact: ObjectId,
    page_token: &str,
) -> Result<(usize, String), Status> {
    let request = v1::ListEvidenceRequest {
        artifact_sha256: artifact.digest.to_hex(),
        page_size: 1,
        page_token: page_token.to_owned(),
    };
    let page = client
        .wait(client.evidence().list_evidence(request))?
        .into_inner();
    Ok((page.evidence.len(), page.next_page_token))
}

#[test]
fn by_no_call_does_another_projects_build_come_or_show() {
    let site = Site::new();
    let dir = site.dir.path();
    let ci = site
        .clients
        .spiffe(dir, "ci", "spiffe://example.org/web/ci");
    let dev = site
        .clients
        .spiffe(dir, "dev", "spiffe://example.org/web/dev");
    let (web, colleague) = (site.client(&ci), site.client(&dev));
    let app = site.client(&site.clients.subject(dir, "app"));
    let spec = web.spec(&[("in", "of web's")], &["echo web; cp in out"], &["out"]);
    let builds: Vec<_> = ["of-app", "of-web"]
        .into_iter()
        .map(|request| {
            let build = web.submit(request, &spec).unwrap();
            web.until(&build.id, |build| build.state == BuildState::Ended)
        })
        .collect();
    let artifact = ObjectId::of(b"of web's");
    for build in &builds {
        assert_eq!(build.outcome.as_ref().map(Outcome::is_success), Some(true));
        for (call, go) in BUILDS {
            let theirs = go(&app, &build_name(&build.id));
            let nobodys = go(&app, "builds/01jd8q6z8r4x7j2m5t9v0w3y6b");
            assert_eq!(theirs, nobodys, "{call}");
            assert!(
                matches!(&theirs.0, Err((Code::NotFound, ..))),
                "{call}: {theirs:?}"
            );
            let ours = go(&web, &build_name(&build.id));
            assert!(ours.0.is_ok(), "{call}: {ours:?}");
        }
    }
    // Each answered as to somebody who has none; a name of project, submission or artifact is no key.
    for filter in [
        "".to_owned(),
        "request_id = of-web".to_owned(),
        "state = ENDED".to_owned(),
        "submitter = \"spiffe://example.org/web/ci\"".to_owned(),
        format!("artifact = {}", artifact.digest.to_hex()),
    ] {
        assert_eq!(
            list(&app, &filter, "").unwrap(),
            (vec![], String::new()),
            "{filter}"
        );
        let (ours, token) = list(&web, &filter, "").unwrap();
        assert_eq!(ours.len(), 1, "{filter}");
        // A token is good for whom it was given to.
        if !token.is_empty() {
            assert_eq!(list(&web, &filter, &token).unwrap().0.len(), 1);
            for other in [&app, &colleague] {
                let refused = Problem::from_status(&list(other, &filter, &token).unwrap_err());
                assert_eq!(refused.fields[0].field, "page_token", "{filter}");
            }
        }
    }
    assert_eq!(by_artifact(&app, artifact, "").unwrap(), (0, String::new()));
    let (ours, token) = by_artifact(&web, artifact, "").unwrap();
    assert_eq!(ours, 1);
    assert_eq!(
        by_artifact(&web, artifact, &token).unwrap(),
        (1, String::new())
    );
    let refused = Problem::from_status(&by_artifact(&app, artifact, &token).unwrap_err());
    assert_eq!(refused.fields[0].field, "page_token");

    // A request id is the submitter's and the project's own: app gets a build of its own, not web's.
    let spec = app.spec(&[("in", "of app's")], &["cp in out"], &["out"]);
    let own = app.submit("of-web", &spec).unwrap();
    assert!(builds.iter().all(|build| build.id != own.id));
    assert_eq!(own.project.as_str(), "app");
    let ended = app.until(&own.id, |build| build.state == BuildState::Ended);
    assert!(ended.outcome.unwrap().is_success());
    // What web's builds left stays web's.
    for object in builds.iter().flat_map(|build| {
        let evidence = &build.evidence;
        let objects = [
            evidence.bundle,
            evidence.receipt,
            evidence.spec,
            evidence.plan,
            evidence.log,
            evidence.audit_trail,
        ];
        objects.map(Option::unwrap).into_iter().chain([artifact])
    }) {
        assert_eq!(app.read(object).unwrap_err().code(), Code::NotFound);
        assert!(web.read(object).is_ok());
    }
    let said = site.instance.said(Part::Belljard);
    for build in &builds {
        let name = build_name(&build.id);
        let noted = said.lines().filter(|line| {
            ["OTHER_PROJECT", "who=x509:CN=app", &name, "of projects/web"]
                .iter()
                .all(|part| line.contains(part))
        });
        assert!(noted.count() >= BUILDS.len(), "{said}");
    }
}

#[test]
fn an_upload_that_broke_off_is_gone_on_with_by_nobody_else() {
    let site = Site::new();
    let dir = site.dir.path();
    let ci = site
        .clients
        .spiffe(dir, "ci", "spiffe://example.org/web/ci");
    let dev = site
        .clients
        .spiffe(dir, "dev", "spiffe://example.org/web/dev");
    let callers = [
        site.client(&dev),
        site.client(&site.clients.subject(dir, "app")),
    ];
    let web = site.client(&ci);
    let content = vec![7; 300_000];
    let object = ObjectId::of(&content);
    let name = format!("uploads/of-web/{}", resource(object));
    let write = |client: &Client, offset: usize, end: usize| {
        let request = WriteRequest {
            resource_name: name.clone(),
            write_offset: i64::try_from(offset).unwrap(),
            finish_write: end == content.len(),
            data: content[offset..end].to_vec(),
        };
        client.wait(client.streams().write(tokio_stream::iter([request])))
    };
    let stands = |client: &Client| {
        let request = QueryWriteStatusRequest {
            resource_name: name.clone(),
        };
        let told = client.wait(client.streams().query_write_status(request));
        told.unwrap().into_inner().committed_size
    };
    assert!(
        write(&web, 0, 100_000).is_err(),
        "it did not say that it was over"
    );
    let come = stands(&web);
    assert!(come > 0, "what came is kept");
    for other in &callers {
        assert_eq!(stands(other), 0);
        let offset = usize::try_from(come).unwrap();
        let refused = write(other, offset, content.len()).unwrap_err();
        let problem = Problem::from_status(&refused);
        assert_eq!(problem.fields[0].field, "write_offset", "{refused:?}");
        assert_eq!(other.missing(&[object]).len(), 1);
    }
    let offset = usize::try_from(come).unwrap();
    assert!(write(&web, offset, content.len()).is_ok());
    assert_eq!(web.read(object).unwrap(), content);
}
