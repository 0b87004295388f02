use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::layout::object_path;
use crate::{BlobSink, Finding, OBJECTS, Reader, Writer};
use belljar_core::RelPath;
use belljar_tree::{Leaf, build};

const NAME: &str = "image";

/// A store on disk, with a tree of two files in it.
struct Rig {
    root: tempfile::TempDir,
    writer: Writer,
    reader: Reader,
    tree: ObjectId,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let writer = Writer::open(root.path()).unwrap();
        let put = |bytes: &[u8]| put(&writer, bytes);
        let leaves = ["one", "two"].map(|name| {
            let leaf = Leaf::File {
                object: put(name.as_bytes()),
                executable: false,
            };
            (RelPath::new(name).unwrap(), leaf)
        });
        let built = build(leaves).unwrap();
        for (_, bytes) in &built.directories {
            put(bytes);
        }
        Self {
            reader: Reader::of(&writer, root.path()).unwrap(),
            tree: built.root,
            writer,
            root,
        }
    }

    fn order(&self) -> ImageOrder<'static> {
        ImageOrder {
            name: NAME,
            tree: self.tree,
            mtime: 7,
        }
    }

    /// As after a start of the store.
    fn images(&self) -> Images {
        Images::open(self.root.path()).unwrap()
    }

    fn prepare(&self, images: &Images) -> Provenance {
        images.prepare(&self.reader, self.order()).unwrap().0
    }

    fn image(&self) -> PathBuf {
        self.root.path().join(IMAGES).join(NAME)
    }

    fn object(&self, content: &[u8]) -> PathBuf {
        let path = object_path(ObjectId::of(content).digest);
        self.root.path().join(OBJECTS).join(path)
    }
}

fn put(writer: &Writer, bytes: &[u8]) -> ObjectId {
    let mut blob = writer.begin(Some(ObjectId::of(bytes).into())).unwrap();
    blob.write(bytes).unwrap();
    blob.finish().unwrap()
}

fn overwrite(path: &Path, content: &[u8]) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o440)).unwrap();
}

#[test]
fn an_image_is_made_once_and_found_by_the_next_process() {
    let rig = Rig::new();
    let images = rig.images();
    let (made, measure) = images.prepare(&rig.reader, rig.order()).unwrap();
    assert_eq!(
        (made, measure.entries, measure.bytes),
        (Provenance::Made, 2, 6)
    );
    assert_eq!(rig.prepare(&images), Provenance::Known);
    let (found, again) = rig.images().prepare(&rig.reader, rig.order()).unwrap();
    assert_eq!(
        (found, again.entries, again.bytes),
        (Provenance::Found, 2, 6)
    );
    let status = std::fs::metadata(rig.image()).unwrap();
    assert_eq!(status.mode() & 0o7777, IMAGE_MODE);
    let tmp = std::fs::read_dir(rig.root.path().join(TMP)).unwrap();
    assert_eq!(tmp.count(), 0);
}

#[test]
fn whatever_bit_of_an_image_flips_it_is_made_anew() {
    let rig = Rig::new();
    rig.prepare(&rig.images());
    let good = std::fs::read(rig.image()).unwrap();
    for at in (0..good.len()).step_by(61).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        overwrite(&rig.image(), &bad);
        assert_eq!(rig.prepare(&rig.images()), Provenance::Mended, "byte {at}");
        assert_eq!(std::fs::read(rig.image()).unwrap(), good);
    }
    for cut in [0, 1, 31, 40, end::FOOTER, good.len() - 1] {
        overwrite(&rig.image(), &good[..cut]);
        assert_eq!(
            rig.prepare(&rig.images()),
            Provenance::Mended,
            "cut at {cut}"
        );
        assert_eq!(std::fs::read(rig.image()).unwrap(), good);
    }
}

#[test]
fn a_change_while_this_process_runs_is_seen() {
    let rig = Rig::new();
    let images = rig.images();
    let unchanged = || images.is_unchanged(&rig.reader, rig.order()).unwrap();
    assert!(!unchanged(), "there is none");
    rig.prepare(&images);
    assert!(unchanged());
    let good = std::fs::read(rig.image()).unwrap();
    let mut bad = good.clone();
    bad[2000] ^= 1;
    overwrite(&rig.image(), &bad);
    assert!(!unchanged());
    assert_eq!(rig.prepare(&images), Provenance::Mended);
    assert!(unchanged());
    overwrite(&rig.object(b"two"), b"twO");
    assert!(!unchanged(), "an object of another content");
    overwrite(&rig.object(b"two"), b"two");
    assert!(unchanged(), "written to, and the same all the same");
    std::fs::remove_file(rig.object(b"one")).unwrap();
    assert!(!unchanged(), "an object is gone");
}

#[test]
fn files_of_objects_are_held_until_some_are_removed_and_another_in_the_place_of_one_is_seen() {
    let rig = Rig::new();
    let images = rig.images();
    let unchanged = || images.is_unchanged(&rig.reader, rig.order()).unwrap();
    let held = || images.held.count();
    rig.prepare(&images);
    assert_eq!(held(), 0, "nothing is held of what no build has used");
    assert!(unchanged());
    assert_eq!(held(), 2);
    put(&rig.writer, b"two");
    std::fs::set_permissions(rig.object(b"one"), PermissionsExt::from_mode(0o440)).unwrap();
    assert!(unchanged(), "changed, and the same all the same");

    // Another file, with the mark of one that was verified.
    let (path, passing) = (rig.object(b"two"), rig.root.path().join("passing"));
    for (content, same) in [("twO", false), ("two", true)] {
        assert!(unchanged() || same);
        std::fs::write(&passing, content).unwrap();
        let verified = std::fs::metadata(rig.object(b"one")).unwrap();
        let times = std::fs::FileTimes::new().set_modified(verified.modified().unwrap());
        let file = File::options().write(true).open(&passing).unwrap();
        file.set_times(times).unwrap();
        std::fs::set_permissions(&passing, PermissionsExt::from_mode(0o440)).unwrap();
        std::fs::rename(&passing, &path).unwrap();
        assert_eq!(unchanged(), same, "{content}");
        assert_eq!(unchanged(), same, "{content}, once more");
    }
    assert_eq!(held(), 2);
    images.note_removal();
    assert_eq!(held(), 0, "else what is removed would take its room");
    assert!(unchanged());
}

#[test]
fn an_image_over_a_damaged_object_is_refused_with_its_place() {
    let rig = Rig::new();
    rig.prepare(&rig.images());
    overwrite(&rig.object(b"two"), b"twO");
    let result = rig.images().prepare(&rig.reader, rig.order());
    assert!(
        matches!(&result, Err(TreeError::Damaged { path, .. }) if path == "two"),
        "{result:?}"
    );
}

#[test]
fn what_is_verified_once_is_not_read_again_until_something_changed() {
    let rig = Rig::new();
    let path = rig.object(b"two");
    let verify = || rig.reader.verify(ObjectId::of(b"two")).unwrap();
    let fits = |reader: &Reader| {
        // Without a reader that may read it, only the stamp can tell.
        let status = rustix::fs::stat(&path).unwrap();
        reader.stamps().fits(ObjectId::of(b"two").digest, &status)
    };
    let mtime = || std::fs::metadata(&path).unwrap().mtime();
    assert!(fits(&rig.reader) && mtime() == 1, "from the start");
    overwrite(&path, b"two");
    assert!(!fits(&rig.reader) && mtime() != 1);
    assert!(verify());
    assert!(fits(&rig.reader) && mtime() == 1, "after it was read");
    overwrite(&path, b"twO");
    assert!(!verify() && !fits(&rig.reader));
    // Whoever writes and puts the time back is found by the time of change, which nobody can put back.
    overwrite(&path, b"two");
    assert!(verify());
    let before = std::fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1));
    overwrite(&path, b"twO");
    File::open(&path).unwrap().set_times(before).unwrap();
    assert_eq!(mtime(), 1);
    assert!(!verify() && !verify());
    // Another file with everything alike but its inode and its time of change.
    let copy = rig.root.path().join("copy");
    std::fs::write(&copy, b"twO").unwrap();
    File::open(&copy).unwrap().set_times(before).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o440)).unwrap();
    std::fs::rename(&copy, &path).unwrap();
    assert!(!verify());
    overwrite(&path, b"two");
    assert!(verify() && verify());
}

#[test]
fn after_objects_were_removed_an_image_is_used_only_if_its_own_are_there() {
    let rig = Rig::new();
    let images = rig.images();
    assert_eq!(rig.prepare(&images), Provenance::Made);
    images.note_removal();
    assert_eq!(rig.prepare(&images), Provenance::Known, "all is there");
    images.note_removal();
    rig.writer
        .remove(ObjectId::of(b"two").digest, u64::MAX)
        .unwrap();
    let error = images.prepare(&rig.reader, rig.order()).unwrap_err();
    assert!(
        matches!(&error, TreeError::Missing { path, .. } if path == "two"),
        "{error:?}"
    );
    put(&rig.writer, b"two");
    assert_eq!(rig.prepare(&images), Provenance::Known);
}

#[test]
fn an_evicted_image_is_made_anew_with_the_same_bytes() {
    let rig = Rig::new();
    let images = rig.images();
    rig.prepare(&images);
    let bytes = std::fs::read(rig.image()).unwrap();
    let named = images.objects_of(NAME).unwrap().unwrap();
    assert_eq!(named.len(), 2);
    assert!(images.evict(NAME).unwrap().is_some_and(|bytes| bytes > 0));
    assert_eq!(
        (
            images.evict(NAME).unwrap(),
            images.objects_of(NAME).unwrap()
        ),
        (None, None)
    );
    assert_eq!(rig.prepare(&images), Provenance::Made);
    assert_eq!(std::fs::read(rig.image()).unwrap(), bytes);
}

#[test]
fn an_image_that_is_damaged_is_put_aside_as_long_as_there_is_room_and_made_anew() {
    let rig = Rig::new();
    let images = rig.images();
    let told = Cell::new(0);
    let hear = |bytes| told.set(told.get() + bytes);
    let examine = || images.examine(NAME, &mut { hear }).unwrap();
    assert_eq!(examine(), Finding::Absent);
    rig.prepare(&images);
    let good = std::fs::read(rig.image()).unwrap();
    let size = good.len() as u64;
    assert_eq!(examine(), Finding::Whole { size });
    // The digest at the end is no piece of its own.
    assert_eq!(told.get(), good.len() - 32);
    assert_eq!(
        (rig.prepare(&images), images.damages()),
        (Provenance::Known, 0)
    );
    let aside = rig.root.path().join(QUARANTINE);
    for (damages, full) in [(1, false), (2, true)] {
        if full {
            for number in 0..bounds::QUARANTINED {
                std::fs::write(aside.join(number.to_string()), b"").unwrap();
            }
        }
        let mut bad = good.clone();
        bad[2000] ^= 1;
        overwrite(&rig.image(), &bad);
        assert!(matches!(examine(), Finding::Damaged { size: of, .. } if of == size));
        assert!(!rig.image().exists() && images.damages() == damages);
        let kept = std::fs::read(aside.join(NAME)).ok();
        assert_eq!(kept, (!full).then_some(bad));
        assert_eq!(rig.prepare(&images), Provenance::Made);
        assert_eq!(std::fs::read(rig.image()).unwrap(), good);
        if !full {
            std::fs::remove_file(aside.join(NAME)).unwrap();
        }
    }
    // Of what was damaged when it was asked for, builds may still have what it was.
    overwrite(&rig.image(), b"");
    assert_eq!(rig.prepare(&images), Provenance::Mended);
    assert_eq!(images.damages(), 3);
    assert_eq!(
        images.names().unwrap(),
        Vec::<String>::new(),
        "no image is called so"
    );
    let name = format!("{}-1-2.v1", rig.tree.digest.to_hex());
    std::fs::copy(rig.image(), rig.image().with_file_name(&name)).unwrap();
    assert_eq!(images.names().unwrap(), [name]);
}

#[test]
fn several_at_once_make_one_image() {
    let rig = Rig::new();
    let images = rig.images();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| rig.prepare(&images));
        }
    });
    assert_eq!(rig.prepare(&images), Provenance::Known);
    let all = std::fs::read_dir(rig.root.path().join(IMAGES)).unwrap();
    assert_eq!(all.count(), 1);
}

#[test]
fn a_full_memory_of_images_forgets_and_reads_again() {
    let rig = Rig::new();
    let images = rig.images();
    rig.prepare(&images);
    let known = *images.lock().values().next().unwrap();
    let others = (0..bounds::KNOWN_IMAGES).map(|i| (format!("other {i}"), known));
    images.lock().extend(others);
    images.remember("zzz", known.stamp, known.measure, 0);
    assert!(images.lock().len() <= bounds::KNOWN_IMAGES + 1);
    assert_ne!(rig.prepare(&images), Provenance::Made);
}
