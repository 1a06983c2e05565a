//! Links of the documentation lead somewhere; the README has five.

use crate::{root, tracked};

/// `[text](target)` of a Markdown text, code left out.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            found.extend(part.split_once(')').map(|(target, _)| target.to_owned()));
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    for (path, text) in tracked() {
        let Some(text) = text.filter(|_| path.ends_with(".md")) else { continue };
        let folder = root().join(&path).parent().unwrap().to_owned();
        for link in links(&text) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || link.starts_with("https://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{path} links to {link}");
        }
    }
}

#[test]
fn the_readme_has_five_links() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert_eq!(links(&readme).len(), 5);
}

#[test]
fn a_link_that_leads_nowhere_is_seen() {
    assert_eq!(links("see [a](b.md) and\n```\n[no](x)\n```\n[c](d.md#e)"), ["b.md", "d.md#e"]);
}
