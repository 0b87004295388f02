use belljar_tests::{Instance, Part};
use belljar_wire::{BuildState, build_name};
use tonic::Code;

use crate::{build, endless, page, quick};

#[test]
fn thirty_builds_are_listed_page_by_page_while_more_come() {
    let mut instance = Instance::started();
    let client = instance.client();
    let spec = quick(&client);
    let mut due: Vec<_> = (0..30)
        .map(|n| build_name(&client.submit(&format!("r{n}"), &spec).unwrap().id))
        .collect();
    due.reverse();
    let (mut found, mut token) = page(&client, "", 7, "").unwrap();
    assert_eq!(found, due[..7]);
    let late = build_name(&client.submit("late", &spec).unwrap().id);
    let mut client = client;
    while !token.is_empty() {
        if found.len() == 14 {
            instance.kill_part(Part::Belljard);
            instance.start_part(Part::Belljard);
            client = instance.client();
        }
        let (more, next) = page(&client, "", 7, &token).unwrap();
        found.extend(more);
        token = next;
    }
    assert_eq!(found[..30], due);
    assert_eq!(found.len(), 31, "and the one that wrote the configuration");
    assert_eq!(page(&client, "", 1, "").unwrap().0, [late]);
    assert_eq!(page(&client, "", 0, "").unwrap().0.len(), 32);
}

#[test]
fn lists_are_narrowed_by_what_is_known() {
    let instance = Instance::started();
    let client = instance.client();
    let good = build(&client, "good", &quick(&client));
    let failing = client.spec(&[("in", "1")], &["exit 3"], &["out"]);
    let bad = build(&client, "bad", &failing);
    let runs = client.submit("runs", &endless(&client)).unwrap();
    client.until(&runs.id, |build| build.state == BuildState::Running);
    let [good, bad, runs_name] = [&good.id, &bad.id, &runs.id].map(build_name);
    let of = |filter: &str| {
        let mut found = page(&client, filter, 0, "").unwrap().0;
        // The build that wrote the configuration.
        found.retain(|name| [&good, &bad, &runs_name].contains(&name));
        found
    };
    assert_eq!(of("state = RUNNING"), std::slice::from_ref(&runs_name));
    assert_eq!(of("state != RUNNING"), [bad.clone(), good.clone()]);
    assert_eq!(of("outcome = failed"), std::slice::from_ref(&bad));
    assert_eq!(of("outcome != failed"), std::slice::from_ref(&good));
    assert_eq!(
        of("outcome = succeeded AND request_id = good"),
        std::slice::from_ref(&good)
    );
    assert_eq!(of(r#"submitter = "unix:uid=0""#).len(), 3);
    assert_eq!(of(r#"submitter != "unix:uid=0""#), Vec::<String>::new());
    let accepted = client.get(&runs.id).unwrap().created;
    assert_eq!(
        of(&format!("create_time >= \"{accepted}\"")),
        std::slice::from_ref(&runs_name)
    );
    assert_eq!(
        of(&format!("create_time < \"{accepted}\"")),
        [bad.clone(), good.clone()]
    );
    assert_eq!(of("create_time < \"2020-01-01T00:00:00Z\"").len(), 0);
    client.cancel(&runs.id, "").unwrap();
}

#[test]
fn a_list_that_is_none_is_refused_by_field_and_place() {
    let instance = Instance::started();
    let client = instance.client();
    let (_, token) = {
        build(&client, "a", &quick(&client));
        page(&client, "state = ENDED", 1, "").unwrap()
    };
    assert!(!token.is_empty());
    for (filter, size, token, why) in [
        (
            "state = RUNNING AND color = red",
            0,
            "",
            "at character 21: a field is due",
        ),
        ("state = RUNNING OR state = ENDED", 0, "", "there is no OR"),
        (
            "submitter = \"x",
            0,
            "",
            "at character 13: this quote is not closed",
        ),
        ("", -1, "", "page_size"),
        ("", 0, "17", "page_token"),
        ("state = QUEUED", 0, token.as_str(), "another filter"),
    ] {
        let (code, said) = page(&client, filter, size, token).unwrap_err();
        assert_eq!(code, Code::InvalidArgument, "{filter}: {said}");
        assert!(said.contains(why), "{filter}: {said}");
    }
}
