//! Pairs that are planned first and encoded later, elsewhere.

use std::thread;

use sd_conditioner::conditioner::{CacheOptions, PlannedPair, PlannedPrompt};
use sd_conditioner::weights::{EncoderId, LoraFolder, SyntheticSize};
use sd_conditioner::{
    Conditioner, Embeddings, Emphasis, ErrorKind, Family, Guidance, Profile, Request, SizeHints,
};

use crate::support::close::bits;
use crate::support::entries::Stored;
use crate::support::{embeddings, loras};

const EMPHASIZED: &str = "a (red:1.4) car embedding:synth-xl-two";

fn conditioner(family: Family) -> Conditioner {
    Conditioner::builder()
        .cache(CacheOptions::OFF)
        .random_weights(family, SyntheticSize::Tiny, 7)
        .unwrap()
}

fn same(one: &Guidance, other: &Guidance, what: &str) {
    for (one, other) in [
        (one.positive(), other.positive()),
        (one.negative(), other.negative()),
    ] {
        assert!(bits(one.context()) == bits(other.context()), "{what}");
        assert!(
            one.pooled().map(bits) == other.pooled().map(bits),
            "{what}: pooled"
        );
        assert!(
            one.time_ids().map(bits) == other.time_ids().map(bits),
            "{what}: sizes"
        );
        assert_eq!(one.notes(), other.notes(), "{what}");
    }
}

/// Everything that a request can say is in the plan, and the plan outlives what it was made of.
#[test]
fn a_plan_of_another_thread_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    embeddings::write(folder.path(), Stored::F32);
    let set = Embeddings::folder(folder.path()).unwrap();
    let long = "a wooden bridge, crowded with people, ".repeat(12);
    for family in Family::ALL {
        let text = conditioner(family);
        for profile in Profile::ALL {
            let request = |prompt| Request::new(prompt).profile(profile).embeddings(&set);
            let sized = request(&long).size(SizeHints::new(640, 1536));
            let pairs = [
                [request(EMPHASIZED), request("fog")],
                [sized, Request::absent().profile(profile)],
                [
                    Request::per_encoder("a cat", "a dog").profile(profile),
                    request(""),
                ],
            ];
            let plan = |pair: &[Request<'_>; 2]| {
                let [positive, negative] = pair.clone();
                text.plan_pair(positive, negative).unwrap()
            };
            let plan_all = || pairs.iter().map(plan).collect::<Vec<PlannedPair>>();
            let plans = thread::scope(|scope| scope.spawn(plan_all).join().unwrap());
            let together = text.encode_planned(&plans).unwrap();
            assert_eq!(together.len(), pairs.len());
            for (plan, guidance) in plans.iter().zip(&together) {
                let rows = guidance.positive().tokens();
                let at_most = plan.tokens();
                assert!(rows <= at_most && at_most < rows + 77, "{rows} {at_most}");
            }
            for ([positive, negative], guidance) in pairs.into_iter().zip(&together) {
                let alone = text.encode_pair(positive, negative).unwrap();
                same(&alone, guidance, &format!("{family}, {profile:?}"));
            }
        }
    }
}

#[test]
fn windows_are_those_that_run() {
    let text = conditioner(Family::Sdxl);
    let plan = |prompt: &str, emphasis: &str| {
        let positive = Request::new(prompt).profile(Profile::ComfyUi);
        let positive = positive.emphasis(Emphasis::named(emphasis).unwrap());
        text.plan_pair(positive, Request::new("fog")).unwrap()
    };
    let count = |plan: &PlannedPair, encoder| plan.windows(encoder).count();
    let plain = plan("a red car", "comfyui");
    assert_eq!(count(&plain, EncoderId::ClipL), 2);
    assert_eq!(count(&plain, EncoderId::OpenClipG), 2);
    assert_eq!(count(&plain, EncoderId::OpenClipH), 0);
    // ComfyUI's emphasis goes away from the empty prompt.
    assert_eq!(
        count(&plan("a (red:1.4) car", "comfyui"), EncoderId::ClipL),
        3
    );
    let ids = plain
        .windows(EncoderId::ClipL)
        .map(|window| window.ids()[1]);
    assert_eq!(ids.collect::<Vec<_>>(), [320, 9417]);
}

/// Windows with vectors of one set are equal, whichever clone of the set a plan holds.
#[test]
fn equal_windows_with_vectors_are_encoded_once() {
    let folder = tempfile::tempdir().unwrap();
    embeddings::write(folder.path(), Stored::F32);
    let set = Embeddings::folder(folder.path()).unwrap();
    let text = Conditioner::builder()
        .random_weights(Family::Sd1, SyntheticSize::Tiny, 7)
        .unwrap();
    let prompt = "a car embedding:synth-xl-two";
    let plan = |set: &Embeddings, height| {
        let positive = Request::new(prompt)
            .profile(Profile::ComfyUi)
            .embeddings(set);
        let negative = positive.clone();
        text.plan_pair(positive.size(SizeHints::new(height, 512)), negative)
            .unwrap()
    };
    let plans = [plan(&set, 512), plan(&set.clone(), 640)];
    assert!(
        plans[0]
            .windows(EncoderId::ClipL)
            .all(|window| !window.splices().is_empty())
    );
    text.encode_planned(&plans).unwrap();
    assert_eq!(text.cache_stats().misses, 1);
    // The same file in another set may be another vector for all that is known.
    let other = Embeddings::folder(folder.path()).unwrap();
    text.clear_cache();
    text.encode_planned(&[plan(&set, 512), plan(&other, 512)])
        .unwrap();
    assert_eq!(text.cache_stats().misses, 3);
}

#[test]
fn what_cannot_be_encoded_is_refused() {
    let (sd1, sdxl) = (conditioner(Family::Sd1), conditioner(Family::Sdxl));
    let plan = sd1.plan_pair("a cat", "fog").unwrap();
    let error = sdxl.encode_planned([&plan]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let none: [&PlannedPair; 0] = [];
    assert!(sd1.encode_planned(none).unwrap().is_empty());
    let negative_skip = Request::new("a cat").profile(Profile::A1111).clip_skip(-2);
    assert!(sd1.plan_pair(negative_skip, "fog").is_err());
}

#[test]
fn loras_on_the_encoders_are_no_hindrance_and_those_of_a_prompt_are() {
    let folder = tempfile::tempdir().unwrap();
    loras::write(folder.path(), 9, Stored::F32);
    let found = LoraFolder::open(folder.path()).unwrap();
    let (name, text) = ("sd1.kohya", conditioner(Family::Sd1));
    let lora = found.get(name).unwrap().unwrap();
    let worn = text.with_loras(&[lora.at(0.8)]).unwrap();
    let plan = text.plan_pair("a cat", "fog").unwrap();
    let [bare, dressed] =
        [&text, &worn].map(|text| text.encode_planned([&plan]).unwrap().remove(0));
    same(
        &dressed,
        &worn.encode_pair("a cat", "fog").unwrap(),
        "dressed",
    );
    assert!(bits(bare.positive().context()) != bits(dressed.positive().context()));
    let prompt = format!("a cat <lora:{name}:0.8>");
    let request = Request::new(&prompt).profile(Profile::A1111);
    let error = text
        .plan_pair(request.clone().loras(&found), "fog")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    // Without a folder they are words that are taken out.
    assert!(text.plan_pair(request, "fog").is_ok());
}

/// A prompt that no negative goes with is what it is beside one that is not longer.
#[test]
fn a_prompt_alone_is_what_it_is_in_a_pair() {
    let folder = tempfile::tempdir().unwrap();
    embeddings::write(folder.path(), Stored::F32);
    let set = Embeddings::folder(folder.path()).unwrap();
    let long = "a wooden bridge, crowded with people, ".repeat(12);
    for family in Family::ALL {
        let text = conditioner(family);
        for profile in Profile::ALL {
            let request = |prompt| Request::new(prompt).profile(profile).embeddings(&set);
            let prompts = [
                request(EMPHASIZED),
                request(&long).size(SizeHints::new(640, 1536)),
                Request::per_encoder("a cat", &long).profile(profile),
                request(""),
            ];
            let plan = |prompt: &Request<'_>| text.plan_prompt(prompt.clone()).unwrap();
            let plans: Vec<PlannedPrompt> = prompts.iter().map(plan).collect();
            let together = text.encode_planned_prompts(&plans).unwrap();
            for ((prompt, plan), one) in prompts.iter().zip(&plans).zip(&together) {
                let absent = Request::absent().profile(profile);
                let pair = text.encode_pair(prompt.clone(), absent).unwrap();
                let beside = pair.positive();
                let what = format!("{family}, {profile:?}");
                assert!(one.tokens() <= plan.tokens(), "{what}");
                assert!(bits(one.context()) == bits(beside.context()), "{what}");
                assert!(
                    one.pooled().map(bits) == beside.pooled().map(bits),
                    "{what}"
                );
                assert!(one.time_ids().map(bits) == beside.time_ids().map(bits));
                assert_eq!(one.notes(), beside.notes(), "{what}");
            }
        }
    }
    let (sd1, sdxl) = (conditioner(Family::Sd1), conditioner(Family::Sdxl));
    let plan = sd1.plan_prompt("a cat").unwrap();
    assert_eq!(plan.windows(EncoderId::OpenClipG).count(), 0);
    assert_eq!(plan.windows(EncoderId::ClipL).count(), 1);
    let error = sdxl.encode_planned_prompts([&plan]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(sdxl.encode_planned_prompts([]).unwrap().is_empty());
}
