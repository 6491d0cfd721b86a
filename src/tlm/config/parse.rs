//! From TOML text and overrides to checked sections: every key is looked up in the table of keys, its value checked and
//! brought into its one form, paths made absolute; what remains are defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use toml::{Table, Value};

use super::schema::{self, KEYS, Key, Kind, SECTIONS};
use super::{Config, ConfigError};

/// Where each key was given, and the file it was or was not given in.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    file: PathBuf,
    keys: BTreeMap<String, Origin>,
}

#[derive(Clone, Debug)]
enum Origin {
    Line(PathBuf, usize),
    Override(String),
}

impl Origins {
    /// `file:line`, the override, or the file alone for a key that was not given.
    pub(super) fn of(&self, key: &str) -> String {
        self.keys
            .get(key)
            .map_or_else(|| self.file.display().to_string(), Origin::to_string)
    }

    pub(super) fn given(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.file.clone()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Origin::Override(text) => write!(f, "--set {text}"),
        }
    }
}

/// Reads `text`, which stands in `file`, and applies `overrides`.
pub(super) fn parse(text: &str, file: &Path, overrides: &[String]) -> Result<Config, ConfigError> {
    let base = std::path::absolute(file)
        .map_err(|source| ConfigError::Read {
            file: file.to_path_buf(),
            source,
        })?
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf);
    let mut origins = Origins {
        file: file.to_path_buf(),
        keys: BTreeMap::new(),
    };
    let mut values = defaults();
    for (section, name, value, line) in entries(text, file)? {
        let origin = Origin::Line(file.to_path_buf(), line);
        let key = lookup(&section, &name, &origin)?;
        set(&mut values, key, &value, &base, &origin)?;
        origins.keys.insert(key.path(), origin);
    }
    for text in overrides {
        let origin = Origin::Override(text.clone());
        let (key, value) = read_override(text, &origin)?;
        set(&mut values, key, &value, &base, &origin)?;
        origins.keys.insert(key.path(), origin);
    }
    let mut config: Config = Value::Table(values)
        .try_into()
        .expect("every value has the type that the table of keys gives it");
    config.origins = origins;
    Ok(config)
}

/// All defaults as TOML; keys that follow from others are absent.
fn defaults() -> Table {
    Table::try_from(Config::default()).expect("a configuration is made of tables, texts and numbers")
}

/// `(section, key, value, line)` of everything in the file, in its order.
fn entries(text: &str, file: &Path) -> Result<Vec<(String, String, Value, usize)>, ConfigError> {
    let syntax = |error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        ConfigError::Syntax {
            file: file.to_path_buf(),
            line: line_of(text, at),
            column: text[..at].chars().rev().take_while(|&c| c != '\n').count() + 1,
            message: error.message().to_owned(),
        }
    };
    let values: Table = text.parse().map_err(syntax)?;
    let spans = DeTable::parse(text).map_err(syntax)?;
    let mut entries = Vec::new();
    for (section, table) in spans.get_ref() {
        let section_name = section.get_ref().as_ref();
        let origin = |at: usize| Origin::Line(file.to_path_buf(), line_of(text, at));
        let Some(keys) = table.get_ref().as_table() else {
            return Err(outside(section_name, &origin(section.span().start)));
        };
        if !SECTIONS.iter().any(|(name, _)| *name == section_name) {
            return Err(unknown_section(section_name, &origin(section.span().start)));
        }
        for name in keys.keys() {
            let line = line_of(text, name.span().start);
            let name = name.get_ref().as_ref();
            entries.push((
                section_name.to_owned(),
                name.to_owned(),
                values[section_name][name].clone(),
                line,
            ));
        }
    }
    Ok(entries)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|&&byte| byte == b'\n')
        .count()
}

fn set(values: &mut Table, key: &Key, value: &Value, base: &Path, origin: &Origin) -> Result<(), ConfigError> {
    let accepted = key.kind.accept(value).ok_or_else(|| ConfigError::BadValue {
        origin: origin.to_string(),
        key: key.path(),
        found: value.to_string(),
        expected: key.kind.expected(),
    })?;
    let resolved = match (key.kind, accepted) {
        (Kind::File | Kind::Directory, Value::String(path)) => Value::String(absolute(base, &path)),
        (Kind::Patterns, Value::Array(patterns)) => Value::Array(
            patterns
                .iter()
                .filter_map(Value::as_str)
                .map(|p| absolute(base, p).into())
                .collect(),
        ),
        (_, other) => other,
    };
    let section = values
        .get_mut(key.section)
        .and_then(Value::as_table_mut)
        .expect("every section has defaults");
    section.insert(key.name.to_owned(), resolved);
    Ok(())
}

/// `pattern` below `base`. Where the pattern has wildcards, those that happen to stand in the directory's name are
/// escaped, because there they are letters.
fn absolute(base: &Path, pattern: &str) -> String {
    let is_pattern = pattern.contains(['*', '?', '[']);
    match base.to_str() {
        Some(base) if is_pattern && Path::new(pattern).is_relative() => Path::new(&glob::Pattern::escape(base))
            .join(pattern)
            .to_string_lossy()
            .into_owned(),
        _ => base.join(pattern).to_string_lossy().into_owned(),
    }
}

/// `section.key=value`: the value is TOML (`20`, `1e-3`, `["a", "b"]`, `"text"`) or, where a text is due, bare.
fn read_override(text: &str, origin: &Origin) -> Result<(&'static Key, Value), ConfigError> {
    let malformed = || ConfigError::Override { text: text.to_owned() };
    let (path, raw) = text.split_once('=').ok_or_else(malformed)?;
    let (section, name) = path.trim().split_once('.').ok_or_else(malformed)?;
    if !SECTIONS.iter().any(|(known, _)| *known == section) {
        return Err(unknown_section(section, origin));
    }
    let key = lookup(section, name, origin)?;
    let raw = raw.trim();
    let parsed = format!("value = {raw}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"));
    let bare = Value::String(raw.to_owned());
    let value = match parsed {
        Some(value @ (Value::String(_) | Value::Array(_))) => value,
        Some(value) if !key.kind.is_text() => value,
        _ => bare,
    };
    Ok((key, value))
}

fn lookup(section: &str, name: &str, origin: &Origin) -> Result<&'static Key, ConfigError> {
    schema::find(section, name).ok_or_else(|| {
        let here: Vec<_> = KEYS
            .iter()
            .filter(|key| key.section == section)
            .map(|key| key.name)
            .collect();
        let elsewhere = KEYS.iter().find(|key| key.name == name);
        let advice = match (elsewhere, nearest(name, &here)) {
            (Some(key), _) => format!("it belongs into [{}]", key.section),
            (None, Some(near)) => format!("did you mean \"{near}\"?"),
            (None, None) => "no key there has a similar name".to_owned(),
        };
        ConfigError::Unknown {
            origin: origin.to_string(),
            what: format!("key \"{name}\" in [{section}]"),
            advice: format!("{advice} (keys of [{section}]: {})", here.join(", ")),
        }
    })
}

fn unknown_section(section: &str, origin: &Origin) -> ConfigError {
    let sections: Vec<_> = SECTIONS.iter().map(|(name, _)| *name).collect();
    let advice = nearest(section, &sections).map_or(String::new(), |near| format!("did you mean [{near}]? "));
    ConfigError::Unknown {
        origin: origin.to_string(),
        what: format!("section [{section}]"),
        advice: format!("{advice}(sections: {})", sections.join(", ")),
    }
}

/// A key that stands above the first section.
fn outside(name: &str, origin: &Origin) -> ConfigError {
    let sections: Vec<_> = KEYS
        .iter()
        .filter(|key| key.name == name)
        .map(|key| format!("[{}]", key.section))
        .collect();
    let advice = match sections.as_slice() {
        [] => "keys stand in sections such as [task]".to_owned(),
        found => format!("it belongs into {}", found.join(" or ")),
    };
    ConfigError::Unknown {
        origin: origin.to_string(),
        what: format!("key \"{name}\" outside of any section"),
        advice,
    }
}

/// The most similar name, if one is similar enough to be meant.
fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase().replace('-', "_");
    candidates
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), *candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}
