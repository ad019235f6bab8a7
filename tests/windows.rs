//! Window rules at their edges, as the reference programs were seen to behave.

use sd_conditioner::prompt::NoteKind;
use sd_conditioner::tokens::{
    Chunk, Chunks, END_OF_TEXT, FIRST_ADDED_ID, Known, Lexicon, Tokenizer, Trigger,
};
use sd_conditioner::weights::EncoderId;
use sd_conditioner::{Profile, Prompt};

/// Two embeddings: `ti` with two vectors, `wide` that does not fit.
struct Two;

impl Lexicon for Two {
    fn names(&self) -> Vec<String> {
        vec!["ti".into(), "wide".into()]
    }

    fn find(&self, name: &str) -> Known {
        match name {
            "ti" => Known::Fit {
                vectors: 2,
                first_id: FIRST_ADDED_ID,
            },
            "wide" => Known::Unfit {
                vectors: 3,
                why: "1280 channels".into(),
            },
            _ => Known::No,
        }
    }
}

fn windows_of(profile: Profile, encoder: EncoderId, text: &str) -> Chunks {
    let choices = profile.choices();
    let prompt = Prompt::parse(text, choices.dialect);
    let rule = choices.chunk_rule(encoder);
    Chunks::of_pieces(prompt.pieces(), Tokenizer::clip(), rule, &Two)
}

fn windows(profile: Profile, text: &str) -> Chunks {
    windows_of(profile, EncoderId::ClipL, text)
}

/// How many ids stand before the end of each window.
fn lengths(chunks: &Chunks) -> Vec<usize> {
    let end = |chunk: &Chunk| chunk.ids().iter().position(|id| *id == END_OF_TEXT);
    chunks.iter().map(|chunk| end(chunk).unwrap() - 1).collect()
}

#[track_caller]
fn check(profile: Profile, text: &str, expected: &[usize]) {
    assert_eq!(lengths(&windows(profile, text)), expected, "{text:?}");
}

fn cats(n: usize) -> String {
    vec!["cat"; n].join(" ")
}

#[test]
fn a1111_goes_back_to_a_comma() {
    let profile = Profile::A1111;
    check(profile, "", &[0]);
    check(profile, "BREAK a", &[0, 1]);
    check(profile, "a BREAK", &[1]);
    check(profile, "a BREAK BREAK b", &[1, 0, 1]);
    // 55 ids, a comma, 19 more fill the window; the 76th moves all behind the comma on.
    check(profile, &format!("{} , {}", cats(55), cats(20)), &[56, 20]);
    check(profile, &format!("{} , {}", cats(54), cats(21)), &[75, 1]);
    check(profile, &format!("{} , dog", cats(75)), &[75, 2]);
}

#[test]
fn comfyui_moves_small_groups() {
    let profile = Profile::ComfyUi;
    let group = |n| format!("{} ({}:1.2)", cats(70), cats(n));
    check(profile, &group(7), &[70, 7]);
    check(profile, &group(8), &[75, 3]);
    check(profile, &cats(76), &[75, 1]);
    check(profile, "", &[0]);
}

#[test]
fn compel_cuts_at_sentences_first() {
    let list = vec!["cat"; 50].join(", ");
    check(Profile::Compel, &format!("cat dog. {list}"), &[3, 74, 25]);
    let choices = Profile::Compel.choices();
    let prompt = Prompt::parse(&cats(80), choices.dialect);
    let chunks = Chunks::of(
        &prompt,
        Tokenizer::clip(),
        choices.chunk_rule(EncoderId::ClipL),
    );
    assert_eq!(lengths(&chunks), [75, 5]);
}

#[test]
fn stable_diffusion_cpp_fills_at_a_break() {
    let profile = Profile::SdCpp;
    check(profile, "BREAK a", &[1]);
    check(profile, "a BREAK b", &[1, 1]);
    check(profile, &cats(80), &[75, 5]);
    let ids = |encoder| {
        let chunks = windows_of(profile, encoder, "a BREAK b");
        let first = chunks.iter().next().unwrap();
        [
            first.ids()[2],
            first.ids()[3],
            first.ids()[75],
            first.ids()[76],
        ]
    };
    assert_eq!(ids(EncoderId::OpenClipG), [END_OF_TEXT, 0, 0, 0]);
    assert_eq!(ids(EncoderId::OpenClipH), [END_OF_TEXT; 4]);
}

#[test]
fn diffusers_loses_the_rest() {
    let chunks = windows(Profile::Diffusers, &cats(80));
    assert_eq!(lengths(&chunks), [75]);
    assert_eq!(chunks.notes()[0].kind, NoteKind::Cut);
    assert!(windows(Profile::Diffusers, &cats(75)).notes().is_empty());
}

/// Rows of vectors in the n-th window, with the number of the vector.
fn vectors(chunks: &Chunks, window: usize) -> Vec<(usize, usize)> {
    let chunk = chunks.iter().nth(window).unwrap();
    let splices = chunk.splices().iter();
    splices.map(|splice| (splice.row, splice.vector)).collect()
}

#[test]
fn each_tool_has_its_own_trigger() {
    let two = vec![(2, 0), (3, 1)];
    let cases = [
        (Profile::ComfyUi, "a embedding:ti", two.clone()),
        (Profile::ComfyUi, "a ti", vec![]),
        (Profile::ComfyUi, "a,embedding:ti", vec![]),
        (Profile::ComfyUi, "a EMBEDDING:ti", vec![]),
        (Profile::A1111, "a ti", two.clone()),
        (Profile::A1111, "a TI", two.clone()),
        (Profile::A1111, "a tin", vec![]),
        (Profile::Diffusers, "a ti", two.clone()),
        (Profile::Diffusers, "a TI", vec![(2, 0)]),
        (Profile::Diffusers, "atin", two.clone()),
        (Profile::Compel, "a TI", two.clone()),
        (Profile::InvokeAi, "a <ti>", two.clone()),
        (Profile::InvokeAi, "a ti", vec![]),
        (Profile::SdCpp, "a Tin", two),
        (Profile::Plain, "a qq", vec![]),
    ];
    for (profile, text, expected) in cases {
        assert_eq!(
            vectors(&windows(profile, text), 0),
            expected,
            "{profile:?} {text:?}"
        );
    }
    assert_eq!(Profile::ComfyUi.choices().trigger, Trigger::Prefixed);
}

#[test]
fn comfyui_leaves_out_what_is_missing_or_does_not_fit() {
    let missing = windows(Profile::ComfyUi, "a embedding:nothing b");
    assert_eq!(
        missing.iter().next().unwrap().ids()[..4],
        [49406, 320, 321, 49407]
    );
    assert_eq!(missing.notes()[0].kind, NoteKind::UnknownEmbedding);
    assert_eq!(missing.notes()[0].span, 2..21);
    let wide = windows(Profile::ComfyUi, "a embedding:wide b");
    assert_eq!(
        wide.iter().next().unwrap().ids()[..4],
        [49406, 320, 321, 49407]
    );
    assert!(wide.notes()[0].message.contains("1280"));
    let comma = windows(Profile::ComfyUi, "embedding:ti, b");
    assert_eq!(vectors(&comma, 0), [(1, 0), (2, 1)]);
    assert_eq!(comma.iter().next().unwrap().ids()[3..5], [267, 321]);
}

/// Ids move up where a vector is left out, strengths do not.
#[test]
fn comfyui_leaves_strengths_where_they_were() {
    let chunks = windows(Profile::ComfyUi, "embedding:wide, (b:1.4) embedding:ti");
    let chunk = chunks.iter().next().unwrap();
    assert_eq!(chunk.ids()[..3], [49406, 267, 321]);
    assert_eq!(vectors(&chunks, 0), [(3, 0), (4, 1)]);
    // Three vectors, the comma, then the word.
    let strong = (0..77).filter(|row| (chunk.strengths()[*row] - 1.4).abs() < 1e-9);
    assert_eq!(strong.collect::<Vec<_>>(), [5]);
    assert_eq!(chunk.pieces()[1..4], [1, 2, 3]);
    let words = chunk.segments()[1..9].to_vec();
    assert_eq!(words, [1, 1, 1, 2, 3, 4, 4, 0]);
    // As an id, the second of the three takes part again.
    let masked = chunk.clone().with_ids(&[2, 7], 266);
    assert_eq!(masked.ids()[..6], [49406, 266, 267, 321, 0, 266]);
    assert_eq!(masked.splices().len(), 1);
    assert_eq!(masked.splices()[0].row, 4);
    assert_eq!(masked.ids()[6..], chunk.ids()[6..]);
}

/// Every vector counts, tokens up to the end.
#[test]
fn comfyui_pools_behind_vectors_that_follow_the_end() {
    let pool = |text| windows(Profile::ComfyUi, text).iter().next().unwrap().end();
    assert_eq!(pool("a embedding:ti b"), 5);
    assert_eq!(pool("a <|endoftext|> b"), 2);
    assert_eq!(pool("a <|endoftext|> b embedding:ti c"), 4);
    assert_eq!(pool("a <|endoftext|> b embedding:wide c"), 2);
}

/// `bad-hands` fits, `bad-hands-5` is for another family.
struct Longer;

impl Lexicon for Longer {
    fn names(&self) -> Vec<String> {
        vec!["bad-hands".into(), "bad-hands-5".into()]
    }

    fn find(&self, name: &str) -> Known {
        match name {
            "bad-hands" => Known::Fit {
                vectors: 1,
                first_id: FIRST_ADDED_ID,
            },
            "bad-hands-5" => Known::Unfit {
                vectors: 2,
                why: "1280 channels".into(),
            },
            _ => Known::No,
        }
    }
}

/// The tool does not load what does not fit, so it hides nothing.
#[test]
fn a1111_takes_the_longest_name_that_fits() {
    for profile in [Profile::A1111, Profile::Forge] {
        let choices = profile.choices();
        let prompt = Prompt::parse("a bad-hands-5 b", choices.dialect);
        let rule = choices.chunk_rule(EncoderId::ClipL);
        let chunks = Chunks::of_pieces(prompt.pieces(), Tokenizer::clip(), rule, &Longer);
        assert_eq!(vectors(&chunks, 0), [(2, 0)]);
        assert!(chunks.notes().is_empty(), "{:?}", chunks.notes());
    }
}

/// Numbers are those without the embedding; that was said by ComfyUI's profile alone.
#[test]
fn what_does_not_fit_is_told_in_every_manner() {
    let cases = [
        (Profile::ComfyUi, "a embedding:wide b", 2..18),
        (Profile::A1111, "a wide b wide", 0..13),
        (Profile::Forge, "a (wide:1.2)", 3..7),
        (Profile::Diffusers, "a wide b Wide", 2..6),
        (Profile::Compel, "a wide b", 2..6),
        (Profile::InvokeAi, "a <wide> b", 2..8),
        (Profile::SdCpp, "a WIDE b", 2..6),
        (Profile::Plain, "a wide b", 2..6),
    ];
    for (profile, text, span) in cases {
        let chunks = windows(profile, text);
        let [note] = chunks.notes() else {
            panic!("{profile:?}: {:?}", chunks.notes());
        };
        assert_eq!(note.kind, NoteKind::UnknownEmbedding, "{profile:?}");
        assert_eq!(note.span, span, "{profile:?}");
        assert!(note.message.contains("1280 channels"), "{profile:?}");
        if !matches!(profile, Profile::ComfyUi | Profile::SdCpp) {
            let rule = profile.choices().chunk_rule(EncoderId::ClipL);
            let prompt = Prompt::parse(text, profile.choices().dialect);
            let without = Chunks::of(&prompt, Tokenizer::clip(), rule);
            let ids = |chunks: &Chunks| chunks.iter().map(|one| one.ids().to_vec()).collect();
            let both: [Vec<Vec<u32>>; 2] = [ids(&chunks), ids(&without)];
            assert_eq!(both[0], both[1], "{profile:?}");
        }
    }
}

/// The name is a word of the vocabulary then, without its end, or else id 0.
#[test]
fn stable_diffusion_cpp_has_one_id_for_what_does_not_fit() {
    let ids = |lexicon: &dyn Lexicon, text| {
        let choices = Profile::SdCpp.choices();
        let prompt = Prompt::parse(text, choices.dialect);
        let rule = choices.chunk_rule(EncoderId::ClipL);
        let chunks = Chunks::of_pieces(prompt.pieces(), Tokenizer::clip(), rule, lexicon);
        let first = chunks.iter().next().unwrap();
        first.ids()[..6].to_vec()
    };
    let [start, end] = [49406, END_OF_TEXT];
    assert_eq!(ids(&Two, "a WIDE b"), [start, 320, 19341, 321, end, end]);
    assert_eq!(ids(&Two, "awideb"), [start, 320, 19341, 321, end, end]);
    assert_eq!(
        ids(&Other, "a Bad-Hands-5 b"),
        [start, 320, 0, 321, end, end]
    );
}

/// One name, whose file is for another family.
struct Other;

impl Lexicon for Other {
    fn names(&self) -> Vec<String> {
        vec!["bad-hands-5".into()]
    }

    fn find(&self, name: &str) -> Known {
        Longer.find(name)
    }
}

/// `bad-hands` and `Bad-hands-3` begin like others.
struct Nested;

impl Lexicon for Nested {
    fn names(&self) -> Vec<String> {
        ["bad-hands", "bad-hands-5", "Bad-hands-3"]
            .map(str::to_owned)
            .to_vec()
    }

    fn find(&self, name: &str) -> Known {
        Known::Fit {
            vectors: name.len() - "bad-hand".len(),
            first_id: FIRST_ADDED_ID,
        }
    }
}

/// transformers takes the longest, stable-diffusion.cpp the first in the order of their bytes.
#[test]
fn which_of_several_names_is_meant() {
    for (profile, text, n_vectors) in [
        (Profile::SdCpp, "a bad-hands-5 b", 1),
        (Profile::SdCpp, "a bad-hands-3 b", 3),
        (Profile::Diffusers, "a bad-hands-5 b", 3),
        (Profile::Compel, "a bad-hands-5 b", 3),
    ] {
        let choices = profile.choices();
        let prompt = Prompt::parse(text, choices.dialect);
        let rule = choices.chunk_rule(EncoderId::ClipL);
        let chunks = Chunks::of_pieces(prompt.pieces(), Tokenizer::clip(), rule, &Nested);
        assert_eq!(vectors(&chunks, 0).len(), n_vectors, "{profile:?} {text:?}");
    }
}

#[test]
fn a1111_never_splits_an_embedding_and_loses_it_behind_a_comma() {
    let pushed = windows(Profile::A1111, &format!("{} ti", cats(74)));
    assert_eq!(vectors(&pushed, 1), [(1, 0), (2, 1)]);
    let lost = windows(Profile::A1111, &format!("{} , ti {}", cats(56), cats(20)));
    assert_eq!(vectors(&lost, 0), [(58, 0), (59, 1)]);
    assert_eq!(vectors(&lost, 1), []);
    assert_eq!(lost.iter().nth(1).unwrap().ids()[1..3], [0, 0]);
    assert_eq!(lost.notes()[0].kind, NoteKind::Quirk);
}

#[test]
fn transformers_pools_at_the_highest_id() {
    let pool = |profile| windows(profile, "a ti b").iter().next().unwrap().end();
    assert_eq!(pool(Profile::Diffusers), 3); // the second vector
    assert_eq!(pool(Profile::A1111), 5); // the end token
}
