//! Which file of a crate imports which: [`Crate::graph`].
//!
//! Counted are `use` declarations and paths in the code: `crate::`, `super::`, `self::`, child modules
//! and imported modules. A re-exported name counts as an import of the file that defines it, and a
//! `pub use` itself imports nothing. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::rust_files;
use crate::tokens::tokens;

/// The path of a module in its crate; the root is empty.
type Module = Vec<String>;

/// The files of a crate.
#[derive(Default)]
pub(crate) struct Crate {
    files: BTreeMap<Module, File>,
}

#[derive(Default)]
struct File {
    /// Items that the file defines.
    items: BTreeSet<String>,
    /// Each `use`: whether it is public, its path, and the name it gets here.
    uses: Vec<(bool, Module, String)>,
    /// All other paths.
    paths: Vec<Module>,
}

/// A graph of modules by name; the root is `lib`.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

impl Crate {
    /// Reads a `src` folder. Tests, and programs next to a library, are left out.
    pub(crate) fn read(src: &Path) -> Self {
        let mut found = Self::default();
        for path in rust_files(src) {
            let inner = path.strip_prefix(src).unwrap().with_extension("");
            let mut module: Module = inner
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            let program = module == ["main"] && src.join("lib.rs").exists();
            let test = |part: &String| part.ends_with("tests") || part == "test_support";
            if program || module[0] == "bin" || module.iter().any(test) {
                continue;
            }
            module.pop_if(|last| ["lib", "main", "mod"].contains(&last.as_str()));
            found.add(module, &fs::read_to_string(&path).unwrap());
        }
        found
    }

    /// Adds the file of a module.
    pub(crate) fn add(&mut self, module: Module, source: &str) {
        self.files.insert(module, File::parse(&tokens(source)));
    }

    /// The names that the root file makes public: modules, items and re-exports.
    pub(crate) fn public_names(source: &str) -> BTreeSet<String> {
        let tokens = tokens(source);
        let file = File::parse(&tokens);
        let public = file.uses.into_iter().filter(|(public, ..)| *public);
        let mut names: BTreeSet<String> = public.map(|(.., name)| name).collect();
        for words in tokens.windows(3) {
            let [visibility, kind, name] = words else {
                continue;
            };
            if visibility == "pub" && KINDS.contains(&kind.as_str()) {
                names.insert(name.clone());
            }
        }
        names
    }

    /// Which file imports which.
    pub(crate) fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (module, file) in &self.files {
            // Names of this file that are modules, by `use`.
            let mut modules = BTreeMap::new();
            let mut found = BTreeSet::new();
            for (public, path, name) in &file.uses {
                match self.resolve(module, path) {
                    Some((target, None)) => drop(modules.insert(name.clone(), target)),
                    Some((target, Some(item))) if !public => {
                        found.insert(self.defined(target, &item));
                    }
                    _ => {}
                }
            }
            for path in &file.paths {
                let target = self.resolve(module, path).or_else(|| {
                    let base = modules.get(&path[0])?;
                    self.descend(base.clone(), &path[1..])
                });
                if let Some((target, Some(item))) = target {
                    found.insert(self.defined(target, &item));
                }
            }
            found.remove(module);
            let named = found.iter().map(name).collect();
            graph.insert(name(module), named);
        }
        graph
    }

    /// The module that a path leads to, and the item in it; none for another crate's.
    fn resolve(&self, from: &Module, path: &[String]) -> Option<(Module, Option<String>)> {
        let mut base = from.clone();
        let mut rest = path;
        match path[0].as_str() {
            "crate" => (base, rest) = (Module::new(), &path[1..]),
            "super" | "self" => {
                while let [first, tail @ ..] = rest
                    && ["super", "self"].contains(&first.as_str())
                {
                    if first == "super" {
                        base.pop();
                    }
                    rest = tail;
                }
            }
            _ => {
                let child = [from.as_slice(), &path[..1]].concat();
                if !self.files.contains_key(&child) {
                    return None;
                }
            }
        }
        self.descend(base, rest)
    }

    fn descend(&self, mut base: Module, path: &[String]) -> Option<(Module, Option<String>)> {
        let mut rest = path;
        while let [first, tail @ ..] = rest {
            base.push(first.clone());
            if !self.files.contains_key(&base) {
                base.pop();
                break;
            }
            rest = tail;
        }
        self.files
            .contains_key(&base)
            .then(|| (base, rest.first().cloned()))
    }

    /// The module that defines an item, through re-exports.
    fn defined(&self, module: Module, item: &str) -> Module {
        let file = &self.files[&module];
        if file.items.contains(item) {
            return module;
        }
        let exports = file.uses.iter().filter(|(public, ..)| *public);
        for (_, path, _) in exports.filter(|(.., name)| name == item || name == "*") {
            match self.resolve(&module, path) {
                Some((target, Some(inner))) if inner == "*" => {
                    let source = self.defined(target.clone(), item);
                    if self.files[&source].items.contains(item) {
                        return source;
                    }
                }
                Some((target, Some(inner))) if target != module => {
                    return self.defined(target, &inner);
                }
                _ => {}
            }
        }
        module
    }
}

/// What begins an item, before its name.
const KINDS: [&str; 10] = [
    "fn",
    "struct",
    "enum",
    "union",
    "trait",
    "type",
    "const",
    "static",
    "mod",
    "macro_rules",
];

impl File {
    fn parse(tokens: &[String]) -> Self {
        let mut file = Self::default();
        let at = |i: usize| tokens.get(i).map_or("", String::as_str);
        let mut i = 0;
        while i < tokens.len() {
            let start = i;
            i += 1;
            match at(start) {
                "use" if at(i) != "<" => {
                    let before = at(start.wrapping_sub(1));
                    let public = before == "pub" || before == ")";
                    let mut leaves = Vec::new();
                    i = leaf_paths(tokens, i, &Module::new(), &mut leaves);
                    let named = leaves.into_iter();
                    file.uses
                        .extend(named.map(|(path, name)| (public, path, name)));
                }
                "macro_rules" => drop(file.items.insert(at(start + 2).to_owned())),
                kind if KINDS.contains(&kind) => drop(file.items.insert(at(i).to_owned())),
                word if is_word(word) && at(i) == "::" => {
                    let inner = start > 0 && ["::", "."].contains(&at(start - 1));
                    let mut path = vec![word.to_owned()];
                    while at(i) == "::" && is_word(at(i + 1)) {
                        path.push(at(i + 1).to_owned());
                        i += 2;
                    }
                    if !inner {
                        file.paths.push(path);
                    }
                }
                _ => {}
            }
        }
        file
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The paths of a `use` tree with the names that they get; returns the place after the tree.
fn leaf_paths(
    tokens: &[String],
    mut i: usize,
    prefix: &Module,
    leaves: &mut Vec<(Module, String)>,
) -> usize {
    let mut path = prefix.clone();
    let mut alias = None;
    while i < tokens.len() {
        match tokens[i].as_str() {
            "{" => {
                i += 1;
                while tokens[i] != "}" {
                    i = leaf_paths(tokens, i, &path, leaves);
                    i += usize::from(tokens[i] == ",");
                }
                return i + 1;
            }
            "as" => {
                alias = Some(tokens[i + 1].clone());
                i += 1;
            }
            "::" => {}
            "self" if !path.is_empty() && path != ["super"] && path != ["self"] => {}
            word if word == "*" || is_word(word) => path.push(word.to_owned()),
            _ => break,
        }
        i += 1;
    }
    let last = path.last().cloned().unwrap_or_default();
    leaves.push((path, alias.unwrap_or(last)));
    i
}

fn name(module: &Module) -> String {
    if module.is_empty() {
        "lib".to_owned()
    } else {
        module.join("::")
    }
}

#[test]
fn imports_are_followed_to_the_file_that_defines_the_name() {
    let mut files = Crate::default();
    for (module, source) in [
        (
            "",
            "pub mod a; mod b; pub use a::{One, inner::Two as Pair}; pub use b::*; fn root() {}",
        ),
        (
            "a",
            "pub mod inner; pub struct One; fn f() { inner::two(); }",
        ),
        (
            "a::inner",
            "pub struct Two; pub fn two() { super::super::root(); }",
        ),
        (
            "b",
            "use crate::Pair; pub enum Three {} fn f() { let x: crate::a::One; }",
        ),
        (
            "c",
            "use crate::{b, Three}; use super::a; fn f() { a::inner::two(); b::g::<u8>() }",
        ),
        ("d", "pub use crate::c::f; use std::fmt; // crate::a::One"),
    ] {
        let module = module.split("::").filter(|part| !part.is_empty());
        files.add(module.map(str::to_owned).collect(), source);
    }
    let graph = files.graph();
    let found: Vec<String> = graph
        .iter()
        .map(|(from, to)| {
            format!(
                "{from}: {}",
                to.iter().cloned().collect::<Vec<_>>().join(" ")
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "a: a::inner",
            "a::inner: lib",
            "b: a a::inner",
            "c: a::inner b",
            "d: ",
            "lib: "
        ]
    );
}
