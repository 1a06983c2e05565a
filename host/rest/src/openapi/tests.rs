use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

/// All names of schemas that a value refers to.
fn names_in(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                if let (true, Some(name)) = (key == "$ref", value.as_str()) {
                    names.insert(name.rsplit('/').next().unwrap_or_default().to_owned());
                }
                names_in(value, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names_in(item, names)),
        _ => {}
    }
}

#[test]
fn all_schemas_that_are_named_are_there_and_all_that_are_there_are_named() {
    let mut named = BTreeSet::new();
    names_in(&document(), &mut named);
    let all = schemas::all();
    let there: BTreeSet<String> = all.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(there.len(), all.len(), "two have one name");
    assert_eq!(named, there);
}

#[test]
fn functions_of_clients_have_names_of_their_own() {
    let all = routes();
    let ids: BTreeSet<String> = all.iter().map(|route| operation_id(&route.method, route.path)).collect();
    assert_eq!(ids.len(), all.len());
    assert!(ids.contains("getJobsJobidCheckpointsDetailsCheckpointid"), "{ids:?}");
}

#[test]
fn errors_are_described() {
    for status in routes().iter().flat_map(refusals) {
        assert!(ERRORS.iter().any(|(of, _)| *of == status), "{status} is not described");
    }
}

/// Only the table adds routes: what is not in it is not in the document.
#[test]
fn the_router_is_made_of_the_table_alone() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("routes.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            // Tests serve what they need.
            let text = text.split("#[cfg(test)]").next().unwrap();
            let adds = [".route(", ".route_service(", ".nest(", "axum::routing"];
            assert!(!adds.iter().any(|adds| text.contains(adds)), "{} adds a route", path.display());
        }
    }
}
