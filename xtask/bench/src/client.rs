//! The hidden part `client`: plays belljard towards the store and the spawner, as belljard's user,
//! which is why it is a process of its own. For each line on its standard input it runs one attempt, or, after
//! `stage` and the id of a tree, stages that tree alone; it answers with the times as one line of JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use belljar_core::{
    AttemptId, BuildId, BuildSpec, Digest, Image, Inputs, Limits, Network, ObjectId, Outputs,
    RelPath, Script, Steps, bounds,
};
use belljar_plan::Plan;
use belljar_plan::frame::{self, Frame};
use belljar_plan::spawner::{Answer, Message, Operation, Request};
use belljar_plan::store;
use belljar_sys::seqpacket::Connection;
use belljar_tree::Leaf;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::peers::PAYLOAD;

/// What a line begins with that asks for staging alone; the id of the tree follows, as JSON.
pub(super) const STAGE: &str = "stage ";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The one input, which is the one output too: a payload that does nothing makes none.
const FILE: &str = "out";
/// Crockford's base 32, in which build ids are written.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Where to connect to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store's socket.
    #[arg(long)]
    store: PathBuf,
    /// The spawner's socket.
    #[arg(long)]
    spawner: PathBuf,
}

/// How long the phases of one attempt took, each from a request to what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Lap {
    /// Stage: the sources seen by the store, and everything mounted.
    pub(super) stage: Duration,
    /// Launch: the sandbox made and read back, the barrier passed.
    pub(super) launch: Duration,
    /// From then on until the build has ended and its cgroup was seen empty.
    pub(super) run: Duration,
    /// Collect: outputs taken, mounts gone, the receipt durable.
    pub(super) collect: Duration,
    /// Destroy.
    pub(super) destroy: Duration,
}

impl Lap {
    /// What is comparable with other sandboxes: start to reaped.
    pub(super) fn sandbox(&self) -> Duration {
        self.launch + self.run
    }
}

/// Serve until standard input ends.
pub(crate) fn run(args: &Args) -> Result<()> {
    let own = put_sources(&args.store)?;
    let plan = Plan::compile(&spec(own)?);
    let mut spawner = Spawner {
        wire: Wire::connect(&args.spawner)?,
        asked: 0,
    };
    let mut attempts = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("standard input")?;
        attempts += 1;
        let attempt = attempt_id(attempts)?;
        let told = match line.strip_prefix(STAGE) {
            Some(tree) => {
                let plan = Plan::compile(&spec(serde_json::from_str(tree)?)?);
                serde_json::to_string(&spawner.stage_alone(&attempt, &plan)?)?
            }
            None => serde_json::to_string(&spawner.attempt(&attempt, &plan)?)?,
        };
        println!("{told}");
    }
    Ok(())
}

/// A tree with one small file into the store; its digest.
fn put_sources(store: &Path) -> Result<ObjectId> {
    let content = b"a small file\n";
    let file = ObjectId::of(content);
    let leaf = Leaf::File {
        object: file,
        executable: false,
    };
    let tree = belljar_tree::build([(RelPath::new(FILE)?, leaf)])?;
    let mut wire = Wire::connect(store)?;
    wire.put(file, content)?;
    for (object, bytes) in &tree.directories {
        wire.put(*object, bytes)?;
    }
    Ok(tree.root)
}

fn spec(source: ObjectId) -> Result<BuildSpec> {
    Ok(BuildSpec {
        image: Image::Host,
        source,
        inputs: Inputs::default(),
        fetches: Default::default(),
        image_output: None,
        working_directory: None,
        // Every step is the shell's; by `exec` the payload takes its place.
        run: Steps::new(vec![Script::new(format!("exec {PAYLOAD}"))?])?,
        env: BTreeMap::new(),
        outputs: Outputs::new(BTreeSet::from([RelPath::new(FILE)?]))?,
        limits: Limits::DEFAULT,
        network: Network::None,
        source_date_epoch: BuildSpec::DEFAULT_EPOCH,
    })
}

/// The first attempt at the build of this number. The state directory is fresh, so a count is unique.
fn attempt_id(number: usize) -> Result<AttemptId> {
    let digit = |place: u32| {
        let digit = number.checked_shr(5 * place).unwrap_or(0) & 31;
        char::from(DIGITS[digit])
    };
    let build = BuildId::new((0..26).rev().map(digit).collect::<String>())?;
    Ok(AttemptId::new(build, 1)?)
}

/// A connection and room for one message.
struct Wire {
    connection: Connection,
    buffer: Vec<u8>,
}

impl Wire {
    fn connect(path: &Path) -> Result<Self> {
        let connection = Connection::connect(path)
            .with_context(|| format!("connecting to {}", path.display()))?;
        connection.set_timeout(Some(PATIENCE))?;
        Ok(Self {
            connection,
            buffer: vec![0; bounds::FRAME_BYTES],
        })
    }

    fn send(&self, message: &impl Serialize) -> Result<()> {
        self.connection
            .send(&frame::encode(message)?)
            .context("sending a request")
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        let received = self
            .connection
            .receive(&mut self.buffer)
            .context("waiting for an answer")?
            .context("the connection was closed")?;
        match frame::parse(&self.buffer[..received.length])? {
            Frame::Control(control) => Ok(frame::decode(control)?),
            Frame::Data(_) => bail!("content came where a message was due"),
        }
    }

    fn put(&mut self, object: ObjectId, content: &[u8]) -> Result<()> {
        self.send(&store::Request::Put { object })?;
        for piece in content.chunks(bounds::CHUNK_BYTES) {
            self.connection.send_parts(&frame::data(piece)?)?;
        }
        match self.receive()? {
            store::Answer::Stored => Ok(()),
            other => bail!("the store answered {other:?}"),
        }
    }
}

struct Spawner {
    wire: Wire,
    asked: u64,
}

impl Spawner {
    /// From `Stage` sent to `Staged` received: the tree seen by the store, everything mounted.
    fn stage(&mut self, attempt: &AttemptId, plan: &Plan) -> Result<Duration> {
        let stage = Operation::Stage {
            attempt: attempt.clone(),
            // The spawner cannot check it: only the signer could, which has no part in this.
            spec: Digest::of(b""),
            plan: Box::new(plan.clone()),
        };
        let (stage, ()) = clocked(|| match self.ask(stage)? {
            Answer::Staged => Ok(()),
            other => unexpected("Stage", &other),
        })?;
        Ok(stage)
    }

    /// Stages, and gives up again.
    fn stage_alone(&mut self, attempt: &AttemptId, plan: &Plan) -> Result<Duration> {
        let stage = self.stage(attempt, plan)?;
        let attempt = attempt.clone();
        match self.ask(Operation::Destroy { attempt })? {
            Answer::Destroyed => Ok(stage),
            other => unexpected("Destroy", &other).map(|()| stage),
        }
    }

    /// One attempt through all of its phases. Anything but success is an error.
    fn attempt(&mut self, attempt: &AttemptId, plan: &Plan) -> Result<Lap> {
        let named = || attempt.clone();
        let stage = self.stage(attempt, plan)?;
        let (launch, ()) = clocked(|| match self.ask(Operation::Launch { attempt: named() })? {
            Answer::Launched => Ok(()),
            other => unexpected("Launch", &other),
        })?;
        let (run, ()) = clocked(|| self.wait_for_exit(attempt))?;
        let (collect, ()) =
            clocked(
                || match self.ask(Operation::Collect { attempt: named() })? {
                    Answer::Collected { outcome, .. } if outcome.is_success() => Ok(()),
                    other => unexpected("Collect", &other),
                },
            )?;
        let (destroy, ()) =
            clocked(
                || match self.ask(Operation::Destroy { attempt: named() })? {
                    Answer::Destroyed => Ok(()),
                    other => unexpected("Destroy", &other),
                },
            )?;
        Ok(Lap {
            stage,
            launch,
            run,
            collect,
            destroy,
        })
    }

    fn ask(&mut self, operation: Operation) -> Result<Answer> {
        self.asked += 1;
        let number = self.asked;
        self.wire.send(&Request { number, operation })?;
        match self.wire.receive()? {
            Message::Answer { number, answer } if number == self.asked => Ok(answer),
            other => bail!("the spawner sent {other:?} where an answer was due"),
        }
    }

    fn wait_for_exit(&mut self, due: &AttemptId) -> Result<()> {
        match self.wire.receive()? {
            Message::Exited { attempt, outcome } => {
                ensure!(attempt == *due, "another attempt ended: {attempt}");
                ensure!(outcome.is_success(), "the payload ended so: {outcome}");
                Ok(())
            }
            other => bail!("the spawner sent {other:?} where the end of the payload was due"),
        }
    }
}

fn unexpected(asked: &str, answer: &Answer) -> Result<()> {
    match answer {
        Answer::Failed { outcome } => bail!("{asked} was answered: {outcome}"),
        other => bail!("{asked} was answered: {other:?}"),
    }
}

fn clocked<T>(run: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let start = Instant::now();
    let result = run()?;
    Ok((start.elapsed(), result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_numbered_in_base_32() {
        let id = |number| attempt_id(number).unwrap().to_string();
        assert_eq!(id(1), "00000000000000000000000001-1");
        assert_eq!(id(31), "0000000000000000000000000z-1");
        assert_eq!(id(32 * 32 + 17), "0000000000000000000000010h-1");
    }

    #[test]
    fn the_plan_runs_the_payload_of_the_peers_and_declares_what_is_there() {
        let plan = Plan::compile(&spec(ObjectId::of(b"")).unwrap());
        assert_eq!(plan.argv(), [["/bin/sh", "-eu", "-c", "exec /bin/true"]]);
        assert_eq!(plan.outputs.iter().next().unwrap().as_str(), FILE);
    }

    #[test]
    fn the_comparable_time_is_launch_to_end() {
        let millis = Duration::from_millis;
        let lap = Lap {
            stage: millis(1),
            launch: millis(2),
            run: millis(4),
            collect: millis(8),
            destroy: millis(16),
        };
        assert_eq!(lap.sandbox(), millis(6));
        let told = serde_json::to_string(&lap).unwrap();
        assert_eq!(serde_json::from_str::<Lap>(&told).unwrap(), lap);
    }

    #[test]
    fn what_is_not_due_is_an_error_in_words() {
        let outcome = belljar_core::Outcome::retryable("launch", "no room");
        let error = unexpected("Launch", &Answer::Failed { outcome }).unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
        assert!(unexpected("Launch", &Answer::Staged).is_err());
    }
}
