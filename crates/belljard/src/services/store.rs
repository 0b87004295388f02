use std::collections::BTreeSet;
use std::sync::Arc;

use belljar_cas::{Aside, Usage};
use belljar_core::{BuildId, Invalid, ObjectId, ProjectId, Timestamp, bounds};
use belljar_engine::garbage::{Goal, Retention, SweepError};
use belljar_engine::ports::{Clock as _, Trouble, Upkeep as _};
use belljar_engine::queue::{Pin, PinError, Target};
use belljar_plan::store::Scrub;
use belljar_policy::Right;
use belljar_wire::{Problem, build_name, parse_build_name, project_name, v1};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};
use v1::store_service_server::StoreService;

use super::builds::named;
use super::census::Census;
use super::vault::Share;
use super::{Caller, Vault, internal};
use crate::config::StoreKeeping;
use crate::peers::{StoreClient, SystemClock};
use crate::sweeping::Broom;

/// `belljar.v1.StoreService`.
pub(crate) struct StoreKeeper {
    pub(crate) sweeper: Arc<Broom>,
    pub(crate) vault: Vault,
    pub(crate) store: StoreClient,
    pub(crate) census: Census<Content>,
    pub(crate) keeping: StoreKeeping,
}

/// What is found by going through all of the store, and through the builds that are kept.
pub(crate) struct Content {
    usage: Usage,
    /// What was put aside, with the builds that need it.
    damaged: Vec<(Aside, Vec<BuildId>)>,
    /// Those of it that nobody has given, or made, anew.
    unmended: BTreeSet<Aside>,
}

impl Content {
    /// Counts it.
    pub(crate) async fn of(sweeper: Arc<Broom>) -> Result<Self, Status> {
        let root = sweeper.root.clone();
        let counted = spawn_blocking(move || {
            let (usage, aside) = (Usage::of(&root)?, belljar_cas::quarantined(&root)?);
            std::io::Result::Ok((usage, aside, belljar_cas::unmended(&root)?))
        });
        let what = "the store could not be counted";
        let counted = counted.await.map_err(|e| internal(what, &e))?;
        let (usage, mut aside, unmended) = counted.map_err(|e| internal(what, &e))?;
        aside.truncate(bounds::QUARANTINED);
        let digests: Vec<_> = aside.iter().map(|aside| aside.digest).collect();
        let needing = sweeper.needing(&digests).await.map_err(|e| swept(&e))?;
        let damaged = aside.into_iter().zip(needing).collect();
        Ok(Self {
            usage,
            damaged,
            unmended,
        })
    }
}

/// That the caller may administer something.
fn administer<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = Caller::of(request)?;
    caller.must_administer()?;
    Ok(caller)
}

#[tonic::async_trait]
impl StoreService for StoreKeeper {
    async fn get_store_status(
        &self,
        request: Request<v1::GetStoreStatusRequest>,
    ) -> Result<Response<v1::StoreStatus>, Status> {
        administer(&request)?;
        let room = self.store.room().await.map_err(unanswered)?;
        let scrub = self.store.scrub(false).await.map_err(unanswered)?;
        let counted = self.census.take().await?;
        let Content {
            usage,
            damaged,
            unmended,
        } = &counted.what;
        let part = |part: belljar_cas::Part| {
            Some(v1::StorePart {
                files: figure(part.files),
                bytes: figure(part.bytes),
            })
        };
        let keeping = &self.keeping.keeping;
        let projects = keeping.projects.iter();
        let all = [told_retention(String::new(), keeping.retention)].into_iter();
        Ok(Response::new(v1::StoreStatus {
            objects: part(usage.objects),
            images: part(usage.images),
            logs: part(usage.logs),
            quarantine: part(usage.quarantine),
            other: part(usage.other),
            total_bytes: figure(room.total),
            available_bytes: figure(room.available),
            reserve_bytes: figure(room.reserve),
            high_percent: i32::from(self.keeping.high_percent),
            low_percent: i32::from(self.keeping.low_percent),
            lease_seconds: figure(keeping.lease),
            grace_seconds: figure(room.grace),
            retention: all
                .chain(projects.map(|(id, kept)| told_retention(project_name(id), *kept)))
                .collect(),
            scrub: Some(told_scrub(scrub)),
            damaged: damaged
                .iter()
                .map(|(aside, builds)| v1::Damaged {
                    hash: aside.digest.to_hex(),
                    image: aside.image,
                    mended: !unmended.contains(aside),
                    builds: builds.iter().map(build_name).collect(),
                })
                .collect(),
            count_time: Some(time(counted.since)),
        }))
    }

    async fn collect_garbage(
        &self,
        request: Request<v1::CollectGarbageRequest>,
    ) -> Result<Response<v1::CollectGarbageResponse>, Status> {
        let caller = administer(&request)?;
        let goal = match request.get_ref().all {
            true => Goal::All,
            false => {
                let room = self.store.room().await.map_err(unanswered)?;
                self.keeping.down_to_low(room.total)
            }
        };
        tracing::info!(target: "audit", identity = %caller.identity(), ?goal, "garbage is collected");
        let report = self.sweeper.sweep(goal).await.map_err(|e| swept(&e))?;
        tracing::info!(target: "audit", identity = %caller.identity(), ?report, "garbage was collected");
        Ok(Response::new(v1::CollectGarbageResponse {
            builds: figure(report.builds),
            reached_objects: figure(report.reached),
            unneeded_objects: figure(report.unneeded),
            removed_objects: figure(report.objects),
            removed_images: figure(report.images),
            removed_logs: figure(report.logs),
            removed_bytes: figure(report.bytes),
            longest_hold_micros: figure(report.longest_hold_micros),
        }))
    }

    async fn scrub_store(
        &self,
        request: Request<v1::ScrubStoreRequest>,
    ) -> Result<Response<v1::Scrub>, Status> {
        let caller = administer(&request)?;
        tracing::info!(target: "audit", identity = %caller.identity(), "all objects are read");
        let scrub = self.store.scrub(true).await.map_err(unanswered)?;
        Ok(Response::new(told_scrub(scrub)))
    }

    async fn create_pin(
        &self,
        request: Request<v1::CreatePinRequest>,
    ) -> Result<Response<v1::Pin>, Status> {
        let caller = administer(&request)?;
        let v1::CreatePinRequest { project, pin } = request.into_inner();
        let project = caller.project("project", named(&project)?, &[Right::Administer])?;
        let share = self.vault.of(&caller, project.clone());
        let missing = || Problem::invalid(Invalid::field("pin", "missing; it is required"));
        let pin = parsed(&caller, project, pin.ok_or_else(missing)?)
            .map_err(|e| Problem::invalid(e.within("pin")))?;
        // Nothing goes between looking and writing.
        let _held = share.hold().await;
        there(&share, &pin.target).await?;
        let pinned = self.sweeper.queue.pin(pin).await.map_err(|e| match e {
            PinError::NoBuild => Problem::not_found("pin.build").into(),
            PinError::Released => {
                Problem::invalid(Invalid::field("pin.build", e.to_string())).into()
            }
            PinError::TooMany => Problem::exhausted(e.to_string(), None).into(),
            PinError::Queue(_) => internal("the pin could not be written", &e),
        });
        let pin: Pin = pinned.map_err(|status: Status| status)?;
        tracing::info!(target: "audit", identity = %caller.identity(), ?pin, "pinned");
        Ok(Response::new(told_pin(&pin)))
    }

    async fn delete_pin(
        &self,
        request: Request<v1::DeletePinRequest>,
    ) -> Result<Response<v1::DeletePinResponse>, Status> {
        let caller = administer(&request)?;
        let name = request.into_inner().name;
        let number = name.strip_prefix("pins/").and_then(|n| n.parse().ok());
        let pins = self.sweeper.queue.pins().await;
        let pins = pins.map_err(|e| internal("the pins could not be read", &e))?;
        let pin = pins.into_iter().find(|pin| Some(pin.number) == number);
        let pin = pin.ok_or_else(|| Problem::not_found(&name))?;
        if !caller.administers_project(&pin.project) {
            return Err(Problem::not_found(&name).into());
        }
        let removed = self.sweeper.queue.unpin(pin.number).await;
        let removed = removed.map_err(|e| internal("the pin could not be removed", &e))?;
        let pin = removed.ok_or_else(|| Problem::not_found(&name))?;
        tracing::info!(target: "audit", identity = %caller.identity(), ?pin, "unpinned");
        Ok(Response::new(v1::DeletePinResponse {
            pin: Some(told_pin(&pin)),
        }))
    }

    async fn list_pins(
        &self,
        request: Request<v1::ListPinsRequest>,
    ) -> Result<Response<v1::ListPinsResponse>, Status> {
        let caller = administer(&request)?;
        let pins = self.sweeper.queue.pins().await;
        let pins = pins.map_err(|e| internal("the pins could not be read", &e))?;
        let pins = pins.iter();
        let pins = pins.filter(|pin| caller.administers_project(&pin.project));
        Ok(Response::new(v1::ListPinsResponse {
            pins: pins.map(told_pin).collect(),
        }))
    }
}

/// That the project has what is to be pinned. Whether a build is there is seen when it is.
async fn there(share: &Share, target: &Target) -> Result<(), Status> {
    let object = match target {
        Target::Build(_) => return Ok(()),
        Target::Tree(object) | Target::Object(object) => *object,
    };
    let what = "the store could not be read";
    let looking = share.clone();
    let there = spawn_blocking(move || looking.has(&[object])).await;
    let there = there.map_err(|e| internal(what, &e))?;
    match there.map_err(|e| internal(what, &e))?.as_slice() {
        [true] => Ok(()),
        _ => {
            let name = format!("blobs/{}/{}", object.digest.to_hex(), object.size);
            Err(Problem::not_found(&name).into())
        }
    }
}

fn parsed(caller: &Caller, project: ProjectId, pin: v1::Pin) -> Result<Pin, Invalid> {
    use v1::pin::Target as Written;
    let target = match pin.target {
        None => {
            return Err(Invalid::field(
                "target",
                "name a build, a tree or an object",
            ));
        }
        Some(Written::Build(name)) => {
            Target::Build(parse_build_name(&name).map_err(|e| e.within("build"))?)
        }
        Some(Written::Tree(tree)) => {
            Target::Tree(ObjectId::try_from(tree).map_err(|e| e.within("tree"))?)
        }
        Some(Written::Object(object)) => {
            Target::Object(ObjectId::try_from(object).map_err(|e| e.within("object"))?)
        }
    };
    if pin.reason.len() > bounds::PIN_REASON_BYTES {
        let most = bounds::PIN_REASON_BYTES;
        let why = format!("{} bytes; {most} are allowed", pin.reason.len());
        return Err(Invalid::field("reason", why));
    }
    Ok(Pin {
        number: 0,
        project,
        target,
        reason: pin.reason,
        created_by: caller.identity().to_string(),
        created: SystemClock.now(),
    })
}

fn told_pin(pin: &Pin) -> v1::Pin {
    use v1::pin::Target as Written;
    v1::Pin {
        name: format!("pins/{}", pin.number),
        project: project_name(&pin.project),
        target: Some(match &pin.target {
            Target::Build(id) => Written::Build(build_name(id)),
            Target::Tree(tree) => Written::Tree((*tree).into()),
            Target::Object(object) => Written::Object((*object).into()),
        }),
        reason: pin.reason.clone(),
        creator: pin.created_by.clone(),
        create_time: Some(time(pin.created)),
    }
}

fn told_retention(project: String, retention: Retention) -> v1::Retention {
    v1::Retention {
        project,
        builds: retention.builds.map_or(0, figure),
        seconds: retention.seconds.map_or(0, figure),
        bytes: retention.bytes.map_or(0, figure),
    }
}

fn told_scrub(scrub: Scrub) -> v1::Scrub {
    v1::Scrub {
        running: scrub.running,
        start_time: scrub.started.map(time),
        end_time: scrub.finished.map(time),
        objects: figure(scrub.objects),
        bytes: figure(scrub.bytes),
        damaged: figure(scrub.damaged),
        unread: figure(scrub.unread),
    }
}

fn figure(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

fn time(time: Timestamp) -> belljar_wire::ProtoTime {
    belljar_wire::proto_time(time)
}

fn unanswered(trouble: Trouble) -> Status {
    tracing::warn!(%trouble, "the store was not asked");
    Problem::unavailable("the store does not answer; try again").into()
}

fn swept(error: &SweepError) -> Status {
    match error {
        SweepError::Busy => Problem::unavailable("that is under way already").into(),
        full if full.is_full() => {
            let why = "belljard's disk is so full that nothing can be noted any more, not even what goes: make some room on it by \
                       hand, and try again";
            Problem::exhausted(why, None).into()
        }
        other => internal("what nobody needs could not be removed", other),
    }
}
