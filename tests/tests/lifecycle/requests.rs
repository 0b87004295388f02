use belljar_core::{BuildId, ObjectId, Outcome};
use belljar_tests::Instance;
use belljar_wire::{BuildState, Reason, v1};
use tonic::Code;

#[test]
fn one_request_id_is_one_build() {
    let instance = Instance::started();
    let client = instance.client();
    let spec = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    let first = client.submit("release-7", &spec).unwrap();
    let again = client.submit("release-7", &spec).unwrap();
    assert_eq!(again.id, first.id);
    let ended = client.until(&first.id, |build| build.state == BuildState::Ended);
    assert_eq!(ended.outcome, Some(Outcome::Succeeded));
    // Also after its end, and over another connection.
    assert_eq!(instance.client().submit("release-7", &spec).unwrap(), ended);

    let other = client.spec(&[("in", "2")], &["cp in out"], &["out"]);
    let problem = client.submit("release-7", &other).unwrap_err();
    assert_eq!(problem.reason, Reason::RequestIdReused, "{problem:?}");
    assert!(problem.message.contains("release-7"), "{problem:?}");
    let second = client.submit("release-8", &spec).unwrap();
    assert_ne!(second.id, first.id);
    client.until(&second.id, |build| build.state == BuildState::Ended);
}

#[test]
fn a_request_that_is_none_is_refused_by_field() {
    let instance = Instance::started();
    let client = instance.client();
    let good: v1::BuildSpec = (&client.spec(&[("in", "1")], &["cp in out"], &["out"])).into();
    let with = |change: &dyn Fn(&mut v1::BuildSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec
    };
    let cases = [
        ("", good.clone(), "request_id"),
        ("a b", good.clone(), "request_id"),
        (
            "ok",
            with(&|spec| spec.image = "debian".into()),
            "spec.image",
        ),
        ("ok", with(&|spec| spec.run = vec![]), "spec.run"),
        (
            "ok",
            with(&|spec| spec.run = vec!["true".into(), " ".into()]),
            "spec.run[1]",
        ),
        (
            "ok",
            with(&|spec| spec.outputs = vec!["a".into(), "../b".into()]),
            "spec.outputs[1]",
        ),
        (
            "ok",
            with(&|spec| spec.outputs = vec!["a".into(), "dist/a**".into()]),
            "spec.outputs[1]",
        ),
        (
            "ok",
            with(&|spec| spec.working_directory = "../up".into()),
            "spec.working_directory",
        ),
        (
            "ok",
            with(&|spec| {
                spec.limits = Some(v1::Limits {
                    grace_seconds: Some(301),
                    ..Default::default()
                });
            }),
            "spec.limits.grace_seconds",
        ),
        ("ok", with(&|spec| spec.source = None), "spec.source"),
        (
            "ok",
            with(&|spec| spec.source.as_mut().unwrap().hash = "00".into()),
            "spec.source.hash",
        ),
        (
            "ok",
            with(&|spec| spec.source.as_mut().unwrap().size_bytes = -1),
            "spec.source.size_bytes",
        ),
        (
            "ok",
            with(&|spec| {
                let limits = v1::Limits {
                    pids: Some(0),
                    ..Default::default()
                };
                spec.limits = Some(limits);
            }),
            "spec.limits.pids",
        ),
        (
            "ok",
            with(&|spec| {
                spec.env.insert("HOME".into(), "/root".into());
            }),
            "spec.env",
        ),
    ];
    for (request_id, spec, field) in cases {
        let problem = client.submit_raw(request_id, spec).unwrap_err();
        assert_eq!(problem.reason, Reason::InvalidField, "{field}: {problem:?}");
        assert_eq!(problem.fields[0].field, field, "{problem:?}");
    }
    // Nothing of that was accepted.
    assert!(client.submit_raw("ok", good).is_ok());
    let nobody = BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6b").unwrap();
    assert_eq!(client.get(&nobody).unwrap_err().reason, Reason::NotFound);
    assert_eq!(
        client.cancel(&nobody, "").unwrap_err().reason,
        Reason::NotFound
    );
}

#[test]
fn a_source_that_was_not_uploaded_is_refused_when_it_is_submitted() {
    let instance = Instance::started();
    let client = instance.client();
    let mut spec = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    spec.source = ObjectId::of(b"a directory that nobody has sent");
    let problem = client.submit("early", &spec).unwrap_err();
    assert_eq!(problem.reason, Reason::InputMissing, "{problem:?}");
    assert!(
        format!("{problem:?}").contains("spec.source"),
        "{problem:?}"
    );
    assert!(
        format!("{problem:?}").contains(&spec.source.digest.to_hex()),
        "{problem:?}"
    );
}

#[test]
fn a_file_that_was_not_uploaded_is_refused_when_the_build_is_submitted() {
    let instance = Instance::started();
    let client = instance.client();
    let mut spec = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    let path = belljar_core::RelPath::new("in").unwrap();
    let object = ObjectId::of(b"a file that nobody has sent");
    let leaf = belljar_tree::Leaf::File {
        object,
        executable: false,
    };
    let built = belljar_tree::build([(path, leaf)]).unwrap();
    let [(root, bytes)] = built.directories.as_slice() else {
        panic!("one directory");
    };
    client.put(bytes);
    spec.source = *root;
    let problem = client.submit("hollow", &spec).unwrap_err();
    assert_eq!(problem.reason, Reason::InputMissing, "{problem:?}");
    assert!(
        problem.unmet[0].subject.contains(&object.digest.to_hex()),
        "{problem:?}"
    );
    client.put(b"a file that nobody has sent");
    let build = client.submit("hollow", &spec).unwrap();
    client.until(&build.id, |build| {
        build.outcome.as_ref().is_some_and(Outcome::is_success)
    });
}

#[test]
fn blobs_are_what_their_digests_say_or_are_not_there() {
    let instance = Instance::started();
    let client = instance.client();
    let [small, large] = [b"small".to_vec(), vec![7; 3_000_000]];
    for (name, bytes) in [("small", &small), ("large", &large)] {
        let object = ObjectId::of(bytes);
        assert_eq!(
            client.missing(&[object]),
            [object.digest.to_hex()],
            "{name}"
        );
        assert_eq!(
            client.read(object).unwrap_err().code(),
            Code::NotFound,
            "{name}"
        );
        // Other bytes of the same length under its name.
        let mut other = bytes.clone();
        other[0] ^= 1;
        assert_eq!(
            client.put_as(object, &other),
            Code::InvalidArgument,
            "{name}"
        );
        // Fewer bytes than announced.
        assert_eq!(
            client.put_as(object, &bytes[1..]),
            Code::InvalidArgument,
            "{name}"
        );
        assert_eq!(
            client.missing(&[object]),
            [object.digest.to_hex()],
            "{name}"
        );
        assert_eq!(client.put_as(object, bytes), Code::Ok, "{name}");
        assert_eq!(client.missing(&[object]), Vec::<String>::new(), "{name}");
        assert_eq!(client.read(object).unwrap(), *bytes, "{name}");
        // A size that is not its own is another object.
        let longer = ObjectId {
            size: object.size + 1,
            ..object
        };
        assert_eq!(
            client.read(longer).unwrap_err().code(),
            Code::NotFound,
            "{name}"
        );
    }
    let streamed = vec![9; 50_000];
    let object = ObjectId::of(&streamed);
    let wrong = client.stream_as(object, &vec![8; 50_000]).unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong}");
    assert_eq!(client.missing(&[object]), [object.digest.to_hex()]);
    assert_eq!(client.stream_as(object, &streamed).unwrap(), 50_000);
    assert_eq!(client.read(object).unwrap(), streamed);
    // Everybody has the blob of no bytes.
    let empty = ObjectId::of(b"");
    assert_eq!(client.missing(&[empty]), Vec::<String>::new());
    assert_eq!(client.read(empty).unwrap(), b"");
}
