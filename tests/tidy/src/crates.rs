//! Who may depend on whom, and who alone knows a library.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::root;

/// A crate depends on levels above its own only; those of one level do not know each other.
const LEVELS: [&[&str]; 7] = [
    &["model", "platform", "features"],
    &["graph", "connectors", "exchange", "guest", "state", "checkpoint", "allocator"],
    &["window"],
    &["task"],
    &["cluster"],
    &["rest"],
    &["streamctl"],
];
/// Within the first level: `features` holds dependencies together, and every crate has it.
const COMMON: &str = "features";

/// A library that one crate alone knows.
const ALONE: [(&str, &[&str]); 12] = [
    ("wasmtime", &["guest"]),
    ("mimalloc", &["allocator"]),
    ("arrow-csv", &["connectors"]),
    ("arrow-json", &["connectors"]),
    ("clap", &["streamctl"]),
    ("axum", &["rest"]),
    ("hyper", &["rest"]),
    ("hyper-util", &["rest"]),
    ("tokio", &["platform", "connectors", "rest", "streamctl"]),
    ("rand", &["platform"]),
    ("inotify", &["streamctl"]),
    ("ignore", &["streamctl"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

/// The host's crates with what they depend on, but for tests.
fn host() -> BTreeMap<String, Vec<String>> {
    let host = root().join("host").canonicalize().unwrap();
    metadata()
        .packages
        .into_iter()
        .filter(|package| package.manifest_path.as_std_path().starts_with(&host))
        .map(|package| {
            let normal = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
            (package.name.to_string(), normal.map(|d| d.name.clone()).collect())
        })
        .collect()
}

fn level(name: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&name))
}

/// What is wrong with the direction of dependencies.
fn wrong_directions(crates: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, dependencies) in crates {
        let Some(own) = level(name) else {
            wrong.push(format!("{name} has no level"));
            continue;
        };
        for dependency in dependencies.iter().filter(|d| *d != COMMON) {
            if level(dependency).is_some_and(|other| other >= own) {
                wrong.push(format!("{name} depends on {dependency}, which is not above it"));
            }
        }
    }
    wrong
}

#[test]
fn crates_depend_on_levels_above_only() {
    assert_eq!(wrong_directions(&host()), Vec::<String>::new());
}

#[test]
fn a_wrong_direction_is_reported() {
    let mut crates = host();
    crates.get_mut("state").unwrap().push("task".to_owned());
    crates.get_mut("graph").unwrap().push("exchange".to_owned());
    assert_eq!(wrong_directions(&crates).len(), 2);
}

#[test]
fn folders_are_named_after_their_crates() {
    for package in metadata().packages {
        let folder = package.manifest_path.parent().unwrap().file_name().unwrap().to_owned();
        let name = package.name.to_string();
        let named = name == folder || name == format!("millstream-{folder}");
        assert!(named, "{name} lies in {folder}");
    }
}

#[test]
fn a_library_is_known_to_few() {
    for (name, dependencies) in host() {
        for (library, knowing) in ALONE {
            let allowed = knowing.contains(&name.as_str()) || name == COMMON;
            assert!(allowed || !dependencies.iter().any(|d| d == library), "{name} knows {library}");
        }
        assert!(
            name == COMMON || dependencies.iter().any(|d| d == COMMON),
            "{name} needs `features.workspace = true`"
        );
    }
}

#[test]
fn the_sdk_knows_nothing_of_the_host() {
    let host = host();
    for package in metadata().packages {
        if package.manifest_path.as_str().contains("/sdk/") {
            for dependency in &package.dependencies {
                assert!(
                    !host.contains_key(&dependency.name),
                    "{} depends on {}",
                    package.name,
                    dependency.name
                );
            }
        }
    }
}
