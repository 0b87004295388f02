//! Blobs in every way that the Remote Execution API has for them, over a faked store.

use reapi::compressor::Value as Compressor;

use super::*;

pub(super) fn packed(content: &[u8]) -> Vec<u8> {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    compress_to_vec(content, CompressionLevel::Fastest)
}

pub(super) fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed).unwrap();
    std::io::Read::read_to_end(&mut decoder, &mut content).unwrap();
    content
}

fn name(kind: &str, object: ObjectId) -> String {
    format!("{kind}/{}/{}", object.digest.to_hex(), object.size)
}

pub(super) fn message(name: &str, offset: i64, data: &[u8], finish: bool) -> stream::WriteRequest {
    stream::WriteRequest {
        resource_name: name.to_owned(),
        write_offset: offset,
        finish_write: finish,
        data: data.to_vec(),
    }
}

impl Daemon {
    pub(super) async fn send(&self, messages: Vec<stream::WriteRequest>) -> Result<i64, Status> {
        let written = self.streams().write(tokio_stream::iter(messages)).await?;
        Ok(written.into_inner().committed_size)
    }

    async fn part(&self, name: String, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        let request = stream::ReadRequest {
            resource_name: name,
            read_offset: offset,
            read_limit: limit,
        };
        let mut pieces = self.streams().read(request).await?.into_inner();
        let mut content = Vec::new();
        while let Some(piece) = pieces.message().await? {
            assert!(piece.data.len() <= bounds::READ_CHUNK_BYTES);
            content.extend(piece.data);
        }
        Ok(content)
    }

    pub(super) async fn update(
        &self,
        requests: Vec<(ObjectId, Vec<u8>, Compressor)>,
    ) -> Result<Vec<(i32, String)>, Status> {
        let requests = requests.into_iter().map(|(object, data, compressor)| {
            reapi::batch_update_blobs_request::Request {
                digest: Some(digest(object)),
                data,
                compressor: compressor.into(),
            }
        });
        let request = reapi::BatchUpdateBlobsRequest {
            requests: requests.collect(),
            ..Default::default()
        };
        let answer = self.blobs().batch_update_blobs(request).await?.into_inner();
        let statuses = answer.responses.into_iter().map(|one| one.status.unwrap());
        Ok(statuses.map(|one| (one.code, one.message)).collect())
    }

    pub(super) async fn tree(
        &self,
        root: ObjectId,
        page_size: i32,
        page_token: String,
    ) -> Result<Vec<reapi::GetTreeResponse>, Status> {
        let request = reapi::GetTreeRequest {
            root_digest: Some(digest(root)),
            page_size,
            page_token,
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
async fn parts_are_read_and_positions_that_are_none_refused() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let content: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let object = ObjectId::of(&content);
    daemon.write(object, &content, 200_000).await.unwrap();
    let plain = name("blobs", object);
    for (offset, limit, due) in [
        (0, 0, &content[..]),
        (0, 10, &content[..10]),
        (3, 300_000, &content[3..300_003]),
        (699_999, 0, &content[699_999..]),
        (699_990, 1_000_000, &content[699_990..]),
        (700_000, 0, &[]),
    ] {
        let read = daemon.part(plain.clone(), offset, limit).await.unwrap();
        assert_eq!(read, due, "{offset} {limit}");
    }
    for offset in [700_001, -1, i64::MAX] {
        let error = daemon.part(plain.clone(), offset, 0).await.unwrap_err();
        assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
        assert_eq!(Problem::from_status(&error).fields[0].field, "read_offset");
    }
    let negative = daemon.part(plain, 0, -1).await.unwrap_err();
    assert_eq!(field(&negative), "read_limit");
    let zstd = name("compressed-blobs/zstd", object);
    let read = daemon.part(zstd.clone(), 0, 0).await.unwrap();
    assert!(read.len() < content.len());
    assert_eq!(unpacked(&read), content);
    let rest = daemon.part(zstd.clone(), 600_000, 0).await.unwrap();
    assert_eq!(unpacked(&rest), &content[600_000..]);
    let limited = daemon.part(zstd, 0, 5).await.unwrap_err();
    assert_eq!(field(&limited), "read_limit");
    let empty = ObjectId::of(b"");
    assert_eq!(daemon.part(name("blobs", empty), 0, 0).await.unwrap(), b"");
    let read = daemon
        .part(name("compressed-blobs/zstd", empty), 0, 0)
        .await;
    assert_eq!(unpacked(&read.unwrap()), b"");
}

#[tokio::test]
async fn an_upload_ends_when_the_client_says_so_and_not_before() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let object = ObjectId::of(b"content");
    let to = name("uploads/u/blobs", object);
    let refusals: Vec<(&str, Vec<stream::WriteRequest>)> = vec![
        ("resource_name", vec![]),
        ("resource_name", vec![message("", 0, b"content", true)]),
        // All of it came, but nobody has said that it is all.
        ("finish_write", vec![message(&to, 0, b"content", false)]),
        ("finish_write", vec![message(&to, 0, b"conten", false)]),
        ("write_offset", vec![message(&to, -1, b"content", true)]),
        ("write_offset", vec![message(&to, 1, b"ontent", true)]),
        (
            "write_offset",
            vec![
                message(&to, 0, b"con", false),
                message("", 4, b"tent", true),
            ],
        ),
        (
            "resource_name",
            vec![
                message(&to, 0, b"con", false),
                message(&format!("{to}/x"), 3, b"tent", true),
            ],
        ),
    ];
    for (due, messages) in refusals {
        let error = daemon.send(messages.clone()).await.unwrap_err();
        assert_eq!(field(&error), due, "{messages:?}");
    }
    let mismatches = [
        vec![message(&to, 0, b"conten", true)],
        vec![message(&to, 0, b"contenT", true)],
        vec![message(&to, 0, b"content!", true)],
        vec![
            message(&to, 0, b"content", false),
            message("", 7, b"!", true),
        ],
    ];
    for messages in mismatches {
        let error = daemon.send(messages.clone()).await.unwrap_err();
        let reason = Problem::from_status(&error).reason;
        assert_eq!(reason, Reason::DigestMismatch, "{messages:?}");
    }
    assert_eq!(
        daemon.read(object).await.unwrap_err().code(),
        Code::NotFound
    );
    // The last message may be empty, and what follows it is not looked at.
    let messages = vec![
        message(&to, 0, b"con", false),
        message("", 3, b"tent", false),
        message("", 7, b"", true),
        message("", 9, b"more", true),
    ];
    assert_eq!(daemon.send(messages).await.unwrap(), 7);
    assert_eq!(daemon.read(object).await.unwrap(), b"content");
    let huge = ObjectId {
        size: bounds::BLOB_BYTES + 1,
        ..object
    };
    let to = name("uploads/u/blobs", huge);
    let error = daemon.send(vec![message(&to, 0, b"", false)]).await;
    assert_eq!(field(&error.unwrap_err()), "resource_name");
}

#[tokio::test]
async fn packed_uploads_are_what_they_unpack_to() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let content = b"a line that comes again and again\n".repeat(30_000);
    let object = ObjectId::of(&content);
    let to = name("uploads/u/compressed-blobs/zstd", object);
    let zstd = packed(&content);
    let other = packed(&[&content[1..], b"x"].concat());
    let cut = &zstd[..zstd.len() - 1];
    let long = packed(&[&content[..], b"x"].concat());
    for (bad, why) in [
        (&other[..], "announced"),
        (cut, "zstd"),
        (&long, "due"),
        (&content[..1000], "zstd"),
        (&packed(&content[1..]), "less"),
    ] {
        let error = daemon.send(vec![message(&to, 0, bad, true)]).await;
        let error = error.unwrap_err();
        let reason = Problem::from_status(&error).reason;
        assert_eq!(reason, Reason::DigestMismatch, "{why}: {error:?}");
        assert!(error.message().contains(why), "{why}: {error:?}");
    }
    assert_eq!(
        daemon.read(object).await.unwrap_err().code(),
        Code::NotFound
    );
    let (one, two) = zstd.split_at(zstd.len() / 2);
    let at = i64::try_from(one.len()).unwrap();
    let messages = || vec![message(&to, 0, one, false), message("", at, two, true)];
    assert_eq!(
        daemon.send(messages()).await.unwrap(),
        i64::try_from(content.len()).unwrap()
    );
    assert_eq!(daemon.read(object).await.unwrap(), content);
    // REAPI: what was there already is -1 for packed uploads.
    assert_eq!(daemon.send(messages()).await.unwrap(), -1);
}

#[tokio::test]
async fn batches_have_a_verdict_for_each_and_travel_packed() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let text = b"again and again and ".repeat(500);
    let object = ObjectId::of(&text);
    let good = ObjectId::of(b"good");
    let bomb = packed(&vec![0; 1_000_000]);
    let statuses = daemon
        .update(vec![
            (object, packed(&text), Compressor::Zstd),
            (ObjectId::of(b"bad"), b"BAD".to_vec(), Compressor::Identity),
            (good, b"good".to_vec(), Compressor::Identity),
            (
                ObjectId::of(b"short"),
                b"shor".to_vec(),
                Compressor::Identity,
            ),
            (ObjectId::of(b"bomb"), bomb, Compressor::Zstd),
            (ObjectId::of(b"none"), b"none".to_vec(), Compressor::Zstd),
            (ObjectId::of(b"flat"), b"flat".to_vec(), Compressor::Deflate),
        ])
        .await
        .unwrap();
    let codes: Vec<i32> = statuses.iter().map(|(code, _)| *code).collect();
    let bad = i32::from(Code::InvalidArgument);
    assert_eq!(codes, [0, bad, 0, bad, bad, bad, bad], "{statuses:?}");
    assert!(
        statuses[4].1.contains("more than the 4 bytes"),
        "{statuses:?}"
    );
    for acceptable in [vec![], vec![Compressor::Zstd.into()]] {
        let request = reapi::BatchReadBlobsRequest {
            digests: vec![digest(object), digest(ObjectId::of(b"bad")), digest(good)],
            acceptable_compressors: acceptable.clone(),
            ..Default::default()
        };
        let read = daemon.blobs().batch_read_blobs(request).await.unwrap();
        let read = read.into_inner().responses;
        let codes: Vec<i32> = read
            .iter()
            .map(|r| r.status.clone().unwrap().code)
            .collect();
        assert_eq!(codes, [0, i32::from(Code::NotFound), 0]);
        // What packing does not make smaller travels as it is.
        assert_eq!((&read[2].data[..], read[2].compressor), (&b"good"[..], 0));
        let first = &read[0];
        if acceptable.is_empty() {
            assert_eq!((&first.data, first.compressor), (&text, 0));
        } else {
            assert_eq!(first.compressor, i32::from(Compressor::Zstd));
            assert_eq!(unpacked(&first.data), text);
        }
    }
}

#[tokio::test]
async fn batches_end_exactly_at_their_bounds() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let most = vec![5; bounds::BATCH_BYTES];
    let whole = (ObjectId::of(&most), most.clone(), Compressor::Identity);
    let statuses = daemon.update(vec![whole]).await.unwrap();
    assert_eq!(statuses[0].0, 0);
    // One byte more, also where it would only come out by unpacking.
    let more = vec![5; bounds::BATCH_BYTES + 1];
    for (data, compressor) in [
        (more.clone(), Compressor::Identity),
        (packed(&more), Compressor::Zstd),
    ] {
        let one = vec![(ObjectId::of(&more), data, compressor)];
        assert_eq!(field(&daemon.update(one).await.unwrap_err()), "requests");
    }
    let asked = |count| reapi::FindMissingBlobsRequest {
        blob_digests: vec![digest(ObjectId::of(b"x")); count],
        ..Default::default()
    };
    let missing = daemon
        .blobs()
        .find_missing_blobs(asked(bounds::BATCH_BLOBS))
        .await
        .unwrap();
    assert_eq!(
        missing.into_inner().missing_blob_digests.len(),
        bounds::BATCH_BLOBS
    );
    let over = daemon
        .blobs()
        .find_missing_blobs(asked(bounds::BATCH_BLOBS + 1))
        .await;
    assert_eq!(field(&over.unwrap_err()), "blob_digests");
}

/// A directory with these children, and a file to make it differ.
fn directory(name: &str, children: &[(&str, ObjectId)]) -> (ObjectId, Vec<u8>) {
    let message = reapi::Directory {
        files: vec![reapi::FileNode {
            name: name.to_owned(),
            digest: Some(digest(ObjectId::of(b""))),
            ..Default::default()
        }],
        directories: children
            .iter()
            .map(|(name, object)| reapi::DirectoryNode {
                name: (*name).to_owned(),
                digest: Some(digest(*object)),
            })
            .collect(),
        ..Default::default()
    };
    let bytes = prost::Message::encode_to_vec(&message);
    (ObjectId::of(&bytes), bytes)
}

#[tokio::test]
async fn a_tree_is_told_in_pages_each_directory_once() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    // Each level twice the one below: 2^40 places, 41 directories.
    let mut levels = vec![directory("leaf", &[])];
    for level in 0..40 {
        let below = levels[level].0;
        levels.push(directory("f", &[("a", below), ("b", below)]));
    }
    let root = levels[40].0;
    let blobs = levels
        .iter()
        .map(|(object, bytes)| (*object, bytes.clone(), Compressor::Identity));
    daemon.update(blobs.collect()).await.unwrap();
    let whole = daemon.tree(root, 0, String::new()).await.unwrap();
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].directories.len(), 41);
    assert_eq!(whole[0].next_page_token, "");
    let pages = daemon.tree(root, 10, String::new()).await.unwrap();
    let sizes: Vec<usize> = pages.iter().map(|page| page.directories.len()).collect();
    assert_eq!(sizes, [10, 10, 10, 10, 1]);
    let joined: Vec<_> = pages.iter().flat_map(|page| &page.directories).collect();
    assert_eq!(joined, whole[0].directories.iter().collect::<Vec<_>>());
    // Whoever was interrupted goes on.
    let token = pages[2].next_page_token.clone();
    let rest = daemon.tree(root, 10, token.clone()).await.unwrap();
    assert_eq!(rest, pages[3..]);
    let other = daemon.tree(levels[3].0, 10, token).await.unwrap_err();
    assert_eq!(field(&other), "page_token");
}

#[tokio::test]
async fn what_is_missing_of_a_tree_is_left_out_and_what_is_none_refused() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let there = directory("there", &[]);
    let absent = directory("absent", &[]);
    let root = directory("root", &[("a", absent.0), ("b", there.0)]);
    let update = |blobs: Vec<(ObjectId, Vec<u8>)>| {
        let each = blobs.into_iter();
        daemon.update(each.map(|(o, b)| (o, b, Compressor::Identity)).collect())
    };
    update(vec![root.clone(), there.clone()]).await.unwrap();
    let told = daemon.tree(root.0, 0, String::new()).await.unwrap();
    assert_eq!(told[0].directories.len(), 2);
    let missing = daemon.tree(absent.0, 0, String::new()).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let text = (ObjectId::of(b"no directory"), b"no directory".to_vec());
    let bad = directory("bad", &[("c", text.0)]);
    update(vec![text.clone(), bad.clone()]).await.unwrap();
    for root in [text.0, bad.0] {
        let error = daemon.tree(root, 0, String::new()).await.unwrap_err();
        assert_eq!(field(&error), "root_digest");
        assert!(error.message().contains(&text.0.digest.to_hex()));
    }
    let empty = daemon
        .tree(ObjectId::of(b""), 0, String::new())
        .await
        .unwrap();
    assert_eq!(empty[0].directories, [reapi::Directory::default()]);
}

#[tokio::test]
async fn the_capabilities_are_what_is_there() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let capabilities = CapabilitiesClient::new(daemon.channel.clone())
        .get_capabilities(reapi::GetCapabilitiesRequest::default())
        .await
        .unwrap()
        .into_inner();
    let cache = capabilities.cache_capabilities.unwrap();
    let zstd = [i32::from(Compressor::Zstd)];
    assert_eq!(cache.supported_compressors, zstd);
    assert_eq!(cache.supported_batch_update_compressors, zstd);
    assert_eq!(
        (
            cache.max_batch_total_size_bytes,
            cache.max_cas_blob_size_bytes
        ),
        (3 << 20, 4 << 30)
    );
    assert!(!cache.split_blob_support && !cache.splice_blob_support);
    let update = cache.action_cache_update_capabilities.unwrap();
    assert!(!update.update_enabled && capabilities.execution_capabilities.is_none());
    let named = reapi::GetCapabilitiesRequest {
        instance_name: "Main".to_owned(),
    };
    let refused = CapabilitiesClient::new(daemon.channel.clone())
        .get_capabilities(named)
        .await
        .unwrap_err();
    assert_eq!(field(&refused), "instance_name");
}
