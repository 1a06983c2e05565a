//! Lists what `streamctl new` writes: the template, the SDK, the contract. The texts themselves are
//! included by the compiler.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = here.join("../..").canonicalize().expect("the workspace is there");
    let mut template = Vec::new();
    walk(&here.join("template"), &here.join("template"), &mut template);
    for (name, _) in &mut template {
        // Under their own names these would mean something here.
        *name = match name.as_str() {
            "Cargo.toml.in" => "Cargo.toml".to_owned(),
            "gitignore" => ".gitignore".to_owned(),
            other => other.to_owned(),
        };
    }
    // The job of a new project is the first example, over a text of its own.
    template.push(("src/lib.rs".to_owned(), root.join("examples/word_count/src/lib.rs")));
    let mut sdk = Vec::new();
    for crate_name in ["sys", "macros", "millstream"] {
        let folder = root.join("sdk/rust").join(crate_name);
        walk(&root, &folder.join("src"), &mut sdk);
        sdk.push((format!("sdk/rust/{crate_name}/Cargo.toml"), folder.join("Cargo.toml")));
    }
    walk(&root, &root.join("wit"), &mut sdk);
    sdk.push(("LICENSE".to_owned(), root.join("LICENSE")));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    let mut code = fs::File::create(out).expect("the output folder can be written");
    list(&mut code, "TEMPLATE", "The files of a new project; `{{name}}` stands for its name.", &template);
    list(&mut code, "SDK", "The files of the SDK and the contract.", &sdk);
    for folder in ["host/streamctl/template", "examples/word_count/src", "sdk/rust", "wit", "LICENSE"] {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
    }
}

/// All files below `folder`, in the order of their names, named from `base`.
fn walk(base: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            walk(base, &path, files);
        } else {
            let name = path.strip_prefix(base).expect("it lies below").display().to_string();
            files.push((name, path));
        }
    }
}

fn list(code: &mut fs::File, name: &str, about: &str, files: &[(String, PathBuf)]) {
    writeln!(code, "/// {about}\npub(crate) const {name}: &[(&str, &str)] = &[").expect("it can be written");
    for (name, path) in files {
        writeln!(code, "    ({name:?}, include_str!({:?})),", path.display().to_string())
            .expect("it can be written");
    }
    writeln!(code, "];").expect("it can be written");
}
