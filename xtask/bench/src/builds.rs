//! `bench builds`: trivial builds through a running daemon by its API, from the submission to the end with
//! provenance; one after the other, then some in flight together, then on trees of one file and of many.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use belljar_core::{
    BuildSpec, Image, Inputs, Limits, Network, ObjectId, Outcome, Outputs, RelPath, Script, Steps,
    bounds,
};
use belljar_wire::v1::build_service_client::BuildServiceClient;
use belljar_wire::v1::watch_build_response::Event;
use belljar_wire::{BuildRecord, BuildState, v1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::processes::State;
use super::stats::Samples;
use super::{Args, Row, blobs, tree};

/// How long one build may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a trivial build is.
const STEP: &str = "true > out";
/// A tree as other tools send them has this many files.
const FILES: usize = 10_000;
/// How much longer a build on it may take than one on a tree of one file, in milliseconds, once it was seen.
const FILES_BAR: f64 = 10.0;

/// Submit, follow, time.
pub(super) fn measure(args: &Args) -> Result<Vec<Row>> {
    if args.peers_only {
        bail!(
            "no public tool does the same as a build with provenance: `bench builds` has no peer"
        );
    }
    let state = State::lay_out(args.programs.as_deref())?;
    // Dropped before the state is.
    let _running = state.start(&["store", "signer", "spawner", "belljard"])?;
    event_loop()?.block_on(measure_at(state.socket("belljard"), args.runs()))
}

/// What a client's calls run in.
pub(super) fn event_loop() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("an event loop")
}

async fn measure_at(socket: PathBuf, runs: u16) -> Result<Vec<Row>> {
    let client = Client::connect(socket.clone()).await?;
    let count = Cell::new(0);
    // Fills the caches, and does not count.
    worker(&client, &count, 1).await?;
    let (alone, alone_time) = {
        let start = Instant::now();
        (
            worker(&client, &count, count.get() + runs).await?,
            start.elapsed(),
        )
    };
    let start = Instant::now();
    let until = count.get() + runs;
    let (one, other) = tokio::try_join!(
        worker(&client, &count, until),
        worker(&client, &count, until)
    )?;
    let both: Vec<Build> = one.into_iter().chain(other).collect();
    let both_time = start.elapsed();
    let mut rows = build_rows("one at a time", &alone, alone_time)?;
    rows.extend(build_rows("2 in flight", &both, both_time)?);
    rows.extend(state_rows(&alone, "nothing")?);
    rows.extend(on_trees(&client, &socket, runs).await?);
    Ok(rows)
}

/// Builds on a tree of one file and on one of many, in turns. The first of each makes the trees known.
async fn on_trees(client: &Client, socket: &Path, runs: u16) -> Result<Vec<Row>> {
    let (one, few) = tree::blobs(1)?;
    let (many, more) = tree::blobs(FILES)?;
    blobs::batches(socket, &few).await?;
    blobs::batches(socket, &more).await?;
    let trees = [one, many];
    let mut builds = [Vec::new(), Vec::new()];
    for lap in 0..=runs {
        for (which, builds) in builds.iter_mut().enumerate() {
            let name = format!("tree-{which}-{lap}");
            let build = client.build(&name, &spec(trees[which])?).await?;
            if lap > 0 {
                builds.push(build);
            }
        }
    }
    let samples = |builds: &[Build]| Samples::new(builds.iter().map(|build| build.whole).collect());
    let [one, many] = &builds;
    let mut rows = state_rows(one, "1 file")?;
    rows.extend(state_rows(many, &format!("{FILES} files"))?);
    rows.extend(tree_rows(&samples(one)?, &samples(many)?));
    Ok(rows)
}

fn tree_rows(one: &Samples, many: &Samples) -> Vec<Row> {
    let how = || {
        let count = one.count();
        format!("p50 of {count}, in turns; the tree was seen before; submitted to ended")
    };
    let [one, many] = [one, many].map(|samples| samples.percentile(50));
    vec![
        Row::measured("builds on a tree of 1 file", one, "ms", how()),
        Row::measured(
            format!("builds on a tree of {FILES} files"),
            many,
            "ms",
            how(),
        ),
        Row {
            bar: Some(FILES_BAR),
            holds: Some(many - one <= FILES_BAR),
            ..Row::measured(
                "the one beyond the other",
                many - one,
                "ms",
                "of the two above",
            )
        },
    ]
}

/// Runs builds, one after the other, until this many were begun, by whatever worker.
async fn worker(client: &Client, count: &Cell<u16>, until: u16) -> Result<Vec<Build>> {
    let mut builds = Vec::new();
    while count.get() < until {
        count.set(count.get() + 1);
        let number = count.get();
        // The empty directory is the source, which every store has.
        let spec = spec(ObjectId::of(b""))?;
        builds.push(client.build(&number.to_string(), &spec).await?);
    }
    Ok(builds)
}

/// One build's times.
#[derive(Debug)]
pub(super) struct Build {
    /// From its submission to its end.
    pub(super) whole: Duration,
    /// How long it was seen in each state.
    pub(super) states: BTreeMap<BuildState, Duration>,
}

/// The daemon's API.
pub(super) struct Client(BuildServiceClient<Channel>);

impl Client {
    pub(super) async fn connect(socket: PathBuf) -> Result<Self> {
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // A unix socket has no host name; the authority is sent as it stands.
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await
            .context("connecting to the daemon")?;
        let client =
            BuildServiceClient::new(channel).max_decoding_message_size(bounds::BUILD_MESSAGE_BYTES);
        Ok(Self(client))
    }

    /// One build from its submission to its end with provenance.
    pub(super) async fn build(&self, name: &str, spec: &BuildSpec) -> Result<Build> {
        tokio::time::timeout(PATIENCE, self.follow(name, spec))
            .await
            .with_context(|| format!("build {name} did not end in time"))?
            .with_context(|| format!("build {name}"))
    }

    async fn follow(&self, name: &str, spec: &BuildSpec) -> Result<Build> {
        let request = v1::SubmitBuildRequest {
            request_id: format!("bench-{name}"),
            spec: Some(spec.into()),
            project: String::new(),
        };
        let start = Instant::now();
        let submitted = self.0.clone().submit_build(request).await?.into_inner();
        let watch = v1::WatchBuildRequest {
            name: submitted.name,
            ..Default::default()
        };
        let mut events = self.0.clone().watch_build(watch).await?.into_inner();
        let mut seen = Vec::new();
        let mut last = None;
        while let Some(message) = events.message().await? {
            if let Some(Event::Build(build)) = message.event {
                let build = BuildRecord::try_from(build)?;
                seen.push((build.state, start.elapsed()));
                last = Some(build);
            }
        }
        let last = last.context("the daemon told nothing about it")?;
        ensure!(
            last.outcome == Some(Outcome::Succeeded),
            "it did not succeed: {:?}",
            last.outcome
        );
        ensure!(last.evidence.bundle.is_some(), "it has no provenance");
        let whole = seen
            .iter()
            .find(|(state, _)| *state == BuildState::Ended)
            .map(|(_, at)| *at)
            .context("its end was not told")?;
        Ok(Build {
            whole,
            states: times(&seen),
        })
    }
}

/// How long each state was the last one told. What went by between two messages counts for neither.
fn times(seen: &[(BuildState, Duration)]) -> BTreeMap<BuildState, Duration> {
    let mut times = BTreeMap::new();
    for pair in seen.windows(2) {
        let [(state, from), (_, to)] = *pair else {
            continue;
        };
        *times.entry(state).or_default() += to.saturating_sub(from);
    }
    times
}

/// A build of nothing.
pub(super) fn spec(source: ObjectId) -> Result<BuildSpec> {
    Ok(BuildSpec {
        image: Image::Host,
        source,
        inputs: Inputs::default(),
        fetches: Default::default(),
        image_output: None,
        working_directory: None,
        run: Steps::new(vec![Script::new(STEP)?])?,
        env: BTreeMap::new(),
        outputs: Outputs::new(BTreeSet::from([RelPath::new("out")?]))?,
        limits: Limits::DEFAULT,
        network: Network::None,
        source_date_epoch: BuildSpec::DEFAULT_EPOCH,
    })
}

fn build_rows(name: &str, builds: &[Build], time: Duration) -> Result<Vec<Row>> {
    let samples = Samples::new(builds.iter().map(|build| build.whole).collect())?;
    let how = format!(
        "`{STEP}`, submitted to ended with provenance, by gRPC; {} builds",
        samples.count()
    );
    let mut rows = Vec::new();
    for percent in [50, 99] {
        let value = samples.percentile(percent);
        rows.push(Row::measured(
            format!("builds {name} p{percent}"),
            value,
            "ms",
            &how,
        ));
    }
    // A count of builds is small.
    let rate = f64::from(u32::try_from(samples.count())?) / time.as_secs_f64();
    rows.push(Row::measured(
        format!("builds {name}"),
        rate,
        "builds/s",
        &how,
    ));
    Ok(rows)
}

/// Where the time of a build goes, of those that were seen in the state.
fn state_rows(builds: &[Build], on: &str) -> Result<Vec<Row>> {
    let states: BTreeSet<BuildState> = builds
        .iter()
        .flat_map(|build| build.states.keys().copied())
        .collect();
    let row = |state: BuildState| {
        let times: Vec<_> = builds
            .iter()
            .filter_map(|build| build.states.get(&state).copied())
            .collect();
        let samples = Samples::new(times)?;
        let how = format!(
            "one at a time, on {on}; from this state told to the next, seen in {} builds",
            samples.count()
        );
        let name = format!("state {state:?} on {on} p50").to_lowercase();
        Ok(Row::measured(name, samples.percentile(50), "ms", how))
    };
    states.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use BuildState::{Ended, Queued, Running, Staging};

    fn seen(states: &[(BuildState, u64)]) -> Vec<(BuildState, Duration)> {
        let millis = |(state, at): &(BuildState, u64)| (*state, Duration::from_millis(*at));
        states.iter().map(millis).collect()
    }

    #[test]
    fn a_state_lasts_until_the_next_is_told() {
        let times = times(&seen(&[
            (Queued, 1),
            (Staging, 3),
            (Running, 10),
            (Ended, 30),
        ]));
        let told: Vec<_> = times.into_iter().collect();
        assert_eq!(told, seen(&[(Queued, 2), (Staging, 7), (Running, 20)]));
    }

    #[test]
    fn a_second_attempt_adds_to_the_same_states() {
        let times = times(&seen(&[
            (Staging, 0),
            (Queued, 2),
            (Staging, 3),
            (Ended, 8),
        ]));
        assert_eq!(times[&Staging], Duration::from_millis(7));
    }

    #[test]
    fn rows_have_rates_and_only_states_that_were_seen() {
        let build = |whole, states| Build {
            whole: Duration::from_millis(whole),
            states: seen(states).into_iter().collect(),
        };
        let builds = [
            build(100, &[(Queued, 5)]),
            build(300, &[(Queued, 7), (Staging, 9)]),
        ];
        let rows = build_rows("x", &builds, Duration::from_millis(500)).unwrap();
        let told: Vec<_> = rows.iter().map(|row| (row.value, row.unit)).collect();
        assert_eq!(told, [(100.0, "ms"), (300.0, "ms"), (4.0, "builds/s")]);
        let rows = state_rows(&builds, "y").unwrap();
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.metric.as_str(), row.value))
            .collect();
        assert_eq!(
            told,
            [
                ("state queued on y p50", 5.0),
                ("state staging on y p50", 9.0)
            ]
        );
        assert!(rows[1].how.contains("in 1 builds"));
    }

    #[test]
    fn without_a_peer_there_is_nothing_to_measure_alone() {
        let args = Args {
            name: crate::Name::Builds,
            json: false,
            runs: Some(10),
            peers_only: true,
            programs: None,
            project: None,
        };
        assert!(measure(&args).unwrap_err().to_string().contains("no peer"));
    }
}
