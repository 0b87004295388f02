use std::fs;

use belljar_tests::{Part, Project};

use crate::site::Site;

#[test]
fn a_build_from_elsewhere_is_its_projects_and_nobody_elses() {
    let site = Site::new();
    let dir = site.dir.path();
    let ci = site
        .clients
        .spiffe(dir, "ci", "spiffe://example.org/web/ci");
    let app = site.clients.subject(dir, "app");
    let project = Project::script("echo from elsewhere | tee out");
    let (source, output) = (project.path().to_str().unwrap(), site.file("home"));
    let output = output.to_str().unwrap();
    let came = site.belljar(&ci, &["run", source, "--output", output]);
    assert_eq!(came.code, 0, "{came:?}");
    assert_eq!(came.json["submitter"], "spiffe://example.org/web/ci");
    assert_eq!(came.json["daemon"]["socket"], site.url());
    assert_eq!(
        fs::read_to_string(site.file("home/out")).unwrap(),
        "from elsewhere\n"
    );
    let asserted = &came.json["verdict"]["asserted"];
    assert_eq!(asserted["project"], "web", "{came:?}");
    assert_eq!(asserted["authenticated_by"], "mTLS", "{came:?}");
    let build = came.json["build"].as_str().unwrap();
    // The trail says whose it is.
    let trail = fs::read_to_string(site.file("home/audit.jsonl")).unwrap_or_else(|_| {
        let id = build.strip_prefix("builds/").unwrap();
        let path = site
            .instance
            .state()
            .join(format!("daemon/audit/{id}.jsonl"));
        fs::read_to_string(path).unwrap()
    });
    assert!(trail.contains("\"project\":\"web\""), "{trail}");

    // A colleague sees it by another name below the same path; another project does not, nor does root's.
    let colleague = site
        .clients
        .spiffe(dir, "dev", "spiffe://example.org/web/team/dev");
    let came = site.belljar(&colleague, &["show", build]);
    assert_eq!(came.code, 0, "{came:?}");
    for verb in ["show", "cancel", "logs", "audit show"] {
        let came = site.belljar(&app, &[verb, build]);
        assert!(
            came.code == 2 && came.said.contains("does not exist"),
            "{verb}: {came:?}"
        );
    }
    let listed = site.belljar(&app, &["list"]);
    assert_eq!(
        listed.json["builds"].as_array().map(Vec::len),
        Some(0),
        "{listed:?}"
    );
    let id = build.strip_prefix("builds/").unwrap().parse_build();
    assert!(
        site.instance.client().get(&id).is_err(),
        "root is a member of `default`"
    );
    site.until_said("OTHER_PROJECT");
    site.until_said("x509:CN=app");

    // The same sources from another project are sent again, to the last blob.
    let home = site.file("other");
    let home = home.to_str().unwrap();
    let came = site.belljar(&app, &["run", source, "--output", home]);
    assert_eq!(came.code, 0, "{came:?}");
    assert!(!came.said.contains("uploaded 0 of"), "{came:?}");
    let again = site.belljar(&app, &["run", source, "--output", home]);
    assert!(again.said.contains("uploaded 0 of"), "{again:?}");
    // One may not name another's.
    let came = site.belljar(&app, &["run", source, "--output", home, "--project", "web"]);
    assert!(
        came.code == 2 && came.said.contains("`projects/web` does not exist"),
        "{came:?}"
    );
    assert!(site.instance.said(Part::Belljard).contains("projects/web"));
}

trait ParseBuild {
    fn parse_build(&self) -> belljar_core::BuildId;
}

impl ParseBuild for str {
    fn parse_build(&self) -> belljar_core::BuildId {
        belljar_core::BuildId::new(self).unwrap()
    }
}
