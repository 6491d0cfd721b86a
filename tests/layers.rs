//! The rooms' order, kept by reading the source: dependencies point down only, `unsafe` stays where it is argued for, and
//! nothing outside tests panics on purpose.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the top floor down. A room may use the rooms after it, and itself.
const ORDER: &[&str] = &[
    "cli",
    "report",
    "tlm",
    "train",
    "cost",
    "bert",
    "hub",
    "data",
    "retrieval",
    "ops",
    "device",
    "plan",
    "kernel",
    "rng",
    "atomic",
];

/// Paths below `src/` in which `unsafe` may appear: the devices, the CPU's calling convention, the register tiles of the
/// matrix product, mapped files and hints to the memory, the loops of a search for several processors, and a setting of the
/// allocator.
const UNSAFE: &[&str] = &[
    "cli/heap.rs",
    "device/",
    "kernel/call.rs",
    "ops/gemm/cpu/",
    "retrieval/bytes.rs",
    "retrieval/fetch.rs",
    "retrieval/loops/avx512.rs",
    "retrieval/scoring.rs",
];

/// Of the device room, the ops may use the CPU alone: the loops that vectorise.
const OPS_MAY_USE: &str = "device::cpu";

/// What ends a process without an error message that says what to do.
const PANICS: &[&str] = &[".unwrap()", "panic!(", "todo!(", "unimplemented!("];

struct Source {
    /// Below `src/`, with forward slashes.
    path: String,
    /// Without comments, texts and test modules.
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    // Test modules in files of their own, declared behind `#[cfg(test)]`.
    found.retain(|path| {
        !path
            .components()
            .any(|part| matches!(part.as_os_str().to_str(), Some("tests.rs" | "tests")))
    });
    found.sort();
    let source = |path: &PathBuf| Source {
        path: path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/"),
        code: without_tests(&code(&std::fs::read_to_string(path).unwrap())),
    };
    found.iter().map(source).collect()
}

/// The text without comments and with every string and character literal emptied.
fn code(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| bytes.get(at + i) == Some(&c));
    while at < bytes.len() {
        if starts(at, "//") {
            while at < bytes.len() && bytes[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            while at < bytes.len() && !starts(at, "*/") {
                at += 1;
            }
            at += 2;
        } else if let Some(hashes) = raw_string(&bytes, at) {
            let end: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            at += hashes + 2;
            while at < bytes.len() && !starts(at, &end) {
                at += 1;
            }
            at += end.len();
            out.push_str("\"\"");
        } else if bytes[at] == '"' {
            at += 1;
            while at < bytes.len() && bytes[at] != '"' {
                at += if bytes[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            out.push_str("\"\"");
        } else if bytes[at] == '\'' && (bytes.get(at + 1) == Some(&'\\') || bytes.get(at + 2) == Some(&'\'')) {
            at += 2; // a character, not a lifetime
            while at < bytes.len() && bytes[at] != '\'' {
                at += 1;
            }
            at += 1;
            out.push_str("' '");
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// The number of `#` if a raw string begins here.
fn raw_string(bytes: &[char], at: usize) -> Option<usize> {
    let inside_a_word = at > 0 && (bytes[at - 1].is_alphanumeric() || bytes[at - 1] == '_') && bytes[at - 1] != 'b';
    if bytes[at] != 'r' || inside_a_word {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|&&c| c == '#').count();
    (bytes.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// Removes every item under `#[cfg(test)]`, to the end of its braces or its semicolon.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        out.push_str(&rest[..start]);
        rest = &rest[start + MARK.len()..];
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0 && matches!(c, '}' | ';')
        });
        rest = end.map_or("", |end| &rest[end + 1..]);
    }
    out + rest
}

/// Paths named after `crate::` (in the library) or `tlm::` (in the binary), groups in braces taken apart.
fn uses(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, _) in code.match_indices(prefix) {
        let inside_a_word = code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if !inside_a_word {
            expand("", &code[start + prefix.len()..], &mut found);
        }
    }
    found
}

/// Adds the path at the beginning of `text` to `found`; returns what follows it.
fn expand<'a>(before: &str, text: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
        .unwrap_or(text.len());
    let path = format!("{before}{}", &text[..end]);
    let mut rest = &text[end..];
    let group = (path.is_empty() || path.ends_with("::")) && rest.starts_with('{');
    if !group {
        found.insert(path);
        return rest;
    }
    rest = &rest[1..];
    while !rest.trim_start().starts_with('}') && !rest.is_empty() {
        rest = expand(&path, rest, found);
        // `as name`, then a comma or the closing brace.
        let next = rest.find([',', '}']).unwrap_or(rest.len());
        rest = rest[next..].strip_prefix(',').unwrap_or(&rest[next..]);
    }
    rest.trim_start().strip_prefix('}').unwrap_or(rest)
}

fn floor(room: &str) -> Option<usize> {
    ORDER.iter().position(|&other| other == room)
}

/// What is wrong with one file's dependencies.
fn violations(source: &Source) -> Vec<String> {
    if source.path == "lib.rs" {
        return Vec::new();
    }
    let from = source.room();
    let prefix = if from == "main" { "tlm::" } else { "crate::" };
    let wrong = |path: &String| {
        let room = path.split("::").next().unwrap_or_default();
        let message = |what: &str| Some(format!("src/{} uses {prefix}{path}: {what}", source.path));
        let Some(to) = floor(room) else {
            return message("not a room of the list, give it its place in the order");
        };
        let below = if from == "main" {
            room == "cli"
        } else {
            floor(from).is_some_and(|from| from <= to)
        };
        if !below {
            return message("dependencies point down only");
        }
        if from == "ops" && room == "device" && !path.starts_with(OPS_MAY_USE) {
            return message("an op knows no device but the CPU's loops");
        }
        None
    };
    uses(&source.code, prefix).iter().filter_map(wrong).collect()
}

#[test]
fn dependencies_point_down_only() {
    let sources = sources();
    assert!(sources.len() > 20, "the source was found");
    for source in &sources {
        let known = matches!(source.room(), "lib" | "main") || floor(source.room()).is_some();
        assert!(known, "src/{}: a room without a place in the order", source.path);
    }
    let wrong: Vec<String> = sources.iter().flat_map(violations).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part))
}

#[test]
fn unsafe_code_stays_in_the_devices_and_the_register_tiles() {
    for source in sources() {
        let allowed = UNSAFE.iter().any(|path| source.path.starts_with(path));
        assert!(
            allowed || !has_word(&source.code, "unsafe"),
            "src/{} contains `unsafe`",
            source.path
        );
    }
    for path in UNSAFE {
        let found = sources()
            .iter()
            .any(|source| source.path.starts_with(path) && has_word(&source.code, "unsafe"));
        assert!(found, "{path} needs no exception any more");
    }
}

#[test]
fn nothing_outside_tests_unwraps_or_panics() {
    for source in sources() {
        for what in PANICS {
            assert!(!source.code.contains(what), "src/{} contains `{what}`", source.path);
        }
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    let source = |path: &str, text: &str| Source {
        path: path.to_string(),
        code: without_tests(&code(text)),
    };
    let wrong = |path: &str, text: &str| violations(&source(path, text)).len();
    assert_eq!(wrong("plan/mod.rs", "use crate::kernel::{Arg, DType};"), 0);
    assert_eq!(wrong("plan/mod.rs", "use crate::ops::gemm;"), 1);
    assert_eq!(
        wrong("plan/mod.rs", "use crate::{kernel::Arg, ops::{gemm, gelu as g}, rng};"),
        2
    );
    assert_eq!(wrong("plan/mod.rs", "fn f() { crate::device::check() }"), 1);
    assert_eq!(
        wrong(
            "plan/mod.rs",
            "/// See [`crate::ops`].\nfn f() -> &'static str { \"crate::ops\" }"
        ),
        0
    );
    assert_eq!(
        wrong("plan/mod.rs", "#[cfg(test)]\nmod tests { use crate::ops::gemm; }"),
        0
    );
    assert_eq!(
        wrong(
            "plan/mod.rs",
            "#[cfg(test)]\nmod tests { fn a() {} }\nuse crate::ops::gemm;"
        ),
        1
    );
    assert_eq!(wrong("ops/fill.rs", "use crate::device::cpu::vectorised;"), 0);
    assert_eq!(wrong("ops/fill.rs", "use crate::device::null::NullDevice;"), 1);
    assert_eq!(wrong("rng.rs", "use crate::somewhere;"), 1);
    assert_eq!(wrong("main.rs", "fn main() { tlm::cli::run() }"), 0);
    assert_eq!(wrong("main.rs", "use tlm::ops;"), 1);
    assert_eq!(
        code("a('\"', \"//\", r#\"\"/*\"#, 'x'); b<'a>() // c"),
        "a(' ', \"\", \"\", ' '); b<'a>() "
    );
    assert!(has_word("x = unsafe { y }", "unsafe") && !has_word("unsafe_code", "unsafe"));
}
