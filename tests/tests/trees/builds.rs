use belljar_attest::verify;
use belljar_core::{Digest, Image, ObjectId, Outcome};
use belljar_tests::{Instance, TreeOf};
use belljar_wire::{Problem, Reason};
use serde_json::{Value, json};

use crate::{input, log, on, run, with};

#[test]
fn a_build_on_a_tree_sees_that_tree_and_nothing_of_the_host() {
    let instance = Instance::started();
    let client = instance.client();
    let image = TreeOf::root_file_system()
        .file("etc/only-here", "from the image\n")
        .file("etc/passwd", "nobody reads this\n")
        .file("build/covered", "by the sources\n")
        .link("absolute", "/etc/only-here");
    let image = image.upload(&client);
    let crates = TreeOf::default()
        .program("vendor/a", "one input\n")
        .upload(&client);
    let script = "ls /etc /bin /deps
        test ! -e /usr/bin; test ! -e /build/covered; test ! -e /sys; cat /etc/passwd
        stat -c '%n %U %a %Y' /bin/cat /deps/cargo/vendor/a in /build; cat /proc/mounts
        cat in /absolute /deps/cargo/vendor/a > out";
    let spec = client.spec(&[("in", "source\n")], &[script], &["out"]);
    let mut spec = with(on(spec, image), &[("cargo", crates)]);
    spec.source_date_epoch = 1_000_000_000;
    let build = run(&client, "one", &spec);
    let log = log(&instance, &build);
    assert_eq!(build.outcome, Some(Outcome::Succeeded), "{log}");
    assert!(!log.contains("nobody reads this"), "{log}");
    for line in [
        "/bin/cat root 755 315532800",
        "/deps/cargo/vendor/a root 755 315532800",
        "in build 644 1000000000",
        "/build build 755 1000000000",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    let state = instance.state().to_str().unwrap();
    assert!(!log.contains(state) && !log.contains("/run/"), "{log}");
    let out = client.read(ObjectId::of(b"source\nfrom the image\none input\n"));
    assert!(out.is_ok());

    let receipt: Value = client
        .read(build.evidence.receipt.unwrap())
        .map(|bytes| serde_json::from_slice(&bytes).unwrap())
        .unwrap();
    assert_eq!(receipt["rootfs"]["kind"], "tree");
    assert_eq!(
        receipt["rootfs"]["tree"],
        serde_json::to_value(image).unwrap()
    );
    assert_eq!(
        receipt["inputs"]["cargo"]["tree"],
        serde_json::to_value(crates).unwrap()
    );
    assert_eq!(receipt["input"]["unchanged"], true);
    let bundle = client.read(build.evidence.bundle.unwrap()).unwrap();
    let key = client.server_info().public_key_pem;
    let artifact = Digest::of(b"source\nfrom the image\none input\n");
    let verdict = verify(&bundle, &key, &artifact).unwrap();
    assert!(verdict.hermetic);
    assert_eq!(verdict.image.unwrap().tree, image.digest);
    assert_eq!(verdict.inputs["cargo"].tree, crates.digest);
    let modes = ["/builders/hermetic/v1", "/builders/dev/v1"];
    assert!(modes.iter().any(|mode| verdict.builder.ends_with(mode)));
}

#[test]
fn further_inputs_are_there_on_the_hosts_root_file_system_too() {
    let instance = Instance::started();
    let client = instance.client();
    let tree = |text: &str| TreeOf::default().file("f", text).upload(&client);
    let inputs = [
        ("a", tree("one\n")),
        ("b", tree("two\n")),
        ("c", tree("one\n")),
    ];
    let spec = client.spec(&[], &["cat /deps/*/f > out"], &["out"]);
    let build = run(&client, "one", &with(spec, &inputs));
    let log = log(&instance, &build);
    assert_eq!(build.outcome, Some(Outcome::Succeeded), "{log}");
    assert!(client.read(ObjectId::of(b"one\ntwo\none\n")).is_ok());
}

#[test]
fn what_is_not_there_is_refused_at_once_by_its_field() {
    let instance = Instance::started();
    let client = instance.client();
    let gone = ObjectId::of(b"no such tree");
    let plain = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    let mut derived = on(plain.clone(), plain.source);
    if let Image::Tree(image) = &mut derived.image {
        image.derivation = Some(gone);
    }
    let cases = [
        (on(plain.clone(), gone), "spec.image_tree.tree"),
        (derived, "spec.image_tree.derivation"),
        (with(plain.clone(), &[("x", gone)]), "spec.inputs.x.tree"),
    ];
    for (spec, field) in cases {
        let problem: Problem = client.submit("request", &spec).unwrap_err();
        assert_eq!(problem.reason, Reason::InputMissing, "{problem:?}");
        assert!(problem.message.starts_with(field), "{problem:?}");
    }
}

#[test]
fn what_cannot_be_a_root_file_system_is_refused_in_words() {
    let instance = Instance::started();
    let client = instance.client();
    let plain = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    let reserved = TreeOf::default()
        .file(".masked/directory/x", "")
        .upload(&client);
    let mut many = TreeOf::default();
    for i in 0..200 {
        many = many.file(&format!("f{i}"), "");
    }
    // A record that the caller has made up.
    let mut derived = plain.clone();
    let mut image = input(plain.source);
    image.derivation = Some(client.put(b"{\"schema\":\"belljar.derivation/v1\"}"));
    derived.image = Image::Tree(image);
    let cases = [
        (on(plain.clone(), reserved), "`/.masked`"),
        (
            on(plain.clone(), many.upload(&client)),
            "entries at its top",
        ),
        (derived, "is no record of a derivation that this store made"),
    ];
    for (number, (spec, words)) in cases.into_iter().enumerate() {
        let build = run(&client, &format!("r{number}"), &spec);
        let Some(Outcome::Refused { reasons }) = &build.outcome else {
            panic!("{:?}", build.outcome)
        };
        assert!(reasons.iter().any(|r| r.contains(words)), "{reasons:?}");
    }
    // An image without a shell is the build's mistake, and said so.
    let empty = TreeOf::default().file("x", "").upload(&client);
    let build = run(&client, "no-shell", &on(plain, empty));
    let told = format!("{:?}", build.outcome);
    assert!(told.contains("/bin/sh"), "{told}");
}

#[test]
fn a_root_file_system_is_listed_or_any_and_the_receipt_says_which() {
    let mut instance = Instance::started();
    let image = TreeOf::root_file_system().upload(&instance.client());
    let built = |instance: &Instance, request: &str, on_image: bool| {
        let client = instance.client();
        let plain = client.spec(&[("in", "1")], &["cat in > out"], &["out"]);
        let spec = if on_image { on(plain, image) } else { plain };
        let build = run(&client, request, &spec);
        let receipt = build.evidence.receipt.map(|receipt| {
            serde_json::from_slice::<Value>(&client.read(receipt).unwrap()).unwrap()
        });
        // Signed, as everything that a statement says.
        let bundle = build.evidence.bundle.map(|bundle| {
            let bundle = belljar_attest::Bundle::from_json(&client.read(bundle).unwrap()).unwrap();
            serde_json::from_slice::<Value>(bundle.payload()).unwrap()
        });
        (build.outcome, receipt, bundle)
    };
    let succeeds = |instance: &Instance, request: &str, on_image: bool, rule: &str| {
        let (outcome, receipt, statement) = built(instance, request, on_image);
        assert_eq!(outcome, Some(Outcome::Succeeded), "{request}");
        assert_eq!(receipt.unwrap()["image_rule"], rule, "{request}");
        let statement = statement.unwrap();
        let parameters = &statement["predicate"]["buildDefinition"]["internalParameters"];
        assert_eq!(parameters["imageRule"], rule, "{request}");
    };
    let refused = |instance: &Instance, request: &str, on_image: bool, name: &str| {
        let (outcome, receipt, statement) = built(instance, request, on_image);
        let Some(Outcome::Refused { reasons }) = outcome else {
            panic!("{request}: {outcome:?}")
        };
        let hint = format!("hint: add \"{name}\" to allowed_images in spawner.toml");
        assert!(reasons.iter().any(|r| r.contains(&hint)), "{reasons:?}");
        assert!(receipt.is_none() && statement.is_none(), "{request}");
    };
    let digest = image.digest.to_string();
    // As embedded mode has it.
    succeeds(&instance, "any-image", true, "any");
    succeeds(&instance, "any-host", false, "any");
    // As the installed daemon comes.
    instance.allow_images(&json!(["host"]));
    refused(&instance, "not-listed", true, &digest);
    succeeds(&instance, "listed-host", false, "listed");
    instance.allow_images(&json!([digest]));
    succeeds(&instance, "listed-image", true, "listed");
    refused(&instance, "no-host", false, "host");
}
