"""buildbox-casd as a client of belljard: it proxies a CAS of its own, which is driven here by its API.

casd.py GENERATED CASD ADDRESS SERVERS CERTIFICATE KEY FOLDER

FOLDER/source is the tree that is sent. What is seen is told as JSON.
"""

import hashlib
import json
import pathlib
import random
import subprocess
import sys
import threading
import uuid

generated, casd, address, servers, certificate, key, folder = sys.argv[1:]
sys.path.insert(0, generated)

import grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as reapi_grpc
from build.buildgrid import local_cas_pb2 as local
from build.buildgrid import local_cas_pb2_grpc as local_grpc
from google.bytestream import bytestream_pb2 as streams
from google.bytestream import bytestream_pb2_grpc as streams_grpc

folder = pathlib.Path(folder)
source = folder / "source"
# Larger than what goes in one batch, and by more than one message.
LARGE = 20 << 20
PIECE = 1 << 20
PATIENCE = 60


class Casd:
    """One with an empty cache, in front of belljard."""

    def __init__(self, name, *more):
        self.folder = folder / name
        self.folder.mkdir()
        socket = f"unix:{self.folder}/socket"
        remote = [
            f"--remote=https://{address}",
            f"--server-cert={servers}",
            f"--client-cert={certificate}",
            f"--client-key={key}",
            "--retry-limit=0",
        ]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                [casd, *remote, *more, f"--bind={socket}", self.folder / "cache"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        # It is asked until it is there: soon again, and not after a second.
        again = ["initial", "min", "max"]
        self.channel = grpc.insecure_channel(
            socket, options=[(f"grpc.{which}_reconnect_backoff_ms", 50) for which in again]
        )

    def __enter__(self):
        try:
            grpc.channel_ready_future(self.channel).result(PATIENCE)
        except BaseException:
            self.__exit__()
            sys.stderr.write((self.folder / "log").read_text())
            raise
        self.local = local_grpc.LocalContentAddressableStorageStub(self.channel)
        self.cas = reapi_grpc.ContentAddressableStorageStub(self.channel)
        self.actions = reapi_grpc.ActionCacheStub(self.channel)
        self.streams = streams_grpc.ByteStreamStub(self.channel)
        return self

    def __exit__(self, *_):
        self.channel.close()
        self.process.terminate()
        self.process.wait(PATIENCE)

    def capture(self, root, properties=()):
        """Sends a directory. Gives the digest of its root."""
        request = local.CaptureTreeRequest(
            root=str(root),
            path=["."],
            node_properties=properties,
            output_directory_format=reapi.Command.OutputDirectoryFormat.DIRECTORY_ONLY,
        )
        (answer,) = self.local.CaptureTree(request).responses
        assert answer.status.code == 0, answer
        return answer.root_directory_digest

    def tree(self, root):
        """The directories of a tree, as belljard tells them."""
        pages = self.cas.GetTree(reapi.GetTreeRequest(root_digest=root))
        return [directory for page in pages for directory in page.directories]

    def stage(self, root, into):
        """Fetches a tree and lays it out. `diff` says what is other there than in what was sent."""
        self.local.FetchTree(local.FetchTreeRequest(root_digest=root, fetch_file_blobs=True))
        into.mkdir()
        seen = threading.Event()

        def requests():
            yield local.StageTreeRequest(
                root_digest=root,
                path=str(into),
                staging_mode=local.StageTreeRequest.COPY_OR_LINK,
            )
            seen.wait(PATIENCE)

        answers = self.local.StageTree(requests())
        next(answers)
        said = subprocess.run(
            ["diff", "-r", "--no-dereference", source, into], capture_output=True, text=True
        )
        mode = (into / "run.sh").stat().st_mode & 0o777
        seen.set()
        # To the end of the call: the staged tree is taken away then.
        list(answers)
        return {"differs": said.stdout + said.stderr, "executable": bool(mode & 0o100)}

    def write(self, content):
        named = digest(content)
        name = f"uploads/{uuid.uuid4()}/blobs/{named.hash}/{named.size_bytes}"
        pieces = (
            streams.WriteRequest(
                resource_name=name,
                write_offset=at,
                finish_write=at + PIECE >= len(content),
                data=content[at : at + PIECE],
            )
            for at in range(0, len(content), PIECE)
        )
        return self.streams.Write(pieces).committed_size

    def read(self, named):
        name = f"blobs/{named.hash}/{named.size_bytes}"
        pieces = self.streams.Read(streams.ReadRequest(resource_name=name))
        return b"".join(piece.data for piece in pieces)


def digest(content):
    return reapi.Digest(hash=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def refused(call):
    """How a call is refused, and in what words."""
    try:
        call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", ""]


told = {}
blobs = [b"blob %d\n" % n * (n + 1) for n in range(200)] + [b""]
absent = digest(b"nobody has sent this")
large = random.Random(1).randbytes(LARGE)

with Casd("first") as first:
    root = first.capture(source)
    marked = first.capture(source, ["mtime", "unix_mode"])
    told["written"] = first.write(large)
    requests = [
        reapi.BatchUpdateBlobsRequest.Request(digest=digest(one), data=one) for one in blobs
    ]
    answer = first.cas.BatchUpdateBlobs(reapi.BatchUpdateBlobsRequest(requests=requests))
    told["taken"] = sum(one.status.code == 0 for one in answer.responses)
    told["actions"] = refused(
        lambda: first.actions.GetActionResult(reapi.GetActionResultRequest(action_digest=absent))
    )

# Others, which have nothing: all is belljard's.
with Casd("second") as second:
    told["directories"] = len(second.tree(root))
    told["links"] = sorted(link.target for one in second.tree(root) for link in one.symlinks)
    told["marked_root"] = [marked.hash, marked.size_bytes]
    told["marked"] = sum(
        file.node_properties.HasField("mtime") and file.node_properties.HasField("unix_mode")
        for directory in second.tree(marked)
        for file in directory.files
    )
    told["staged"] = second.stage(root, folder / "staged")
    told["read"] = second.read(digest(large)) == large
    answer = second.cas.BatchReadBlobs(
        reapi.BatchReadBlobsRequest(digests=[digest(one) for one in blobs])
    )
    given = {one.digest.hash: one.data for one in answer.responses}
    told["given"] = sum(given.get(digest(one).hash) == one for one in blobs)
    wanted = reapi.FindMissingBlobsRequest(blob_digests=[absent, digest(large)])
    told["missing"] = len(second.cas.FindMissingBlobs(wanted).missing_blob_digests)
    told["absent"] = refused(lambda: second.read(absent))
    told["absent_tree"] = refused(
        lambda: second.local.FetchTree(local.FetchTreeRequest(root_digest=absent))
    )

print(json.dumps(told))
