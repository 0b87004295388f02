"""Builds with a client that nobody here wrote: what grpcio-tools makes of `proto/`, over mutual TLS.

Usage: client.py GENERATED ADDRESS CA CERTIFICATE KEY PROJECT OUTPUT

Uploads sources, submits, watches, fetches artifact, bundle and public key into OUTPUT, and prints what it
saw as one JSON object.
"""

import hashlib
import json
import pathlib
import sys
import uuid

generated, address, ca, certificate, key, project, output = sys.argv[1:]
sys.path.insert(0, generated)

import grpc  # noqa: E402

import bytestream_pb2  # noqa: E402
import bytestream_pb2_grpc  # noqa: E402
import reapi_pb2  # noqa: E402
import reapi_pb2_grpc  # noqa: E402
from belljar.v1 import build_pb2, build_service_pb2, build_service_pb2_grpc  # noqa: E402


def read(path):
    return pathlib.Path(path).read_bytes()


credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(certificate))
channel = grpc.secure_channel(address, credentials)
builds = build_service_pb2_grpc.BuildServiceStub(channel)
blobs = reapi_pb2_grpc.ContentAddressableStorageStub(channel)
streams = bytestream_pb2_grpc.ByteStreamStub(channel)


def digest(content):
    return reapi_pb2.Digest(hash=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def fetch(of):
    request = bytestream_pb2.ReadRequest(resource_name=f"{project}/blobs/{of.hash}/{of.size_bytes}")
    content = b"".join(piece.data for piece in streams.Read(request))
    assert hashlib.sha256(content).hexdigest() == of.hash
    return content


source = b"greeting=hello\n" * 3
large = bytes(range(256)) * 8192
root = reapi_pb2.Directory(
    files=[
        reapi_pb2.FileNode(name="large", digest=digest(large)),
        reapi_pb2.FileNode(name="source", digest=digest(source)),
    ]
).SerializeToString(deterministic=True)

request = reapi_pb2.FindMissingBlobsRequest(instance_name=project)
request.blob_digests.extend(digest(content) for content in (source, large, root))
missing = len(blobs.FindMissingBlobs(request).missing_blob_digests)

update = reapi_pb2.BatchUpdateBlobsRequest(instance_name=project)
for content in (source, root):
    update.requests.add(digest=digest(content), data=content)
for response in blobs.BatchUpdateBlobs(update).responses:
    assert response.status.code == 0, response


def pieces():
    step = 256 * 1024
    for offset in range(0, len(large), step):
        yield bytestream_pb2.WriteRequest(
            resource_name=f"{project}/uploads/{uuid.uuid4()}/blobs/{digest(large).hash}/{len(large)}" if offset == 0 else "",
            write_offset=offset,
            finish_write=offset + step >= len(large),
            data=large[offset : offset + step],
        )


assert streams.Write(pieces()).committed_size == len(large)
assert not blobs.FindMissingBlobs(request).missing_blob_digests

# By BLAKE3, of which the standard library knows nothing: one byte, and its digest out of BLAKE3's own test vectors.
other = bytes(1)
named = reapi_pb2.Digest(
    hash="2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213", size_bytes=len(other)
)
BLAKE3 = reapi_pb2.DigestFunction.BLAKE3
request = reapi_pb2.FindMissingBlobsRequest(instance_name=project, digest_function=BLAKE3)
request.blob_digests.append(named)
assert len(blobs.FindMissingBlobs(request).missing_blob_digests) == 1
update = reapi_pb2.BatchUpdateBlobsRequest(instance_name=project, digest_function=BLAKE3)
update.requests.add(digest=named, data=other)
[response] = blobs.BatchUpdateBlobs(update).responses
assert response.status.code == 0 and response.digest == named, response
assert not blobs.FindMissingBlobs(request).missing_blob_digests
by_blake3 = bytestream_pb2.ReadRequest(resource_name=f"{project}/blobs/blake3/{named.hash}/1")
assert b"".join(piece.data for piece in streams.Read(by_blake3)) == other
assert fetch(digest(other)) == other

submit = build_service_pb2.SubmitBuildRequest(request_id=str(uuid.uuid4()), project=f"projects/{project}")
submit.spec.image = "host"
submit.spec.source.hash = digest(root).hash
submit.spec.source.size_bytes = len(root)
submit.spec.run.append("cat source; sha256sum < large | tee artifact")
submit.spec.outputs.append("artifact")
build = builds.SubmitBuild(submit)
again = builds.SubmitBuild(submit)
assert again.name == build.name

states, log = [], b""
for event in builds.WatchBuild(build_service_pb2.WatchBuildRequest(name=build.name)):
    if event.HasField("build"):
        states.append(build_pb2.Build.State.Name(event.build.state))
        build = event.build
    else:
        assert event.log_chunk.offset == len(log)
        log += event.log_chunk.data

info = builds.GetServerInfo(build_service_pb2.GetServerInfoRequest())
folder = pathlib.Path(output)
(folder / "artifact").write_bytes(fetch(build.artifacts[0].file.digest))
(folder / "bundle").write_bytes(fetch(build.evidence.bundle))
(folder / "key").write_text(info.public_key_pem)

elsewhere = build_service_pb2.SubmitBuildRequest()
elsewhere.CopyFrom(submit)
elsewhere.project = "projects/elsewhere"
try:
    builds.SubmitBuild(elsewhere)
    refused = "nothing"
except grpc.RpcError as error:
    refused = error.code().name

print(
    json.dumps(
        {
            "build": build.name,
            "missing": missing,
            "states": states,
            "outcome": build.outcome.WhichOneof("kind"),
            "log": log.decode(),
            "principal": info.principal,
            "submitter": build.submitter,
            "project": build.project,
            "elsewhere": refused,
            "artifact": (folder / "artifact").read_text(),
            "due": hashlib.sha256(large).hexdigest(),
        }
    )
)
