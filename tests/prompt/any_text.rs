//! What must hold for any text in any dialect.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sd_conditioner::prompt::schedule::{Pass, Schedule};
use sd_conditioner::prompt::{Piece, comments, compose, networks};
use sd_conditioner::{Dialect, Prompt};

const ALL: &[Dialect] = &[
    Dialect::Plain,
    Dialect::ComfyUi,
    Dialect::A1111,
    Dialect::Compel,
    Dialect::SdCpp,
    Dialect::LpwSd,
    Dialect::LpwSdxl,
    Dialect::Kohya,
];

/// Spans lie in the text, on character boundaries, one after the other.
fn check_spans(prompt: &Prompt) {
    let source = prompt.source();
    let mut last = 0;
    for piece in prompt.pieces() {
        let (Piece::Text { span, .. } | Piece::Break { span }) = piece else {
            panic!("{piece:?}")
        };
        assert!(
            last <= span.start && span.start <= span.end,
            "{source:?}: {piece:?}"
        );
        assert!(source.get(span.clone()).is_some(), "{source:?}: {piece:?}");
        last = span.end;
    }
    for note in prompt.notes() {
        assert!(
            source.get(note.span.clone()).is_some(),
            "{source:?}: {note:?}"
        );
    }
}

fn check_any(text: &str) {
    for dialect in ALL {
        check_spans(&Prompt::parse(text, *dialect));
    }
    let pass = Pass::Hires { base: 7, steps: 9 };
    assert_eq!(
        Schedule::parse(text, pass).entries().last().unwrap().until,
        9
    );
    for part in compose::split(&comments::strip(text)) {
        assert!(part.text.len() <= text.len() + 1);
    }
    let (kept, networks) = networks::extract(text);
    let cut: usize = networks.iter().map(|network| network.span.len()).sum();
    assert_eq!(kept.len() + cut, text.len());
}

proptest! {
    #[test]
    fn any_text_parses(text in any::<String>()) {
        check_any(&text);
    }

    #[test]
    fn any_syntax_parses(text in r#"([()\[\]:|\\"'+\-.,=<>#a é]|BREAK|AND|:1\.2\)|\.swap\(|\.and\(\)|embedding:|\n){0,40}"#) {
        check_any(&text);
    }

    #[test]
    fn text_without_syntax_is_plain(text in "[a-z0-9]{1,5}( [a-z0-9é]{1,5}){0,6}") {
        for dialect in ALL {
            let prompt = Prompt::parse(&text, *dialect);
            let plain = Prompt::parse(&text, Dialect::Plain);
            prop_assert_eq!(prompt.pieces(), plain.pieces());
            prop_assert!(!prompt.has_emphasis() && prompt.notes().is_empty());
        }
    }
}

/// Far above what it takes; quadratic reading would take hours.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn deep_nesting_is_read_in_time() {
    let n = 100_000;
    let texts = [
        "(".repeat(1_000_000),
        ")".repeat(n),
        format!("{}a{}", "(".repeat(n), ")".repeat(n)),
        format!("{}a{}", "[".repeat(n / 5), ":1]".repeat(n / 5)),
        format!("{}{}", "(a ".repeat(n / 5), ")".repeat(n / 5)),
        format!("{}{}", "( ".repeat(n / 5), ") ".repeat(n / 5)),
        format!("{}a:1.2)", "(".repeat(n)),
        "\"a \\".repeat(n),
        "(a BREAK b:1.2) ".repeat(n / 10),
        "<a:".repeat(n),
        format!("a{}", "+".repeat(n)),
    ];
    let start = Instant::now();
    for text in &texts {
        check_any(text);
    }
    assert!(start.elapsed() < LIMIT, "took {:?}", start.elapsed());
}
