//! What goes along the links of a graph.

use std::sync::Arc;

use super::broken;
use super::needs::Clip;
use super::recipe::{MaskRecipe, Recipe};
use crate::error::Result;

/// What an input of a node takes, or an output gives.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `STRING`, and a choice from a list.
    Text,
    /// `INT`.
    Integer,
    /// `FLOAT`.
    Float,
    /// `BOOLEAN`.
    Boolean,
    /// `CLIP`.
    Clip,
    /// `CONDITIONING`.
    Conditioning,
    /// `MASK`.
    Mask,
}

impl Kind {
    /// `ComfyUI`'s name.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Text => "STRING",
            Kind::Integer => "INT",
            Kind::Float => "FLOAT",
            Kind::Boolean => "BOOLEAN",
            Kind::Clip => "CLIP",
            Kind::Conditioning => "CONDITIONING",
            Kind::Mask => "MASK",
        }
    }
}

/// A value before anything is loaded or computed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(Arc<str>),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Boolean(bool),
    /// Text encoders to be loaded.
    Clip(Clip),
    /// A conditioning to be made.
    Conditioning(Recipe),
    /// A mask to be made.
    Mask(MaskRecipe),
    /// Something that has no part in text conditioning, by the name of its type (`MODEL`).
    Other(&'static str),
}

impl Value {
    /// Text.
    pub fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Text(text.into())
    }

    /// What it is, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Value::Text(_) => Kind::Text.name(),
            Value::Integer(_) => Kind::Integer.name(),
            Value::Float(_) => Kind::Float.name(),
            Value::Boolean(_) => Kind::Boolean.name(),
            Value::Clip(_) => Kind::Clip.name(),
            Value::Conditioning(_) => Kind::Conditioning.name(),
            Value::Mask(_) => Kind::Mask.name(),
            Value::Other(name) => name,
        }
    }

    /// The same as another kind, where Python's `int()`, `float()`, `str()` and `bool()` turn one
    /// into the other, as `validate_inputs` in `execution.py` does.
    pub(super) fn to(&self, kind: Kind) -> Result<Value> {
        let turned = match kind {
            Kind::Text => self.as_text().map(Value::Text),
            Kind::Integer => self.as_integer().map(Value::Integer),
            Kind::Float => self.as_float().map(Value::Float),
            Kind::Boolean => self.as_boolean().map(Value::Boolean),
            Kind::Clip | Kind::Conditioning | Kind::Mask => {
                (self.name() == kind.name()).then(|| self.clone())
            }
        };
        turned.ok_or_else(|| {
            let shown = match self {
                Value::Text(text) if kind != Kind::Text => format!(" {:?}", shortened(text)),
                Value::Float(number) => format!(" {number}"),
                _ => String::new(),
            };
            broken(format!(
                "{}{shown} where {} is needed",
                self.name(),
                kind.name()
            ))
        })
    }

    fn as_text(&self) -> Option<Arc<str>> {
        Some(match self {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string().into(),
            Value::Float(number) => format!("{number:?}").into(),
            Value::Boolean(true) => "True".into(),
            Value::Boolean(false) => "False".into(),
            Value::Clip(_) | Value::Conditioning(_) | Value::Mask(_) | Value::Other(_) => {
                return None;
            }
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    fn as_integer(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            Value::Float(number) if number.abs() < 9e15 => Some(number.trunc() as i64),
            Value::Text(text) => text.trim().parse().ok(),
            Value::Boolean(yes) => Some(i64::from(*yes)),
            _ => None,
        }
    }

    fn as_float(&self) -> Option<f64> {
        let number = match self {
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Text(text) => text.trim().parse().ok(),
            Value::Boolean(yes) => Some(f64::from(u8::from(*yes))),
            _ => None,
        };
        number.filter(|number| number.is_finite())
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Value::Boolean(yes) => Some(*yes),
            Value::Integer(number) => Some(*number != 0),
            Value::Float(number) => Some(*number != 0.0),
            Value::Text(text) => Some(!text.is_empty()),
            _ => None,
        }
    }
}

/// The beginning of a text.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::String(text) => Value::text(text.as_str()),
            serde_json::Value::Bool(yes) => Value::Boolean(*yes),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Value::Integer(whole),
                (None, Some(number)) => Value::Float(number),
                (None, None) => Value::Other("a number"),
            },
            serde_json::Value::Null => Value::Other("null"),
            serde_json::Value::Array(_) => Value::Other("a list"),
            serde_json::Value::Object(_) => Value::Other("an object"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_turn_as_in_python() {
        let cases = [
            (Value::text("12"), Kind::Integer, Some(Value::Integer(12))),
            (Value::text("1.5"), Kind::Integer, None),
            (Value::Float(-1.9), Kind::Integer, Some(Value::Integer(-1))),
            (Value::Float(1e300), Kind::Integer, None),
            (Value::text(" 1.5 "), Kind::Float, Some(Value::Float(1.5))),
            (Value::text("nan"), Kind::Float, None),
            (Value::Integer(3), Kind::Text, Some(Value::text("3"))),
            (Value::Float(3.0), Kind::Text, Some(Value::text("3.0"))),
            (Value::Boolean(true), Kind::Text, Some(Value::text("True"))),
            (Value::text(""), Kind::Boolean, Some(Value::Boolean(false))),
            (Value::Other("MODEL"), Kind::Clip, None),
            (Value::Integer(3), Kind::Conditioning, None),
        ];
        for (value, kind, want) in cases {
            assert_eq!(value.to(kind).ok(), want, "{value:?} to {kind:?}");
        }
        let long = Value::text("x".repeat(100)).to(Kind::Float).unwrap_err();
        assert!(long.message().len() < 100, "{long}");
    }
}
