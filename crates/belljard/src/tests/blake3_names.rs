//! Blobs that clients name by BLAKE3, in every way that the Remote Execution API has for them, over a faked store.

use belljar_core::{Blake3Digest, BlobDigest, BlobName};
use reapi::compressor::Value as Compressor;
use reapi::digest_function::Value as Function;

use super::blobs::{message, packed, unpacked};
use super::*;

fn by_blake3(content: &[u8]) -> BlobName {
    BlobName {
        digest: BlobDigest::Blake3(Blake3Digest::from_bytes(blake3::hash(content).into())),
        size: content.len() as u64,
    }
}

fn digest_of(blob: BlobName) -> reapi::Digest {
    reapi::Digest {
        hash: blob.digest.to_hex(),
        size_bytes: i64::try_from(blob.size).unwrap(),
    }
}

/// `KIND/HASH/SIZE`, as REAPI has it for each function.
fn name(kind: &str, blob: BlobName) -> String {
    let function = match blob.digest {
        BlobDigest::Sha256(_) => "",
        BlobDigest::Blake3(_) => "blake3/",
    };
    format!("{kind}/{function}{}/{}", blob.digest.to_hex(), blob.size)
}

impl Daemon {
    async fn send_all(&self, to: &str, content: &[u8]) -> Result<i64, Status> {
        self.send(vec![message(to, 0, content, true)]).await
    }

    /// Of these, those that are missing.
    async fn lacks(&self, function: Function, blobs: &[BlobName]) -> Vec<String> {
        let request = reapi::FindMissingBlobsRequest {
            blob_digests: blobs.iter().copied().map(digest_of).collect(),
            digest_function: function.into(),
            ..Default::default()
        };
        let answer = self.blobs().find_missing_blobs(request).await.unwrap();
        let missing = answer.into_inner().missing_blob_digests;
        missing.into_iter().map(|digest| digest.hash).collect()
    }

    async fn give(&self, blobs: Vec<(BlobName, Vec<u8>, Compressor)>) -> Vec<(reapi::Digest, i32)> {
        let requests = blobs.into_iter().map(|(blob, data, compressor)| {
            reapi::batch_update_blobs_request::Request {
                digest: Some(digest_of(blob)),
                data,
                compressor: compressor.into(),
            }
        });
        let request = reapi::BatchUpdateBlobsRequest {
            requests: requests.collect(),
            digest_function: Function::Blake3.into(),
            ..Default::default()
        };
        let answer = self.blobs().batch_update_blobs(request).await.unwrap();
        let responses = answer.into_inner().responses.into_iter();
        let told = responses.map(|one| (one.digest.unwrap(), one.status.unwrap().code));
        told.collect()
    }

    async fn levels(&self, root: BlobName) -> Result<Vec<reapi::GetTreeResponse>, Status> {
        let request = reapi::GetTreeRequest {
            root_digest: Some(digest_of(root)),
            page_size: 2,
            digest_function: Function::Blake3.into(),
            ..Default::default()
        };
        let mut pages = self.blobs().get_tree(request).await?.into_inner();
        let mut told = Vec::new();
        while let Some(page) = pages.message().await? {
            told.push(page);
        }
        Ok(told)
    }
}

#[tokio::test]
async fn a_blob_is_found_by_the_names_by_which_it_was_sent() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let content = b"a line that comes again and again\n".repeat(30_000);
    let object = ObjectId::of(&content);
    let blob = by_blake3(&content);
    assert_eq!(daemon.lacks(Function::Blake3, &[blob]).await.len(), 1);
    let committed = daemon
        .send_all(&name("uploads/u/blobs", blob), &content)
        .await
        .unwrap();
    assert_eq!(committed, i64::try_from(content.len()).unwrap());
    assert!(daemon.lacks(Function::Blake3, &[blob]).await.is_empty());
    // Who has sent it has it: by its own name, too.
    assert!(
        daemon
            .lacks(Function::Sha256, &[object.into()])
            .await
            .is_empty()
    );
    assert_eq!(daemon.read(object).await.unwrap(), content);
    let read = |name: String, offset| daemon.read_named(name, offset);
    assert_eq!(read(name("blobs", blob), 0).await.unwrap(), content);
    assert_eq!(
        read(name("blobs", blob), 1000).await.unwrap(),
        &content[1000..]
    );
    let zstd = read(name("compressed-blobs/zstd", blob), 0).await.unwrap();
    assert!(zstd.len() < content.len());
    assert_eq!(unpacked(&zstd), content);
    // What is there already is answered at once.
    let puts = site.script.lock().unwrap().puts;
    let zstd = packed(&content);
    for (kind, due) in [
        ("uploads/v/blobs", committed),
        ("uploads/v/compressed-blobs/zstd", -1),
    ] {
        let again = daemon.send_all(&name(kind, blob), &zstd[..10]).await;
        assert_eq!(again.unwrap(), due);
    }
    assert_eq!(site.script.lock().unwrap().puts, puts);
    // Sent by SHA-256 only, it is not known by BLAKE3; and then the same object is.
    let other = ObjectId::of(b"other");
    daemon.write(other, b"other", 5).await.unwrap();
    let blob = by_blake3(b"other");
    assert_eq!(daemon.lacks(Function::Blake3, &[blob]).await.len(), 1);
    let to = name("uploads/u/compressed-blobs/zstd", blob);
    assert_eq!(daemon.send_all(&to, &packed(b"other")).await.unwrap(), 5);
    assert!(daemon.lacks(Function::Blake3, &[blob]).await.is_empty());
    assert_eq!(read(name("blobs", blob), 0).await.unwrap(), b"other");
}

#[tokio::test]
async fn digits_of_one_function_name_nothing_by_the_other() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let blob = by_blake3(b"content");
    let to = name("uploads/u/blobs", blob);
    daemon.send_all(&to, b"content").await.unwrap();
    let object = ObjectId::of(b"content");
    let as_sha256 = BlobName::from(ObjectId {
        digest: belljar_core::Digest::from_hex(&blob.digest.to_hex()).unwrap(),
        size: 7,
    });
    let as_blake3 = BlobName {
        digest: BlobDigest::Blake3(Blake3Digest::from_bytes(*object.digest.as_bytes())),
        size: 7,
    };
    for (function, crossed) in [(Function::Sha256, as_sha256), (Function::Blake3, as_blake3)] {
        assert_eq!(daemon.lacks(function, &[crossed]).await.len(), 1);
        for kind in ["blobs", "compressed-blobs/zstd"] {
            let absent = daemon.read_named(name(kind, crossed), 0).await;
            let absent = absent.unwrap_err();
            assert_eq!(absent.code(), Code::NotFound);
            let named = crossed.digest.to_string();
            assert!(absent.message().contains(&named), "{absent:?}");
        }
        let to = name("uploads/u/blobs", crossed);
        let refused = daemon.send_all(&to, b"content").await.unwrap_err();
        let reason = Problem::from_status(&refused).reason;
        assert_eq!(reason, Reason::DigestMismatch);
    }
    // Another size is another name.
    let longer = BlobName { size: 8, ..blob };
    assert_eq!(daemon.lacks(Function::Blake3, &[longer]).await.len(), 1);
    assert!(daemon.read_named(name("blobs", longer), 0).await.is_err());
}

#[tokio::test]
async fn what_is_not_what_it_is_named_by_is_refused_and_nobodys() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let blob = by_blake3(b"expected");
    let plain = name("uploads/u/blobs", blob);
    let zstd = name("uploads/u/compressed-blobs/zstd", blob);
    for (to, content) in [
        (&plain, b"expecteD".to_vec()),
        (&plain, b"expect".to_vec()),
        (&plain, b"expected!".to_vec()),
        (&zstd, packed(b"expecteD")),
        (&zstd, packed(b"expected!")),
        (&zstd, b"expected".to_vec()),
    ] {
        let refused = daemon.send_all(to, &content).await.unwrap_err();
        let reason = Problem::from_status(&refused).reason;
        assert_eq!(reason, Reason::DigestMismatch, "{refused:?}");
    }
    assert_eq!(daemon.lacks(Function::Blake3, &[blob]).await.len(), 1);
    let changed = ObjectId::of(b"expecteD").into();
    assert_eq!(daemon.lacks(Function::Sha256, &[changed]).await.len(), 1);
    let huge = BlobName {
        size: bounds::BLOB_BYTES + 1,
        ..blob
    };
    let refused = daemon.send_all(&name("uploads/u/blobs", huge), b"").await;
    assert_eq!(field(&refused.unwrap_err()), "resource_name");
}

#[tokio::test]
async fn batches_are_answered_by_the_names_of_the_request() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let text = b"again and again and ".repeat(500);
    let plain = Compressor::Identity;
    let asked = vec![
        (by_blake3(&text), packed(&text), Compressor::Zstd),
        (by_blake3(b"bad"), b"BAD".to_vec(), plain),
        (by_blake3(b"short"), b"shor".to_vec(), plain),
        (by_blake3(b"good"), b"good".to_vec(), plain),
        (by_blake3(b""), vec![], plain),
    ];
    let names: Vec<BlobName> = asked.iter().map(|(blob, ..)| *blob).collect();
    let bad = i32::from(Code::InvalidArgument);
    let codes = [0, bad, bad, 0, 0];
    let due = names.iter().copied().map(digest_of).zip(codes);
    assert_eq!(daemon.give(asked).await, due.collect::<Vec<_>>());
    let lacking = daemon.lacks(Function::Blake3, &names).await;
    assert_eq!(
        lacking,
        [names[1], names[2]].map(|name| name.digest.to_hex())
    );
    let request = reapi::BatchReadBlobsRequest {
        digests: names.iter().copied().map(digest_of).collect(),
        acceptable_compressors: vec![Compressor::Zstd.into()],
        digest_function: Function::Blake3.into(),
        ..Default::default()
    };
    let read = daemon.blobs().batch_read_blobs(request).await.unwrap();
    let read = read.into_inner().responses;
    let absent = i32::from(Code::NotFound);
    for ((one, name), code) in read.iter().zip(&names).zip([0, absent, absent, 0, 0]) {
        assert_eq!(one.digest, Some(digest_of(*name)));
        let status = one.status.clone().unwrap();
        assert_eq!(status.code, code);
        assert!(
            code == 0 || status.message.contains("blake3:"),
            "{status:?}"
        );
    }
    assert_eq!(unpacked(&read[0].data), text);
    assert_eq!(
        (&read[3].data[..], &read[4].data[..]),
        (&b"good"[..], &b""[..])
    );
    // As many as a batch may have.
    let many: Vec<_> = (0..2500_u32)
        .map(|n| n.to_le_bytes())
        .map(|content| (by_blake3(&content), content.to_vec(), plain))
        .collect();
    let names: Vec<BlobName> = many.iter().map(|(blob, ..)| *blob).collect();
    assert!(daemon.give(many).await.iter().all(|(_, code)| *code == 0));
    assert!(daemon.lacks(Function::Blake3, &names).await.is_empty());
    assert_eq!(
        daemon
            .read_named(name("blobs", names[2100]), 0)
            .await
            .unwrap(),
        2100_u32.to_le_bytes()
    );
}

#[tokio::test]
async fn the_blob_of_no_bytes_is_there_for_everybody() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let empty = by_blake3(b"");
    assert!(daemon.lacks(Function::Blake3, &[empty]).await.is_empty());
    assert_eq!(
        daemon.read_named(name("blobs", empty), 0).await.unwrap(),
        b""
    );
    let one = BlobName { size: 1, ..empty };
    assert_eq!(daemon.lacks(Function::Blake3, &[one]).await.len(), 1);
    let told = daemon.levels(empty).await.unwrap();
    assert_eq!(told[0].directories, [reapi::Directory::default()]);
}

/// A directory whose children are named by BLAKE3.
fn directory(file: &str, children: &[(&str, BlobName)]) -> (BlobName, Vec<u8>) {
    let message = reapi::Directory {
        files: vec![reapi::FileNode {
            name: file.to_owned(),
            digest: Some(digest_of(by_blake3(b""))),
            ..Default::default()
        }],
        directories: children
            .iter()
            .map(|(name, blob)| reapi::DirectoryNode {
                name: (*name).to_owned(),
                digest: Some(digest_of(*blob)),
            })
            .collect(),
        ..Default::default()
    };
    let bytes = prost::Message::encode_to_vec(&message);
    (by_blake3(&bytes), bytes)
}

#[tokio::test]
async fn a_tree_is_followed_by_blake3_and_is_none_for_a_build() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let leaf = directory("leaf", &[]);
    let absent = directory("absent", &[]);
    let middle = directory("f", &[("a", leaf.0), ("b", leaf.0)]);
    let root = directory("f", &[("a", absent.0), ("b", leaf.0), ("c", middle.0)]);
    let blobs =
        [&leaf, &middle, &root].map(|(blob, bytes)| (*blob, bytes.clone(), Compressor::Identity));
    daemon.give(blobs.to_vec()).await;
    let pages = daemon.levels(root.0).await.unwrap();
    let sizes: Vec<usize> = pages.iter().map(|page| page.directories.len()).collect();
    assert_eq!(sizes, [2, 1]);
    let told = pages.iter().flat_map(|page| &page.directories);
    let told: Vec<_> = told.map(prost::Message::encode_to_vec).collect();
    assert_eq!(told, [root.1.clone(), leaf.1, middle.1]);
    let missing = daemon.levels(absent.0).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    // By the other function its children are others, which are not there.
    let object = ObjectId::of(&root.1);
    let request = reapi::GetTreeRequest {
        root_digest: Some(digest(object)),
        page_token: pages[0].next_page_token.clone(),
        ..Default::default()
    };
    let other = daemon.blobs().get_tree(request.clone()).await;
    assert_eq!(field(&other.unwrap_err()), "page_token");
    let request = reapi::GetTreeRequest {
        page_token: String::new(),
        ..request
    };
    let mut pages = daemon.blobs().get_tree(request).await.unwrap().into_inner();
    let page = pages.message().await.unwrap().unwrap();
    assert_eq!(page.directories.len(), 1);
    // Nor are they for a build, whichever name its root is given by.
    let digits = belljar_core::Digest::from_hex(&root.0.digest.to_hex()).unwrap();
    let digits = ObjectId {
        digest: digits,
        ..object
    };
    for (request, source) in [("r", object), ("s", digits)] {
        let refused = daemon.submit(request, spec(source)).await.unwrap_err();
        let problem = Problem::from_status(&refused);
        assert_eq!(problem.reason, Reason::InputMissing);
        assert!(problem.message.contains("by SHA-256"), "{problem:?}");
    }
}
