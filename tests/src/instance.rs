use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;
use crate::{Client, Part, Project, Run, Told, liar, program, residue, wait_for};

/// Where state directories are made: not on overlayfs, and root's all the way up.
const BASE: &str = "/var/tmp";
/// Names another place.
const BASE_VARIABLE: &str = "BELLJAR_TEST_STATE";
/// How long it may take to clear away what a spawner without a step has left.
const CLEARED: Duration = Duration::from_secs(30);
/// How long a build may take until it has logged something.
const LOGGED: Duration = Duration::from_secs(60);

/// A Belljar of its own.
#[derive(Debug)]
pub struct Instance {
    state: TempDir,
    /// In the order of their start.
    processes: Vec<Process>,
    /// First host ids of its spawners, which are in the names of their cgroups.
    blocks: BTreeSet<u32>,
    /// Whether what is left was asked for.
    asked: bool,
}

/// A `belljar run` that has not ended yet.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: TempDir,
    state: PathBuf,
}

impl Instance {
    /// One that starts its processes anew for each build.
    ///
    /// # Panics
    /// Without root.
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "the end-to-end tests need root: they start Belljar's processes under their own user ids"
        );
        let base = std::env::var_os(BASE_VARIABLE).unwrap_or_else(|| BASE.into());
        Self::below(Path::new(&base))
    }

    /// One whose state directory is in this one.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn below(base: &Path) -> Self {
        let state = tempfile::Builder::new()
            .prefix("belljar-test-")
            .tempdir_in(base);
        Self {
            state: state.expect("a state directory"),
            processes: Vec::new(),
            blocks: BTreeSet::new(),
            asked: false,
        }
    }

    /// One whose processes run until it goes.
    pub fn started() -> Self {
        let mut instance = Self::new();
        instance.start();
        instance
    }

    /// Starts all processes. The first time, a build goes before, which writes their configuration.
    pub fn start(&mut self) {
        assert!(self.processes.is_empty(), "already started");
        self.configure();
        for part in Part::ALL {
            self.start_part(part);
        }
    }

    /// Has a build write the configuration, if there is none yet.
    fn configure(&mut self) {
        if !self.state().join("config").exists() {
            self.run(&Project::script("echo ready > out"))
                .assert_succeeded();
        }
    }

    /// One that runs until it goes, and whose spawner leaves these steps of the containment list out.
    pub fn started_without(steps: &[&str]) -> Self {
        let mut instance = Self::new();
        instance.configure();
        for part in Part::ALL {
            if part == Part::Spawner {
                let process = Process::start_spawner_without(steps, instance.state.path());
                instance.processes.push(process);
                instance.note_blocks();
            } else {
                instance.start_part(part);
            }
        }
        instance
    }

    /// Replaces a spawner that leaves steps out by the real one, which clears away what that has left: as often
    /// as it takes, since what was just killed may still be in its cgroup.
    pub fn clear_away(&mut self) {
        wait_for("a clean machine", CLEARED, || {
            if self.processes.iter().any(|p| p.part() == Part::Spawner) {
                self.end_part(Part::Spawner);
            }
            self.start_part(Part::Spawner);
            let left = residue::cgroups(self.state.path(), &self.blocks);
            left.is_empty().then_some(())
        });
    }

    /// Starts one process, which does not run.
    pub fn start_part(&mut self, part: Part) {
        assert!(
            !self.processes.iter().any(|p| p.part() == part),
            "{part:?} runs"
        );
        let process = Process::start(part, self.state.path());
        self.processes.push(process);
        self.note_blocks();
    }

    /// Starts one process, which does not run, with a tracer that tells of it in `directory`, and keeps what is
    /// written if `record` says so.
    pub fn start_traced(&mut self, part: Part, directory: &Path, record: bool) {
        assert!(
            !self.processes.iter().any(|p| p.part() == part),
            "{part:?} runs"
        );
        let process = Process::start_traced(part, self.state.path(), directory, record);
        self.processes.push(process);
        self.note_blocks();
    }

    /// One with its configuration, and no process.
    pub fn configured() -> Self {
        let mut instance = Self::new();
        instance.configure();
        instance
    }

    /// Whether a traced process was killed by its tracer.
    pub fn was_killed(&mut self, part: Part) -> bool {
        let process = self.processes.iter_mut().find(|p| p.part() == part);
        process
            .unwrap_or_else(|| panic!("{part:?} does not run"))
            .was_killed()
    }

    /// What is left of builds, while the processes go on: one sentence for each thing.
    pub fn left_of_builds(&self) -> Vec<String> {
        let mut left = residue::of_builds(self.state.path());
        let first = first_ids(&self.said(Part::Spawner)).last();
        let first = first.expect("a spawner has started");
        left.extend(residue::of_killed(self.state.path(), first));
        left
    }

    /// Kills one process without a warning.
    pub fn kill_part(&mut self, part: Part) {
        self.take_part(part).kill();
    }

    /// Waits until one process has ended by itself, and tells how.
    pub fn has_ended(&mut self, part: Part) -> std::process::ExitStatus {
        self.take_part(part).ended()
    }

    /// Asks one process to end, and waits until it has.
    pub fn end_part(&mut self, part: Part) {
        self.take_part(part)
            .end()
            .unwrap_or_else(|why| panic!("{why}"));
    }

    /// Has the operator allow these root file systems, and the spawner started anew: `"any"`, or a list.
    pub fn allow_images(&mut self, allowed: &Value) {
        self.end_part(Part::Spawner);
        let file = self.state().join("config/spawner.toml");
        let text = fs::read_to_string(&file).expect("the spawner's configuration");
        let (old, rest): (Vec<&str>, Vec<&str>) = text
            .lines()
            .partition(|line| line.starts_with("allowed_images"));
        assert_eq!(old.len(), 1, "{text}");
        // A string, and a list of strings, are written in TOML as in JSON.
        let text = format!("allowed_images = {allowed}\n{}\n", rest.join("\n"));
        fs::write(&file, text).expect("the spawner's configuration");
        self.start_part(Part::Spawner);
    }

    /// Process id of a part.
    pub fn pid_of(&self, part: Part) -> u32 {
        let process = self.processes.iter().find(|p| p.part() == part);
        process
            .unwrap_or_else(|| panic!("{part:?} does not run"))
            .pid()
    }

    fn take_part(&mut self, part: Part) -> Process {
        let at = self.processes.iter().position(|p| p.part() == part);
        self.processes
            .remove(at.unwrap_or_else(|| panic!("{part:?} does not run")))
    }

    /// What a process has logged since the state directory was made, or since its last start by the CLI.
    pub fn said(&self, part: Part) -> String {
        let path = self
            .state()
            .join(format!("daemon-logs/{}.log", part.short()));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// `belljar run` on a project with this state, its output in a new directory.
    pub fn run(&mut self, project: &Project) -> Run {
        self.run_with(project, &[])
    }

    /// The same with more arguments.
    pub fn run_with(&mut self, project: &Project, arguments: &[&str]) -> Run {
        let running = self.begin_with(project, arguments);
        self.finish(running)
    }

    /// Begins a `belljar run`, for tests that do something meanwhile.
    pub fn begin(&self, project: &Project) -> Running {
        self.begin_with(project, &[])
    }

    /// The same with more arguments.
    pub fn begin_with(&self, project: &Project, arguments: &[&str]) -> Running {
        Running::begin(self.command("run"), project, arguments, self.state())
    }

    /// Begins one by a command of the test's own, such as one that starts [`Self::command`] in another place.
    pub fn begin_by(&self, command: Command, project: &Project) -> Running {
        Running::begin(command, project, &[], self.state())
    }

    /// Waits until a `belljar run` has ended.
    pub fn finish(&mut self, running: Running) -> Run {
        let run = running.wait();
        self.note_blocks();
        run
    }

    /// Waits until a build of this instance has logged `text`.
    pub fn wait_until_logged(&self, text: &str) {
        wait_for(&format!("{text:?} in a log"), LOGGED, || {
            is_logged(self.state(), text).then_some(())
        });
    }

    /// Whether a build of this instance has logged `text`.
    pub fn has_logged(&self, text: &str) -> bool {
        is_logged(self.state(), text)
    }

    /// Tells whenever it is asked how much of the kernel's own memory the cgroups of this instance's builds count,
    /// in bytes.
    pub fn kernel_memory(&self) -> impl Fn() -> u64 + Send + use<> {
        let first = first_ids(&self.said(Part::Spawner)).last();
        let first = first.expect("a spawner has started");
        move || residue::kernel_memory(first)
    }

    /// The audit trail of a build, as it lies in belljard's directory.
    pub fn trail(&self, run: &Run) -> String {
        let attempt = run.attempt();
        let build = attempt.split('-').next().unwrap_or_default();
        let path = self.state().join(format!("daemon/audit/{build}.jsonl"));
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Content of an object of the store, named as in reports: `{"digest": "sha256:…", "size": …}`.
    pub fn object(&self, object: &Value) -> Vec<u8> {
        let path = self.object_file(object);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Where it lies.
    pub fn object_file(&self, object: &Value) -> PathBuf {
        let digest = object["digest"]
            .as_str()
            .and_then(|d| d.strip_prefix("sha256:"));
        let (first, rest) = digest
            .unwrap_or_else(|| panic!("{object} is no object"))
            .split_at(2);
        self.state()
            .join(format!("store/objects/sha256/{first}/{rest}"))
    }

    /// What a process answers to one message from a user id; null if it closes the connection instead.
    ///
    /// # Errors
    /// When that user cannot connect.
    pub fn ask(&self, part: Part, uid: u32, message: &Value) -> Result<Value, String> {
        let peer = liar::peer();
        let output = liar::command_as(uid, peer.path().join("peer"))
            .arg(part.socket(self.state()))
            .arg(message.to_string())
            .output()
            .expect("the peer");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => Ok(serde_json::from_slice(&output.stdout).expect("an answer")),
            Some(1) => Err(said),
            other => panic!("the peer ended with {other:?}: {said}"),
        }
    }

    /// A client of the API.
    ///
    /// # Panics
    /// Unless the instance was started.
    pub fn client(&self) -> Client {
        Client::connect(&Part::Belljard.socket(self.state()))
    }

    /// `belljar COMMAND` on this instance: on its socket if it was started, else on its state. It gets nothing
    /// of the caller's environment but PATH.
    pub fn command(&self, command: &str) -> Command {
        let mut belljar = Command::new(program("belljar"));
        belljar
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .args(command.split_whitespace());
        if self.processes.is_empty() {
            belljar.arg("--state").arg(self.state());
        } else {
            belljar
                .arg("--socket")
                .arg(Part::Belljard.socket(self.state()));
        }
        belljar
    }

    /// Runs `belljar COMMAND ARGUMENTS`, to its end. Gives its exit status, what it printed and what it said.
    pub fn tell(&mut self, command: &str, arguments: &[&str]) -> Told {
        let ended = self.command(command).args(arguments).output();
        let ended = ended.expect("belljar");
        self.note_blocks();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let code = ended.status.code();
        Told {
            code: code.unwrap_or_else(|| panic!("{}:\n{said}", ended.status)),
            printed: String::from_utf8_lossy(&ended.stdout).into_owned(),
            said,
        }
    }

    /// Remembers what the spawner said about its ids: the log may be a new one next time.
    fn note_blocks(&mut self) {
        self.blocks.extend(first_ids(&self.said(Part::Spawner)));
    }
}

impl Default for Instance {
    fn default() -> Self {
        Self::new()
    }
}

/// The first host ids of spawners, by what they have logged.
fn first_ids(said: &str) -> impl Iterator<Item = u32> + '_ {
    said.split("first_id=").skip(1).filter_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

/// Whether a build of that state directory has logged `text`.
fn is_logged(state: &Path, text: &str) -> bool {
    let logs = fs::read_dir(state.join("store/logs"));
    let mut logs = logs.into_iter().flatten().flatten();
    logs.any(|log| {
        fs::read_to_string(log.path())
            .unwrap_or_default()
            .contains(text)
    })
}

impl Running {
    /// Starts `command`, which is `belljar run` as far as it says whom to ask.
    pub(crate) fn begin(
        mut command: Command,
        project: &Project,
        arguments: &[&str],
        state: &Path,
    ) -> Self {
        let output = tempfile::Builder::new()
            .prefix("belljar-output-")
            .tempdir()
            .expect("an output directory");
        command
            .arg(project.path())
            .arg("--output")
            .arg(output.path())
            .arg("--json")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            child: command.spawn().expect("belljar"),
            output,
            state: state.to_owned(),
        }
    }

    /// Waits until it has logged `text`, which no build of this state has before.
    pub fn wait_until_logged(&mut self, text: &str) {
        wait_for(&format!("{text:?} in a log"), LOGGED, || {
            if let Some(status) = self.child.try_wait().expect("waitpid") {
                let mut said = String::new();
                let streams = (self.child.stdout.take(), self.child.stderr.take());
                let _ = streams.0.map(|mut out| out.read_to_string(&mut said));
                let _ = streams.1.map(|mut err| err.read_to_string(&mut said));
                panic!("belljar run has ended ({status}):\n{said}");
            }
            is_logged(&self.state, text).then_some(())
        });
    }

    /// Its output directory.
    pub fn output(&self) -> &Path {
        self.output.path()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("belljar").is_some()
    }

    /// Waits until it has ended.
    pub(crate) fn wait(self) -> Run {
        let ended = self.child.wait_with_output().expect("belljar");
        Run::new(ended, self.output, self.state)
    }

    /// Sends it a signal, such as the interrupt that cancels the build.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .expect("kill");
    }

    /// Kills it, so that it clears nothing up. Its state directory is free from then on.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Instance {
    /// Ends its processes. Gives one sentence for each that did not end as it should, and for each thing that
    /// is left of the instance. What is asked for is not asserted again when the instance goes.
    pub fn end(mut self) -> Vec<String> {
        self.asked = true;
        self.clear()
    }

    fn clear(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        while let Some(process) = self.processes.pop() {
            complaints.extend(process.end().err());
        }
        complaints.extend(residue::of(self.state.path(), &self.blocks));
        complaints
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.asked {
            return;
        }
        let complaints = self.clear();
        for complaint in &complaints {
            eprintln!("{complaint}");
        }
        // A test that fails already says why; a second panic would abort before it does.
        if !std::thread::panicking() {
            assert!(complaints.is_empty(), "the instance left something behind");
        }
    }
}
