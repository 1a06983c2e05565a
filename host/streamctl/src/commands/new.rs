//! `streamctl new`: a project from the template, with the SDK inside.

use std::fs;
use std::path::Path;

use model::Diagnostic;

use crate::cli::NewArgs;
use crate::sdk;
use crate::terminal::answer;
use crate::{Done, Stop};

pub(crate) fn new(args: &NewArgs) -> Done {
    let name = args.dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    check_name(name).map_err(Stop::Refused)?;
    let occupied = fs::read_dir(&args.dir).is_ok_and(|mut entries| entries.next().is_some());
    if occupied || args.dir.is_file() {
        let error = Diagnostic::user(format!("`{}` is there already", args.dir.display()));
        return Err(Stop::Refused(error.hint("name a folder that is not there, or is empty")));
    }
    write_all(&args.dir, name).map_err(|error| {
        Stop::Failed(
            Diagnostic::external(format!("cannot write the project to `{}`", args.dir.display()))
                .detail(error.to_string()),
        )
    })?;
    let dir = args.dir.display();
    answer(&format!(
        "Made the project `{name}`. Now:\n\
         \x20   streamctl build {dir} -o {name}.wasm\n\
         \x20   streamctl run {name}.wasm -p 3\n\
         \x20   streamctl test {dir}\n\
         \x20   streamctl dev {dir}\n"
    ));
    Ok(())
}

/// A name that Cargo takes.
fn check_name(name: &str) -> Result<(), Diagnostic> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let others = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    // Names of the template's own crates and of Rust's.
    let taken =
        ["core", "std", "alloc", "proc_macro", "test", "millstream", "log", "clap", "self", "super", "crate"];
    if first && others && !taken.contains(&name) {
        return Ok(());
    }
    Err(Diagnostic::user(format!("`{name}` cannot be a project's name"))
        .detail("letters, digits, `-` and `_`, a letter first, and no name of Rust's own")
        .hint("streamctl new my_job"))
}

fn write_all(dir: &Path, name: &str) -> std::io::Result<()> {
    let template =
        sdk::TEMPLATE.iter().map(|(path, text)| (Path::new(path).to_owned(), text.replace("{{name}}", name)));
    let vendored =
        sdk::SDK.iter().map(|(path, text)| (Path::new(sdk::VENDOR).join(path), (*text).to_owned()));
    for (path, text) in template.chain(vendored) {
        let path = dir.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}
