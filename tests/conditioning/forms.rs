//! Emphasis that encodes the whole text once more for each fragment: no small text takes all memory.

use std::time::Instant;

use sd_conditioner::conditioner::{FORM_WINDOWS_AT_MOST, chunks_for};
use sd_conditioner::conditioning::Emphasis;
use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Error, ErrorKind, Family, Profile, Request};

fn text() -> Conditioner {
    let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73);
    text.unwrap()
}

/// Every way to plan or encode it.
fn refusals(text: &Conditioner, request: &Request<'_>) -> Vec<Error> {
    let (one, many) = (request.clone(), std::slice::from_ref(request));
    let plain = Request::new("a cat");
    let pair = [plain.clone(), one.clone()];
    vec![
        text.encode(one.clone()).unwrap_err(),
        text.encode_batch(many).unwrap_err(),
        text.encode_together(many).unwrap_err(),
        text.encode_pair(plain, one.clone()).unwrap_err(),
        text.encode_pairs(&[pair]).unwrap_err(),
        text.encode_schedule(request, Pass::First { steps: 4 })
            .unwrap_err(),
        text.plan_prompt(one.clone()).unwrap_err(),
        text.plan_pair(one, "").unwrap_err(),
    ]
}

#[test]
fn strengths_that_need_too_many_windows_are_refused() {
    let text = text();
    let weak = "cat- dog ".repeat(3000);
    let each: Vec<String> = (0..3000).map(|n| format!("(cat:0.{n:04})")).collect();
    let weighted = each.join(" ");
    let compel = Request::new(&weak).profile(Profile::Compel);
    let named = |name: &str| Emphasis::named(name).unwrap();
    let adv = Request::new(&weighted).profile(Profile::ComfyUi);
    let requests = [
        compel.clone(),
        compel.emphasis(Emphasis::CompelRemove),
        adv.emphasis(named("adv:none:comfy++")),
    ];
    let begun = Instant::now();
    for request in &requests {
        for error in refusals(&text, request) {
            assert_eq!(error.kind(), ErrorKind::Request);
            let most = FORM_WINDOWS_AT_MOST.to_string();
            assert!(error.message().contains(&most), "{error}");
            assert!(error.message().contains("beside its own"), "{error}");
            assert!(error.hint_text().unwrap().contains("fewer"), "{error}");
        }
    }
    // What is only shown needs no forms.
    assert!(text.chunks(requests[0].clone()).unwrap()[0].1.len().get() > 40);
    assert!(
        chunks_for(Family::Sd1, requests[0].clone())[0]
            .1
            .len()
            .get()
            > 40
    );
    assert!(begun.elapsed().as_secs() < 60);
}

/// The blends and parts of one prompt are counted together.
#[test]
fn texts_of_one_prompt_are_counted_together() {
    let text = text();
    let one = format!("\"{}\"", "cat- dog ".repeat(300));
    let planned = |times: usize| {
        let all = vec![one.as_str(); times].join(", ");
        let prompt = format!("({all}).and()");
        text.plan_prompt(Request::new(&prompt).profile(Profile::Compel))
    };
    assert!(planned(1).is_ok());
    assert!(planned(3).unwrap_err().message().contains("beside its own"));
}

/// What grows with the text only has no such limit.
#[test]
fn long_texts_are_planned_as_ever() {
    let text = text();
    let weak = "cat- dog ".repeat(150);
    assert!(
        text.plan_prompt(Request::new(&weak).profile(Profile::Compel))
            .is_ok()
    );
    let words = "word ".repeat(450_000);
    for profile in [Profile::ComfyUi, Profile::A1111, Profile::Compel] {
        let strong = format!("({words}:1.2)");
        for words in [&words, &strong] {
            let request = Request::new(words).profile(profile);
            let planned = text.plan_prompt(request).unwrap();
            assert!(planned.tokens() > 77 * FORM_WINDOWS_AT_MOST, "{profile}");
        }
    }
}

/// A short text of a blend is filled to the length of the longest.
#[test]
fn blends_of_unequal_texts_are_bounded() {
    let text = text();
    let blend = |words: usize, times: usize| {
        let long = "word ".repeat(words);
        format!(
            "(\"{long}\", {}).blend({}1)",
            vec!["\"a\""; times].join(", "),
            "1, ".repeat(times)
        )
    };
    let planned = |prompt: &str| text.plan_prompt(Request::new(prompt).profile(Profile::Compel));
    assert!(planned(&blend(200, 10)).is_ok());
    let error = planned(&blend(5000, 1000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    assert!(error.message().contains("of a blend"), "{error}");
}

/// Each step has a text of its own, and the distinct ones have the length of the longest.
#[test]
fn schedules_that_need_too_many_windows_are_refused() {
    let text = text();
    let alternating = |words: usize| {
        let options: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        format!("{} [{}]", "word ".repeat(words), options.join("|"))
    };
    let encoded = |prompt: &str, steps: u32| {
        let request = Request::new(prompt).profile(Profile::A1111);
        text.encode_schedule(&request, Pass::First { steps })
    };
    assert!(encoded(&alternating(100), 5).is_ok());
    let begun = Instant::now();
    let windows = encoded(&alternating(5000), 100).unwrap_err();
    assert_eq!(windows.kind(), ErrorKind::Request);
    assert!(windows.message().contains("windows"), "{windows}");
    for steps in [4000, u32::MAX] {
        let bytes = encoded(&alternating(5000), steps).unwrap_err();
        assert_eq!(bytes.kind(), ErrorKind::Request);
        assert!(bytes.message().contains("MiB of text"), "{bytes}");
    }
    // Parts are counted together, and a text that does not change is not counted.
    let parts = vec![alternating(60); 60].join(" AND ");
    assert!(encoded(&parts, 100).is_err());
    assert!(encoded(&"word ".repeat(1000), u32::MAX).is_ok());
    assert!(begun.elapsed().as_secs() < 60);
}

/// Lengths and first strengths of words are counted once, not once for each row.
#[test]
fn methods_of_a_node_take_no_time_that_grows_with_the_square_of_a_text() {
    let text = text();
    let words = "word ".repeat(200_000);
    let strong: Vec<String> = (0..60_000).map(|n| format!("(a:1.{n:05})")).collect();
    let begun = Instant::now();
    for (prompt, method) in [
        (words, "adv:length:compel"),
        (strong.join(" "), "adv:length:comfy++"),
    ] {
        let request = Request::new(&prompt).profile(Profile::ComfyUi);
        let _ = text.plan_prompt(request.emphasis(Emphasis::named(method).unwrap()));
    }
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}
