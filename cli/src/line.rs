//! One line of a requests file → wishes.

use std::result::Result;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::embeddings::EmbeddingFile;
use crate::job::Only;
use crate::loras::LoraFile;
use crate::manner::Manner;
use crate::names;
use crate::wishes::Wishes;

/// Bytes of an id; with the ending it fits every file system.
const ID_AT_MOST: usize = 200;

/// What some file system or shell would read as more than a name.
const NOT_IN_NAMES: [char; 9] = ['/', '\\', ':', '*', '?', '"', '<', '>', '|'];

/// The keys, as `encode` names its options, with underscores.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Line {
    id: Given<Value>,
    positive: Given<String>,
    positive_2: Given<String>,
    negative: Given<String>,
    negative_2: Given<String>,
    profile: Given<String>,
    cleaner: Given<String>,
    dialect: Given<String>,
    emphasis: Given<String>,
    split: Given<String>,
    equal_lengths: Given<String>,
    gelu: Given<String>,
    least_windows: Given<u8>,
    steps: Given<u32>,
    hires_steps: Given<u32>,
    embeddings: Given<Vec<EmbeddingFile>>,
    loras: Given<Vec<LoraFile>>,
    clip_skip: Given<i32>,
    width: Given<u32>,
    height: Given<u32>,
    crop_left: Given<u32>,
    crop_top: Given<u32>,
    target_width: Given<u32>,
    target_height: Given<u32>,
    aesthetic_score: Given<f32>,
    negative_aesthetic_score: Given<f32>,
    only: Given<String>,
}

/// A key that is left out is not the same as one that is `null`.
#[derive(Clone, Copy, Debug, Default)]
enum Given<T> {
    /// The command line decides.
    #[default]
    Missing,
    /// Nothing, whatever the command line says.
    Null,
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::deserialize(deserializer)?;
        Ok(value.map_or(Given::Null, Given::Value))
    }
}

impl<T: Clone> Given<T> {
    /// Nothing where the one it belongs to is said to be nothing.
    fn after<U>(self, other: &Given<U>) -> Given<T> {
        match (other, self) {
            (Given::Null, Given::Missing) => Given::Null,
            (Given::Missing | Given::Null | Given::Value(_), given) => given,
        }
    }

    fn over(self, default: Option<&T>) -> Option<T> {
        match self {
            Given::Missing => default.cloned(),
            Given::Null => None,
            Given::Value(value) => Some(value),
        }
    }
}

impl Line {
    /// Reads one JSON object.
    pub(crate) fn parse(text: &str) -> Result<Line, String> {
        // serde would take a list for an object.
        if !text.trim_start().starts_with('{') {
            return Err("expected one JSON object, {…}".to_owned());
        }
        serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            let words = message
                .rsplit_once(" at line ")
                .map_or(message.as_str(), |(words, _)| words);
            format!("column {}: {words}", error.column())
        })
    }

    /// The id, fit to be the name of a file.
    pub(crate) fn id(&self) -> Result<String, String> {
        let id = match &self.id {
            Given::Missing | Given::Null => return Err("`id` is missing".to_owned()),
            Given::Value(Value::String(id)) => id.clone(),
            Given::Value(Value::Number(id)) if id.is_u64() => id.to_string(),
            Given::Value(other) => {
                return Err(format!("`id` is {other}, expected a string"));
            }
        };
        match unsafe_part(&id) {
            Some(what) => Err(format!("the id `{}` {what}", id.escape_debug())),
            None => Ok(id),
        }
    }

    /// The one side that is asked for, or the command line's.
    pub(crate) fn only(&self, default: Option<Only>) -> Result<Option<Only>, String> {
        self.only.choice("only", Only::named, default.as_ref())
    }

    /// These wishes, and the command line's where the line says nothing.
    pub(crate) fn over(self, defaults: &Wishes) -> Result<Wishes, String> {
        let manner = self.manner_over(&defaults.manner)?;
        let sizes = self.sizes_over(defaults);
        // No negative at all is no second one either, and no steps are no hires steps.
        let negative_2 = self.negative_2.after(&self.negative);
        let hires_steps = self.hires_steps.after(&self.steps);
        Ok(Wishes {
            positive: self.positive.over(defaults.positive.as_ref()),
            positive_2: self.positive_2.over(defaults.positive_2.as_ref()),
            negative: self.negative.over(defaults.negative.as_ref()),
            negative_2: negative_2.over(defaults.negative_2.as_ref()),
            manner,
            steps: self.steps.over(defaults.steps.as_ref()),
            hires_steps: hires_steps.over(defaults.hires_steps.as_ref()),
            embeddings: self.embeddings.over(defaults.embeddings.as_ref()),
            loras: self.loras.over(defaults.loras.as_ref()),
            clip_skip: self.clip_skip.over(defaults.clip_skip.as_ref()),
            ..sizes
        })
    }

    fn manner_over(&self, own: &Manner) -> Result<Manner, String> {
        Ok(Manner {
            profile: self
                .profile
                .choice("profile", names::profile, own.profile.as_ref())?,
            cleaner: self
                .cleaner
                .choice("cleaner", names::cleaner, own.cleaner.as_ref())?,
            dialect: self
                .dialect
                .choice("dialect", names::dialect, own.dialect.as_ref())?,
            emphasis: self
                .emphasis
                .choice("emphasis", names::emphasis, own.emphasis.as_ref())?,
            split: self
                .split
                .choice("split", names::split, own.split.as_ref())?,
            equal_lengths: self.equal_lengths.choice(
                "equal_lengths",
                names::equal_lengths,
                own.equal_lengths.as_ref(),
            )?,
            gelu: self.gelu.choice("gelu", names::gelu, own.gelu.as_ref())?,
            least_windows: self.least_windows.over(own.least_windows.as_ref()),
        })
    }

    /// What SDXL is told of sizes and scores, and nothing else.
    fn sizes_over(&self, defaults: &Wishes) -> Wishes {
        Wishes {
            width: self.width.over(defaults.width.as_ref()),
            height: self.height.over(defaults.height.as_ref()),
            crop_left: self.crop_left.over(defaults.crop_left.as_ref()),
            crop_top: self.crop_top.over(defaults.crop_top.as_ref()),
            target_width: self.target_width.over(defaults.target_width.as_ref()),
            target_height: self.target_height.over(defaults.target_height.as_ref()),
            aesthetic_score: self.aesthetic_score.over(defaults.aesthetic_score.as_ref()),
            negative_aesthetic_score: self
                .negative_aesthetic_score
                .over(defaults.negative_aesthetic_score.as_ref()),
            ..Wishes::default()
        }
    }
}

impl Given<String> {
    /// What it is the name of.
    fn choice<T: Clone>(
        &self,
        key: &str,
        named: impl Fn(&str) -> Result<T, String>,
        default: Option<&T>,
    ) -> Result<Option<T>, String> {
        let given = match self {
            Given::Missing => Given::Missing,
            Given::Null => Given::Null,
            Given::Value(name) => {
                Given::Value(named(name).map_err(|error| format!("`{key}`: {error}"))?)
            }
        };
        Ok(given.over(default))
    }
}

/// Why an id cannot be the name of a file.
fn unsafe_part(id: &str) -> Option<String> {
    let bad = |sign: char| sign.is_control() || NOT_IN_NAMES.contains(&sign);
    if id.is_empty() {
        return Some("is empty".to_owned());
    }
    if id.starts_with('.') || id.contains("..") {
        return Some("starts with `.` or has `..` in it".to_owned());
    }
    if id.len() > ID_AT_MOST {
        return Some(format!("is longer than {ID_AT_MOST} bytes"));
    }
    let sign = id.chars().find(|sign| bad(*sign))?;
    Some(format!("has {sign:?} in it, and names a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Wishes {
        Wishes {
            negative: Some("default".to_owned()),
            negative_2: Some("second".to_owned()),
            clip_skip: Some(1),
            ..Wishes::default()
        }
    }

    fn over(text: &str) -> Wishes {
        Line::parse(text).unwrap().over(&defaults()).unwrap()
    }

    #[test]
    fn missing_keys_are_defaults_and_null_is_nothing() {
        let wishes = over(r#"{"id":"a"}"#);
        assert_eq!(wishes.negative.as_deref(), Some("default"));
        assert_eq!(wishes.clip_skip, Some(1));
        let wishes = over(r#"{"id":"a","negative":null,"clip_skip":null}"#);
        assert_eq!((&wishes.negative, &wishes.negative_2), (&None, &None));
        assert_eq!(wishes.clip_skip, None);
        let wishes = over(r#"{"id":"a","negative":"","width":8,"profile":"a1111"}"#);
        assert_eq!(wishes.negative.as_deref(), Some(""));
        assert_eq!(wishes.negative_2.as_deref(), Some("second"));
        assert_eq!(wishes.width, Some(8));
    }

    #[test]
    fn bad_lines() {
        let cases = [
            ("{", "column 1"),
            ("[]", "one JSON object"),
            ("7", "one JSON object"),
            (r#"{"id":"a","colour":1}"#, "unknown field `colour`"),
            (r#"{"id":"a","id":"b"}"#, "duplicate field `id`"),
            (r#"{"id":"a","width":-1}"#, "integer `-1`"),
            (r#"{"id":"a","width":"8"}"#, "string \"8\""),
            (r#"{"id":"a","clip_skip":1.5}"#, "1.5"),
            (r#"{"id":"a"} {"id":"b"}"#, "trailing characters"),
        ];
        for (text, want) in cases {
            let error = Line::parse(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
            assert!(!error.contains(" at line "), "{error}");
        }
        let line = Line::parse(r#"{"id":"a","profile":"midjourney"}"#).unwrap();
        let error = line.over(&Wishes::default()).unwrap_err();
        assert!(error.contains("`profile`") && error.contains("a1111"));
    }

    /// As they stand in JSON.
    const NO_IDS: [&str; 16] = [
        r#""""#,
        r#"".""#,
        r#""..""#,
        r#""a/b""#,
        r#""a\\b""#,
        r#""../a""#,
        r#""/a""#,
        r#""C:a""#,
        r#""a\n""#,
        r#""\u0000""#,
        r#"".hidden""#,
        "null",
        "1.5",
        "-1",
        "[]",
        "true",
    ];

    #[test]
    fn ids_are_names_of_files() {
        let id = |json: &str| Line::parse(&format!(r#"{{"id":{json}}}"#)).unwrap().id();
        for good in [r#""a""#, r#""cat 01_b-c.d""#, r#""猫""#, "17"] {
            assert!(id(good).is_ok(), "{good}");
        }
        for bad in NO_IDS {
            assert!(id(bad).is_err(), "{bad}");
        }
        assert!(id(&format!("\"{}\"", "x".repeat(201))).is_err());
        assert!(Line::parse("{}").unwrap().id().is_err());
    }
}
