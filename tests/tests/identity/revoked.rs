//! What has begun by a right ends with it, without a restart.

use std::fs;
use std::time::Duration;

use belljar_tests::{Client, Part};
use belljar_wire::{BuildState, build_name, v1};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::certificates::Authority;
use crate::site::Site;

type Watch = Streaming<v1::WatchBuildResponse>;

const PATIENCE: Duration = Duration::from_secs(60);
/// How long something is looked at that must not come.
const A_WHILE: Duration = Duration::from_millis(500);

/// A build that goes on until it is cancelled.
fn endless(client: &Client) -> belljar_core::BuildId {
    let script = "echo begun; while [ ! -e /nowhere ]; do sleep 0.05; done";
    let spec = client.spec(&[("in", "")], &[script], &["out"]);
    let build = client.submit("endless", &spec).unwrap();
    client.until(&build.id, |build| build.state == BuildState::Running);
    build.id
}

fn watch(client: &Client, build: &belljar_core::BuildId) -> Result<Watch, Status> {
    let request = v1::WatchBuildRequest {
        name: build_name(build),
        ..Default::default()
    };
    let watch = client.wait(client.builds().watch_build(request))?;
    Ok(watch.into_inner())
}

/// Why a watch ended.
fn end_of(client: &Client, mut watch: Watch) -> Option<Status> {
    let reading = async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    };
    client.wait(async { timeout(PATIENCE, reading).await.unwrap() })
}

/// Whether nothing ends a watch for a while.
fn goes_on(client: &Client, watch: &mut Watch) -> bool {
    let reading = async { while let Ok(Some(_)) = watch.message().await {} };
    client.wait(async { timeout(A_WHILE, reading).await.is_err() })
}

fn change(site: &Site, change: impl FnOnce(String) -> String) {
    let path = site.instance.state().join("config/belljard.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, change(text)).unwrap();
    site.hang_up();
}

#[test]
fn who_loses_a_right_loses_what_it_began_by_it() {
    let site = Site::new();
    let dir = site.dir.path();
    let ci = site
        .clients
        .spiffe(dir, "ci", "spiffe://example.org/web/ci");
    let (ci, app) = (
        site.client(&ci),
        site.client(&site.clients.subject(dir, "app")),
    );
    let pid = site.instance.pid_of(Part::Belljard);
    let (theirs, ours) = (endless(&ci), endless(&app));
    let (ending, mut staying) = (watch(&ci, &theirs).unwrap(), watch(&app, &ours).unwrap());

    // A file that says nothing changes nothing.
    let before = fs::read_to_string(site.instance.state().join("config/belljard.toml")).unwrap();
    change(&site, |text| format!("{text}\nnonsense = "));
    site.until_said("what was stays in force");
    assert!(goes_on(&app, &mut staying));
    // More rights end nothing.
    let member =
        "principal = \"spiffe://example.org/web/*\"\nrights = [\"submit\", \"cancel\", \"read\"]";
    let more = "principal = \"spiffe://example.org/web/*\"\nrights = [\"submit\", \"cancel\", \"read\", \"administer\"]";
    assert!(before.contains(member));
    change(&site, |_| before.replace(member, more));
    site.until_said("changed=true");
    assert!(!site.instance.said(Part::Belljard).contains("lost a right"));
    // One less ends all that its principal has open, and nothing else.
    let less = "principal = \"spiffe://example.org/web/*\"\nrights = [\"submit\", \"cancel\"]";
    change(&site, |_| before.replace(member, less));
    let why = end_of(&ci, ending);
    assert!(why.is_some(), "it did not end as a build does");
    site.until_said("its caller has lost a right");
    let refused = watch(&ci, &theirs).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(goes_on(&app, &mut staying));
    // What is left to it still goes.
    ci.cancel(&theirs, "").unwrap();

    // Who vouched for a caller vouches no more.
    let authorities = site.clients.pem.clone();
    site.install("clients.pem", &Authority::new("others").pem);
    site.hang_up();
    assert!(end_of(&app, staying).is_some());
    site.until_said("withdrawn=true");
    site.install("clients.pem", &authorities);
    site.hang_up();
    let app = site.clients.subject(dir, "app-again");
    assert_ne!(site.belljar(&app, &["list"]).code, 0, "a member of nothing");
    let app = site.client(&site.clients.subject(dir, "app"));
    app.cancel(&ours, "").unwrap();
    app.until(&ours, |build| build.state == BuildState::Ended);
    assert_eq!(site.instance.pid_of(Part::Belljard), pid);
}
