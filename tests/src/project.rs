use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A source directory with a `belljar.toml`, removed at the end.
#[derive(Debug)]
pub struct Project {
    dir: TempDir,
}

impl Project {
    /// One whose `belljar.toml` is `manifest`.
    pub fn new(manifest: &str) -> Self {
        let project = Self::bare();
        project.write("belljar.toml", manifest);
        project
    }

    /// One that runs `steps` on the image `host` and declares `outputs`. `more` is appended to its
    /// `belljar.toml`, such as `[limits]`.
    pub fn of(steps: &[&str], outputs: &[&str], more: &str) -> Self {
        let list = |items: &[&str]| serde_json::to_string(items).expect("a list of strings");
        Self::new(&format!(
            "image = \"host\"\nrun = {}\noutputs = {}\n{more}\n",
            list(steps),
            list(outputs)
        ))
    }

    /// One that runs one script and declares the output `out`.
    pub fn script(script: &str) -> Self {
        Self::of(&[script], &["out"], "")
    }

    /// An empty directory.
    pub fn bare() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("belljar-project-")
            .tempdir();
        Self {
            dir: dir.expect("a temporary directory"),
        }
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(&path, content).expect("a file");
        path
    }

    /// Writes a file that its owner may execute.
    pub fn write_executable(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(path, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
        path
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}
