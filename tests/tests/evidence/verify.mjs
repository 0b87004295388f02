// Verifies BUNDLE by KEY for ARTIFACT with @sigstore/verify out of the node_modules of FOLDER.
//
// Prints `verified`, or the name of what was thrown and exits with 1.
import { createHash, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, bundlePath, keyPath, artifactPath] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const found = require("@sigstore/verify/package.json").version;
if (found !== "4.1.3") throw new Error(`@sigstore/verify 4.1.3 is due, ${found} is there`);
const { bundleFromJSON } = require("@sigstore/bundle");
const { toSignedEntity, toTrustMaterial, Verifier } = require("@sigstore/verify");

class NotASubject extends Error {}

// The OpenSSH fingerprint of a P-256 key (RFC 5656, 3.1): by what whoever verifies knows it.
function fingerprint(key) {
  const { x, y } = key.export({ format: "jwk" });
  const point = Buffer.concat([Buffer.from([4]), Buffer.from(x, "base64url"), Buffer.from(y, "base64url")]);
  const fields = [Buffer.from("ecdsa-sha2-nistp256"), Buffer.from("nistp256"), point].flatMap((field) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(field.length);
    return [length, field];
  });
  return `SHA256:${createHash("sha256").update(Buffer.concat(fields)).digest("base64").replace(/=+$/, "")}`;
}

function verify() {
  const bundle = bundleFromJSON(JSON.parse(readFileSync(bundlePath, "utf8")));
  const key = createPublicKey(readFileSync(keyPath));
  const rawBytes = key.export({ format: "der", type: "spki" });
  const none = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
  const trusted = toTrustMaterial(none, { [fingerprint(key)]: { rawBytes } });
  const verifier = new Verifier(trusted, { tlogThreshold: 0, timestampThreshold: 0, ctlogThreshold: 0 });
  verifier.verify(toSignedEntity(bundle));
  const digest = createHash("sha256").update(readFileSync(artifactPath)).digest("hex");
  const statement = JSON.parse(bundle.content.dsseEnvelope.payload.toString());
  if (!statement.subject.some((subject) => subject.digest.sha256 === digest)) throw new NotASubject(digest);
}

try {
  verify();
} catch (error) {
  console.log(error.constructor.name);
  console.error(error);
  process.exit(1);
}
console.log("verified");
