#![no_main]

use libfuzzer_sys::fuzz_target;
use sd_conditioner::prompt::Piece;
use sd_conditioner::prompt::schedule::{Pass, Schedule};
use sd_conditioner::prompt::{comments, compose, networks};
use sd_conditioner::tokens::{Chunks, Tokenizer};
use sd_conditioner::weights::EncoderId;
use sd_conditioner::{Profile, Prompt};

fuzz_target!(|text: &str| {
    for profile in Profile::ALL {
        let rules = profile.choices();
        let prompt = Prompt::parse(text, rules.dialect);
        for piece in prompt.pieces() {
            let (Piece::Text { span, .. } | Piece::Embedding { span, .. } | Piece::Break { span }) =
                piece
            else {
                panic!("a piece of a kind that this target does not know: {piece:?}");
            };
            assert!(text.get(span.clone()).is_some(), "a span outside the text: {piece:?}");
        }
        let chunks = Chunks::of(&prompt, Tokenizer::clip(), rules.chunk_rule(EncoderId::ClipL));
        assert!(chunks.iter().next().is_some());
    }
    let schedule = Schedule::parse(text, Pass::Hires { base: 7, steps: 9 });
    assert!(schedule.entries().last().is_some_and(|last| last.until == 9));
    for part in compose::split(&comments::strip(text)) {
        assert!(part.text.len() <= text.len() + 1);
    }
    let _ = networks::extract(text);
});
