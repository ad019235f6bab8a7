//! Small files that would take long if what is in them were searched or read once for each tensor.

use std::time::{Duration, Instant};

use sd_conditioner::ErrorKind;
use sd_conditioner::weights::{Checkpoint, EncoderId};

use super::{check_refused, load};
use crate::support::checkpoints::{Projection, huggingface, source};
use crate::support::entries::{Entry, Stored, save, save_sparse};
use crate::support::pickles::{Object, save_zip, state, text, view};

/// Far more than any of these takes, and far less than it took.
const LONG: Duration = Duration::from_secs(20);

fn l(prefix: &str) -> Vec<Entry> {
    let source = source(EncoderId::ClipL, 1).without_projection();
    huggingface(
        &source,
        prefix,
        "text_model.",
        Projection::None,
        Stored::F16,
    )
}

/// Each is a problem of the encoder beside it.
#[test]
fn leftovers_without_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut entries = l("");
    for number in 0..150_000 {
        let name = format!(
            "text_model.{number}.{}",
            ["SCB", "scale_weight"][number % 2]
        );
        entries.push(Entry::filled(&name, Stored::U8, &[0], 0.0));
    }
    let path = save(&folder.path().join("x.safetensors"), &entries);
    let begun = Instant::now();
    check_refused(
        load(&path),
        ErrorKind::TensorValue,
        &["150000 problem(s)", "and 149990 more"],
    );
    assert!(begun.elapsed() < LONG);
}

/// Views whose few values lie all over a large storage.
#[test]
fn positions_far_apart() {
    const COUNT: usize = 1 << 23;
    let folder = tempfile::tempdir().unwrap();
    let Object::Dict(mut items) = state(&l("")) else {
        unreachable!("a dictionary")
    };
    let mut apart = view(9000, &Entry::filled("", Stored::I64, &[1, 77], 0.0));
    (apart.strides, apart.count) = (vec![1, COUNT / 77], COUNT);
    apart.bytes = vec![0; COUNT * 8];
    for number in 0..1500 {
        items.push((
            text(&format!("{number}.position_ids")),
            Object::Tensor(apart.clone()),
        ));
        apart.bytes.clear();
    }
    let path = save_zip(&folder.path().join("x.ckpt"), &Object::Dict(items));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let begun = Instant::now();
    let notes = checkpoint.report().notes;
    assert!(begun.elapsed() < LONG);
    let damaged = notes.iter().filter(|note| note.contains("is damaged"));
    assert_eq!(damaged.count(), 1500);
}

/// A root of nothing but dots, each of which could stand before a mark.
#[test]
fn roots_of_dots() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    save_sparse(&path, &l(&".".repeat(200_000)));
    let begun = Instant::now();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.encoders(), [EncoderId::ClipL]);
    assert!(begun.elapsed() < LONG);
}
