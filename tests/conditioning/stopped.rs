//! Encoding that the caller does not want any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sd_conditioner::conditioner::CacheOptions;
use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::weights::{LoraFolder, SyntheticSize};
use sd_conditioner::{Conditioner, Conditioning, Error, ErrorKind, Family, Profile, Request};

use crate::support::close::bits;
use crate::support::entries::{Entry, Stored, save};

/// Windows between two questions.
fn at_once() -> usize {
    8.max(2 * rayon::current_num_threads())
}

fn loaded(family: Family) -> Conditioner {
    let builder = Conditioner::builder().cache(CacheOptions::OFF);
    let text = builder.random_weights(family, SyntheticSize::Tiny, 73);
    text.unwrap()
}

/// A handle that stops at the question behind `most`, and how often it was asked.
fn asking(text: &Conditioner, most: usize) -> (Conditioner, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let text = text.stop_when(move || counted.fetch_add(1, Ordering::SeqCst) >= most);
    (text, count)
}

#[track_caller]
fn assert_stopped<T>(result: Result<T, Error>) {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
}

/// More than three forwards for each encoder.
fn many() -> Vec<String> {
    let numbers = 0..3 * at_once() + 1;
    numbers.map(|number| format!("cat {number}")).collect()
}

#[test]
fn many_windows_are_asked_about_in_between_and_give_the_same_bits() {
    let text = loaded(Family::Sdxl);
    let prompts = many();
    let requests: Vec<Request<'_>> = prompts.iter().map(Request::from).collect();
    let (patient, asked) = asking(&text, usize::MAX);
    let results = patient.encode_batch(&requests).unwrap();
    let questions = asked.load(Ordering::SeqCst);
    assert!(questions >= 8, "{questions} questions");
    let all = |of: &[Conditioning]| -> Vec<Vec<u32>> {
        let contexts = of.iter().map(|one| bits(one.context()));
        contexts
            .chain(of.iter().map(|one| bits(one.pooled().unwrap())))
            .collect()
    };
    assert!(all(&results) == all(&text.encode_batch(&requests).unwrap()));
    for most in 0..questions {
        let (impatient, asked) = asking(&text, most);
        assert_stopped(impatient.encode_batch(&requests));
        assert_eq!(asked.load(Ordering::SeqCst), most + 1);
    }
}

#[test]
fn every_way_to_encode_can_be_stopped() {
    let text = loaded(Family::Sd1);
    let (stopped, _) = asking(&text, 0);
    let request = || Request::new("a [cat:dog:0.5]").profile(Profile::A1111);
    let pass = Pass::First { steps: 20 };
    assert_stopped(stopped.encode("a cat"));
    assert_stopped(stopped.encode_pair("a cat", "fog"));
    assert_stopped(stopped.encode_batch(&[request()]));
    assert_stopped(stopped.encode_pairs(&[[request(), request()]]));
    assert_stopped(stopped.encode_together(&[request()]));
    assert_stopped(stopped.encode_planned([&text.plan_pair("a cat", "fog").unwrap()]));
    assert_stopped(stopped.encode_planned_prompts([&text.plan_prompt("a cat").unwrap()]));
    assert_stopped(stopped.encode_schedule(&request(), pass));
    assert_stopped(stopped.encode_schedule_pair(&request(), &request(), pass));
    // The other handle goes on, and nothing is asked where nothing is encoded.
    assert!(text.encode("a cat").is_ok());
    assert_eq!(stopped.chunks("a cat").unwrap().len(), 1);
}

/// Those that prompts name, and handles that are made from one that asks.
#[test]
fn loras_are_asked_about_too() {
    let folder = tempfile::tempdir().unwrap();
    let module = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    let entry = Entry::filled(&format!("{module}.diff"), Stored::F32, &[512, 128], 0.1);
    save(&folder.path().join("film.safetensors"), &[entry]);
    let folder = LoraFolder::open(folder.path()).unwrap();
    let request = Request::new("a <lora:film:0.8> cat").profile(Profile::A1111);
    let request = request.loras(&folder);
    let film = folder.get("film").unwrap().unwrap().at(0.8);

    let text = loaded(Family::Sd1);
    assert_stopped(asking(&text, 0).0.with_loras(std::slice::from_ref(&film)));
    assert_stopped(asking(&text, 0).0.for_prompt(&request));
    let (patient, asked) = asking(&text, usize::MAX);
    let with = patient.encode(request).unwrap();
    let questions = asked.swap(0, Ordering::SeqCst);
    assert!(questions > 1, "{questions} questions");
    let dressed = patient.with_loras(&[film]).unwrap();
    asked.store(usize::MAX, Ordering::SeqCst);
    assert_stopped(dressed.encode("a cat"));
    let bare = patient.with_loras(&[]).unwrap();
    asked.store(usize::MAX, Ordering::SeqCst);
    assert_stopped(bare.encode("a cat"));
    let without = text.encode("a  cat").unwrap();
    assert_ne!(bits(with.context()), bits(without.context()));
}

#[test]
fn what_is_known_is_not_asked_about() {
    let builder = Conditioner::builder();
    let text = builder.random_weights(Family::Sd1, SyntheticSize::Tiny, 73);
    let text = text.unwrap();
    let known = text.encode("a cat").unwrap();
    let (stopped, asked) = asking(&text, 0);
    let again = stopped.encode("a cat").unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert_eq!(bits(known.context()), bits(again.context()));
    assert_stopped(stopped.encode("a dog"));
}
