"""Verifies BUNDLE by KEY for ARTIFACT with securesystemslib and in-toto-attestation.

Prints `verified`, or the name of what was thrown and exits with 1.
"""

import base64
import hashlib
import importlib.metadata
import json
import sys

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

for package, version in [("securesystemslib", "1.6.0"), ("in-toto-attestation", "0.9.3")]:
    found = importlib.metadata.version(package)
    if found != version:
        sys.exit(f"{package} {version} is due, {found} is there")

bundle_path, key_path, artifact_path = sys.argv[1:]
with open(bundle_path, "rb") as file:
    bundle = json.load(file)
with open(key_path, "rb") as file:
    public_key = load_pem_public_key(file.read())
with open(artifact_path, "rb") as file:
    artifact = file.read()


class NotASubject(Exception):
    pass


def fingerprint():
    """The OpenSSH fingerprint of the key: by what whoever verifies knows it."""
    blob = base64.b64decode(public_key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def check_provenance(predicate):
    """Strictly: a field that the definitions do not know is an error."""
    provenance = json_format.ParseDict(predicate, provenance_pb2.Provenance(), ignore_unknown_fields=False)
    described = [
        *provenance.build_definition.resolved_dependencies,
        *provenance.run_details.builder.builder_dependencies,
        *provenance.run_details.byproducts,
    ]
    assert len(described) >= 10, described
    for descriptor in described:
        ResourceDescriptor.copy_from_pb(descriptor).validate()


def verify():
    key = SSlibKey.from_crypto(public_key, keyid=fingerprint())
    assert key.scheme == "ecdsa-sha2-nistp256", key.scheme
    envelope = Envelope.from_dict(bundle["dsseEnvelope"])
    accepted = envelope.verify([key], 1)
    assert list(accepted) == [key.keyid], accepted
    # Strictly, as above.
    statement = json_format.Parse(envelope.payload, statement_pb2.Statement(), ignore_unknown_fields=False)
    Statement.copy_from_pb(statement).validate()
    is_receipt = statement.predicate_type.endswith("/predicates/receipt/v1")
    predicate = json.loads(envelope.payload)["predicate"]
    if not is_receipt:
        assert statement.predicate_type == "https://slsa.dev/provenance/v1"
        check_provenance(predicate)
    digest = hashlib.sha256(artifact).hexdigest()
    if not any(subject.digest["sha256"] == digest for subject in statement.subject):
        raise NotASubject(digest)
    for subject in statement.subject:
        if subject.digest["sha256"] == digest:
            assert subject.digest["sha512"] == hashlib.sha512(artifact).hexdigest()
    # The receipt's file is the predicate.
    assert not is_receipt or json.loads(artifact) == predicate



try:
    verify()
except Exception as error:
    print(type(error).__name__)
    print(error, file=sys.stderr)
    sys.exit(1)
print("verified")
