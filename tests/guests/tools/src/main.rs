//! What a guest in C is built with.
//!
//! `tools bindings WIT WORLD FOLDER` writes C bindings of the world, and an object with its types;
//! `tools component MODULE FILE` makes a component of a core module into which that object is linked.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;
use wit_component::ComponentEncoder;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bindings", wit, world, folder] => bindings(wit.as_ref(), world, folder.as_ref()),
        ["component", module, file] => component(module.as_ref(), file.as_ref()),
        _ => bail!("tools bindings WIT WORLD FOLDER | tools component MODULE FILE"),
    }
}

fn bindings(wit: &Path, world: &str, folder: &Path) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    fs::create_dir_all(folder)?;
    for (name, contents) in files.iter() {
        let path = folder.join(name);
        fs::write(&path, contents).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn component(module: &Path, file: &Path) -> Result<()> {
    let module = fs::read(module).with_context(|| module.display().to_string())?;
    let component = ComponentEncoder::default().module(&module)?.validate(true).encode()?;
    fs::write(file, component).with_context(|| file.display().to_string())
}
