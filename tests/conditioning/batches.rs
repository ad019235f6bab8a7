//! Many requests in one call give what each gives alone, bit for bit.

use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request, SizeHints};

use crate::support::close::bits;

const LONG: &str = "a sprawling night market beside a slow river, paper lanterns in every colour, \
    steam rising from copper pots, children chasing a small brown dog between the stalls, a \
    violinist under a striped awning, wet cobblestones reflecting neon, distant mountains under a \
    thin crescent moon, a wooden bridge crowded with people, cables of fairy lights, detailed \
    brushwork, warm highlights and deep blue shadows";

fn requests() -> Vec<Request<'static>> {
    let mut requests = Vec::new();
    for profile in Profile::ALL {
        requests.push(Request::new("a photo of a cat").profile(profile));
        requests.push(Request::new(LONG).profile(profile));
        requests.push(Request::new("").profile(profile).as_negative());
        requests.push(Request::absent().profile(profile).as_negative());
        requests.push(Request::per_encoder("a cat", LONG).profile(profile));
    }
    let skipped = Request::new("a photo of a cat").profile(Profile::ComfyUi);
    requests.push(skipped.clip_skip(-3).size(SizeHints::new(640, 1536)));
    requests
}

#[test]
fn a_batch_equals_its_parts() {
    for family in Family::ALL {
        let conditioner = Conditioner::builder()
            .random_weights(family, SyntheticSize::Tiny, 5)
            .unwrap();
        let requests = requests();
        let together = conditioner.encode_batch(&requests).unwrap();
        for (index, (request, joint)) in requests.into_iter().zip(together).enumerate() {
            let alone = conditioner.encode(request).unwrap();
            let what = format!("{family}, request {index}");
            let pooled = |side: &Conditioning| side.pooled().map(bits);
            assert!(bits(alone.context()) == bits(joint.context()), "{what}");
            assert!(pooled(&alone) == pooled(&joint), "{what}: pooled");
        }
    }
}

#[test]
fn a_pair_has_one_length() {
    let conditioner = Conditioner::builder()
        .random_weights(Family::Sdxl, SyntheticSize::Tiny, 5)
        .unwrap();
    for (profile, windows) in [
        (Profile::Diffusers, 1),
        (Profile::ComfyUi, 2),
        (Profile::A1111, 2),
    ] {
        let positive = Request::new(LONG).profile(profile);
        let negative = Request::new("blurry").profile(profile);
        let pair = conditioner.encode_pair(positive, negative).unwrap();
        assert_eq!(pair.positive().tokens(), 77 * windows, "{profile:?}");
        assert_eq!(pair.stacked().unwrap().context().dims()[0], 2);
    }
}
