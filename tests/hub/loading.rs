//! From a name to loaded encoders.

use std::fs;
use std::path::{Path, PathBuf};

use sd_conditioner::hub::{Catalog, Hub, HubOptions};
use sd_conditioner::weights::{EncoderId, SyntheticSize};
use sd_conditioner::{Conditioner, ErrorKind, Family, Result};

use super::{COMMIT, FILE, assert_has, catalog, options};
use crate::support::checkpoints::text_encoder;
use crate::support::close::bits;
use crate::support::entries::Stored;

const SEED: u64 = 73;

/// A weight file of one tiny encoder.
fn weights(encoder: EncoderId) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    text_encoder(folder.path(), encoder, Stored::F32, SEED);
    fs::read(folder.path().join("model.safetensors")).unwrap()
}

/// Puts a file of `someone/tiny` into a cache, without links.
fn put(cache: &Path, file: &str, bytes: &[u8]) -> PathBuf {
    let folder = cache.join("models--someone--tiny");
    let path = folder.join("snapshots").join(COMMIT).join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), COMMIT).unwrap();
    path
}

/// One repository, nothing known of its file.
fn unknown_sum() -> Catalog {
    catalog("repo = \"someone/tiny\"", "")
}

fn offline(cache: &Path) -> HubOptions {
    HubOptions {
        offline: true,
        ..options(cache)
    }
}

fn load(options: HubOptions, catalog: Catalog) -> Result<Conditioner> {
    Conditioner::builder().from_hub(&Hub::with_catalog(options, catalog), "tiny")
}

/// The encoders are those of the seed, bit for bit.
fn assert_seeded(text: &Conditioner, family: Family) {
    assert_eq!(text.family(), family);
    let seeded = Conditioner::builder().random_weights(family, SyntheticSize::Tiny, SEED);
    let context = |text: &Conditioner| bits(text.encode("a lighthouse").unwrap().context());
    assert_eq!(context(text), context(&seeded.unwrap()));
}

#[test]
fn a_name_in_the_cache_becomes_a_conditioner() {
    let cache = tempfile::tempdir().unwrap();
    put(cache.path(), FILE, &weights(EncoderId::ClipL));
    let text = load(offline(cache.path()), unknown_sum()).unwrap();
    assert_seeded(&text, Family::Sd1);
}

#[test]
fn two_files_become_sdxl() {
    let cache = tempfile::tempdir().unwrap();
    put(cache.path(), "l.safetensors", &weights(EncoderId::ClipL));
    put(
        cache.path(),
        "g.safetensors",
        &weights(EncoderId::OpenClipG),
    );
    let catalog = Catalog::parse(
        "[[checkpoint]]\nname = \"tiny\"\nfamily = \"sdxl\"\nrepo = \"someone/tiny\"\nfiles = [\n\
         { encoders = [\"clip_l\"], path = \"l.safetensors\" },\n\
         { encoders = [\"clip_g\"], path = \"g.safetensors\" },\n]\n",
    );
    let text = load(offline(cache.path()), catalog.unwrap()).unwrap();
    assert_seeded(&text, Family::Sdxl);
}

#[cfg(feature = "hub")]
#[test]
fn a_name_on_the_hub_becomes_a_conditioner() {
    use super::server::{Answer, Server, online};
    let cache = tempfile::tempdir().unwrap();
    let bytes = std::sync::Arc::new(weights(EncoderId::ClipL));
    let total = bytes.len() as u64;
    let server = Server::start(move |_| Answer::File(bytes.clone()));
    let hub = Hub::with_catalog(online(cache.path(), &server), unknown_sum());
    let (mut fetched, mut loaded) = (0, (0, 1));
    let text = Conditioner::builder().from_hub_with_progress(
        &hub,
        "tiny",
        &mut |step| fetched = fetched.max(step.done),
        &mut |encoder, done, total| {
            assert_eq!(encoder, EncoderId::ClipL);
            loaded = (done, total);
        },
    );
    assert_seeded(&text.unwrap(), Family::Sd1);
    assert_eq!(fetched, total);
    assert_eq!(loaded.0, loaded.1);
    let again = load(offline(cache.path()), unknown_sum()).unwrap();
    assert_seeded(&again, Family::Sd1);
}

/// What was fetched and cannot be read is told with what to delete, and its own hint before it.
#[test]
fn damaged_files_are_named_for_deletion() {
    let whole = weights(EncoderId::ClipL);
    let half = &whole[..whole.len() / 2];
    let mut nan = whole.clone();
    let last = nan.len() - 4..;
    nan[last].copy_from_slice(&f32::NAN.to_le_bytes());
    let cases: [(&[u8], ErrorKind, &[&str]); 4] = [
        (
            b"<!DOCTYPE html>",
            ErrorKind::FileFormat,
            &["HTML", "login"],
        ),
        (half, ErrorKind::FileFormat, &["incomplete download"]),
        (b"", ErrorKind::FileFormat, &["empty"]),
        (&nan, ErrorKind::TensorValue, &["NaN", "text_model."]),
    ];
    for (bytes, kind, words) in cases {
        let cache = tempfile::tempdir().unwrap();
        let path = put(cache.path(), FILE, bytes);
        let error = load(offline(cache.path()), unknown_sum()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (kind, Some(&*path)));
        let delete = format!("delete {}, then fetch again", path.display());
        assert_has(&error.to_string(), words);
        assert_has(&error.to_string(), &[&delete]);
    }
}

/// Deleting does not mend what is whole and something else.
#[test]
fn whole_files_are_not_named_for_deletion() {
    let cache = tempfile::tempdir().unwrap();
    put(cache.path(), FILE, &weights(EncoderId::OpenClipH));
    let error = load(offline(cache.path()), unknown_sum()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert_has(&error.to_string(), &["sd2", "sd1"]);
    assert!(!error.to_string().contains("delete"), "{error}");
}

#[test]
fn names_and_caches_that_are_not_there() {
    let cache = tempfile::tempdir().unwrap();
    let error = Conditioner::from_hub("sd99", offline(cache.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Hub);
    assert_has(&error.to_string(), &["sd99", "known names", "sdxl-refiner"]);
    let error = Conditioner::from_hub("sdxl", offline(cache.path())).unwrap_err();
    let words = ["offline", "stable-diffusion-xl-base-1.0", "hf download"];
    assert_has(&error.to_string(), &words);
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_feature_only_the_cache_works() {
    let cache = tempfile::tempdir().unwrap();
    let error = load(options(cache.path()), unknown_sum()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_has(&error.to_string(), &["cannot download", "feature `hub`"]);
}
