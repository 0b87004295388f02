use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use belljar_core::{Digest, Outcome};
use belljar_tests::{Instance, Project, STORE_UID, TreeOf, overwrite};

use crate::{ended, log, object_file, on, run, submit, with};

/// Every object of the store is what its name says, and nobody's to write.
pub(crate) fn assert_objects_are_whole(instance: &Instance) -> usize {
    let objects = instance.state().join("store/objects/sha256");
    let mut count = 0;
    for prefix in fs::read_dir(objects).unwrap() {
        let prefix = prefix.unwrap();
        for object in fs::read_dir(prefix.path()).unwrap() {
            let object = object.unwrap();
            let names = [prefix.file_name(), object.file_name()];
            let name = names.map(|name| name.into_string().unwrap()).concat();
            let content = fs::read(object.path()).unwrap();
            assert_eq!(Digest::of(&content).to_hex(), name);
            let status = object.metadata().unwrap();
            assert_eq!((status.mode() & 0o7777, status.uid()), (0o440, STORE_UID));
            count += 1;
        }
    }
    count
}

/// Each line is one way to change something; every one must fail.
const WAYS: &str = r#"
try() { if ( eval "$1" ) 2>/dev/null; then echo "POSSIBLE: $1"; fi; }
for there in $PLACES; do
  test -f "$there"
  try "echo x > $there"; try "echo x >> $there"; try ": > $there"
  try "chmod 777 $there"; try "touch $there"; try "touch -d @7 $there"
  try "rm -f $there"; try "mv $there $there.moved"; try "mv -f $there /tmp/moved"
  try "ln $there $there.link"; try "ln $there /tmp/link"; try "ln -f in $there"; try "mv -f in $there"
  try "chmod 777 ${there%/*}"; try "mkdir ${there%/*}/new"; try "mv ${there%/*} ${there%/*}.moved"
done
"#;

#[test]
fn neither_inputs_nor_image_can_be_changed_and_sources_only_in_the_builds_own_layer() {
    let instance = Instance::started();
    let client = instance.client();
    let image = TreeOf::root_file_system()
        .file("opt/deep/file", "of the image\n")
        .upload(&client);
    let deps = TreeOf::default()
        .file("d/file", "of an input\n")
        .upload(&client);
    let script = format!(
        "PLACES='/opt/deep/file /etc/passwd /bin/cat /deps/x/d/file'\n{WAYS}
        cat /opt/deep/file /deps/x/d/file
        echo changed > in; chmod 700 in; mv sub moved; rm gone; ln in linked; echo more >> linked
        cat in moved/file > out"
    );
    let sources = [
        ("in", "source\n"),
        ("sub/file", "below\n"),
        ("gone", "gone\n"),
    ];
    let spec = client.spec(&sources, &[&script], &["out"]);
    let spec = with(on(spec, image), &[("x", deps)]);
    let build = run(&client, "one", &spec);
    let first = log(&instance, &build);
    assert_eq!(build.outcome, Some(Outcome::Succeeded), "{first}");
    assert_eq!(first, "of the image\nof an input\n");
    let out = belljar_core::ObjectId::of(b"changed\nmore\nbelow\n");
    assert_eq!(build.artifacts.len(), 1);
    assert!(client.read(out).is_ok());
    assert!(assert_objects_are_whole(&instance) > 10);
    // And again: what the first build did to its sources is nobody else's.
    let mut again = spec;
    let steps = "cat in sub/file gone > out".to_owned();
    again.run = belljar_core::Steps::new(vec![belljar_core::Script::new(steps).unwrap()]).unwrap();
    let build = run(&client, "two", &again);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    assert!(
        client
            .read(belljar_core::ObjectId::of(b"source\nbelow\ngone\n"))
            .is_ok()
    );
}

#[test]
fn remounting_and_reaching_below_the_overlays_is_refused() {
    let instance = Instance::started();
    let client = instance.client();
    let deps = TreeOf::default()
        .file("d/file", "of an input\n")
        .upload(&client);
    // On the host's root file system, which has mount(8).
    let script = r#"
        for place in /deps/x /build / /usr /tmp; do
          for options in remount,rw remount,bind,rw,suid,dev; do
            mount -o $options $place 2>/dev/null && echo "POSSIBLE: $options $place"
          done
          umount $place 2>/dev/null && echo "POSSIBLE: umount $place"
          umount -l $place 2>/dev/null && echo "POSSIBLE: umount -l $place"
        done
        mount --bind /build /deps/x 2>/dev/null && echo "POSSIBLE: bind"
        ls /objects /trees /proc/1/root 2>/dev/null && echo "POSSIBLE: below"
        getfattr -m - -d /deps/x/d/file in 2>/dev/null | grep -i overlay && echo "POSSIBLE: attributes"
        cat /deps/x/d/file > out"#;
    let spec = client.spec(&[("in", "source\n")], &[script], &["out"]);
    let build = run(&client, "one", &with(spec, &[("x", deps)]));
    let told = log(&instance, &build);
    assert_eq!(build.outcome, Some(Outcome::Succeeded), "{told}");
    assert!(!told.contains("POSSIBLE"), "{told}");
    assert_objects_are_whole(&instance);
}

#[test]
fn what_somebody_outside_changes_meanwhile_is_never_attested() {
    let instance = Instance::started();
    let client = instance.client();
    let content = b"of an input\n";
    let deps = TreeOf::default().file("d/file", content).upload(&client);
    let plain = client.spec(&[], &["echo begun; sleep 3; echo done > out"], &["out"]);
    let spec = with(plain, &[("x", deps)]);
    let object = object_file(&instance, belljar_core::ObjectId::of(content));
    for (number, what) in ["object", "image"].into_iter().enumerate() {
        let build = submit(&client, what, &spec);
        let mark = |build: &belljar_wire::BuildRecord| log(&instance, build).contains("begun");
        let running = client.until(&build.id, mark);
        assert_eq!(running.attempt, 1);
        let image = fs::read_dir(instance.state().join("store/images")).unwrap();
        let image = image
            .map(|image| image.unwrap().path())
            .find(|path| path.to_string_lossy().contains(&deps.digest.to_hex()));
        let path = if number == 0 {
            object.clone()
        } else {
            image.unwrap()
        };
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        overwrite(&path, &bad);
        let build = ended(&client, &build);
        if number == 0 {
            assert!(!path.exists(), "it was put aside");
            client.put(content);
        } else {
            overwrite(&path, &good);
        }
        let told = format!("{:?}", build.outcome);
        assert!(
            told.contains("changed while the build ran"),
            "{what}: {told}"
        );
        assert_eq!(build.evidence.bundle, None);
    }
    // Given and put right again, both are found whole.
    let build = run(&client, "again", &spec);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
}

#[test]
fn another_directory_of_objects_in_the_place_of_one_is_seen() {
    let instance = Instance::started();
    let client = instance.client();
    let (good, bad) = (b"of an input\n", b"of somebody\n");
    let deps = TreeOf::default().file("file", good).upload(&client);
    let object = object_file(&instance, belljar_core::ObjectId::of(good));
    let script = "echo begun; sleep 3; cat /deps/x/file > out";
    let spec = with(client.spec(&[], &[script], &["out"]), &[("x", deps)]);
    // From this one on the store holds what is to be looked at open.
    let build = run(&client, "first", &spec);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let build = submit(&client, "second", &spec);
    client.until(&build.id, |build| log(&instance, build).contains("begun"));
    let place = object.parent().unwrap();
    let aside = place.with_extension("aside");
    fs::rename(place, &aside).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .args([&aside, &place.to_owned()])
        .status();
    assert!(copied.unwrap().success());
    overwrite(&object, bad);
    let build = ended(&client, &build);
    fs::remove_dir_all(place).unwrap();
    fs::rename(&aside, place).unwrap();
    let told = format!("{:?}", build.outcome);
    assert!(told.contains("changed while the build ran"), "{told}");
    assert_eq!(build.evidence.bundle, None);
    assert!(client.read(belljar_core::ObjectId::of(bad)).is_err() || build.artifacts.is_empty());
}

/// Locks files and says how many; then watches them for some tenths of a second, and says what it saw.
const WATCHER: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <unistd.h>
int main(int argc, char **argv) {
  int watch = inotify_init1(IN_NONBLOCK), locked = 0;
  char buffer[4096];
  for (int i = 2; i < argc; i++) {
    int file = open(argv[i], O_RDONLY);
    struct flock whole = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    if (file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0 && fcntl(file, F_SETLK, &whole) == 0) locked++;
    if (inotify_add_watch(watch, argv[i], IN_ALL_EVENTS) < 0) return 2;
  }
  printf("locked %d of %d\n", locked, argc - 2); fflush(stdout);
  for (int i = atoi(argv[1]); i > 0; i--) {
    struct pollfd ready = {.fd = watch, .events = POLLIN};
    if (poll(&ready, 1, 100) > 0 && read(watch, buffer, sizeof buffer) > 0) { printf("event\n"); fflush(stdout); }
  }
  return 0;
}
"#;

#[test]
fn two_builds_on_the_same_trees_see_neither_locks_nor_events_of_each_other() {
    let instance = Instance::started();
    let client = instance.client();
    let deps = TreeOf::default().file("d/file", "shared\n").upload(&client);
    let of = |script: &str| {
        let script = format!("cc -o watcher watcher.c; {script}");
        let files = [("watcher.c", WATCHER), ("in", "1")];
        let spec = client.spec(&files, &[&script], &["in"]);
        with(spec, &[("x", deps)])
    };
    let files = "/deps/x/d/file /deps/x/d in";
    let watching = submit(&client, "one", &of(&format!("./watcher 3000 {files}")));
    let saw = || log(&instance, &client.get(&watching.id).unwrap());
    client.until(&watching.id, |_| saw().contains("locked"));
    // While the first holds its locks and watches, the second takes the same ones, and reads all of it.
    let script = format!("cat /deps/x/d/file in; ls -a /deps/x/d; ./watcher 1 {files}");
    let second = run(&client, "two", &of(&script));
    let told = log(&instance, &second);
    assert_eq!(second.outcome, Some(Outcome::Succeeded), "{told}");
    assert!(told.ends_with("locked 3 of 3\n"), "{told}");
    assert_eq!(client.get(&watching.id).unwrap().outcome, None, "{}", saw());
    assert_eq!(saw(), "locked 3 of 3\n");
    client.cancel(&watching.id, "enough").unwrap();
    ended(&client, &watching);

    // Outside, on one file, two of them do see each other.
    let project = Project::bare();
    let source = project.write("watcher.c", WATCHER);
    let file = project.write("file", "shared\n");
    let watcher = project.path().join("watcher");
    let mut compiler = Command::new("cc");
    let compiled = compiler.arg("-o").arg(&watcher).arg(source).status();
    assert!(compiled.unwrap().success());
    let mut first = watch(&watcher, "100", &file);
    let mut said = BufReader::new(first.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "locked 1 of 1\n");
    let second = watch(&watcher, "0", &file).wait_with_output().unwrap();
    assert_eq!(second.stdout, b"locked 0 of 1\n");
    assert_eq!(line(), "event\n");
    first.kill().unwrap();
    first.wait().unwrap();
}

fn watch(watcher: &Path, tenths: &str, file: &Path) -> std::process::Child {
    let mut command = Command::new(watcher);
    command.arg(tenths).arg(file).stdout(Stdio::piped());
    command.spawn().unwrap()
}
