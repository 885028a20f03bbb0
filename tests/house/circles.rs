//! In each crate a file imports only files below it: no two files import each other, directly or
//! through others.
//!
//! A module and the files of its own folder may be one idea: the module's file may import the others and
//! they may import it. Between themselves the files of the folder may not form a circle. The folders of
//! `train` in the program import in one direction, too.

use std::collections::BTreeSet;

use crate::imports::{Crate, Graph};
use crate::root;

/// The crates that are checked.
const CRATES: [&str; 4] = ["crates/lisa", "crates/lisa-lm", "crates/lisa-cli", "bench"];

#[test]
fn no_two_files_import_each_other() {
    for folder in CRATES {
        let graph = Crate::read(&root().join(folder).join("src")).graph();
        assert!(graph.len() > 5, "{folder} has {} files", graph.len());
        let circles = circles(&graph, &graph.keys().collect());
        let text = circles.join("\n");
        assert!(circles.is_empty(), "circles in {folder}:\n{text}");
    }
}

#[test]
fn no_two_folders_of_a_run_import_each_other() {
    let graph = Crate::read(&root().join("crates/lisa-cli/src")).graph();
    let folders = of_folders(&graph, "train::");
    assert!(folders.len() > 10, "{folders:?}");
    let circles = circles(&folders, &folders.keys().collect());
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// The graph of the files and the folders in a module; a folder is one entry.
fn of_folders(graph: &Graph, module: &str) -> Graph {
    let entry = |path: &String| Some(path.strip_prefix(module)?.split("::").next()?.to_owned());
    let mut found = Graph::new();
    for (from, to) in graph {
        if let Some(from) = entry(from) {
            let others: Vec<String> = to
                .iter()
                .filter_map(entry)
                .filter(|to| *to != from)
                .collect();
            found.entry(from).or_default().extend(others);
        }
    }
    found
}

/// The circles among these modules, as text.
fn circles(graph: &Graph, among: &BTreeSet<&String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = among.clone();
    while let Some(module) = left.pop_first() {
        let from = reachable(graph, module, among);
        let circle: BTreeSet<&String> = from
            .iter()
            .copied()
            .filter(|other| reachable(graph, other, among).contains(module))
            .collect();
        left.retain(|other| !circle.contains(other));
        if circle.len() < 2 {
            continue;
        }
        let parent = circle.iter().find(|parent| {
            let inside = format!("{parent}::");
            let own = |other: &&String| other.starts_with(&inside) || other == *parent;
            circle.iter().all(own)
        });
        if let Some(parent) = parent {
            let children = circle.iter().copied().filter(|other| other != parent);
            found.extend(circles(graph, &children.collect()));
            continue;
        }
        for module in &circle {
            let to: Vec<&str> = graph[*module]
                .iter()
                .filter(|to| circle.contains(to))
                .map(String::as_str)
                .collect();
            found.push(format!("{module} imports {}", to.join(", ")));
        }
    }
    found
}

/// The modules that a module imports, directly or through others of these.
fn reachable<'a>(
    graph: &'a Graph,
    module: &str,
    among: &BTreeSet<&'a String>,
) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&String> = graph[module].iter().collect();
    while let Some(next) = open.pop() {
        if among.contains(next) && found.insert(next) {
            open.extend(&graph[next]);
        }
    }
    found
}

#[test]
fn a_folder_may_be_one_idea_and_a_circle_may_not() {
    let found = |edges: &[(&str, &[&str])]| {
        let named = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let graph: Graph = edges
            .iter()
            .map(|(a, b)| (a.to_string(), named(b)))
            .collect();
        circles(&graph, &graph.keys().collect())
    };
    assert!(found(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]).is_empty());
    assert_eq!(
        found(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])]).len(),
        3
    );
    // A module and its folder.
    assert!(
        found(&[
            ("a", &["a::x", "a::y"]),
            ("a::x", &["a"]),
            ("a::y", &["a", "a::x"])
        ])
        .is_empty()
    );
    // Two files of a folder, with the module and without it.
    assert_eq!(
        found(&[
            ("a", &["a::x"]),
            ("a::x", &["a", "a::y"]),
            ("a::y", &["a::x"])
        ])
        .len(),
        2
    );
    // A circle that leaves the folder.
    assert_eq!(
        found(&[("a", &["b"]), ("b", &["a::x"]), ("a::x", &["a"])]).len(),
        3
    );
    // The root is no exception.
    assert_eq!(found(&[("lib", &["a"]), ("a", &["lib"])]).len(), 2);
}
