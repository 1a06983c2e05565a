//! Whether a plan may have what it asks of the outside.
//!
//! What the user's own arguments name is granted, and what `--allow` names; nothing else. A path
//! grants itself and what lies below it (`--side out` grants writing `out/malformed`); but an
//! argument that is only `/`, `.` or `..` is no name of a folder: a separator does not grant the
//! file system.

use std::path::{Component, Path};

use connectors::Need;
use model::Diagnostic;

/// What a user grants to a job.
pub(crate) struct Grants<'a> {
    args: &'a [String],
    allow: &'a [String],
}

impl<'a> Grants<'a> {
    pub(crate) fn new(args: &'a [String], allow: &'a [String]) -> Self {
        Self { args, allow }
    }

    /// Refuses a need that is not granted; `node` asks for it.
    pub(crate) fn check(&self, node: &str, need: &Need) -> Result<(), Diagnostic> {
        let (granted, asked, allow) = match need {
            Need::Read(path) => (self.path(path), format!("to read `{path}`"), path.clone()),
            Need::Write(path) => (self.path(path), format!("to write `{path}`"), path.clone()),
            Need::Connect { host, port } => {
                let address = format!("{host}:{port}");
                let named = self.named(&address) || (self.named(host) && self.named(port));
                let granted = named || self.allow.contains(&address) || self.allow.contains(host);
                (granted, format!("to connect to `{address}`"), address)
            }
            Need::Stdin => {
                let granted = self.named("-") || self.allow.iter().any(|allow| allow == "stdin");
                (granted, "to read the standard input".to_owned(), "stdin".to_owned())
            }
        };
        if granted {
            return Ok(());
        }
        Err(Diagnostic::user(format!("the job asks {asked}, which is not granted"))
            .detail(format!("node `{node}` names it, but the job's arguments do not"))
            .hint(format!("if you trust the job with it: --allow {allow}")))
    }

    /// An argument is this, or an option with this value.
    fn named(&self, value: &str) -> bool {
        self.args.iter().any(|arg| {
            arg == value
                || (arg.starts_with('-') && arg.split_once('=').is_some_and(|(_, after)| after == value))
        })
    }

    fn path(&self, path: &str) -> bool {
        let values = self.args.iter().map(|arg| match arg.split_once('=') {
            Some((_, after)) if arg.starts_with('-') => after,
            _ => arg.as_str(),
        });
        self.named(path)
            || values.filter(|value| names_something(value)).any(|value| lies_in(path, value))
            || self.allow.iter().any(|allow| allow == path || lies_in(path, allow))
    }
}

fn names_something(path: &str) -> bool {
    Path::new(path).components().any(|part| matches!(part, Component::Normal(_)))
}

fn lies_in(path: &str, folder: &str) -> bool {
    let path = Path::new(path);
    !path.components().any(|part| part == Component::ParentDir) && path.starts_with(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], allow: &[&str], need: &Need) -> bool {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        Grants::new(&own(args), &own(allow)).check("node", need).is_ok()
    }

    fn read(path: &str) -> Need {
        Need::Read(path.into())
    }

    #[test]
    fn what_the_arguments_name_is_granted() {
        assert!(check(&["--input", "a.txt"], &[], &read("a.txt")));
        assert!(check(&["--input=a.txt"], &[], &read("a.txt")));
        let socket = Need::Connect { host: "localhost".into(), port: "7777".into() };
        assert!(check(&["--host", "localhost", "--port", "7777"], &[], &socket));
        assert!(check(&["--input", "-"], &[], &Need::Stdin));
    }

    #[test]
    fn nothing_else_is() {
        assert!(!check(&["--input", "a.txt"], &[], &read("/etc/passwd")));
        assert!(!check(&["--sep", "/"], &[], &read("/etc/passwd")));
        assert!(!check(&["x=/etc/passwd"], &[], &read("/etc/passwd")));
        let socket = Need::Connect { host: "localhost".into(), port: "22".into() };
        assert!(!check(&["--host", "localhost", "--port", "7777"], &[], &socket));
        assert!(!check(&[], &[], &Need::Stdin));
    }

    #[test]
    fn a_folder_named_by_an_argument_grants_what_lies_in_it() {
        assert!(check(&["--side", "out"], &[], &Need::Write("out/malformed".into())));
        assert!(check(&["--side=/tmp/out"], &[], &Need::Write("/tmp/out/malformed".into())));
        assert!(!check(&["--side", "out"], &[], &Need::Write("out/../secret".into())));
        assert!(!check(&["."], &[], &read("./secret")));
    }

    #[test]
    fn allow_of_a_folder_grants_what_lies_in_it() {
        assert!(check(&[], &["/data"], &read("/data/a/b.txt")));
        assert!(!check(&[], &["/data"], &read("/data/../etc/passwd")));
        assert!(!check(&[], &["/data"], &read("/database")));
        assert!(check(&[], &["h:1"], &Need::Connect { host: "h".into(), port: "1".into() }));
    }
}
