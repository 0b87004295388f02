//! A Belljar whose processes are killed at points of their work.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use belljar_core::{BuildId, BuildSpec};
use belljar_tests::trace::tracer::{EVENTS, KILL};
use belljar_tests::trace::{Event, Kill};
use belljar_tests::{Client, Instance, Part, wait_for};
use belljar_wire::{BuildRecord, Reason};
use tempfile::TempDir;

use crate::judge;

/// The step of a build that leaves its input as a file and, in a directory, once more.
pub(crate) const LEAVES: &str = "cp in out; mkdir outs; cp in outs/out";
/// How long it may take until a process has come to a point.
const REACHED: Duration = Duration::from_secs(60);

/// How long a process may take to die of what its tracer has done already.
const DEATH: Duration = Duration::from_millis(300);
/// How long belljard may take to be connected again to what died between two builds: else the next one begins while
/// nobody is there, which costs it an attempt.
const CONNECTED: Duration = Duration::from_secs(1);
/// How often builds are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// An instance, what its processes did, and what was asked of it.
pub(crate) struct Site {
    pub(crate) instance: Instance,
    pub(crate) client: Client,
    told: TempDir,
    record: bool,
    /// Builds that were ordered so far, from which each next one differs.
    count: usize,
    /// When somebody was last seen dead.
    buried: Option<Instant>,
}

/// A build that is to be.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    number: usize,
    request_id: String,
    pub(crate) spec: BuildSpec,
    /// What its output must be, a file that is in its output directory as well.
    pub(crate) output: String,
    /// Its name, once somebody has said so.
    pub(crate) id: Option<BuildId>,
    /// How it has ended.
    pub(crate) ended: Option<BuildRecord>,
}

/// A death that is ordered.
struct Death {
    part: Part,
    kill: Kill,
    happened: bool,
}

impl Site {
    /// One that traces `parts`, and keeps what they write if `record` says so.
    pub(crate) fn traced(parts: &[Part], record: bool) -> Self {
        Self::traced_as(parts, record, |_| {})
    }

    /// The same, with another configuration.
    pub(crate) fn traced_as(
        parts: &[Part],
        record: bool,
        configure: impl FnOnce(&Instance),
    ) -> Self {
        let told = tempfile::tempdir().unwrap();
        let mut instance = Instance::configured();
        configure(&instance);
        for part in Part::ALL {
            let directory = told.path().join(part.short());
            fs::create_dir(&directory).unwrap();
            match parts.contains(&part) {
                true => instance.start_traced(part, &directory, record),
                false => instance.start_part(part),
            }
        }
        Self {
            client: instance.client(),
            instance,
            told,
            record,
            count: 0,
            buried: None,
        }
    }

    /// What a process did, in order.
    pub(crate) fn events(&self, part: Part) -> Vec<Event> {
        let text = fs::read_to_string(self.directory(part).join(EVENTS)).unwrap();
        let lines = text.lines().map(serde_json::from_str);
        lines.map(|event| event.unwrap()).collect()
    }

    /// How much each process did so far.
    pub(crate) fn told(&self) -> [usize; Part::ALL.len()] {
        Part::ALL.map(|part| self.events(part).len())
    }

    fn directory(&self, part: Part) -> PathBuf {
        self.told.path().join(part.short())
    }

    /// A build that differs from all before, its sources uploaded.
    pub(crate) fn order(&mut self) -> Order {
        self.count += 1;
        self.nth_order(self.count)
    }

    /// The same as was ordered before, as a client does that does not know what became of it.
    pub(crate) fn order_again(&self, order: &Order) -> Order {
        self.nth_order(order.number)
    }

    fn nth_order(&self, number: usize) -> Order {
        let output = format!("{number}\n");
        let files = [("in", output.as_str())];
        let run = [LEAVES, "echo said"];
        Order {
            number,
            request_id: format!("r{number}"),
            spec: self.client.spec(&files, &run, &["out", "outs"]),
            output,
            id: None,
            ended: None,
        }
    }

    /// Ends all processes.
    pub(crate) fn stop(&mut self) {
        for part in Part::ALL.into_iter().rev() {
            self.instance.end_part(part);
        }
    }

    /// Starts them again, without tracing them.
    pub(crate) fn start(&mut self) {
        for part in Part::ALL {
            self.instance.start_part(part);
        }
        self.client = self.instance.client();
    }

    /// Has builds go through, while each of these processes dies at its point and is started again; sees that
    /// everything holds that must. Gives the builds, ended, and whether everybody has died.
    pub(crate) fn run(
        &mut self,
        kills: &[(Part, Kill)],
        mut orders: Vec<Order>,
    ) -> (Vec<Order>, bool) {
        let mut deaths: Vec<_> = kills
            .iter()
            .map(|(part, kill)| Death {
                part: *part,
                kill: kill.clone(),
                happened: false,
            })
            .collect();
        for Death { part, kill, .. } in &deaths {
            fs::write(self.directory(*part).join(KILL), kill.to_line()).unwrap();
        }
        wait_for(
            &format!("the end of builds, with {kills:?}"),
            REACHED,
            || {
                std::thread::sleep(LOOK);
                self.bury(&mut deaths);
                self.go_on(&mut orders, &deaths)
            },
        );
        // One may have died at the very end.
        if deaths.iter().any(|death| !death.happened) {
            std::thread::sleep(DEATH);
            self.bury(&mut deaths);
        }
        for death in &deaths {
            self.disarm(death.part);
        }
        let buried = self.buried.map(|buried| buried.elapsed());
        std::thread::sleep(buried.map_or(Duration::ZERO, |since| CONNECTED.saturating_sub(since)));
        judge::check(self, &orders);
        let all = deaths.iter().all(|death| death.happened);
        (orders, all)
    }

    /// Starts again what has died.
    fn bury(&mut self, deaths: &mut [Death]) {
        for death in deaths.iter_mut().filter(|death| !death.happened) {
            if self.instance.was_killed(death.part) {
                death.happened = true;
                self.disarm(death.part);
                self.instance.kill_part(death.part);
                let directory = self.directory(death.part);
                self.buried = Some(Instant::now());
                self.instance
                    .start_traced(death.part, &directory, self.record);
            }
        }
    }

    /// Has a process die, or find the disk full, at this point.
    pub(crate) fn arm(&self, part: Part, kill: &Kill) {
        fs::write(self.directory(part).join(KILL), kill.to_line()).unwrap();
    }

    /// Starts again what has died.
    pub(crate) fn revive(&mut self, part: Part) {
        self.disarm(part);
        self.instance.kill_part(part);
        let directory = self.directory(part);
        self.instance.start_traced(part, &directory, self.record);
        self.client = self.instance.client();
        std::thread::sleep(CONNECTED);
    }

    /// Has one build go through, however it ends.
    pub(crate) fn ended(&self, order: Order) -> BuildRecord {
        let mut orders = vec![order];
        wait_for("the end of a build", REACHED, || {
            std::thread::sleep(LOOK);
            self.go_on(&mut orders, &[])
        });
        orders.remove(0).ended.unwrap()
    }

    pub(crate) fn disarm(&self, part: Part) {
        let _ = fs::remove_file(self.directory(part).join(KILL));
    }

    /// Submits what is not known to be accepted, and looks whether all have ended.
    fn go_on(&self, orders: &mut [Order], deaths: &[Death]) -> Option<()> {
        let dies = |part: Option<Part>| {
            deaths
                .iter()
                .any(|death| part.is_none_or(|part| part == death.part))
        };
        for order in orders.iter_mut().filter(|order| order.ended.is_none()) {
            let told = match &order.id {
                None => self.client.submit(&order.request_id, &order.spec),
                Some(id) => self.client.get(id),
            };
            match told {
                Ok(record) => {
                    order.id = Some(record.id.clone());
                    order.ended = record.outcome.is_some().then_some(record);
                }
                // Nobody answers while nobody is there; that is the one good reason.
                Err(problem) => match problem.reason {
                    Reason::Foreign(_) if dies(Some(Part::Belljard)) => return None,
                    Reason::Unavailable if dies(None) => return None,
                    _ => panic!("{problem:?}"),
                },
            }
        }
        orders
            .iter()
            .all(|order| order.ended.is_some())
            .then_some(())
    }

    /// Asks for all of these again, as a client does that has not heard: each must be the same build.
    pub(crate) fn repeat(&self, orders: &[Order]) {
        for order in orders {
            let again = self.client.submit(&order.request_id, &order.spec);
            assert_eq!(Some(again.unwrap().id), order.id, "accepted twice");
        }
    }
}
