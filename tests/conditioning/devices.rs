//! Every device and the kernels chosen for it, against plain operations on the CPU in f32.
//!
//! A build without `cuda` has one device; with it the first GPU is a second one, with a stream for each
//! thread (candle's own way) and with one for all.

use std::sync::OnceLock;

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioner::CacheOptions;
use sd_conditioner::encoder::Gelu;
use sd_conditioner::kernels::{Options, Tune, choose};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Error, ErrorKind, Family, Profile, Request};

use super::mapped::mapping;
use crate::support::checkpoints::{Layout, write};
use crate::support::close::{assert_close, distance};
use crate::support::entries::Stored;

/// Text that needs every operation: strengths, masks, means.
const CASES: [(Profile, &str); 5] = [
    (Profile::Diffusers, "a lighthouse at dusk"),
    (Profile::ComfyUi, "a (red:1.3) barn, (old:0.6) trees"),
    (Profile::A1111, "a (red:1.3) barn BREAK [old] trees"),
    (Profile::Compel, "a red++ barn, (old)0.6 trees"),
    (Profile::SdCpp, "a (red:1.3) barn, (old:0.6) trees"),
];

/// Largest relative error: f32 on another device; 16 bits as `PyTorch`'s own against its f32.
const BARS: [(DType, f64); 3] = [
    (DType::F32, 1e-4),
    (DType::F16, 1.6e-3),
    (DType::BF16, 1.4e-2),
];

/// A card rounds what goes into a product, too. It must be no farther from f32 than `PyTorch`'s ViT-L is on
/// one, the closest of its encoders.
fn on_card(dtype: DType, bar: f64) -> f64 {
    match dtype {
        DType::F16 => 2.3e-3,
        DType::BF16 => 1.9e-2,
        _ => bar,
    }
}

/// The GPU of a build with `cuda`: with one stream for all threads, and with one for each. Opened once, before any
/// test uses one: opening waits for the whole card, which is refused while another thread captures.
fn cards() -> &'static [Device] {
    static CARDS: OnceLock<Vec<Device>> = OnceLock::new();
    CARDS.get_or_init(|| {
        if !cfg!(feature = "cuda") {
            return Vec::new();
        }
        let open = [Device::new_cuda_with_stream, Device::new_cuda];
        let open = open.map(|open| open(0).expect("a build with `cuda` is tested on a GPU"));
        open.to_vec()
    })
}

/// The one with one stream for all threads.
pub(super) fn card() -> Option<Device> {
    cards().first().cloned()
}

fn devices() -> Vec<Device> {
    [Device::Cpu]
        .into_iter()
        .chain(cards().iter().cloned())
        .collect()
}

/// All calls give the same bits.
fn load(family: Family, device: &Device, dtype: DType) -> Conditioner {
    tuned(family, device, dtype, Tune::AtFirst)
}

fn tuned(family: Family, device: &Device, dtype: DType, tune: Tune) -> Conditioner {
    let options = Options {
        tune,
        ..Options::default()
    };
    Conditioner::builder()
        .device(device.clone())
        .kernel_options(options)
        .dtype(dtype)
        .output_dtype(DType::F32)
        .cache(CacheOptions::OFF)
        .random_weights(family, SyntheticSize::Tiny, 73)
        .unwrap()
}

#[test]
fn every_device_gives_the_cpus_numbers() {
    for family in Family::ALL {
        let plain = Conditioner::builder()
            .reference_kernels()
            .random_weights(family, SyntheticSize::Tiny, 73)
            .unwrap();
        for device in devices() {
            for (dtype, bar) in BARS {
                let conditioner = load(family, &device, dtype);
                for (profile, text) in CASES {
                    let request = Request::new(text).profile(profile);
                    let expected = plain.encode(request.clone()).unwrap();
                    let ours = conditioner.encode(request).unwrap();
                    let ours = ours.to_device(&Device::Cpu).unwrap();
                    let what = format!("{family} {dtype:?} {device:?} {}", profile.name());
                    let bar = if device.is_cpu() {
                        bar
                    } else {
                        on_card(dtype, bar)
                    };
                    // A1111's restored means amplify what 16 bits lose.
                    let bar = if profile == Profile::A1111 {
                        4.0 * bar
                    } else {
                        bar
                    };
                    assert_close(&what, ours.context(), expected.context(), bar);
                    if let Some((ours, expected)) = ours.pooled().zip(expected.pooled()) {
                        assert!(distance(ours, expected).relative <= bar, "{what}: pooled");
                    }
                }
            }
        }
    }
}

/// What is measured and captured later gives the same numbers, and from then on the same bits.
#[test]
fn whenever_products_are_measured_the_numbers_are_the_same() {
    for device in devices() {
        for (dtype, bar) in BARS {
            let bar = if device.is_cpu() { 0.0 } else { bar };
            let encode = |text: &Conditioner| {
                let pair = text.encode_pair("a lighthouse", "blurry").unwrap();
                pair.positive().context().to_device(&Device::Cpu).unwrap()
            };
            let first = load(Family::Sd1, &device, dtype);
            let (want, again) = (encode(&first), encode(&first));
            assert_close("at first, again", &again, &want, 0.0);
            for tune in [Tune::AtSecond, Tune::Never] {
                let text = tuned(Family::Sd1, &device, dtype, tune);
                let [one, two, three] = [(); 3].map(|()| encode(&text));
                let what = format!("{device:?} {dtype:?} {tune:?}");
                assert_close(&what, &one, &want, bar);
                assert_close(&what, &two, &want, bar);
                assert_close(&what, &three, &two, 0.0);
                if tune == Tune::Never {
                    assert_close(&what, &two, &one, 0.0);
                }
            }
        }
    }
}

/// Each GELU of an encoder has forwards of its own, measured and captured beside those of the other.
#[test]
fn two_gelus_run_beside_each_other() {
    for family in [Family::Sd2, Family::Sdxl] {
        for device in devices() {
            let text = load(family, &device, DType::F16);
            let encode = |gelu| {
                let encoded = text.encode(Request::new("a lighthouse").gelu(gelu));
                encoded.unwrap().to_device(&Device::Cpu).unwrap()
            };
            let both = || [Gelu::Own, Gelu::Tanh].map(encode);
            let [own, tanh] = both();
            assert!(distance(tanh.context(), own.context()).max_abs > 0.0);
            for _ in 0..3 {
                let [own_again, tanh_again] = both();
                assert_close("own", own_again.context(), own.context(), 0.0);
                assert_close("tanh", tanh_again.context(), tanh.context(), 0.0);
            }
        }
    }
}

#[test]
fn a_conditioner_is_shared_between_threads() {
    for device in [Device::Cpu].into_iter().chain(card()) {
        let conditioner = load(Family::Sdxl, &device, DType::F32);
        let texts = ["a lighthouse", "a (red:1.3) barn, one and another"];
        let here = |tensor: &Tensor| tensor.to_device(&Device::Cpu).unwrap();
        let alone = texts.map(|text| here(conditioner.encode(text).unwrap().context()));
        // Both texts in all threads, so that forwards of one encoder follow those of another thread.
        let threads = (0..4).map(|thread| {
            let conditioner = conditioner.clone();
            std::thread::spawn(move || {
                let text = |turn: usize| (thread + turn) % texts.len();
                let encode = |turn| (text(turn), conditioner.encode(texts[text(turn)]).unwrap());
                (0..4).map(encode).collect::<Vec<_>>()
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            for (text, there) in thread.join().unwrap() {
                assert_close("a thread", &here(there.context()), &alone[text], 0.0);
            }
        }
    }
}

/// A way there gives what loading there gives; the way back gives what was before. Clones
/// come along.
#[test]
fn encoders_move_with_all_their_handles() {
    for device in devices() {
        let here = load(Family::Sdxl, &Device::Cpu, DType::F16);
        let there = load(Family::Sdxl, &device, DType::F16);
        let encode = |text: &Conditioner| {
            let encoded = text.encode("a (red:1.3) barn").unwrap();
            encoded.to_device(&Device::Cpu).unwrap()
        };
        let (before, want) = (encode(&here), encode(&there));
        let other = here.clone();
        here.load_to(&device).unwrap();
        assert!(other.device().same_device(&device) && other.kernels() == there.kernels());
        assert_close("there", encode(&other).context(), want.context(), 0.0);
        other.offload().unwrap();
        assert!(here.device().is_cpu());
        assert_close("back", encode(&here).context(), before.context(), 0.0);
    }
}

/// What is read from a file in parts, what is moved in parts, and what stayed in the file until it was moved, is what
/// a CPU reads.
#[test]
fn a_file_gives_the_same_numbers_on_every_device() {
    let folder = tempfile::tempdir().unwrap();
    for stored in [Stored::F32, Stored::F16] {
        let paths = write(folder.path(), Family::Sdxl, Layout::SingleFile, stored, 73);
        let builder = |device: &Device, dtype| {
            let builder = Conditioner::builder().device(device.clone()).dtype(dtype);
            builder.cache(CacheOptions::OFF).output_dtype(DType::F32)
        };
        let open = |device: &Device, dtype| builder(device, dtype).open(&paths[0]).unwrap();
        let encode = |text: &Conditioner| {
            let encoded = text.encode("a lighthouse at dusk").unwrap();
            encoded.to_device(&Device::Cpu).unwrap()
        };
        let want = encode(&open(&Device::Cpu, DType::F32));
        for device in devices() {
            for (dtype, bar) in BARS {
                let bar = on_card(dtype, bar);
                let ours = open(&device, dtype);
                let read = encode(&ours);
                assert_close("read", read.context(), want.context(), bar);
                ours.offload().unwrap();
                ours.load_to(&device).unwrap();
                assert_close("moved", encode(&ours).context(), read.context(), 0.0);
                let mapped = mapping(builder(&Device::Cpu, dtype));
                let mapped = mapped.open(&paths[0]).unwrap();
                mapped.load_to(&device).unwrap();
                assert_close("mapped", encode(&mapped).context(), read.context(), 0.0);
            }
        }
    }
}

/// Several threads send at once, more parts than there are at a time.
#[test]
fn parts_arrive_in_their_places() {
    for device in cards() {
        let kernels = choose(device).unwrap();
        let transfers = kernels.transfers().expect("a card has a way of its own");
        let send = |salt: usize| {
            let n_values = 9_000_001 + salt;
            // A prime below 2²³: all are exact, and no two neighbouring parts are alike.
            let value = |place: usize| ((place + salt * 1_000_003) % 8_388_593) as f32;
            let tensor = transfers.upload(DType::F32, n_values, &mut |first, room| {
                for (place, room) in room.chunks_exact_mut(4).enumerate() {
                    room.copy_from_slice(&value(first + place).to_ne_bytes());
                }
                Ok(())
            });
            let tensor = tensor.unwrap();
            let there = tensor.to_vec1::<f32>().unwrap();
            assert_eq!(there.len(), n_values);
            let mut all = there.iter().enumerate();
            assert!(all.all(|(place, there)| there.to_bits() == value(place).to_bits()));
            let mut seen = 0;
            let fetched = transfers.download(&tensor, &mut |first, part| {
                assert_eq!(first, seen);
                for (place, value) in there[first..].iter().zip(part.chunks_exact(4)) {
                    assert_eq!(place.to_ne_bytes(), value);
                }
                seen += part.len() / 4;
                Ok(())
            });
            fetched.unwrap();
            assert_eq!(seen, n_values);
        };
        std::thread::scope(|scope| {
            for salt in [0, 1, 2] {
                scope.spawn(move || (send(salt), send(salt + 3)));
            }
        });
        let failed = transfers.upload(DType::F16, 9_000_001, &mut |first, _| {
            let error = Error::new(ErrorKind::FileFormat, "broken");
            if first == 0 { Ok(()) } else { Err(error) }
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::FileFormat);
        let zeros = Tensor::zeros(9_000_001, DType::F16, device).unwrap();
        let failed = transfers.download(&zeros, &mut |first, _| {
            let error = Error::new(ErrorKind::Io, "no room");
            if first == 0 { Ok(()) } else { Err(error) }
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Io);
        let turned = zeros.narrow(0, 0, 9_000_000).unwrap();
        let turned = turned.reshape((3_000_000, 3)).unwrap().t().unwrap();
        let failed = transfers.download(&turned, &mut |_, _| Ok(()));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Device);
    }
}
