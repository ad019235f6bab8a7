//! Parsing and tokenizing 10,000 prompts of 60 words on one thread; beside them, if asked, OpenAI's
//! own tokenizer in Python.
//!
//! `cargo bench --bench prompts [-- --python PROGRAM]`, where PROGRAM is a Python 3 that has the
//! package `clip` or `clip-anytorch` (with ftfy and regex; torch is not needed). Both sides get the
//! same 500 plain prompts, and their ids are compared.
#![expect(clippy::print_stdout, reason = "a program that shows what it measures")]

use std::hint::black_box;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use sd_conditioner::tokens::{Chunks, Cleaner, TokenId, TokenRule, Tokenizer};
use sd_conditioner::weights::EncoderId;
use sd_conditioner::{Dialect, Profile, Prompt};

const PROMPTS: usize = 10_000;
const WORDS: usize = 60;
const PYTHON_PROMPTS: usize = 500;
const RUNS: usize = 5;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words = words();
    let marked: Vec<String> = (0..PROMPTS).map(|n| prompt(&words, n, true)).collect();
    black_box(Tokenizer::clip()); // reads the vocabulary
    println!("| {PROMPTS} prompts of {WORDS} words | ms, median (min) |\n|---|---|");
    for (profile, dialect) in [
        (Profile::ComfyUi, Dialect::ComfyUi),
        (Profile::A1111, Dialect::A1111),
    ] {
        row(profile, dialect, &marked);
    }
    match arguments.iter().position(|one| one == "--python") {
        Some(place) => {
            let program = arguments.get(place + 1).ok_or("--python needs a program")?;
            beside_python(program, &words)?;
        }
        None => println!("\nNo Python program was named; nothing beside it."),
    }
    Ok(())
}

/// Text to windows of ViT-L, each step of it.
fn row(profile: Profile, dialect: Dialect, prompts: &[String]) {
    let rule = profile.choices().chunk_rule(EncoderId::ClipL);
    let parse = || {
        for text in prompts {
            black_box(Prompt::parse(text, dialect));
        }
    };
    let chunk = || {
        for text in prompts {
            let prompt = Prompt::parse(text, dialect);
            black_box(Chunks::of(&prompt, Tokenizer::clip(), rule));
        }
    };
    for (what, (median, least)) in [("parse", time(parse)), ("parse, tokenize", time(chunk))] {
        println!("| {what}, {profile:?} | {median:.1} ({least:.1}) |");
    }
}

/// Words that the vocabulary holds whole, and as many that it must put together.
fn words() -> Vec<String> {
    let pieces = (0..20_000).filter_map(|id| Tokenizer::clip().piece(id)?.strip_suffix("</w>"));
    let whole = |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let whole: Vec<&str> = pieces.filter(whole).collect();
    let pairs = whole.iter().zip(whole.iter().rev());
    let rare = pairs.map(|(one, two)| format!("{one}{two}"));
    let common = whole.iter().map(|word| (*word).to_owned());
    common.zip(rare).flat_map(|(one, two)| [one, two]).collect()
}

/// The prompt of this number: every fifth word is a rare one; marks stand at every tenth.
fn prompt(words: &[String], number: usize, marked: bool) -> String {
    let mut state = number as u64 + 1;
    let mut text = String::new();
    for place in 0..WORDS {
        // Knuth's MMIX generator.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let pair = usize::try_from(state >> 33).unwrap_or_default() % (words.len() / 2);
        let word = &words[2 * pair + usize::from(place % 5 == 4)];
        text.push_str(match place {
            0 => "",
            _ if place % 7 == 0 => ", ",
            _ => " ",
        });
        let (before, after) = match place % 10 {
            3 if marked => ("(", ":1.2)"),
            8 if marked => ("(", ")"),
            _ => ("", ""),
        };
        text.extend([before, word, after]);
    }
    text
}

/// The same plain prompts through both, ids compared.
fn beside_python(program: &str, words: &[String]) -> Result<(), Error> {
    let texts: Vec<String> = (0..PYTHON_PROMPTS)
        .map(|n| prompt(words, n, false))
        .collect();
    let rule = TokenRule {
        cleaner: Cleaner::OpenAi,
        ..TokenRule::default()
    };
    let encode = |text: &String| Tokenizer::clip().encode(text, rule);
    let ids: Vec<Vec<TokenId>> = texts.iter().map(encode).collect();
    let (ours, _) = time(|| {
        for text in &texts {
            black_box(encode(text));
        }
    });
    let (theirs, their_ids) = run_python(program, &texts)?;
    show_times(ours, theirs);
    let both = ids.iter().zip(&their_ids);
    let equal = both.filter(|(ours, theirs)| ours == theirs).count();
    println!("\n{equal} of {} prompts have the same ids.", ids.len());
    Ok(())
}

fn show_times(ours: f64, (first, again): (f64, f64)) {
    println!("\n| {PYTHON_PROMPTS} plain prompts of {WORDS} words | ms | ratio |\n|---|---|---|");
    println!("| ours | {ours:.2} | 1 |");
    println!(
        "| OpenAI's in Python, every word new | {first:.1} | {:.0} |",
        first / ours
    );
    println!(
        "| the same, every word in its cache | {again:.1} | {:.0} |",
        again / ours
    );
}

type Both = ((f64, f64), Vec<Vec<TokenId>>);

/// Milliseconds of the first pass and the second, and the ids.
fn run_python(program: &str, texts: &[String]) -> Result<Both, Error> {
    let mut child = Command::new(program)
        .args(["-c", include_str!("prompts.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = serde_json::to_vec(texts)?;
    child.stdin.take().ok_or("no input")?.write_all(&input)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("{program}: {}", output.status).into());
    }
    let (first, again, ids) = serde_json::from_slice(&output.stdout)?;
    Ok(((first, again), ids))
}

/// Median and least of some runs in milliseconds, after one to warm up.
fn time(mut work: impl FnMut()) -> (f64, f64) {
    work();
    let mut times: Vec<f64> = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        work();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    (times[RUNS / 2], times[0])
}
