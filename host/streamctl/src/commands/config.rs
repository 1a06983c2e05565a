//! `streamctl config`.

use model::Diagnostic;
use serde_json::{Map, Value, json};

use crate::cli::ConfigArgs;
use crate::terminal::answer;
use crate::{Done, Stop};
use cluster::config::{Config, KEYS, file, variable_of};

pub(crate) fn config(args: &ConfigArgs) -> Done {
    let config = Config::load(&args.define).map_err(Stop::Refused)?;
    if let Some(key) = &args.key {
        if !KEYS.iter().any(|known| known.name == key) {
            let error = Config::load(&[format!("{key}=")]).err();
            return Err(Stop::Refused(error.unwrap_or_else(|| Diagnostic::user("there is no such key"))));
        }
        answer(&format!("{}\n", config.shown(key).0));
        return Ok(());
    }
    if args.json {
        let values: Map<String, Value> = KEYS
            .iter()
            .map(|key| {
                let (value, origin) = config.shown(key.name);
                (key.name.to_owned(), json!({ "value": value, "origin": origin.name(), "about": key.what }))
            })
            .collect();
        answer(&format!("{:#}\n", Value::Object(values)));
        return Ok(());
    }
    let mut text = String::new();
    if let Some(file) = file() {
        let there = if file.exists() { "" } else { " (not there)" };
        text.push_str(&format!("# {}{there}\n", file.display()));
    }
    for key in &KEYS {
        let (value, origin) = config.shown(key.name);
        text.push_str(&format!(
            "\n# {}\n# {}, from: {}\n{}: {value}\n",
            key.what,
            variable_of(key.name),
            origin.name(),
            key.name
        ));
    }
    answer(&text);
    Ok(())
}
