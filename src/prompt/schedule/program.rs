//! A schedule as a small program: texts, and jumps that depend on the step.
//!
//! The compiler goes over the text once. An opening bracket, a `:` and a `|` are emitted as text;
//! only when their group turns out to be complete are they patched into jumps. What is never
//! completed thereby already is the literal text that the grammar wants, and nothing recurses.

use std::ops::Range;

use crate::prompt::python;

/// One operation. A program runs from the first to the last.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    /// Appends a stretch of the source.
    Text(Range<usize>),
    /// Goes on at an operation.
    Jump(usize),
    /// Goes on at `before`, or at `after` once the step that `number` stands for is over.
    Switch {
        /// The number, in the source.
        number: Range<usize>,
        /// The operation to go on at first.
        before: usize,
        /// The operation to go on at later.
        after: usize,
    },
    /// Goes on at one of these, in turn from step to step.
    Alternate {
        /// The operations to go on at.
        options: Vec<usize>,
    },
}

/// A compiled text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Program {
    pub(super) ops: Vec<Op>,
}

impl Program {
    /// The text at `step`; `whens` has the last step of every switch.
    pub(super) fn at_step(&self, source: &str, step: u32, whens: &[f64]) -> String {
        let mut text = String::new();
        let mut next = 0;
        while let Some(op) = self.ops.get(next) {
            next = match op {
                Op::Text(span) => {
                    text.push_str(&source[span.clone()]);
                    next + 1
                }
                Op::Jump(to) => *to,
                Op::Switch { after, .. } if f64::from(step) > whens[next] => *after,
                Op::Switch { before, .. } => *before,
                Op::Alternate { options } => {
                    // Step 0 counts as the last of a round, as Python's remainder has it.
                    let turn = (step as usize + options.len() - 1) % options.len();
                    options[turn]
                }
            };
        }
        text
    }
}

/// A group that is not closed yet, by the indices of its operations.
struct Group {
    opener: usize,
    is_square: bool,
    separators: Vec<usize>,
    separator: char,
}

impl Group {
    /// Whether one more separator may stand here. The first one decides of which kind they are.
    fn add_separator(&mut self, op: usize, separator: char) -> bool {
        let count = self.separators.len();
        let same = count == 0 || self.separator == separator;
        let most = match (self.is_square, separator) {
            (true, ':') => 2,
            (true, _) => usize::MAX,
            (false, ':') => 1,
            (false, _) => 0,
        };
        if count == 0 {
            self.separator = separator;
        }
        self.separators.push(op);
        same && count < most
    }
}

/// Compiles `source`, or says what makes the grammar refuse it.
pub(super) fn compile(source: &str) -> Result<Program, Range<usize>> {
    let mut compiler = Compiler {
        source,
        ops: Vec::new(),
        groups: Vec::new(),
        loose: None,
    };
    let mut at = 0;
    while at < source.len() {
        at = compiler.token(at)?;
    }
    compiler.give_up();
    compiler
        .loose
        .map_or(Ok(Program { ops: compiler.ops }), Err)
}

struct Compiler<'a> {
    source: &'a str,
    ops: Vec<Op>,
    groups: Vec<Group>,
    /// A `|` that belongs to no group.
    loose: Option<Range<usize>>,
}

impl Compiler<'_> {
    /// Handles what stands at `at`, returns where it ends.
    fn token(&mut self, at: usize) -> Result<usize, Range<usize>> {
        let rest = &self.source[at..];
        let special = rest
            .find(['\\', '[', ']', '(', ')', ':', '|'])
            .unwrap_or(rest.len());
        if special > 0 {
            self.ops.push(Op::Text(at..at + special));
            return Ok(at + special);
        }
        let mut characters = rest.chars();
        let end = at + 1;
        match characters.next() {
            Some('\\') => return self.escape(at, characters.next()),
            Some('[') => self.open(at, true),
            Some('(') => self.open(at, false),
            Some(']') => self.close(at, true),
            Some(')') => self.close(at, false),
            Some(separator) => self.separate(at, separator),
            None => {}
        }
        Ok(end)
    }

    /// A backslash takes any one character along but a line feed.
    fn escape(&mut self, at: usize, next: Option<char>) -> Result<usize, Range<usize>> {
        let next = next.filter(|next| *next != '\n').ok_or(at..at + 1)?;
        let end = at + 1 + next.len_utf8();
        self.ops.push(Op::Text(at..end));
        Ok(end)
    }

    fn open(&mut self, at: usize, is_square: bool) {
        let (opener, separators) = (self.ops.len(), Vec::new());
        self.groups.push(Group {
            opener,
            is_square,
            separators,
            separator: ':',
        });
        self.ops.push(Op::Text(at..at + 1));
    }

    /// `:` or `|`. In round brackets one `:` may stand and is text; in square brackets up to two
    /// `:` or any number of `|`.
    fn separate(&mut self, at: usize, separator: char) {
        let op = self.ops.len();
        self.ops.push(Op::Text(at..at + 1));
        let group = self.groups.last_mut();
        let fits = group.is_some_and(|group| group.add_separator(op, separator));
        if !fits {
            self.give_up();
            if separator == '|' {
                self.loose.get_or_insert(at..at + 1);
            }
        }
    }

    fn close(&mut self, at: usize, is_square: bool) {
        let group = self.groups.pop_if(|group| group.is_square == is_square);
        let is_done = group.is_some_and(|group| self.complete(&group, at));
        if !is_done {
            self.give_up();
            self.ops.push(Op::Text(at..at + 1));
        }
    }

    /// Finishes a group at its closing bracket. False if it is none.
    fn complete(&mut self, group: &Group, at: usize) -> bool {
        match group.separators.last() {
            None => self.ops.push(Op::Text(at..at + 1)),
            Some(_) if !group.is_square => self.ops.push(Op::Text(at..at + 1)),
            Some(last) if group.separator == ':' => {
                let Some(number) = number(self.source, self.text_span(*last).end..at) else {
                    return false;
                };
                self.switch(group, *last, number);
            }
            Some(_) => self.alternate(group),
        }
        true
    }

    /// `[before:after:number]` or `[after:number]`: the number's operations are dropped, its colon
    /// with them.
    fn switch(&mut self, group: &Group, last: usize, number: Range<usize>) {
        self.ops.truncate(last);
        let (first, end) = (group.opener + 1, last);
        let (before, after) = match group.separators.as_slice() {
            [middle, _] => {
                self.ops[*middle] = Op::Jump(end);
                (first, middle + 1)
            }
            _ => (end, first),
        };
        self.ops[group.opener] = Op::Switch {
            number,
            before,
            after,
        };
    }

    fn alternate(&mut self, group: &Group) {
        let end = self.ops.len();
        for separator in &group.separators {
            self.ops[*separator] = Op::Jump(end);
        }
        let starts = [&group.opener].into_iter().chain(&group.separators);
        let options = starts.map(|start| start + 1).collect();
        self.ops[group.opener] = Op::Alternate { options };
    }

    /// No open group will be complete: their operations stay the text they are.
    fn give_up(&mut self) {
        for group in std::mem::take(&mut self.groups) {
            if let (Some(op), '|') = (group.separators.first(), group.separator) {
                self.loose.get_or_insert(self.text_span(*op));
            }
        }
    }

    /// Where the text of an operation that is still text stands.
    fn text_span(&self, op: usize) -> Range<usize> {
        match &self.ops[op] {
            Op::Text(span) => span.clone(),
            Op::Jump(_) | Op::Switch { .. } | Op::Alternate { .. } => 0..0,
        }
    }
}

/// The number in a stretch of the source that holds nothing else but white space around it.
fn number(source: &str, span: Range<usize>) -> Option<Range<usize>> {
    let text = &source[span.clone()];
    let start = span.start + text.len() - text.trim_start_matches(python::is_space).len();
    let number = python::strip(text);
    is_number(number).then(|| start..start + number.len())
}

/// Sign, integer or decimal, exponent; only the sign and the exponent may be missing.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    is_digits(whole)
        && is_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|text| !text.is_empty() && is_digits(text))
}
