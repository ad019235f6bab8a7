//! Texts and numbers (`comfy_extras/nodes_primitive.py`, `comfy_extras/nodes_string.py`).

use super::Builtin;
use crate::error::Result;
use crate::graph::call::Call;
use crate::graph::class::Inlet;
use crate::graph::recipe::{of_bytes, of_length};
use crate::graph::value::{Kind, Value};
use crate::prompt::python::is_space;

const STRING: Inlet = Inlet::required("string", Kind::Text);

pub(super) const CLASSES: &[Builtin] = &[
    primitive(
        "PrimitiveString",
        &[Inlet::required("value", Kind::Text)],
        text,
    ),
    primitive(
        "PrimitiveStringMultiline",
        &[Inlet::required("value", Kind::Text)],
        text,
    ),
    primitive(
        "PrimitiveInt",
        &[Inlet::required("value", Kind::Integer)],
        integer,
    ),
    primitive(
        "PrimitiveFloat",
        &[Inlet::required("value", Kind::Float)],
        float,
    ),
    primitive(
        "PrimitiveBoolean",
        &[Inlet::required("value", Kind::Boolean)],
        boolean,
    ),
    Builtin::new(
        "StringConcatenate",
        &[
            Inlet::required("string_a", Kind::Text),
            Inlet::required("string_b", Kind::Text),
            Inlet::optional("delimiter", Kind::Text),
        ],
        &["string_a", "string_b", "delimiter"],
        concatenate,
    ),
    Builtin::new(
        "StringReplace",
        &[
            STRING,
            Inlet::required("find", Kind::Text),
            Inlet::required("replace", Kind::Text),
        ],
        &["string", "find", "replace"],
        replace,
    ),
    Builtin::new(
        "StringSubstring",
        &[
            STRING,
            Inlet::required("start", Kind::Integer),
            Inlet::required("end", Kind::Integer),
        ],
        &["string", "start", "end"],
        substring,
    ),
    Builtin::new(
        "StringTrim",
        &[STRING, Inlet::required("mode", Kind::Text)],
        &["string", "mode"],
        trim,
    ),
];

const fn primitive(
    name: &'static str,
    inlets: &'static [Inlet],
    evaluate: fn(&mut Call<'_>) -> Result<Vec<Value>>,
) -> Builtin {
    Builtin::new(name, inlets, &["value"], evaluate)
}

fn text(call: &mut Call<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Text(call.text("value")?)])
}

fn integer(call: &mut Call<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Integer(call.integer("value")?)])
}

fn float(call: &mut Call<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Float(call.float("value")?)])
}

fn boolean(call: &mut Call<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Boolean(call.boolean("value")?)])
}

fn concatenate(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let (one, two) = (call.text("string_a")?, call.text("string_b")?);
    let between = if call.has("delimiter") {
        call.text("delimiter")?
    } else {
        "".into()
    };
    made(format!("{one}{between}{two}"))
}

fn replace(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let (string, find) = (call.text("string")?, call.text("find")?);
    let by = call.text("replace")?;
    let times = string.matches(&*find).count();
    // Refused before it is built.
    let longest = times.saturating_mul(by.len()).saturating_add(string.len());
    of_bytes(longest)?;
    made(string.replace(&*find, &by))
}

/// Python's `string[start:end]`: characters, negative numbers from the end.
fn substring(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let string = call.text("string")?;
    let length = i64::try_from(string.chars().count()).unwrap_or(i64::MAX);
    let place = |number: i64| {
        let from_start = if number < 0 {
            number.saturating_add(length)
        } else {
            number
        };
        usize::try_from(from_start.clamp(0, length)).unwrap_or_default()
    };
    let (start, end) = (place(call.integer("start")?), place(call.integer("end")?));
    let inside = string.chars().skip(start).take(end.saturating_sub(start));
    made(inside.collect())
}

fn trim(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let string = call.text("string")?;
    let trimmed = match &*call.text("mode")? {
        "Both" => string.trim_matches(is_space),
        "Left" => string.trim_start_matches(is_space),
        "Right" => string.trim_end_matches(is_space),
        _ => &string,
    };
    made(trimmed.to_owned())
}

fn made(text: String) -> Result<Vec<Value>> {
    of_length(&text)?;
    Ok(vec![Value::text(text)])
}
