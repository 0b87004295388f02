//! The store's records of how it made the trees of a build, as the receipt carries them.

use std::collections::BTreeMap;

use belljar_core::{
    BuildSpec, Derivation, Fact, Fetch, FetchUrl, Image, Input, Inputs, ObjectId, Recipe,
    Repository, UrlFetch, oci,
};
use belljar_plan::Receipt;
use serde_json::{Map, Value, json};

use crate::provenance::{BASE, INPUTS, ROOTFS};
use crate::{BuilderConfig, Producers, artifacts, git};

/// The trees that the build saw under the names of what its specification has fetched.
pub(crate) fn fetched(spec: &BuildSpec, receipt: &Receipt) -> Inputs {
    let all = receipt.inputs.iter();
    let named = all.filter(|(name, _)| spec.fetches.get(name).is_some());
    let named = named.map(|(name, input)| (name.clone(), *input)).collect();
    // A part of what is not too many is not.
    Inputs::new(named).unwrap_or_default()
}

/// Every tree of a specification that the store is said to have made: by the record, and the name of the
/// resolved dependency.
fn made(spec: &BuildSpec, receipt: &Receipt) -> Vec<(ObjectId, ObjectId, String)> {
    let image = match spec.image {
        Image::Host => None,
        Image::Tree(input) => Some((ROOTFS.to_owned(), input)),
    };
    let fetched = fetched(spec, receipt);
    let inputs = spec.inputs.iter().chain(fetched.iter());
    let inputs = inputs.map(|(name, input)| (format!("{INPUTS}{name}"), *input));
    let all = image.into_iter().chain(inputs).chain(base(spec));
    let with_record = |(name, Input { tree, derivation })| Some((derivation?, tree, name));
    all.filter_map(with_record).collect()
}

/// The base of the image that becomes of the outputs. The build need not have seen it.
fn base(spec: &BuildSpec) -> Option<(String, Input)> {
    let output = spec.image_output.as_ref()?;
    Some((BASE.to_owned(), *output.base.image()?))
}

/// The record of how the store made a tree of that base.
pub(crate) fn base_record<'a>(spec: &BuildSpec, receipt: &'a Receipt) -> Option<&'a Derivation> {
    let (_, input) = base(spec)?;
    records(receipt).remove(&input.derivation?)
}

/// The base as a resolved dependency: its layers are part of what is attested.
pub(crate) fn base_image(spec: &BuildSpec, receipt: &Receipt) -> Option<Value> {
    let (name, input) = base(spec)?;
    let (manifest, _, _) = base_record(spec, receipt)?.image()?;
    Some(json!({
        "name": name,
        "digest": { "sha256": manifest.digest.to_hex() },
        "mediaType": oci::MANIFEST,
        "annotations": {
            "belljar_size": manifest.size,
            "belljar_derivation": input.derivation?.digest.to_hex(),
        },
    }))
}

/// The records by their digests; those that have no encoding are left out.
fn records(receipt: &Receipt) -> BTreeMap<ObjectId, &Derivation> {
    let identified =
        |record: &Derivation| record.canonical().ok().map(|bytes| ObjectId::of(&bytes));
    let records = receipt.derivations.iter();
    records
        .filter_map(|record| Some((identified(record)?, record)))
        .collect()
}

/// What speaks against these being the records of the specification's trees: one is due for each tree that
/// was made, about that tree, and no other; and what earlier builds are said to have left, they have.
pub(crate) fn mismatches(
    spec: &BuildSpec,
    receipt: &Receipt,
    producers: &Producers,
    builder: &BuilderConfig,
) -> Vec<String> {
    let (made, records) = (made(spec, receipt), records(receipt));
    let mut against = Vec::new();
    for (name, input) in fetched(spec, receipt).iter() {
        let record = input.derivation.and_then(|record| records.get(&record));
        let fits = spec.fetches.get(name).zip(record);
        if !fits.is_some_and(|(fetch, record)| fits_fetch(fetch, record)) {
            against.push(format!(
                "{INPUTS}{name} was not made of what the specification has fetched"
            ));
        }
        if let Some((Fetch::Artifact(fetch), record)) = fits
            && !artifacts::by_due_builder(fetch, record, producers)
        {
            against.push(format!(
                "{INPUTS}{name} is not by the builder that the specification demands"
            ));
        }
    }
    for (record, _, name) in &made {
        let record = records.get(record);
        against.extend(
            record.and_then(|record| artifacts::objection(name, record, producers, builder)),
        );
    }
    for (record, tree, name) in &made {
        match records.get(record) {
            None => against.push(format!(
                "the receipt lacks the record of how {name} was made"
            )),
            Some(found) if found.tree != *tree => {
                against.push(format!(
                    "the record of how {name} was made is about another tree"
                ));
            }
            Some(_) => {}
        }
    }
    let known = |id: &ObjectId| made.iter().any(|(record, _, _)| record == id);
    if records.len() != receipt.derivations.len() || !records.keys().all(known) {
        against.push(
            "the receipt has a record of a tree that the specification does not name".to_owned(),
        );
    }
    against
}

/// Whether the record is about a tree that was made of what the fetch names, as the fetch says.
fn fits_fetch(fetch: &Fetch, record: &Derivation) -> bool {
    match fetch {
        Fetch::Urls(fetch) => content(fetch, record).is_some(),
        Fetch::Artifact(fetch) => artifacts::fits(fetch, record),
        Fetch::Git(fetch) => git::fits(fetch, record),
    }
}

/// The content that was fetched, if the record is about a tree that was made of it as the fetch says.
fn content(fetch: &UrlFetch, record: &Derivation) -> Option<ObjectId> {
    match &record.recipe {
        Recipe::Fetched { content, unpack } => {
            let due = content.digest == fetch.digest && *unpack == fetch.unpack;
            due.then_some(*content)
        }
        _ => None,
    }
}

/// A resolved dependency for each content that was fetched. Where it came from nobody but belljard knows: what stands
/// there is what the specification says.
pub(crate) fn contents(spec: &BuildSpec, receipt: &Receipt) -> Vec<Value> {
    let records = records(receipt);
    let inputs = fetched(spec, receipt);
    let all = inputs.iter().filter_map(|(name, input)| {
        let Fetch::Urls(fetch) = spec.fetches.get(name)? else {
            return None;
        };
        let content = content(fetch, records.get(&input.derivation?)?)?;
        let mut urls = fetch.urls.iter().map(FetchUrl::as_str);
        let uri = urls.next()?;
        let mut annotations = json!({
            "belljar_input": format!("{INPUTS}{name}"),
            "belljar_asserted": ["uri"],
            "belljar_size": content.size,
        });
        let mirrors: Vec<&str> = urls.collect();
        if !mirrors.is_empty() {
            annotations["belljar_mirrors"] = mirrors.into();
        }
        Some(json!({
            "uri": uri,
            "digest": { "sha256": content.digest.to_hex() },
            "annotations": annotations,
        }))
    });
    all.collect()
}

/// A resolved dependency for each commit that was fetched.
pub(crate) fn commits(spec: &BuildSpec, receipt: &Receipt) -> Vec<Value> {
    let records = records(receipt);
    let inputs = fetched(spec, receipt);
    let all = inputs.iter().filter_map(|(name, input)| {
        let Fetch::Git(fetch) = spec.fetches.get(name)? else {
            return None;
        };
        let record = records.get(&input.derivation?)?;
        Some(git::descriptors(&format!("{INPUTS}{name}"), fetch, record))
    });
    all.flatten().collect()
}

/// A resolved dependency for everything that earlier builds have left and a tree was made of, with who that was.
pub(crate) fn artifacts(
    spec: &BuildSpec,
    receipt: &Receipt,
    producers: &Producers,
    builder: &BuilderConfig,
) -> Vec<Value> {
    let records = records(receipt);
    let made = made(spec, receipt).into_iter();
    let all = made.filter_map(|(record, _, name)| {
        artifacts::descriptor(&name, records.get(&record)?, producers, builder)
    });
    all.collect()
}

/// A resolved dependency for each package that a tree was made of. Where it was is known from the lock file
/// alone, and labelled so.
pub(crate) fn packages(spec: &BuildSpec, receipt: &Receipt) -> Vec<Value> {
    let records = records(receipt);
    let mut packages = Vec::new();
    for (record, _, name) in made(spec, receipt) {
        let facts = records.get(&record).map(|record| record.facts.iter());
        packages.extend(
            facts
                .into_iter()
                .flatten()
                .filter_map(|fact| package(&name, fact)),
        );
    }
    packages
}

/// A resolved dependency for each image that belljard has pulled from a registry and a tree was made of. What it is its
/// digest says; where it was nobody but belljard knows.
pub(crate) fn images(spec: &BuildSpec, receipt: &Receipt) -> Vec<Value> {
    let records = records(receipt);
    let made = made(spec, receipt).into_iter();
    let all = made.filter_map(|(record, _, name)| image(&name, records.get(&record)?));
    all.collect()
}

fn image(input: &str, record: &Derivation) -> Option<Value> {
    let Recipe::Pulled {
        repository,
        image,
        platform,
    } = &record.recipe
    else {
        return None;
    };
    let mut annotations = json!({
        "belljar_input": input,
        "belljar_asserted": ["uri"],
        "belljar_platform": platform,
        "belljar_size": image.size,
    });
    if let Some((manifest, _, _)) = record.image() {
        annotations["belljar_manifest"] = manifest.digest.to_hex().into();
    }
    Some(json!({
        "uri": purl(repository, image),
        "digest": { "sha256": image.digest.to_hex() },
        "annotations": annotations,
    }))
}

/// The package URL of an image (purl-spec, type `oci`). A repository has no character that needs another encoding.
fn purl(repository: &Repository, image: &ObjectId) -> String {
    let name = repository.name().rsplit('/').next().unwrap_or_default();
    let (hex, place) = (image.digest.to_hex(), repository.as_str());
    let place = place
        .replace(':', "%3A")
        .replace('[', "%5B")
        .replace(']', "%5D");
    format!("pkg:oci/{name}@sha256%3A{hex}?repository_url={place}")
}

fn package(input: &str, fact: &Fact) -> Option<Value> {
    let Fact::Package {
        purl,
        archive,
        sha512,
        location,
    } = fact
    else {
        return None;
    };
    let mut digest = Map::new();
    digest.insert("sha256".to_owned(), archive.digest.to_hex().into());
    if let Some(sha512) = sha512 {
        digest.insert("sha512".to_owned(), sha512.to_hex().into());
    }
    let mut annotations = json!({
        "belljar_input": input,
        "belljar_locationFrom": "lock file",
        "belljar_size": archive.size,
    });
    let mut descriptor = json!({ "uri": purl, "digest": digest });
    // A registry is no place where the package itself is.
    match location.split_once("://") {
        Some(("http" | "https", _)) => descriptor["downloadLocation"] = location.as_str().into(),
        _ => annotations["belljar_registry"] = location.as_str().into(),
    }
    descriptor["annotations"] = annotations;
    Some(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use belljar_core::{InputName, Mirrors, Platform, Sha512Digest, Unpack};

    fn found(spec: &BuildSpec, receipt: &Receipt) -> Vec<String> {
        let builder = BuilderConfig::new("urn:belljar:embedded").unwrap();
        mismatches(spec, receipt, &Producers::default(), &builder)
    }

    fn record() -> Derivation {
        let object = |text: &str| ObjectId::of(text.as_bytes());
        Derivation {
            schema: Derivation::SCHEMA.to_owned(),
            recipe: Recipe::NpmLock {
                lock: object("lock"),
                packages: object("packages"),
            },
            from: [object("one"), object("two")].into(),
            tree: object("tree"),
            entries: 2,
            bytes: 6,
            dropped: BTreeMap::new(),
            facts: vec![
                Fact::Package {
                    purl: "pkg:npm/one@1.0.0".to_owned(),
                    archive: object("one"),
                    sha512: Some(Sha512Digest::of(b"one")),
                    location: "https://r.example/one/-/one-1.0.0.tgz".to_owned(),
                },
                Fact::LeftOut {
                    purl: "pkg:npm/other@1.0.0".to_owned(),
                },
                Fact::Package {
                    purl: "pkg:cargo/two@1.0.0".to_owned(),
                    archive: object("two"),
                    sha512: None,
                    location: "sparse+https://r.example/index/".to_owned(),
                },
            ],
        }
    }

    fn attested() -> (BuildSpec, Receipt) {
        let (mut spec, mut receipt) = (fixture::spec(), fixture::receipt());
        let record = record();
        let input = Input {
            tree: record.tree,
            derivation: Some(ObjectId::of(&record.canonical().unwrap())),
        };
        let name = InputName::new("npm").unwrap();
        spec.inputs = Inputs::new(BTreeMap::from([(name, input)])).unwrap();
        receipt.derivations = vec![record];
        (spec, receipt)
    }

    #[test]
    fn each_package_is_a_resolved_dependency_with_what_is_known_of_it() {
        let (spec, receipt) = attested();
        assert!(found(&spec, &receipt).is_empty());
        let due = json!([
            {
                "uri": "pkg:npm/one@1.0.0",
                "digest": {
                    "sha256": ObjectId::of(b"one").digest.to_hex(),
                    "sha512": Sha512Digest::of(b"one").to_hex(),
                },
                "downloadLocation": "https://r.example/one/-/one-1.0.0.tgz",
                "annotations": {
                    "belljar_input": "deps/npm",
                    "belljar_locationFrom": "lock file",
                    "belljar_size": 3,
                },
            },
            {
                "uri": "pkg:cargo/two@1.0.0",
                "digest": { "sha256": ObjectId::of(b"two").digest.to_hex() },
                "annotations": {
                    "belljar_input": "deps/npm",
                    "belljar_locationFrom": "lock file",
                    "belljar_registry": "sparse+https://r.example/index/",
                    "belljar_size": 3,
                },
            },
        ]);
        assert_eq!(Value::Array(packages(&spec, &receipt)), due);
    }

    #[test]
    fn records_that_are_not_those_of_the_trees_speak_against_a_statement() {
        let against = |change: fn(&mut BuildSpec, &mut Receipt)| {
            let (mut spec, mut receipt) = attested();
            change(&mut spec, &mut receipt);
            found(&spec, &receipt).join("; ")
        };
        let lacks = against(|_, receipt| receipt.derivations.clear());
        assert!(
            lacks.contains("lacks the record of how deps/npm was made"),
            "{lacks}"
        );
        let changed = against(|_, receipt| receipt.derivations[0].facts.truncate(1));
        assert!(
            changed.contains("lacks") && changed.contains("does not name"),
            "{changed}"
        );
        let spare = against(|spec, _| spec.inputs = Inputs::default());
        assert!(spare.contains("does not name"), "{spare}");
        let twice = against(|_, receipt| receipt.derivations.push(record()));
        assert!(twice.contains("does not name"), "{twice}");
        let other = against(|spec, _| {
            let (name, input) = spec.inputs.iter().next().unwrap();
            let input = Input {
                tree: ObjectId::of(b"other"),
                derivation: input.derivation,
            };
            spec.inputs = Inputs::new(BTreeMap::from([(name.clone(), input)])).unwrap();
        });
        assert!(other.contains("about another tree"), "{other}");
    }

    #[test]
    fn an_image_that_was_pulled_is_a_resolved_dependency_whose_place_is_only_said() {
        let (mut spec, mut receipt) = (fixture::spec(), fixture::receipt());
        let image = ObjectId::of(b"index");
        let record = Derivation {
            recipe: Recipe::Pulled {
                repository: "r.example:5000/team/c".parse().unwrap(),
                image,
                platform: Platform::LinuxAmd64,
            },
            facts: vec![Fact::OciImage {
                manifest: ObjectId::of(b"manifest"),
                config: ObjectId::of(b"config"),
                layers: vec![ObjectId::of(b"layer")],
            }],
            ..record()
        };
        spec.image = Image::Tree(Input {
            tree: record.tree,
            derivation: Some(ObjectId::of(&record.canonical().unwrap())),
        });
        receipt.derivations = vec![record];
        assert!(found(&spec, &receipt).is_empty());
        let hex = image.digest.to_hex();
        let due = json!([{
            "uri": format!("pkg:oci/c@sha256%3A{hex}?repository_url=r.example%3A5000/team/c"),
            "digest": { "sha256": hex },
            "annotations": {
                "belljar_input": "rootfs",
                "belljar_asserted": ["uri"],
                "belljar_manifest": ObjectId::of(b"manifest").digest.to_hex(),
                "belljar_platform": "linux/amd64",
                "belljar_size": 5,
            },
        }]);
        assert_eq!(Value::from(images(&spec, &receipt)), due);
    }

    /// A build for which something was fetched.
    fn of_fetch(change: impl FnOnce(&mut BuildSpec, &mut Derivation)) -> (BuildSpec, Receipt) {
        let (mut spec, mut receipt) = (fixture::spec(), fixture::receipt());
        let content = ObjectId::of(b"content");
        let unpack = Unpack::tar(1).unwrap();
        let urls = ["https://a.example/x.tgz", "https://b.example/x.tgz"];
        let urls = urls.map(|url| FetchUrl::new(url).unwrap()).into();
        let fetch = Fetch::Urls(UrlFetch {
            urls: Mirrors::new(urls).unwrap(),
            digest: content.digest,
            unpack: unpack.clone(),
        });
        let name = InputName::new("x").unwrap();
        let fetches = BTreeMap::from([(name.clone(), fetch)]);
        spec.fetches = fetches.try_into().unwrap();
        let mut record = Derivation {
            recipe: Recipe::Fetched { content, unpack },
            from: [content].into(),
            facts: Vec::new(),
            ..record()
        };
        change(&mut spec, &mut record);
        let input = Input {
            tree: record.tree,
            derivation: Some(ObjectId::of(&record.canonical().unwrap())),
        };
        receipt.inputs = Inputs::new(BTreeMap::from([(name, input)])).unwrap();
        receipt.derivations = vec![record];
        (spec, receipt)
    }

    #[test]
    fn what_was_fetched_is_a_resolved_dependency_whose_place_is_only_said() {
        let (spec, receipt) = of_fetch(|_, _| {});
        assert!(found(&spec, &receipt).is_empty());
        let due = json!([{
            "uri": "https://a.example/x.tgz",
            "digest": { "sha256": ObjectId::of(b"content").digest.to_hex() },
            "annotations": {
                "belljar_input": "deps/x",
                "belljar_asserted": ["uri"],
                "belljar_mirrors": ["https://b.example/x.tgz"],
                "belljar_size": 7,
            },
        }]);
        assert_eq!(Value::from(contents(&spec, &receipt)), due);
    }

    #[test]
    fn a_tree_of_other_content_or_made_otherwise_is_not_what_was_fetched() {
        let other = ObjectId::of(b"other");
        let unpack = || Unpack::tar(1).unwrap();
        type Change = Box<dyn FnOnce(&mut BuildSpec, &mut Derivation)>;
        let changes: [Change; 3] = [
            Box::new(move |_, record| {
                record.recipe = Recipe::Fetched {
                    content: other,
                    unpack: unpack(),
                }
            }),
            Box::new(move |_, record| {
                let content = ObjectId::of(b"content");
                record.recipe = Recipe::Fetched {
                    content,
                    unpack: Unpack::tar(2).unwrap(),
                };
            }),
            Box::new(|_, record| {
                record.recipe = Recipe::Tar {
                    archive: ObjectId::of(b"content"),
                }
            }),
        ];
        for change in changes {
            let (spec, receipt) = of_fetch(change);
            let against = found(&spec, &receipt).join("; ");
            assert!(against.contains("deps/x was not made of what"), "{against}");
        }
        // Nor without a record at all.
        let (spec, mut receipt) = of_fetch(|_, _| {});
        let name = InputName::new("x").unwrap();
        let input = Input {
            tree: record().tree,
            derivation: None,
        };
        receipt.inputs = Inputs::new(BTreeMap::from([(name, input)])).unwrap();
        receipt.derivations.clear();
        let against = found(&spec, &receipt).join("; ");
        assert!(against.contains("deps/x was not made of what"), "{against}");
    }

    #[test]
    fn a_build_without_its_fetched_tree_is_not_attested() {
        let (mut spec, mut receipt) = (fixture::spec(), fixture::receipt());
        let (with, _) = of_fetch(|_, _| {});
        spec.fetches = with.fetches;
        receipt.spec = spec.digest().unwrap();
        // The plan without it ran: what a daemon in foreign hands could have asked for.
        receipt.plan = belljar_plan::Plan::compile(&spec).digest().unwrap();
        let builder = BuilderConfig::new("urn:belljar:embedded").unwrap();
        let against = crate::objections::check(
            &spec,
            &receipt,
            &fixture::asserted(),
            (&Producers::default(), &builder),
        );
        let against = against.err().unwrap().join("; ");
        assert!(against.contains("the receipt lacks a tree"), "{against}");
    }
}
