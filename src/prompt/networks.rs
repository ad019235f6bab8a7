//! A1111's extra networks: `<lora:name:0.8>` and its like.
//!
//! Rules: `parse_prompt` and `ExtraNetworkParams` in AUTOMATIC1111's `modules/extra_networks.py`.

use std::ops::Range;

use super::python;

/// One `<kind:argument:..>` of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraNetwork {
    /// What stands before the first colon, such as `lora` or `hypernet`.
    pub kind: String,
    /// Everything behind it, cut at the colons. An argument with exactly one `=` is a named one.
    pub arguments: Vec<String>,
    /// Where it stands in the source.
    pub span: Range<usize>,
}

impl ExtraNetwork {
    /// The arguments without a name, in order.
    pub fn positional(&self) -> impl Iterator<Item = &str> {
        self.arguments
            .iter()
            .map(String::as_str)
            .filter(|item| item.matches('=').count() != 1)
    }

    /// The last argument called `name`.
    pub fn named(&self, name: &str) -> Option<&str> {
        let named = self
            .arguments
            .iter()
            .rev()
            .filter(|item| item.matches('=').count() == 1);
        named
            .filter_map(|item| item.split_once('='))
            .find(|pair| pair.0 == name)
            .map(|pair| pair.1)
    }
}

/// A number as Python's `float` reads it.
pub(crate) fn number(text: &str) -> Option<f64> {
    python::float(text)
}

/// Cuts the extra networks out of `text`; what is left keeps its white space.
///
/// ```
/// let (text, networks) = sd_conditioner::prompt::networks::extract("a <lora:film:0.8> cat");
/// assert_eq!(text, "a  cat");
/// assert_eq!((networks[0].kind.as_str(), networks[0].arguments.len()), ("lora", 2));
/// ```
pub fn extract(text: &str) -> (String, Vec<ExtraNetwork>) {
    extract_if(text, |_| true)
}

/// The same with stable-diffusion.cpp's rule: only `<lora:name:strength>`
/// (`extract_and_remove_lora`, `examples/common/common.cpp`).
pub(crate) fn extract_loras(text: &str) -> (String, Vec<ExtraNetwork>) {
    extract_if(text, |network| match network.arguments.as_slice() {
        [name, strength @ ..] => {
            let is_empty = strength.is_empty() || *strength == [""];
            network.kind == "lora" && !name.is_empty() && !is_empty
        }
        [] => false,
    })
}

fn extract_if(text: &str, is_meant: fn(&ExtraNetwork) -> bool) -> (String, Vec<ExtraNetwork>) {
    let (mut kept, mut networks) = (String::with_capacity(text.len()), Vec::new());
    let last_close = text.rfind('>').unwrap_or(0);
    let mut from = 0;
    while let Some(open) = text[from..last_close.max(from)]
        .find('<')
        .map(|at| from + at)
    {
        kept.push_str(&text[from..open]);
        let network = network(text, open).filter(is_meant);
        from = network
            .as_ref()
            .map_or(open + 1, |network| network.span.end);
        if network.is_none() {
            kept.push('<');
        }
        networks.extend(network);
    }
    kept.push_str(&text[from..]);
    (kept, networks)
}

/// The network whose `<` stands at `open`: a word, a colon, and at least one character up to `>`.
fn network(text: &str, open: usize) -> Option<ExtraNetwork> {
    let after = &text[open + 1..];
    let word = after
        .find(|character| !python::is_word(character))
        .filter(|len| *len > 0)?;
    let arguments = after[word..].strip_prefix(':')?;
    let len = arguments.find('>').filter(|len| *len > 0)?;
    Some(ExtraNetwork {
        kind: after[..word].to_owned(),
        arguments: arguments[..len].split(':').map(str::to_owned).collect(),
        span: open..open + 1 + word + 1 + len + 1,
    })
}
