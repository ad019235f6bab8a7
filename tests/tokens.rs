//! Every id of every reference tokenizer, for the same texts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;

use sd_conditioner::error::ErrorKind;
use sd_conditioner::tokens::{Cleaner, TokenId, TokenRule, Tokenizer, VOCABULARY};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::Model;
use tokenizers::models::bpe::BPE;

const MERGES: &str = include_str!("../src/tokens/vocabulary/merges.txt");

/// Which rule computes a column of `tokens.jsonl`, and which column it equals where it is absent.
const COLUMNS: &[(&str, TokenRule, &str)] = &[
    ("ids", rule(Cleaner::HfFast), "ids"),
    ("bang", banged(Cleaner::HfFast), "ids"),
    ("open_clip", rule(Cleaner::OpenClip), "ids"),
    ("openai_clip", rule(Cleaner::OpenAi), "open_clip"),
    ("slow", rule(Cleaner::HfSlow), "ids"),
    ("slow_ftfy", rule(Cleaner::HfSlowFtfy), "ids"),
];

/// Which rule computes a column of `cases.json`.
const CASES: &[(&str, TokenRule)] = &[
    ("openai_clip", rule(Cleaner::OpenAi)),
    ("open_clip", rule(Cleaner::OpenClip)),
    ("hf4_slow_ftfy_pad_eos", rule(Cleaner::HfSlowFtfy)),
    ("hf4_slow_ftfy_pad_bang", banged(Cleaner::HfSlowFtfy)),
    ("hf4_slow_noftfy_pad_eos", rule(Cleaner::HfSlow)),
    ("hf4_slow_noftfy_pad_bang", banged(Cleaner::HfSlow)),
    ("hf4_fast_pad_eos", rule(Cleaner::HfFast4)),
    ("hf4_fast_pad_bang", banged(Cleaner::HfFast4)),
    ("hf5_pad_eos", rule(Cleaner::HfFast)),
    ("hf5_pad_bang", banged(Cleaner::HfFast)),
    ("sdcpp", rule(Cleaner::SdCpp)),
];

const fn rule(cleaner: Cleaner) -> TokenRule {
    TokenRule {
        cleaner,
        bang_is_special: false,
    }
}

const fn banged(cleaner: Cleaner) -> TokenRule {
    TokenRule {
        cleaner,
        bang_is_special: true,
    }
}

fn golden(name: &str) -> String {
    let path = format!("{}/tests/golden/tokens/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).unwrap()
}

fn ids_of(value: &Value) -> Vec<TokenId> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Collects what differs, and shows all of it at once.
#[derive(Default)]
struct Report {
    compared: usize,
    wrong: String,
}

impl Report {
    fn compare(&mut self, column: &str, text: &str, rule: TokenRule, wanted: &[TokenId]) {
        let found = Tokenizer::clip().encode(text, rule);
        self.compared += 1;
        if found != wanted {
            writeln!(
                self.wrong,
                "{column} {text:?}\n  wanted {wanted:?}\n  found  {found:?}"
            )
            .unwrap();
        }
    }

    fn finish(self, wanted: usize) {
        let count = self.wrong.lines().count() / 3;
        assert!(
            count == 0,
            "{count} of {} differ\n{}",
            self.compared,
            self.wrong
        );
        assert_eq!(self.compared, wanted);
    }
}

#[test]
fn ids_equal_the_reference_tokenizers() {
    let mut report = Report::default();
    for line in golden("tokens.jsonl").lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        for (column, rule, otherwise) in COLUMNS {
            let ids = row
                .get(column)
                .or_else(|| row.get(otherwise))
                .unwrap_or(&row["ids"]);
            report.compare(column, row["text"].as_str().unwrap(), *rule, &ids_of(ids));
        }
    }
    report.finish(3400 * COLUMNS.len());
}

#[test]
fn corner_cases_equal_the_reference_tokenizers() {
    let mut report = Report::default();
    let rows: Vec<Value> = serde_json::from_str(&golden("cases.json")).unwrap();
    for row in &rows {
        for (column, rule) in CASES {
            report.compare(
                column,
                row["input"].as_str().unwrap(),
                *rule,
                &ids_of(&row[column]),
            );
        }
    }
    report.finish(74 * CASES.len());
}

/// Mojibake, character references and odd characters, all of which ftfy or `html.unescape` repair.
#[test]
fn repairs_equal_ftfy() {
    let mut report = Report::default();
    let repairs: Vec<(String, Vec<TokenId>)> =
        serde_json::from_str(&golden("repairs.json")).unwrap();
    for (text, ids) in &repairs {
        report.compare("open_clip", text, rule(Cleaner::OpenClip), ids);
    }
    report.finish(repairs.len());
}

#[test]
fn embedded_vocabulary_is_the_hubs_merges_file() {
    let mut digest = String::new();
    for byte in Sha256::digest(MERGES) {
        write!(digest, "{byte:02x}").unwrap();
    }
    assert_eq!(
        digest,
        "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"
    );
}

#[test]
fn landmarks() {
    let landmarks = [
        ("!", 0),
        ("!</w>", 256),
        ("+</w>", 266),
        (",</w>", 267),
        (".</w>", 269),
        (":</w>", 281),
        (";</w>", 282),
        ("a</w>", 320),
        ("!!!</w>", 995),
        ("cat</w>", 2368),
        ("dog</w>", 1929),
        ("break</w>", 2568),
        ("and</w>", 537),
        ("<|startoftext|>", 49406),
        ("<|endoftext|>", 49407),
    ];
    for (piece, id) in landmarks {
        assert_eq!(Tokenizer::clip().piece(id), Some(piece));
        if let Some(word) = piece.strip_suffix("</w>") {
            assert_eq!(
                Tokenizer::clip().encode(word, TokenRule::default()),
                [id],
                "{word}"
            );
        }
    }
    assert_eq!(Tokenizer::clip().piece(49408), None);
    assert_eq!(Tokenizer::clip().piece(TokenId::MAX), None);
}

/// Where transformers 5 looks for its specials: run with 5.23 and the tokenizer folder of SD 1.x,
/// then with `!` as its padding token.
/// The iota below is a mark that folds to a letter: Python's `regex`, ignoring case, matches it with no
/// alternative.
#[test]
fn python_tokenizers_drop_the_iota_below() {
    let ids = |text, cleaner| Tokenizer::clip().encode(text, rule(cleaner));
    for cleaner in [Cleaner::OpenAi, Cleaner::OpenClip, Cleaner::HfSlowFtfy] {
        assert_eq!(ids("!\u{345}!", cleaner), [256, 256]);
        assert_eq!(ids("x\u{345}y", cleaner), ids("x y", cleaner));
        assert!(ids("\u{345}", cleaner).is_empty());
    }
    assert!(!ids("\u{345}", Cleaner::HfFast).is_empty());
}

/// Characters of later versions of Unicode than those of the `tokenizers` crate (9.0) and of Python 3.11 (14.0).
#[test]
fn later_characters_stay_as_they_are() {
    let mut report = Report::default();
    let rows: Vec<(String, String, Vec<TokenId>)> =
        serde_json::from_str(&golden("later.json")).unwrap();
    for (column, text, ids) in &rows {
        let (_, rule, _) = COLUMNS.iter().find(|(name, ..)| name == column).unwrap();
        report.compare(column, text, *rule, ids);
    }
    report.finish(15);
}

#[test]
fn transformers_5_finds_specials_before_or_after_normalizing() {
    let check = |text: &str, plain: &[TokenId], bang: &[TokenId]| {
        assert_eq!(
            Tokenizer::clip().encode(text, rule(Cleaner::HfFast)),
            plain,
            "{text:?}"
        );
        assert_eq!(
            Tokenizer::clip().encode(text, banged(Cleaner::HfFast)),
            bang,
            "{text:?}"
        );
    };
    check("a<|StartOfText|>b", &[320, 49406, 321], &[320, 49406, 321]);
    let words = [320, 27, 347, 40786, 4160, 91, 285, 321];
    check("a<|EndOfText|>b", &words, &[320, 49407, 321]);
    let crossed = [27, 347, 40786, 4160, 91, 22684, 363];
    check("<|endoftext|>\u{338}", &[49407, 136, 372], &crossed);
    let words = [2781, 1443, 27, 347, 40786, 4160, 91, 29, 256];
    check("wow!!<|ENDOFTEXT|>!", &words, &[2781, 0, 0, 49407, 0]);
}

#[test]
fn decoding_gives_the_words_back() {
    let check = |text: &str, wanted: &str| {
        let ids = Tokenizer::clip().encode(text, TokenRule::default());
        assert_eq!(Tokenizer::clip().decode(&ids), wanted, "{text:?}");
    };
    check("", "");
    check("A photo of a cat, 8k", "a photo of a cat , 8 k");
    check("café 日本語 😀", "café 日本語 😀");
    check("cat<|endoftext|>dog", "cat dog");
    assert_eq!(
        Tokenizer::clip().decode(&[49406, 320, 2368, 49407, 49407]),
        "a cat"
    );
    assert_eq!(Tokenizer::clip().decode(&[127, 50000]), "\u{fffd}");
}

/// The merges of words agree with the `tokenizers` crate's model, seen through the same alphabet.
#[test]
fn merges_equal_the_tokenizers_crate() {
    let tokenizer = Tokenizer::clip();
    let pieces: HashMap<&str, TokenId> = (0..)
        .take(VOCABULARY)
        .map(|id| (tokenizer.piece(id).unwrap(), id))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = |name| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(file("vocab.json"), serde_json::to_string(&pieces).unwrap()).unwrap();
    fs::write(file("merges.txt"), MERGES).unwrap();
    let model = BPE::from_file(&file("vocab.json"), &file("merges.txt"));
    let model = model.end_of_word_suffix("</w>".to_owned()).build().unwrap();
    let mut random = Random(11);
    for _ in 0..3000 {
        let letters = [
            "abcdefghijklmnopqrstuvwxyz",
            "ab",
            "aeiourstln",
            "haha",
            "x",
        ];
        let letters: Vec<char> = letters[random.below(5)].chars().collect();
        let word: String = (0..=random.below(40))
            .map(|_| *random.of(&letters))
            .collect();
        let wanted: Vec<u32> = model
            .tokenize(&word)
            .unwrap()
            .iter()
            .map(|t| t.id)
            .collect();
        assert_eq!(
            tokenizer.encode(&word, TokenRule::default()),
            wanted,
            "{word}"
        );
    }
}

#[test]
fn merges_may_come_with_any_line_ends_and_header() {
    let body = MERGES.split_once('\n').unwrap().1;
    let openai = format!("\"bpe_simple_vocab_16e6.txt#version: 0.2\n{body}");
    let files = [
        MERGES,
        body,
        &MERGES.replace('\n', "\r\n"),
        MERGES.trim_end(),
        &openai,
        &format!("#\n{body}\n\n"),
    ];
    for file in files {
        let tokenizer = Tokenizer::from_merges(file).unwrap();
        assert_eq!(
            tokenizer.encode("a cat!!!", TokenRule::default()),
            [320, 2368, 995]
        );
        assert_eq!(tokenizer.piece(49407), Some("<|endoftext|>"));
    }
}

#[test]
fn broken_merges_are_refused() {
    let check = |text: &str, said: &str| {
        let error = Tokenizer::from_merges(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Vocabulary);
        assert!(error.to_string().contains(said), "{error}");
    };
    let with_line = |number: usize, line: &str| {
        let mut lines: Vec<&str> = MERGES.lines().collect();
        lines[number - 1] = line;
        lines.join("\n")
    };
    check("", "48894 merges, this text has 0");
    check("#version: 0.2\n", "this text has 0");
    check(&MERGES.repeat(2), "this text has 97789");
    check(&MERGES[..MERGES.len() / 2], "this text has 2");
    check(&with_line(5, "i n"), "merges line 5: `in` is a duplicate");
    check(&with_line(7, "in"), "merges line 7: expected two pieces");
    check(&with_line(7, "i n g"), "merges line 7: expected two pieces");
    check(&with_line(7, ""), "merges line 7: expected two pieces");
    check(
        &with_line(7, "zzz y"),
        "merges line 7: `zzz` is neither a byte nor an earlier merge",
    );
    check(
        &with_line(7, "e</w> y"),
        "merges line 7: `e</w>` ends a word already",
    );
}

#[test]
fn any_text_has_ids_in_the_vocabulary() {
    let mut random = Random(7);
    let seeds: Vec<char> =
        "aZ 0'!<|>&#;x\n\r\t\0\x1a\x1b[31mâ€™Ã©ÐŸ½í\u{a0}\u{80}\u{fffd}ΣİſŉＡ｢日👩\u{200d}\u{301}"
            .chars()
            .collect();
    let every: Vec<char> = ('\0'..=char::MAX).collect();
    for _ in 0..4000 {
        let text: String = (0..random.below(40))
            .map(|_| match random.below(3) {
                0 => *random.of(&every),
                _ => *random.of(&seeds),
            })
            .collect();
        for (_, rule) in CASES {
            let ids = Tokenizer::clip().encode(&text, *rule);
            assert!(ids.iter().all(|id| (*id as usize) < VOCABULARY), "{text:?}");
        }
    }
}

#[test]
fn long_texts_are_not_cut() {
    for (_, rule) in CASES {
        let words = "cat ".repeat(2500);
        assert_eq!(Tokenizer::clip().encode(&words, *rule), vec![2368; 2500]);
        let word = "x".repeat(10_000) + &"é".repeat(10_000);
        assert!(Tokenizer::clip().encode(&word, *rule).len() > 1000);
    }
}

/// A small generator (xorshift), the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
