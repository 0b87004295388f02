//! Root file systems that the suites build real projects on. Made once and kept below the target directory,
//! since that takes minutes; by whoever needs one first.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use belljar_core::Hasher;
use serde_json::{Value, json};

use crate::tool;

/// What is in the Debian beside what every Debian has.
const PACKAGES: &str = "gcc,libc6-dev,make,nodejs";
/// The npm that is put beside Debian's Node.js, whose own package of it brings 400 more. The last major one
/// that runs on Node.js 18.
const NPM: &str = "npm@10.9.4";
/// Starts it, whatever the modes in its archive are.
const NPM_STARTER: &str =
    "#!/bin/sh\nexec node /usr/local/lib/node_modules/npm/bin/npm-cli.js \"$@\"\n";

/// Where the images of a target directory are kept.
#[derive(Debug, Clone)]
pub struct Images {
    kept: PathBuf,
}

impl Images {
    /// Those of the programs that are tested.
    pub fn of_tests() -> Self {
        let program = crate::program("belljar");
        Self::below(program.ancestors().nth(2).expect("the target directory"))
    }

    /// Those below a target directory.
    pub fn below(target: &Path) -> Self {
        let kept = target.join("test-images");
        fs::create_dir_all(&kept).expect("a directory for images");
        Self { kept }
    }

    /// An archive of Debian, as this host has it, with a C compiler, make and Node.js. `belljar` is
    /// `belljar image build-debian` as far as it says whom to ask.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn debian(&self, belljar: Command) -> PathBuf {
        let _lock = self.lock();
        self.debian_locked(belljar)
    }

    fn debian_locked(&self, mut belljar: Command) -> PathBuf {
        let archive = self.kept.join(format!("debian-{PACKAGES}.tar"));
        if !archive.exists() {
            let dir = tempfile::tempdir_in(&self.kept).expect("a directory");
            let new = dir.path().join("new.tar");
            let output = belljar
                .args(["--include", PACKAGES, "--variant", "essential"])
                .args(["--name", "debian", "--json", "--archive"])
                .arg(&new)
                .arg("--lock")
                .arg(dir.path().join("belljar.lock"))
                .output()
                .expect("belljar");
            let said = String::from_utf8_lossy(&output.stderr);
            let json: Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
            assert!(output.status.success(), "{json:#}\n{said}");
            let from = json["source"]["file"].as_str().expect("where it is from");
            let due = format!("mmdebstrap --include={PACKAGES} --variant=essential ");
            assert!(from.starts_with(&due), "{from}");
            fs::rename(new, &archive).expect("the archive");
        }
        archive
    }

    /// An OCI image layout of three layers: that Debian, the Rust toolchain that is in use here, and npm.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn toolchain(&self, belljar: Command) -> PathBuf {
        let _lock = self.lock();
        let version = tool(Path::new("/"), "rustc", &["-vV"]);
        let mut key = Hasher::new();
        for part in [PACKAGES, NPM, NPM_STARTER, &version] {
            key.update(part.as_bytes());
        }
        let name = format!("toolchain-{}", &key.finish().to_hex()[..16]);
        let layout = self.kept.join(&name);
        if layout.exists() {
            return layout;
        }
        let debian = self.debian_locked(belljar);
        let dir = tempfile::tempdir_in(&self.kept).expect("a directory");
        let new = dir.path().join("layout");
        let layers = [debian, rust(dir.path(), &version), npm(dir.path())];
        write_layout(&new, &layers);
        // Of earlier toolchains.
        for entry in fs::read_dir(&self.kept).expect("images").flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with("toolchain-")
            {
                fs::remove_dir_all(entry.path()).expect("an image that goes");
            }
        }
        fs::rename(new, &layout).expect("the layout");
        layout
    }

    /// Held while something is made: suites run beside each other.
    fn lock(&self) -> fs::File {
        let lock = fs::File::create(self.kept.join("lock")).expect("a lock");
        lock.lock().expect("the lock");
        lock
    }
}

/// The compiler, cargo, and the libraries for this machine, below `/usr/local`.
fn rust(dir: &Path, version: &str) -> PathBuf {
    let sysroot = tool(Path::new("/"), "rustc", &["--print", "sysroot"]);
    let sysroot = Path::new(sysroot.trim());
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("the host of this compiler");
    let mut parts = vec![
        "bin/cargo".to_owned(),
        "bin/rustc".to_owned(),
        format!("lib/rustlib/{host}"),
    ];
    for entry in fs::read_dir(sysroot.join("lib")).expect("its libraries") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("a name");
        if name.contains(".so") {
            parts.push(format!("lib/{name}"));
        }
    }
    let archive = dir.join("rust.tar");
    let mut arguments = vec![
        "--create",
        "--file",
        archive.to_str().expect("a path"),
        // Not of symbolic links, whose targets are relative.
        "--transform=flags=rSh;s,^,usr/local/,",
    ];
    arguments.extend(parts.iter().map(String::as_str));
    tool(sysroot, "tar", &arguments);
    archive
}

/// npm as its registry has it, with everything that it needs in it.
fn npm(dir: &Path) -> PathBuf {
    tool(dir, "npm", &["pack", "--silent", NPM]);
    let root = dir.join("npm");
    let modules = root.join("usr/local/lib/node_modules");
    fs::create_dir_all(&modules).expect("directories");
    let file = format!("{}.tgz", NPM.replace('@', "-"));
    tool(dir, "tar", &["--extract", "--file", &file]);
    fs::rename(dir.join("package"), modules.join("npm")).expect("npm");
    let starter = root.join("usr/local/bin/npm");
    fs::create_dir_all(root.join("usr/local/bin")).expect("directories");
    fs::write(&starter, NPM_STARTER).expect("a starter");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&starter, executable).expect("its mode");
    let archive = dir.join("npm.tar");
    let to = archive.to_str().expect("a path");
    tool(&root, "tar", &["--create", "--file", to, "usr"]);
    archive
}

/// An OCI image layout (image-spec, `image-layout.md`) of plain layers.
fn write_layout(dir: &Path, layers: &[PathBuf]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("directories");
    let described = |file: &Path, kind: &str| {
        let (digest, size) = digest_of(file);
        let blob = blobs.join(&digest);
        fs::hard_link(file, &blob).expect("a second name");
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
    };
    let written = |value: &Value, kind: &str| {
        let file = dir.join("new");
        fs::write(&file, value.to_string()).expect("a blob");
        let described = described(&file, kind);
        fs::remove_file(file).expect("its first name");
        described
    };
    let layers = layers.iter().map(|file| described(file, "layer.v1.tar"));
    let layers: Vec<_> = layers.collect();
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let config = json!({"os": "linux", "architecture": architecture});
    let config = written(&config, "config.v1+json");
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = written(&manifest, "manifest.v1+json");
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string()).expect("the index");
    let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
    fs::write(dir.join("oci-layout"), version).expect("the marker");
}

/// SHA-256 in hexadecimal, and size.
fn digest_of(path: &Path) -> (String, u64) {
    let mut file = fs::File::open(path).expect("a file");
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).expect("its content");
        if read == 0 {
            return (hasher.finish().to_hex(), size);
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
}
