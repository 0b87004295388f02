//! `belljar store`: what the store keeps, and how the rest goes.

use std::time::Duration;

use belljar_wire::{
    DamagedObject, KeptBuilds, PinRecord, ScrubStatus, StoreStatus, Swept, pin_name,
};

use crate::client::Client;
use crate::embedded::Purpose;
use crate::error::Error;
use crate::report;
use crate::session::{self, Session};
use crate::target::Target;
use crate::terminal::{self, Terminal, line};
use crate::{cli, exit};

/// Between two looks at how a scrub fares.
const LOOK: Duration = Duration::from_millis(200);

/// `belljar store status`
///
/// # Errors
/// When the daemon does not tell.
pub(crate) fn status(arguments: &cli::Ask, terminal: &mut Terminal) -> Result<u8, Error> {
    let ask = async |client: &Client, _: &mut Terminal| {
        let (status, pins) = (client.store_status().await?, client.pins().await?);
        match arguments.json {
            true => crate::json(&report::Store::new(&status, &pins), false),
            false => Ok(described(&status, &pins)),
        }
    };
    print(&session::ask(&arguments.whom, terminal, ask)?)
}

/// `belljar store gc`
///
/// # Errors
/// When the daemon does not do it to the end.
pub(crate) fn gc(arguments: &cli::Gc, terminal: &mut Terminal) -> Result<u8, Error> {
    let ask = async |client: &Client, _: &mut Terminal| {
        let swept = client.collect_garbage(arguments.all).await?;
        match arguments.ask.json {
            true => crate::json(&report::Garbage::new(&swept), false),
            false => Ok(told(&swept)),
        }
    };
    print(&session::ask(&arguments.ask.whom, terminal, ask)?)
}

/// `belljar store scrub`. Processes of our own end with this command: it is waited for then.
///
/// # Errors
/// When the daemon does not begin with it, or a signal comes while it is waited for.
pub(crate) fn scrub(arguments: &cli::Ask, terminal: &mut Terminal) -> Result<u8, Error> {
    let (whom, json) = (&arguments.whom, arguments.json);
    let target = Target::find_or_start(whom, Purpose::Ask)?;
    let work = async |session: &mut Session<'_>| {
        let (client, terminal) = (&session.client, &mut *session.terminal);
        let all_read = async {
            let mut scrub = client.scrub_store().await?;
            if matches!(session.target, Target::Own(_)) {
                terminal.phase("all objects are being read");
                while scrub.running {
                    tokio::time::sleep(LOOK).await;
                    scrub = client.store_status().await?.scrub;
                }
            }
            Ok::<_, Error>(scrub)
        };
        let scrub = tokio::select! {
            scrub = all_read => scrub?,
            () = session.signals.next() => return Err(Error::Stopped),
        };
        match json {
            true => crate::json(&report::ScrubBegun::new(&scrub), false),
            false => Ok(format!("scrub        {}", fares(&scrub))),
        }
    };
    print(&session::with(
        target,
        whom.project.as_ref(),
        terminal,
        work,
    )?)
}

/// `belljar store pin`
///
/// # Errors
/// When the daemon does not pin it.
pub(crate) fn pin(arguments: &cli::Pin, terminal: &mut Terminal) -> Result<u8, Error> {
    let ask = async |client: &Client, _: &mut Terminal| {
        let pin = client.pin(&arguments.target, &arguments.reason).await?;
        pinned(&pin, arguments.ask.json)
    };
    print(&session::ask(&arguments.ask.whom, terminal, ask)?)
}

/// `belljar store unpin`
///
/// # Errors
/// When the daemon does not unpin it.
pub(crate) fn unpin(arguments: &cli::Unpin, terminal: &mut Terminal) -> Result<u8, Error> {
    let ask = async |client: &Client, _: &mut Terminal| {
        pinned(&client.unpin(arguments.pin).await?, arguments.ask.json)
    };
    print(&session::ask(&arguments.ask.whom, terminal, ask)?)
}

fn print(text: &str) -> Result<u8, Error> {
    terminal::result(text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(exit::SUCCESS)
}

fn pinned(pin: &PinRecord, json: bool) -> Result<String, Error> {
    match json {
        true => crate::json(&report::Pinned::new(pin), false),
        false => Ok(row(pin)),
    }
}

/// How full the store is, in words.
fn described(status: &StoreStatus, pins: &[PinRecord]) -> String {
    let parts = [
        ("objects", status.objects),
        ("images", status.images),
        ("logs", status.logs),
        ("quarantine", status.quarantine),
        ("other", status.other),
    ];
    let mut rows: Vec<(&str, String)> = Vec::new();
    for (name, part) in parts {
        rows.push((
            name,
            format!("{} bytes in {} files", part.bytes, part.files),
        ));
    }
    let used = status.total.saturating_sub(status.available);
    let percent = (u128::from(used) * 100).checked_div(u128::from(status.total));
    rows.push((
        "disk",
        format!(
            "{} of {} bytes are free, {} % used; {} bytes are kept for builds that run",
            status.available,
            status.total,
            percent.unwrap_or(0),
            status.reserve
        ),
    ));
    rows.push((
        "sweeps",
        format!(
            "from {} % used on, down to {} %; what nothing leads to stays for {} s, what was given for {} s",
            status.high_percent, status.low_percent, status.lease, status.grace
        ),
    ));
    rows.extend(status.retention.iter().map(|one| ("builds", kept(one))));
    rows.push(("scrub", fares(&status.scrub)));
    let damage = damage(&status.damaged);
    rows.extend(damage.into_iter().map(|said| ("damaged", said)));
    rows.push(("counted", format!("at {}", status.counted)));
    rows.extend(pins.iter().map(|pin| ("pinned", row(pin))));
    let lines = rows.iter().map(|(what, said)| format!("{what:12} {said}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What was found damaged, and what became of it; nothing if nothing was.
fn damage(damaged: &[DamagedObject]) -> Vec<String> {
    if damaged.is_empty() {
        return Vec::new();
    }
    // An image is made anew whenever it is needed.
    let missing = damaged.iter().filter(|one| !one.mended && !one.image);
    let missing = match missing.count() {
        0 => "none of the objects is missing".to_owned(),
        1 => "1 of the objects is missing".to_owned(),
        more => format!("{more} of the objects are missing"),
    };
    let mut said = vec![format!("{} put aside; {missing}", damaged.len())];
    for one in damaged {
        let builds: Vec<&str> = one.builds.iter().map(|id| id.as_str()).collect();
        let needed = match builds.is_empty() {
            true => "no build that is kept needs it".to_owned(),
            false => format!("needed by {}", builds.join(", ")),
        };
        let (what, state) = match (one.image, one.mended) {
            (false, true) => ("", "whole again"),
            (false, false) => ("", "missing"),
            (true, true) => ("image of ", "made anew"),
            (true, false) => ("image of ", "made anew when it is needed"),
        };
        said.push(format!("{what}{}; {state}; {needed}", one.digest));
    }
    said
}

fn kept(kept: &KeptBuilds) -> String {
    let limits = [
        kept.builds.map(|most| format!("{most} builds")),
        kept.seconds.map(|most| format!("{most} s after their end")),
        kept.bytes
            .map(|most| format!("{most} bytes of artifacts and logs")),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    let whose = match &kept.project {
        Some(project) => format!("of {project}"),
        None => "of projects that are not named".to_owned(),
    };
    match limits.is_empty() {
        true => format!("{whose}: all are kept"),
        false => format!("{whose}: at most {} are kept", limits.join(", ")),
    }
}

fn fares(scrub: &ScrubStatus) -> String {
    let figures = format!(
        "{} objects, {} bytes, {} damaged, {} unread",
        scrub.objects, scrub.bytes, scrub.damaged, scrub.unread
    );
    match (scrub.running, scrub.started, scrub.ended) {
        (true, Some(since), _) => format!("under way since {since}: {figures}"),
        (false, _, Some(ended)) => format!("ended at {ended}: {figures}"),
        _ => "not since the store started".to_owned(),
    }
}

fn told(swept: &Swept) -> String {
    format!(
        "{} builds were given up\n{} objects are needed; of {} that are not, {} were removed, with {} images and {} files \
         of logs: {} bytes",
        swept.builds,
        swept.reached,
        swept.unneeded,
        swept.objects,
        swept.images,
        swept.logs,
        swept.bytes
    )
}

fn row(pin: &PinRecord) -> String {
    let because = match pin.reason.as_str() {
        "" => String::new(),
        reason => format!(": {}", line(reason)),
    };
    format!(
        "{}  {}  {}, {}, {}{because}",
        pin_name(pin.number),
        pin.target,
        pin.project,
        line(&pin.creator),
        pin.created
    )
}
