//! Belljar's own processes for a measurement: release binaries on a fresh state directory.
//!
//! A first `belljar run` lays the state out, configurations included, exactly as embedded mode does, and
//! shows that the whole works here. After that the processes that a measurement needs are started on it.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use xtask::{shell, workspace};

/// How long a process may take until it listens, and how long until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether it does.
const LOOK: Duration = Duration::from_millis(5);
/// Where states lie: a real file system, since a tmpfs would make every fsync free.
const BELOW: &str = "/var/tmp";
/// How much of a log an error repeats, in bytes.
const TAIL: usize = 2048;

/// A state directory of Belljar's and the programs that work on it. Removed when dropped.
pub(super) struct State {
    folder: TempDir,
    programs: PathBuf,
}

/// Running processes. They end, the last one first, when this is dropped.
pub(super) struct Running {
    children: Vec<(String, Child)>,
}

impl State {
    /// Let the programs in a folder, else the release binaries of these sources, lay out a state directory.
    pub(super) fn lay_out(programs: Option<&Path>) -> Result<Self> {
        let programs = match programs {
            Some(folder) => std::fs::canonicalize(folder)
                .with_context(|| format!("looking for {}", folder.display()))?,
            None => release()?,
        };
        for name in ["belljar", "belljard", "belljar-spawner", "belljar-store"] {
            let file = programs.join(name);
            ensure!(file.is_file(), "{} is not there", file.display());
        }
        let folder = tempfile::Builder::new()
            .prefix("belljar-bench-")
            // The processes have user ids of their own.
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(BELOW)
            .with_context(|| format!("a folder below {BELOW}"))?;
        let this = Self { folder, programs };
        let project = this.folder.path().join("project");
        std::fs::create_dir(&project).context("a project")?;
        std::fs::write(
            project.join("belljar.toml"),
            "image = \"host\"\nrun = [\"true > out\"]\noutputs = [\"out\"]\n",
        )
        .context("a project's belljar.toml")?;
        let mut run = Command::new(this.programs.join("belljar"));
        run.arg("run").arg(&project).arg("--no-git");
        run.arg("--output").arg(this.folder.path().join("out"));
        run.arg("--state").arg(this.path());
        shell::read(&mut run).context("a first build, which lays out the state directory")?;
        Ok(this)
    }

    /// Where the state is.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Where everything lies: the state, logs, and room for more.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One of the programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Where one of the processes listens, by the short name of embedded mode.
    pub(super) fn socket(&self, name: &str) -> PathBuf {
        self.path().join(format!("run/{name}/{name}.sock"))
    }

    /// Adds lines to the configuration of one of the processes, which is to be started yet.
    pub(super) fn configure(&self, name: &str, lines: &str) -> Result<()> {
        let path = self.path().join(format!("config/{name}.toml"));
        let file = File::options().append(true).open(&path);
        file.and_then(|mut file| file.write_all(lines.as_bytes()))
            .with_context(|| path.display().to_string())
    }

    /// Whose process it is: user and group id, as its directory has them.
    pub(super) fn ids(&self, name: &str) -> Result<(u32, u32)> {
        let folder = self.path().join("run").join(name);
        let status = folder
            .metadata()
            .with_context(|| format!("looking at {}", folder.display()))?;
        Ok((status.uid(), status.gid()))
    }

    /// Start processes by their short names, each after the one before listens. To be called from the main
    /// thread: they die with the thread that has started them (PR_SET_PDEATHSIG(2const)).
    pub(super) fn start(&self, names: &[&str]) -> Result<Running> {
        let mut running = Running {
            children: Vec::new(),
        };
        for name in names {
            let log = self.folder.path().join(format!("{name}.log"));
            let child = self
                .command(name, &log)?
                .spawn()
                .with_context(|| format!("starting {}", program(name)))?;
            running.children.push(((*name).to_owned(), child));
            self.wait_for(name, &mut running, &log)?;
        }
        Ok(running)
    }

    fn command(&self, name: &str, log: &Path) -> Result<Command> {
        let (uid, gid) = self.ids(name)?;
        let log = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = Command::new(self.programs.join(program(name)));
        command
            .arg("--config")
            .arg(self.path().join(format!("config/{name}.toml")))
            .arg("--die-with-parent")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .gid(if uid == 0 { 0 } else { gid })
            .uid(uid);
        Ok(command)
    }

    fn wait_for(&self, name: &str, running: &mut Running, log: &Path) -> Result<()> {
        let socket = self.socket(name);
        let (_, gid) = self.ids(name)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The spawner's socket is handed over to the group a moment after it was made.
            let handed_over = socket
                .symlink_metadata()
                .is_ok_and(|status| status.gid() == gid && status.mode() & 0o060 == 0o060);
            if handed_over && listens(&socket) {
                return Ok(());
            }
            let ended = match running.children.last_mut() {
                Some((_, child)) => child.try_wait().context("waiting for a process")?,
                None => None,
            };
            if ended.is_some() || Instant::now() > deadline {
                bail!("{} does not listen:\n{}", program(name), tail(log));
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Running {
    /// The id of one of them, by its short name.
    pub(super) fn pid(&self, name: &str) -> Result<u32> {
        let found = self.children.iter().find(|(short, _)| short == name);
        let (_, child) = found.with_context(|| format!("{} does not run", program(name)))?;
        Ok(child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        while let Some((name, mut child)) = self.children.pop() {
            if let Err(error) = end(&mut child) {
                println!("warning: {}: {error:#}", program(&name));
            }
        }
    }
}

/// Ask a process to end, wait, and end it if it does not.
pub(super) fn end(child: &mut Child) -> Result<()> {
    // It is not reaped yet, so the id is still its own.
    if child.try_wait()?.is_none() {
        // The shell's own `kill`: this tool calls no system interface itself.
        shell::run(Command::new("sh").args(["-c", "kill \"$0\"", &child.id().to_string()]))?;
    }
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("it did not end in {}", shell::human(PATIENCE));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// The folder of the release binaries, brought up to date. Only measurements need them.
fn release() -> Result<PathBuf> {
    shell::run(
        shell::cargo()
            .args(["build", "--release", "--bins"])
            .args(workspace::locked()),
    )?;
    Ok(workspace::target_dir(&workspace::metadata()?).join("release"))
}

fn program(name: &str) -> String {
    match name {
        "belljard" => name.to_owned(),
        other => format!("belljar-{other}"),
    }
}

/// Whether somebody listens at `socket`, as the kernel tells it: to connect would make a process complain of
/// a stranger.
fn listens(socket: &Path) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().any(|line| is_listener(line, socket))
}

/// Whether a line of `/proc/net/unix` (proc_net(5)) is about a socket at `path` that takes connections: its
/// flags are `__SO_ACCEPTCON` (linux/net.h).
fn is_listener(line: &str, path: &Path) -> bool {
    // Num: RefCount Protocol Flags Type St Inode Path
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    fields.get(3) == Some(&"00010000") && fields.get(7).map(Path::new) == Some(path)
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_listens_is_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert!(!listens(&path));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(listens(&path));
        assert!(!listens(&folder.path().join("t")));
        drop(listener);
        assert!(
            !listens(&path),
            "the file is left, but nobody listens there"
        );
    }

    #[test]
    fn a_process_is_asked_to_end() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        end(&mut child).unwrap();
        let status = child.try_wait().unwrap().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(15)
        );
        end(&mut child).unwrap();
    }

    #[test]
    fn logs_are_cut_at_their_beginning() {
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(log.path(), format!("start{}end", "x".repeat(TAIL))).unwrap();
        let tail = tail(log.path());
        assert_eq!(tail.len(), TAIL);
        assert!(tail.ends_with("end") && !tail.contains("start"));
    }
}
