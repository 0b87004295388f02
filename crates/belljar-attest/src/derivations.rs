//! The store's records of how it made the trees of a build, as the receipt carries them.

use std::collections::BTreeMap;

use belljar_core::{BuildSpec, Derivation, Fact, Image, Input, ObjectId};
use belljar_plan::Receipt;
use serde_json::{Map, Value, json};

use crate::provenance::{INPUTS, ROOTFS};

/// Every tree of a specification that the store is said to have made: by the record, and the name of the
/// resolved dependency.
fn made(spec: &BuildSpec) -> Vec<(ObjectId, ObjectId, String)> {
    let image = match spec.image {
        Image::Host => None,
        Image::Tree(input) => Some((ROOTFS.to_owned(), input)),
    };
    let inputs = spec.inputs.iter();
    let inputs = inputs.map(|(name, input)| (format!("{INPUTS}{name}"), *input));
    let all = image.into_iter().chain(inputs);
    let with_record = |(name, Input { tree, derivation })| Some((derivation?, tree, name));
    all.filter_map(with_record).collect()
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
/// was made, about that tree, and no other.
pub(crate) fn mismatches(spec: &BuildSpec, receipt: &Receipt) -> Vec<String> {
    let (made, records) = (made(spec), records(receipt));
    let mut against = Vec::new();
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
        against.push("the receipt has a record of a tree that the build did not see".to_owned());
    }
    against
}

/// A resolved dependency for each package that a tree was made of. Where it was is known from the lock file
/// alone, and labelled so.
pub(crate) fn packages(spec: &BuildSpec, receipt: &Receipt) -> Vec<Value> {
    let records = records(receipt);
    let mut packages = Vec::new();
    for (record, _, name) in made(spec) {
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
    use belljar_core::{InputName, Inputs, Recipe, Sha512Digest};

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
        assert!(mismatches(&spec, &receipt).is_empty());
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
            mismatches(&spec, &receipt).join("; ")
        };
        let lacks = against(|_, receipt| receipt.derivations.clear());
        assert!(
            lacks.contains("lacks the record of how deps/npm was made"),
            "{lacks}"
        );
        let changed = against(|_, receipt| receipt.derivations[0].facts.truncate(1));
        assert!(
            changed.contains("lacks") && changed.contains("did not see"),
            "{changed}"
        );
        let spare = against(|spec, _| spec.inputs = Inputs::default());
        assert!(spare.contains("did not see"), "{spare}");
        let twice = against(|_, receipt| receipt.derivations.push(record()));
        assert!(twice.contains("did not see"), "{twice}");
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
}
