//! Many requests in one call give what each gives alone, bit for bit.

use sd_conditioner::conditioner::CacheOptions;
use sd_conditioner::profile::DIALECTS;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{
    Conditioner, Conditioning, Embeddings, Emphasis, Family, Profile, Request, SizeHints,
};

use crate::support::close::bits;
use crate::support::embeddings;
use crate::support::entries::Stored;

const LONG: &str = "a sprawling night market beside a slow river, paper lanterns in every colour, \
    steam rising from copper pots, children chasing a small brown dog between the stalls, a \
    violinist under a striped awning, wet cobblestones reflecting neon, distant mountains under a \
    thin crescent moon, a wooden bridge crowded with people, cables of fairy lights, detailed \
    brushwork, warm highlights and deep blue shadows";

/// Strengths, embeddings, broken brackets, blends, nothing: in each tool's own syntax or not.
const TEXTS: [&str; 9] = [
    "a photo of a cat",
    LONG,
    "",
    "a (red:1.4) car [beside] ((trees)) BREAK embedding:synth-xl-two (synth-xl-two:1.2)",
    "a red++ car (beside)0.4 trees-- <synth-xl-two>",
    r#"("a cat", "a dog+").blend(0.3, 0.6, no_normalize)"#,
    r#"("a cat", "a dog+").and(1, 0.5)"#,
    "((((broken :1.2.3) ]]] \\",
    "(a:nan) (b:1e400) embedding:missing \u{0} é 日本語",
];

fn requests(set: &Embeddings) -> Vec<Request<'_>> {
    let mut requests = Vec::new();
    for profile in Profile::ALL {
        for text in TEXTS {
            requests.push(Request::new(text).profile(profile).embeddings(set));
        }
        requests.push(Request::new("").profile(profile).as_negative());
        requests.push(Request::absent().profile(profile).as_negative());
        requests.push(Request::per_encoder("a cat", LONG).profile(profile));
    }
    for (_, dialect) in DIALECTS {
        let emphasis = Emphasis::named("adv:length+mean:compel").unwrap();
        let request = Request::new(TEXTS[3]).dialect(dialect).emphasis(emphasis);
        requests.push(request.embeddings(set));
    }
    let skipped = Request::new("a photo of a cat").profile(Profile::ComfyUi);
    requests.push(skipped.clip_skip(-3).size(SizeHints::new(640, 1536)));
    requests
}

#[test]
fn a_batch_equals_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    embeddings::write(folder.path(), Stored::F32);
    let set = Embeddings::folder(folder.path()).unwrap();
    for family in Family::ALL {
        let conditioner = Conditioner::builder()
            .cache(CacheOptions::OFF) // or the second would be a copy of the first
            .random_weights(family, SyntheticSize::Tiny, 5)
            .unwrap();
        let requests = requests(&set);
        let together = conditioner.encode_batch(&requests).unwrap();
        for (index, (request, joint)) in requests.into_iter().zip(together).enumerate() {
            let alone = conditioner.encode(request).unwrap();
            let what = format!("{family}, request {index}");
            let pooled = |side: &Conditioning| side.pooled().map(bits);
            assert!(bits(alone.context()) == bits(joint.context()), "{what}");
            assert!(pooled(&alone) == pooled(&joint), "{what}: pooled");
            assert_eq!(alone.notes(), joint.notes(), "{what}");
        }
    }
}

#[test]
fn a_pair_has_one_length() {
    let conditioner = Conditioner::builder()
        .random_weights(Family::Sdxl, SyntheticSize::Tiny, 5)
        .unwrap();
    for profile in Profile::ALL {
        for (first, second) in [(LONG, "blurry"), ("blurry", LONG), (LONG, LONG), ("", "")] {
            let positive = Request::new(first).profile(profile);
            let negative = Request::new(second).profile(profile);
            let pair = conditioner.encode_pair(positive, negative).unwrap();
            let long = first == LONG || second == LONG && profile != Profile::Diffusers;
            let windows = if long && profile != Profile::Diffusers {
                2
            } else {
                1
            };
            assert_eq!(pair.positive().tokens(), 77 * windows, "{profile:?}");
            assert_eq!(pair.stacked().unwrap().context().dims()[0], 2);
        }
    }
}

/// Pairs of all lengths in one call, in every tool's way to one length.
#[test]
fn pairs_together_equal_pairs_alone() {
    let text = Conditioner::builder()
        .random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)
        .unwrap();
    let texts = [TEXTS[0], LONG, "", TEXTS[3]];
    let sides = texts
        .iter()
        .flat_map(|one| texts.map(|other| [*one, other]));
    let pairs = sides.flat_map(|pair| {
        Profile::ALL.map(|profile| pair.map(|text| Request::new(text).profile(profile)))
    });
    let pairs: Vec<[Request<'_>; 2]> = pairs.collect();
    let together = text.encode_pairs(&pairs).unwrap();
    assert_eq!(together.len(), pairs.len());
    for (place, ([positive, negative], both)) in pairs.into_iter().zip(&together).enumerate() {
        let alone = text.encode_pair(positive, negative).unwrap();
        for (one, other) in [
            (alone.positive(), both.positive()),
            (alone.negative(), both.negative()),
        ] {
            assert_eq!(bits(one.context()), bits(other.context()), "{place}");
            assert_eq!(one.notes(), other.notes(), "{place}");
        }
    }
    assert!(text.encode_pairs(&[]).unwrap().is_empty());
}
