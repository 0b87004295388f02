use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use belljar_core::{ObjectId, RelPath};
use belljar_tree::{Leaf, SymlinkTarget};

use crate::Client;

/// A tree that is put together in a test.
#[derive(Clone, Debug, Default)]
pub struct TreeOf {
    files: BTreeMap<String, (Vec<u8>, bool)>,
    links: BTreeMap<String, String>,
}

impl TreeOf {
    /// With a file more.
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let one = (content.as_ref().to_vec(), false);
        self.files.insert(path.to_owned(), one);
        self
    }

    /// With a program more.
    pub fn program(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let one = (content.as_ref().to_vec(), true);
        self.files.insert(path.to_owned(), one);
        self
    }

    /// With a symbolic link more.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.links.insert(path.to_owned(), target.to_owned());
        self
    }

    /// With programs of this host in `bin/`, and the libraries that these need where they look for them.
    ///
    /// # Panics
    /// When one of them is not there.
    pub fn with_programs(mut self, names: &[&str]) -> Self {
        let mut libraries = BTreeSet::new();
        for name in names {
            let path = ["/bin", "/usr/bin"].map(|place| Path::new(place).join(name));
            let path = path.iter().find(|path| path.exists());
            let path = path.unwrap_or_else(|| panic!("this host has no {name}"));
            self = self.program(&format!("bin/{name}"), fs::read(path).expect("a program"));
            let told = Command::new("ldd").arg(path).output().expect("ldd");
            let text = String::from_utf8(told.stdout).expect("what ldd says");
            let words = text.split_whitespace();
            libraries.extend(words.filter(|w| w.starts_with('/')).map(str::to_owned));
        }
        for library in libraries {
            let content = fs::read(&library).expect("a library");
            self = self.program(library.trim_start_matches('/'), content);
        }
        self
    }

    /// A root file system that a shell and a few programs run on.
    pub fn root_file_system() -> Self {
        Self::default().with_programs(&[
            "sh", "cat", "ls", "mkdir", "touch", "chmod", "mv", "rm", "ln", "stat", "sleep",
        ])
    }

    /// Its files: path, content, whether it is a program.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8], bool)> {
        let files = self.files.iter();
        files.map(|(path, (content, program))| (path.as_str(), content.as_slice(), *program))
    }

    /// Uploads it. Gives its root.
    pub fn upload(&self, client: &Client) -> ObjectId {
        let path = |path: &String| RelPath::new(path.as_str()).expect("a path");
        let files = self.files.iter().map(|(at, (content, executable))| {
            let object = client.put_large(content);
            let executable = *executable;
            (path(at), Leaf::File { object, executable })
        });
        let links = self.links.iter().map(|(at, target)| {
            let target = SymlinkTarget::new(target.as_str()).expect("a target");
            (path(at), Leaf::Symlink { target })
        });
        let built = belljar_tree::build(files.chain(links).collect::<Vec<_>>()).expect("a tree");
        for (object, bytes) in &built.directories {
            assert_eq!(client.put(bytes), *object);
        }
        built.root
    }
}

/// Lets root write to what its owner may not.
pub fn overwrite(path: &Path, content: &[u8]) {
    let before = fs::metadata(path).expect("a file").permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
    fs::write(path, content).expect("content");
    fs::set_permissions(path, before).expect("permissions");
}
