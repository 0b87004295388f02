//! What the package managers make of a lock file's packages. Each has to have the digest that the lock file
//! gives: for Cargo's that is the name of the object, which the store itself verifies while it is read.

use std::collections::BTreeMap;
use std::io::Read;

use belljar_core::{Digest, Fact, Invalid, ObjectId, RelPath, Sha512Digest, Sha512Hasher, bounds};
use belljar_lock::{cargo, npm};
use belljar_plan::unpack::Said;
use belljar_tree::Directory;

use super::archive::{self, Counts, Style};
use super::outlet::{Outlet, Stop};

/// Says what Cargo needs to build without a network from the packages of a `Cargo.lock`.
pub(super) fn of_cargo(
    outlet: &Outlet<'_>,
    lock: ObjectId,
    packages: ObjectId,
    dropped: &mut Counts,
) -> Result<(), Stop> {
    let lock = cargo::Lock::parse(&text(outlet, lock)?).map_err(wrong)?;
    let archives = Archives::read(outlet, packages)?;
    outlet.say(&Said::Directory {
        path: path(cargo::VENDOR)?,
    })?;
    for package in &lock.packages {
        let archive = *archives.by_digest.get(&package.checksum).ok_or_else(|| {
            let other = archives.called(&package.archive());
            lacking(&package.to_string(), &package.checksum.to_string(), other)
        })?;
        let directory = package.directory();
        let at = path(cargo::VENDOR)?.join(&directory).map_err(wrong)?;
        let style = Style::Package {
            directory: &directory,
            at: &at,
        };
        let content = outlet.need(archive)?;
        archive::unpack(outlet, content, archive.size, style, dropped)
            .map_err(|stop| stop.within(&package.to_string()))?;
        // After the archive, so that none can bring its own.
        let checksum = at.join(cargo::CHECKSUM).map_err(wrong)?;
        file(outlet, checksum, package.checksum_file().as_bytes())?;
        outlet.say(&Said::Fact {
            fact: Fact::Package {
                purl: package.purl(),
                archive,
                sha512: None,
                location: package.source.clone(),
            },
        })?;
    }
    let config = path(cargo::HOME)?.join(cargo::CONFIG).map_err(wrong)?;
    file(outlet, config, lock.config().as_bytes())
}

/// Says what npm needs to install without a network from the packages of a lock file.
pub(super) fn of_npm(outlet: &Outlet<'_>, lock: ObjectId, packages: ObjectId) -> Result<(), Stop> {
    let lock = npm::Lock::parse(&text(outlet, lock)?).map_err(wrong)?;
    let archives = Archives::read(outlet, packages)?;
    let mut by_digest: BTreeMap<Sha512Digest, ObjectId> = BTreeMap::new();
    for object in archives.by_digest.values() {
        by_digest.insert(sha512(outlet, *object)?, *object);
    }
    outlet.say(&Said::Directory {
        path: path(npm::CONTENT)?,
    })?;
    for package in &lock.packages {
        let fact = match by_digest.get(&package.integrity) {
            Some(archive) => {
                outlet.say(&Said::Given {
                    executable: false,
                    path: path(&package.content_path())?,
                    object: *archive,
                })?;
                Fact::Package {
                    purl: package.purl(),
                    archive: *archive,
                    sha512: Some(package.integrity),
                    location: package.resolved.clone(),
                }
            }
            None if package.only_for.is_some() => Fact::LeftOut {
                purl: package.purl(),
            },
            None => {
                let digest = package.integrity.to_string();
                return Err(lacking(&package.to_string(), &digest, None));
            }
        };
        outlet.say(&Said::Fact { fact })?;
    }
    Ok(())
}

/// The archives that were given.
struct Archives {
    by_name: BTreeMap<String, ObjectId>,
    by_digest: BTreeMap<Digest, ObjectId>,
}

impl Archives {
    fn read(outlet: &Outlet<'_>, packages: ObjectId) -> Result<Self, Stop> {
        let named = |stop: Stop| stop.within("the directory of packages");
        let most = bounds::DIRECTORY_BYTES as u64;
        let bytes = outlet.document(packages, most).map_err(named)?;
        let refused = |why: String| named(Stop::Refused(why));
        let directory = Directory::decode(&bytes).map_err(|e| refused(format!("is none: {e}")))?;
        if directory.all_properties().next().is_some() {
            let why = "has nodes with times, modes or other properties, of which nothing is kept; leave them out";
            return Err(refused(why.to_owned()));
        }
        let files = directory.files();
        if files.len() > bounds::LOCK_PACKAGES {
            return Err(refused(format!(
                "has {} files; {} are allowed",
                files.len(),
                bounds::LOCK_PACKAGES
            )));
        }
        let names = files
            .iter()
            .map(|file| (file.name.to_string(), file.object));
        let digests = files.iter().map(|file| (file.object.digest, file.object));
        Ok(Self {
            by_name: names.collect(),
            by_digest: digests.collect(),
        })
    }

    /// The digest of what was given under this name.
    fn called(&self, name: &str) -> Option<String> {
        let object = self.by_name.get(name);
        object.map(|object| object.digest.to_string())
    }
}

fn text(outlet: &Outlet<'_>, lock: ObjectId) -> Result<Vec<u8>, Stop> {
    let bytes = outlet.document(lock, bounds::LOCK_BYTES as u64);
    bytes.map_err(|stop| stop.within("the lock file"))
}

fn wrong(invalid: Invalid) -> Stop {
    Stop::Refused(format!("the lock file: {invalid}"))
}

fn lacking(package: &str, expected: &str, found: Option<String>) -> Stop {
    let found = found.map_or_else(String::new, |found| format!("; what was given has {found}"));
    Stop::Refused(format!(
        "{package} is missing: the lock file demands {expected}, and nothing with that digest was given{found}"
    ))
}

fn path(text: &str) -> Result<RelPath, Stop> {
    RelPath::new(text).map_err(wrong)
}

fn file(outlet: &Outlet<'_>, path: RelPath, content: &[u8]) -> Result<(), Stop> {
    let executable = false;
    outlet.say(&Said::File { path, executable })?;
    for piece in content.chunks(bounds::CHUNK_BYTES) {
        outlet.piece(piece)?;
    }
    Ok(outlet.say(&Said::FileEnd {})?)
}

fn sha512(outlet: &Outlet<'_>, object: ObjectId) -> Result<Sha512Digest, Stop> {
    let mut content = outlet.need(object)?;
    let mut hasher = Sha512Hasher::new();
    let mut buffer = vec![0; bounds::CHUNK_BYTES];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}
