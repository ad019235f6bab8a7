//! A1111's comments: from `#` to the end of the line.
//!
//! Rules: `strip_comments` in AUTOMATIC1111's `modules/processing_scripts/comments.py`, which is on
//! unless its option is off.

/// Takes the comments out of a prompt.
///
/// A line that is nothing but a comment goes away with one of its two line feeds. Any other comment
/// leaves a line feed behind, even at the very end of the text and even if it had none.
///
/// ```
/// use sd_conditioner::prompt::comments::strip;
/// assert_eq!(strip("a cat\n# on a mat\nsleeping # sound"), "a cat\nsleeping \n");
/// ```
pub fn strip(text: &str) -> String {
    without_rests(&without_lines(text))
}

/// Comments that begin a line. One directly after another such line has lost its line feed to it
/// and waits for the second pass.
fn without_lines(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    let mut starts_text = true;
    loop {
        let (before, comment) = match rest.find("\n#") {
            _ if starts_text && rest.starts_with('#') => ("", rest),
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => {
                kept.push_str(rest);
                return kept;
            }
        };
        kept.push_str(before);
        kept.push('\n');
        rest = comment.split_once('\n').map_or("", |(_, after)| after);
        starts_text = false;
    }
}

/// All comments that are left.
fn without_rests(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once('#') {
        kept.push_str(before);
        kept.push('\n');
        rest = comment.split_once('\n').map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}
