//! A prompt as it is typed in the editor → as it is sent: without comments, one of each `{one|other}`.
//!
//! `ComfyUI`'s front end does this to widgets that are declared with `dynamicPrompts` whenever a workflow is
//! queued; its server, and with it the API format, knows nothing of it.

/// Braces in braces are read so deep; what is deeper stays as it is.
const DEEPEST: usize = 64;

/// A prompt that is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) text: String,
    /// How many times one of several was taken: the front end draws lots, here it is the first.
    pub(super) choices: usize,
}

/// What is sent of a typed text.
pub(super) fn sent(typed: &str) -> Sent {
    let mut choices = 0;
    let text = chosen(typed, DEEPEST, &mut choices);
    Sent { text, choices }
}

fn chosen(typed: &str, deep: usize, choices: &mut usize) -> String {
    let text = without_comments(typed);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(['\\', '{']) {
        out.push_str(&rest[..at]);
        let from = &rest[at..];
        let length = if from.starts_with('\\') {
            let escaped = escape(from);
            out.push_str(&from[..escaped]);
            escaped
        } else if deep == 0 {
            out.push('{');
            1
        } else {
            let block = Block::first(from);
            *choices += usize::from(block.options > 1);
            out.push_str(&chosen(block.option, deep - 1, choices));
            block.length
        };
        rest = &from[length..];
    }
    unescaped(&(out + rest))
}

/// How long a backslash with what follows it is.
fn escape(from: &str) -> usize {
    from.chars().take(2).map(char::len_utf8).sum()
}

/// `{one|other}`, up to its own closing brace or to the end.
struct Block<'a> {
    /// The first of its options.
    option: &'a str,
    options: usize,
    /// With its braces.
    length: usize,
}

impl Block<'_> {
    fn first(from: &str) -> Block<'_> {
        let (mut at, mut depth) = (1, 0_usize);
        let (mut first, mut options) = (None, 1);
        let mut end = from.len();
        while let Some(found) = from[at..].find(['\\', '{', '}', '|']) {
            at += found;
            match from.as_bytes()[at] {
                b'\\' => at += escape(&from[at..]) - 1,
                b'{' => depth += 1,
                b'}' if depth == 0 => {
                    end = at;
                    break;
                }
                b'}' => depth -= 1,
                _ if depth == 0 => {
                    first.get_or_insert(at);
                    options += 1;
                }
                _ => (),
            }
            at += 1;
        }
        Block {
            option: &from[1..first.unwrap_or(end)],
            options,
            length: (end + 1).min(from.len()),
        }
    }
}

/// Without `/* … */` and `// …` to the end of the line.
fn without_comments(typed: &str) -> String {
    let mut out = String::with_capacity(typed.len());
    let mut rest = typed;
    // Looked for once where there is none.
    let mut may_close = true;
    while let Some(at) = rest.find('/') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let closed = match from.strip_prefix("/*") {
            Some(inside) if may_close => inside.find("*/").map(|end| end + 4),
            _ => None,
        };
        may_close &= closed.is_some() || !from.starts_with("/*");
        let line = || from.find(['\n', '\r', '\u{2028}', '\u{2029}']);
        let length = match closed {
            Some(length) => length,
            None if from.starts_with("//") => line().unwrap_or(from.len()),
            None => {
                out.push('/');
                1
            }
        };
        rest = &from[length..];
    }
    out + rest
}

/// `\{`, `\}` and `\|` are what stands behind the backslash.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let behind = &from[1..];
        if !behind.starts_with(['{', '}', '|']) {
            out.push('\\');
            rest = behind;
            continue;
        }
        out.push_str(&behind[..1]);
        rest = &behind[1..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent() {
        let cases = [
            ("a cat", "a cat", 0),
            ("a // b\nc /* d\n e */f", "a \nc f", 0),
            ("https://x", "https:", 0),
            ("a /* b", "a /* b", 0),
            ("/* a // b */ c", " c", 0),
            ("{{masterpiece}}, x", "masterpiece, x", 0),
            ("a {red|blue} cat", "a red cat", 1),
            ("a {{big|small}|tall} {x|} end", "a big x end", 3),
            ("a {red|blue", "a red", 1),
            ("a \\{red|blue\\} \\(x\\)", "a {red|blue} \\(x\\)", 0),
            ("{a\\|b|c}", "a|b", 1),
            ("a } b | c \\", "a } b | c \\", 0),
            ("", "", 0),
            ("{猫|犬}", "猫", 1),
        ];
        for (typed, text, choices) in cases {
            let want = Sent {
                text: text.to_owned(),
                choices,
            };
            assert_eq!(sent(typed), want, "{typed}");
        }
    }

    #[test]
    fn deep_and_long_texts_end() {
        for part in ["{", "{a|", "}", "/*", "//", "\\", "\\{", "/", "{}"] {
            let typed = part.repeat(200_000);
            assert!(sent(&typed).text.len() <= typed.len(), "{part}");
        }
    }
}
