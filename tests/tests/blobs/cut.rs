use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use belljar_core::ObjectId;
use belljar_tests::{Instance, Part, Project, Told, program};

use crate::raw::noise;

/// Bytes of the one large file.
const LARGE: usize = 24 << 20;
/// After how many bytes a connection is cut, and how often.
const UNTIL_CUT: u64 = 6 << 20;
const CUTS: usize = 2;
/// What may be sent for nothing at one cut: windows of HTTP/2, buffers of sockets, pieces that wait.
const LOST: u64 = 3 << 20;

/// Which way bytes go that are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Stands between a client and belljard, and cuts connections.
struct Cutter {
    socket: PathBuf,
    counted: Arc<AtomicU64>,
    cuts: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Cutter {
    fn start(instance: &Instance, way: Way) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let behind = Part::Belljard.socket(instance.state());
        let (counted, cuts) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let told = (Arc::clone(&counted), Arc::clone(&cuts));
        // It ends with the test's process: nobody connects to it any more.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                pass(client.unwrap(), &behind, way, &told);
            }
        });
        Self {
            socket,
            counted,
            cuts,
            _dir: dir,
        }
    }

    fn tell(&self, arguments: &[&str]) -> Told {
        let ended = std::process::Command::new(program("belljar"))
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .args(arguments)
            .arg("--socket")
            .arg(&self.socket)
            .output()
            .unwrap();
        Told {
            code: ended.status.code().unwrap(),
            printed: String::from_utf8_lossy(&ended.stdout).into_owned(),
            said: String::from_utf8_lossy(&ended.stderr).into_owned(),
        }
    }

    /// Fails the test unless connections were cut, and little was sent twice.
    fn assert_went_on(&self) {
        assert_eq!(self.cuts.load(Ordering::SeqCst), CUTS);
        let counted = self.counted.load(Ordering::SeqCst);
        let most = LARGE as u64 + (CUTS as u64 + 1) * LOST;
        assert!(
            (LARGE as u64..=most).contains(&counted),
            "{counted} bytes went by, {most} at the most were due"
        );
    }
}

/// Bytes that went by, and how often a connection was cut.
type Counts = (Arc<AtomicU64>, Arc<AtomicUsize>);

/// One connection: passed on both ways until it ends, or is cut.
fn pass(client: UnixStream, behind: &Path, way: Way, (counted, cuts): &Counts) {
    let server = UnixStream::connect(behind).unwrap();
    let both = Arc::new(Mutex::new([
        client.try_clone().unwrap(),
        server.try_clone().unwrap(),
    ]));
    let mut ends = [
        (
            client.try_clone().unwrap(),
            server.try_clone().unwrap(),
            Way::Up,
        ),
        (server, client, Way::Down),
    ];
    for (from, to, this) in ends.iter_mut() {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let (counted, cuts, both) = (Arc::clone(counted), Arc::clone(cuts), Arc::clone(&both));
        let counts = *this == way;
        std::thread::spawn(move || {
            let (mut buffer, mut passed) = (vec![0; 32 * 1024], 0);
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
                if !counts {
                    continue;
                }
                passed += read as u64;
                counted.fetch_add(read as u64, Ordering::SeqCst);
                if passed > UNTIL_CUT && cuts.load(Ordering::SeqCst) < CUTS {
                    cuts.fetch_add(1, Ordering::SeqCst);
                    break;
                }
            }
            for end in both.lock().unwrap().iter() {
                let _ = end.shutdown(Shutdown::Both);
            }
        });
    }
}

#[test]
fn the_command_line_goes_on_with_an_upload_that_was_cut() {
    let instance = Instance::started();
    let content = noise(6, LARGE);
    let project = Project::script("cp large out");
    project.write("large", &content);
    let cutter = Cutter::start(&instance, Way::Up);
    let dir = project.path().to_str().unwrap();
    let told = cutter.tell(&["submit", dir]).assert_code(0);
    assert!(told.said.contains("trying again"), "{told:?}");
    cutter.assert_went_on();
    let name = told.printed.trim();

    // And with a download.
    let output = tempfile::tempdir().unwrap();
    let at = output.path().to_str().unwrap();
    cutter.tell(&["watch", name]).assert_code(0);
    let cutter = Cutter::start(&instance, Way::Down);
    let told = cutter.tell(&["fetch", name, "--output", at]).assert_code(0);
    assert!(told.said.contains("trying again"), "{told:?}");
    cutter.assert_went_on();
    let fetched = std::fs::read(output.path().join("out")).unwrap();
    assert_eq!(ObjectId::of(&fetched), ObjectId::of(&content));
    let left = std::fs::read_dir(output.path()).unwrap();
    let hidden = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with('.')
    });
    assert_eq!(hidden.count(), 0, "nothing unfinished is left");
}

#[test]
fn an_image_that_was_cut_in_mid_upload_is_imported_all_the_same() {
    let instance = Instance::started();
    let dir = tempfile::tempdir().unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(LARGE as u64);
    let content = noise(7, LARGE);
    archive
        .append_data(&mut header, "etc/large", &content[..])
        .unwrap();
    let file = dir.path().join("image.tar");
    std::fs::write(&file, archive.into_inner().unwrap()).unwrap();
    let lock = dir.path().join("belljar.lock");
    let cutter = Cutter::start(&instance, Way::Up);
    let told = cutter.tell(&[
        "image",
        "import",
        file.to_str().unwrap(),
        "--name",
        "large",
        "--lock",
        lock.to_str().unwrap(),
    ]);
    let told = told.assert_code(0);
    assert!(told.said.contains("trying again"), "{told:?}");
    cutter.assert_went_on();
    assert!(std::fs::read_to_string(&lock).unwrap().contains("large"));
}
