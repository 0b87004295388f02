//! A record in words.

use belljar_audit::{AuditEvent, Entry, Found};
use belljar_wire::build_name;

use super::Record;
use crate::report::Chain;
use crate::terminal::line as one;

/// The whole story, from who asked to what was verified.
pub(super) fn story(record: &Record, chain: Chain, key_from: Option<&str>) -> String {
    let mut lines = Vec::new();
    if let Some(first) = record.entries.first() {
        lines.push(build_name(&first.build));
    }
    lines.push(String::new());
    lines.push(
        "what happened (UTC, by the daemon's clock; * is known from the daemon's word alone)"
            .to_owned(),
    );
    lines.extend(record.entries.iter().map(line));
    for section in record.account.iter().flat_map(|account| account.sections()) {
        lines.push(String::new());
        lines.push(section.title.to_owned());
        let width = section.facts.iter().map(|(label, _)| label.chars().count());
        let width = width.max().unwrap_or(0);
        for (label, said) in &section.facts {
            lines.push(format!("  {label:width$}  {}", one(said)));
        }
    }
    if record.account.is_none() {
        lines.push(String::new());
        lines
            .push("there is no receipt: nothing is known of layers, probes and outputs".to_owned());
    }
    lines.push(String::new());
    lines.push("signature".to_owned());
    lines.push(signature(record, key_from));
    lines.push(String::new());
    lines.push("chain of the trail".to_owned());
    lines.push(format!(
        "  verified: {} entries, each naming the one before",
        chain.entries
    ));
    lines.push(match chain.signed {
        Some(signed) => format!(
            "  the first {signed} are the ones that the signed statement names; nothing outside holds the rest"
        ),
        None => "  nothing signed names it: a missing end or a rewritten last line would not show".to_owned(),
    });
    lines.join("\n")
}

fn signature(record: &Record, key_from: Option<&str>) -> String {
    let Some(verdict) = &record.verdict else {
        return "  none was looked at".to_owned();
    };
    let from = match key_from {
        Some("given") => "the key that was given",
        _ => "the key that the daemon told; compare it with one that you trust",
    };
    format!(
        "  verified: by {}, {from}\n  builder {}, {}\n  hermetic: {}",
        verdict.key_id,
        one(&verdict.builder),
        verdict.builder_description,
        if verdict.hermetic { "yes" } else { "no" }
    )
}

fn line(entry: &Entry) -> String {
    let asserted = entry.asserted.iter().any(|name| name != "time");
    let mark = if asserted { '*' } else { ' ' };
    format!("  {}{mark} {}", entry.time, one(&event(&entry.event)))
}

fn event(event: &AuditEvent) -> String {
    match event {
        AuditEvent::Submitted {
            by,
            authenticated_by,
            request_id,
            spec,
            project,
        } => {
            let request = request_id
                .as_ref()
                .map_or_else(String::new, |id| format!(", request {id}"));
            let project = project
                .as_ref()
                .map_or_else(String::new, |id| format!(" for the project {id}"));
            format!("{by} asked{project} ({authenticated_by}{request}): specification {spec}")
        }
        AuditEvent::Decided {
            admitted: true,
            reasons,
        } => format!("admitted by policy{}", listed(reasons)),
        AuditEvent::Decided {
            admitted: false,
            reasons,
        } => format!("refused by policy{}", listed(reasons)),
        AuditEvent::AttemptStarted { attempt } => format!("attempt {} begins", attempt.number()),
        AuditEvent::Fetched { .. } => fetched(event),
        AuditEvent::Staged { tree, .. } => {
            format!("inputs were verified and mounted: tree {}", tree.digest)
        }
        AuditEvent::Launched { .. } => "the sandbox was read back, and the steps begin".to_owned(),
        AuditEvent::Ended { outcome, .. } => {
            format!("the steps have ended, and no process is left: {outcome}")
        }
        AuditEvent::Collected {
            receipt,
            outputs,
            outcome,
            ..
        } => format!("{outputs} outputs were taken, receipt {receipt}: {outcome}"),
        AuditEvent::AttestationRequested { .. } => "the signer is asked for a statement".to_owned(),
        AuditEvent::Signed { bundle, key_id, .. } => format!("signed by {key_id}: bundle {bundle}"),
        AuditEvent::SigningRefused { reasons, .. } => {
            format!("the signer did not sign{}", listed(reasons))
        }
        AuditEvent::Destroyed { attempt } => {
            format!("nothing of attempt {} is left", attempt.number())
        }
        AuditEvent::Recovered { attempt, state } => format!(
            "the daemon was restarted, and found attempt {} {state}",
            attempt.number()
        ),
        AuditEvent::CancelRequested { by, reason } => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}"));
            format!("{by} asked for the end{}", reason.unwrap_or_default())
        }
        AuditEvent::Finished { outcome } => format!("the build has ended: {outcome}"),
    }
}

/// What came of one fetch, and how.
fn fetched(event: &AuditEvent) -> String {
    let AuditEvent::Fetched {
        name,
        submodule,
        digest,
        found,
        refused,
        tries,
        ..
    } = event
    else {
        return String::new();
    };
    let name = match submodule {
        Some(path) => format!("{name}, submodule `{path}`,"),
        None => name.to_string(),
    };
    let mut said = match found {
        Found::Present { content, .. } => {
            format!("{name} was there, and not fetched: {content}")
        }
        Found::Fetched { content, .. } => format!("{name} was fetched: {content}"),
        Found::Left { by, .. } => format!("{name} was left by {by}: {digest}"),
        Found::Nothing {} => format!("{name} was not fetched: {digest}"),
    };
    for one in tries {
        let redirected = one.final_url.as_ref();
        let redirected = redirected.map_or_else(String::new, |url| format!(" → {url}"));
        let status = one.status;
        let status = status.map_or_else(String::new, |status| format!(", status {status}"));
        let came = match &one.refused {
            Some(why) => format!(": {why}"),
            None => String::new(),
        };
        let (url, bytes, millis) = (&one.url, one.bytes, one.millis);
        said.push_str(&format!(
            "; {url}{redirected}{status}, {bytes} bytes in {millis} ms{came}"
        ));
    }
    if let Some(why) = refused {
        said.push_str(&format!("; {why}"));
    }
    said
}

fn listed(reasons: &[String]) -> String {
    match reasons.is_empty() {
        true => String::new(),
        false => format!(": {}", reasons.join("; ")),
    }
}
