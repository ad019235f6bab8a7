//! Lists of conditionings: what each operation does to entries, and how a sampler follows them.

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioning::{
    Area, LatentSize, Mask, MaskArea, Moment, Side, SigmaTable, Sizes, Unclip, guided, pair_areas,
};
use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{
    Conditioner, Conditioning, ConditioningList, Family, Profile, Request, Result,
};

use crate::support::close::{assert_close, bits, values};

/// Hidden states `[1, rows, 2]` that hold `value`, and a pooled vector of its negative.
fn filled(value: f32, rows: usize) -> ConditioningList {
    let context = Tensor::full(value, (1, rows, 2), &Device::Cpu).unwrap();
    let pooled = Tensor::full(-value, (1, 3), &Device::Cpu).unwrap();
    let all = Conditioning::new(Family::Sd1, context, Some(pooled), None).unwrap();
    ConditioningList::from(all)
}

/// First and last row of each entry, and its pooled vector.
fn seen(list: &ConditioningList) -> Vec<[f64; 3]> {
    let entries = list.entries().iter().map(|entry| {
        let context = values(entry.conditioning().context());
        let pooled = values(entry.conditioning().pooled().unwrap());
        [context[0], *context.last().unwrap(), pooled[0]]
    });
    entries.collect()
}

#[test]
fn operations_change_each_entry() {
    let (one, two) = (filled(1.0, 2), filled(2.0, 3));
    let both = one.combine(&two);
    assert_eq!(seen(&both), [[1.0, 1.0, -1.0], [2.0, 2.0, -2.0]]);
    let concat = both.concat(&filled(5.0, 1).combine(&one)).unwrap();
    assert_eq!(seen(&concat), [[1.0, 5.0, -1.0], [2.0, 5.0, -2.0]]);
    assert_eq!(concat.entries()[1].conditioning().tokens(), 4);
    let average = two.average(&one, 0.75).unwrap();
    assert_eq!(seen(&average), [[1.75, 1.5, -1.75]]);
    let cut = one.average(&two, 0.5).unwrap();
    assert_eq!(seen(&cut), [[1.5, 1.5, -1.5]]);
    assert_eq!(cut.entries()[0].conditioning().tokens(), 2);
    let zeroed = both.with_range(0.0, 0.5).unwrap().zeroed().unwrap();
    assert_eq!(seen(&zeroed), [[0.0; 3]; 2]);
    assert_eq!(
        zeroed.entries()[1].range(),
        both.with_range(0.0, 0.5).unwrap().entries()[0].range()
    );
    let empty = ConditioningList::default();
    assert!(one.concat(&empty).is_err() && one.average(&empty, 0.5).is_err());
    assert!(empty.concat(&one).unwrap().is_empty());
}

#[test]
fn what_is_no_number_is_refused() {
    let list = filled(1.0, 1);
    let mask = Mask::new(&Tensor::ones((2, 2), DType::F32, &Device::Cpu).unwrap()).unwrap();
    let share = Area::Share {
        height: f64::NAN,
        width: 1.0,
        y: 0.0,
        x: 0.0,
    };
    let unclip = Unclip {
        embedding: Tensor::ones((1, 4), DType::F32, &Device::Cpu).unwrap(),
        strength: f64::NEG_INFINITY,
        noise_augmentation: 0.0,
    };
    for (what, wrong) in [
        ("range", list.with_range(f64::NAN, 1.0)),
        ("strength", list.with_strength(f64::INFINITY)),
        ("share", list.with_area(share, 1.0)),
        ("mask", list.with_mask(&mask, f64::NAN, MaskArea::Whole)),
        ("average", list.average(&list, f64::NAN)),
        ("unclip", list.with_unclip(&unclip)),
    ] {
        assert!(wrong.is_err(), "{what}");
    }
    let none = Unclip {
        strength: 0.0,
        ..unclip
    };
    assert!(
        list.with_unclip(&none).unwrap().entries()[0]
            .unclip()
            .is_empty()
    );
}

#[test]
fn ranges_are_inclusive_at_both_ends() {
    let table = SigmaTable::stable_diffusion();
    let list = filled(1.0, 1).with_range(0.25, 0.5).unwrap();
    let at = |percent| list.active_at(Moment::Percent(percent)).count();
    assert_eq!([0.2, 0.25, 0.4, 0.5, 0.6].map(at), [0, 1, 1, 1, 0]);
    let sigma = |percent: f64| {
        let sigma = table.at_percent(percent);
        let table = &table;
        list.active_at(Moment::Sigma { sigma, table }).count()
    };
    assert_eq!([0.2, 0.25, 0.4, 0.5, 0.6].map(sigma), [0, 1, 1, 1, 0]);
    let backwards = list.with_range(0.5, 0.25).unwrap();
    assert_eq!(backwards.active_at(Moment::Percent(0.3)).count(), 0);
}

/// Every entry predicts the number that its hidden states hold.
fn predict(list: &ConditioningList, latent: LatentSize, batch: usize) -> Vec<f64> {
    let shape = (batch, 2, latent.height, latent.width);
    let x = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let unet = |x: &Tensor, entry: &sd_conditioner::conditioning::Entry| -> Result<Tensor> {
        let value = values(entry.conditioning().context())[0];
        Ok((x + value)?)
    };
    values(&list.predict(&x, Moment::Percent(0.5), unet).unwrap())
}

#[test]
fn predictions_are_means_weighed_by_strength_area_and_mask() {
    let latent = LatentSize {
        height: 2,
        width: 2,
    };
    let (one, four) = (filled(1.0, 1), filled(4.0, 1));
    assert_eq!(predict(&one, latent, 1), [1.0; 8]);
    let weighed = one.combine(&four.with_strength(2.0).unwrap());
    assert_eq!(predict(&weighed, latent, 1), [3.0; 8]);
    let never = four.with_range(0.9, 1.0).unwrap();
    assert_eq!(predict(&never, latent, 1), [0.0; 8]);
    let right = four.with_area(Area::of_pixels(8, 16, 8, 0), 1.0).unwrap();
    assert_eq!(predict(&right, latent, 1)[..4], [0.0, 4.0, 0.0, 4.0]);
    let part = one.combine(&right);
    assert_eq!(predict(&part, latent, 1)[..4], [1.0, 2.5, 1.0, 2.5]);
    let mask = Tensor::new(&[[0.0_f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    let mask = Mask::new(&mask).unwrap();
    let masked = four.with_mask(&mask, 0.5, MaskArea::Whole).unwrap();
    let masked = one.combine(&masked);
    assert_eq!(predict(&masked, latent, 2)[..4], [1.0, 1.0, 1.0, 2.0]);
    assert_eq!(predict(&masked, latent, 2)[12..], [1.0, 1.0, 1.0, 2.0]);
}

#[test]
fn areas_fade_at_edges_inside_the_picture() {
    let latent = LatentSize {
        height: 4,
        width: 16,
    };
    let left = filled(4.0, 1).with_area(Area::of_pixels(64, 32, 0, 0), 1.0);
    let both = filled(0.0, 1).combine(&left.unwrap());
    let row = &predict(&both, latent, 1)[..9];
    // The last two columns of eight count 1 and a half of it: 4/2, and 4 · 0.5 / 1.5.
    let want = [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 4.0 / 3.0, 0.0];
    let close = row.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close, "{row:?}");
    let outside = filled(1.0, 1).with_area(Area::of_pixels(8, 8, 0, 64), 1.0);
    let error = outside.unwrap().entries()[0].region(latent).unwrap_err();
    assert!(error.message().contains("area of 1x1 at 0,8"), "{error}");
}

#[test]
fn a_mask_can_be_the_area() {
    let latent = LatentSize {
        height: 16,
        width: 16,
    };
    let mask = Tensor::zeros((32, 32), DType::F32, &Device::Cpu).unwrap();
    let some = Tensor::ones((6, 30), DType::F32, &Device::Cpu).unwrap();
    let mask = mask.slice_assign(&[4..10, 2..32], &some).unwrap();
    let mask = Mask::new(&mask).unwrap();
    let list = filled(3.0, 1)
        .with_mask(&mask, 1.0, MaskArea::Bounds)
        .unwrap();
    let region = list.entries()[0].region(latent).unwrap();
    let area = region.area;
    assert_eq!([area.height, area.width, area.y, area.x], [8, 15, 2, 1]);
    assert_eq!(
        values(&region.multiplier)
            .iter()
            .filter(|one| **one > 0.0)
            .count(),
        45
    );
    // An area that is set later takes the bounds away; the mask stays.
    let list = list
        .with_area(Area::of_pixels(128, 128, 0, 0), 1.0)
        .unwrap();
    let region = list.entries()[0].region(latent).unwrap();
    assert_eq!(region.multiplier.dims(), [1, 16, 16]);
    assert_eq!(
        values(&region.multiplier)
            .iter()
            .filter(|one| **one > 0.0)
            .count(),
        45
    );
}

#[test]
fn several_masks_are_dealt_out_to_a_batch() {
    let latent = LatentSize {
        height: 1,
        width: 1,
    };
    let masks = Tensor::new(&[[[0.0_f32]], [[1.0]]], &Device::Cpu).unwrap();
    let masks = Mask::new(&masks).unwrap();
    let list = filled(3.0, 1)
        .with_mask(&masks, 1.0, MaskArea::Whole)
        .unwrap();
    let list = filled(1.0, 1).combine(&list);
    let found = predict(&list, latent, 4);
    assert_eq!(found, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
    let x = Tensor::zeros((3, 2, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let odd = list.predict(&x, Moment::Percent(0.0), |x, _| Ok(x.clone()));
    assert!(
        odd.unwrap_err()
            .message()
            .contains("2 masks for a batch of 3")
    );
}

#[test]
fn areas_get_a_counterpart() {
    let latent = LatentSize::of_pixels(512, 512);
    let corner = Area::of_pixels(128, 128, 0, 0);
    let wide = Area::of_pixels(512, 128, 0, 0);
    let positive = filled(1.0, 1).with_area(corner, 0.5).unwrap();
    let negative = filled(2.0, 1).combine(&filled(3.0, 1).with_area(wide, 1.0).unwrap());
    let (with, without) = pair_areas(&positive, &negative, latent).unwrap();
    // The corner's counterpart has the text around it; the row has no text around it.
    assert_eq!(without.len(), 3);
    let copy = &without.entries()[2];
    assert_eq!((copy.area(), copy.strength()), (Some(corner), Some(0.5)));
    assert_eq!(seen(&without)[2..], [[3.0, 3.0, -3.0]]);
    assert_eq!(with.len(), 1);
    let (with, _) = pair_areas(&positive.combine(&filled(7.0, 1)), &negative, latent).unwrap();
    assert_eq!((with.len(), seen(&with)[2][0]), (3, 7.0));
    assert_eq!(with.entries()[2].area(), Some(wide));
    let (same, other) = pair_areas(&positive, &positive, latent).unwrap();
    assert_eq!((same.len(), other.len()), (1, 1));
}

#[test]
fn guidance_moves_away_from_the_negative() {
    let [wanted, unwanted] = [3.0_f32, 1.0].map(|one| Tensor::new(&[one], &Device::Cpu).unwrap());
    let joined = guided(&wanted, &unwanted, 7.5).unwrap();
    assert_eq!(values(&joined), [16.0]);
}

#[test]
fn sizes_are_the_entrys_own_or_the_pictures() {
    let text = Conditioner::builder();
    let text = text
        .random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)
        .unwrap();
    let list = ConditioningList::from(text.encode("a cat").unwrap());
    let latent = LatentSize::of_pixels(832, 1216);
    let ids = |list: &ConditioningList| {
        let taken = list.entries()[0]
            .for_latent(latent, Side::Positive)
            .unwrap();
        values(taken.time_ids().unwrap())
    };
    assert_eq!(ids(&list), [1216.0, 832.0, 0.0, 0.0, 1216.0, 832.0]);
    let sized = list.with_sizes(Sizes {
        width: Some(512),
        crop_h: Some(3),
        ..Sizes::default()
    });
    let sized = sized.with_sizes(Sizes {
        target_width: Some(64),
        ..Sizes::default()
    });
    assert_eq!(ids(&sized), [1216.0, 512.0, 3.0, 0.0, 1216.0, 64.0]);
    let entry = &sized.entries()[0];
    let request = Request::new("a cat").size(entry.sizes().hints(latent));
    let same = text.encode(request).unwrap().vector().unwrap().unwrap();
    let taken = entry.for_latent(latent, Side::Positive).unwrap();
    assert_eq!(bits(&taken.vector().unwrap().unwrap()), bits(&same));
    let refiner = Conditioner::builder();
    let refiner = refiner.random_weights(Family::Refiner, SyntheticSize::Tiny, 73);
    let list = ConditioningList::from(refiner.unwrap().encode("a cat").unwrap());
    let score = |side| {
        let taken = list.entries()[0].for_latent(latent, side).unwrap();
        values(taken.time_ids().unwrap())[4]
    };
    assert_eq!(
        vec![score(Side::Positive), score(Side::Negative)],
        vec![6.0, 2.5]
    );
}

#[test]
fn repeated_hidden_states_must_come_out_even() {
    let list = filled(1.0, 2);
    let one = list.entries()[0].conditioning();
    assert_eq!(one.tiled_to(6).unwrap().tokens(), 6);
    assert!(one.tiled_to(5).is_err() && one.tiled_to(0).is_err());
}

/// Whatever call it is, the same text is meant in the schedule, in the entries made of it, and in the
/// schedule made of those.
#[test]
fn schedules_become_entries_and_schedules_again() {
    let text = Conditioner::builder();
    let text = text
        .random_weights(Family::Sd1, SyntheticSize::Tiny, 73)
        .unwrap();
    let prompts = [
        "a cat",
        "a [cat:dog:5]",
        "a [[cat:dog:0.25]:bird:7]",
        "[a|b] cat",
        "a [cat:dog:0.5] AND a hat:0.6 AND [one|two]:-1",
    ];
    for (prompt, steps) in prompts
        .iter()
        .flat_map(|prompt| [(prompt, 10), (prompt, 33)])
    {
        let request = Request::new(prompt).profile(Profile::A1111);
        let timeline = text
            .encode_schedule(&request, Pass::First { steps })
            .unwrap();
        let list = timeline.to_list(steps);
        let back = list.to_timeline(steps).unwrap();
        assert_eq!(back.parts.len(), timeline.parts.len(), "{prompt}");
        assert!((back.total_weight() - timeline.total_weight()).abs() < 1e-9);
        for call in 0..steps {
            let moment = Moment::Percent(f64::from(call) / f64::from(steps));
            let active: Vec<_> = list.active_at(moment).collect();
            assert_eq!(active.len(), timeline.parts.len(), "{prompt} {call}");
            for (place, part) in timeline.parts.iter().enumerate() {
                let want = part.at_call(call, steps).unwrap().conditioning.context();
                let what = format!("{prompt}, call {call} of {steps}");
                assert_close(&what, active[place].conditioning().context(), want, 0.0);
                let again = back.parts[place].at_call(call, steps).unwrap();
                assert_close(&what, again.conditioning.context(), want, 0.0);
            }
        }
    }
}

#[test]
fn entries_that_are_no_schedule() {
    let part = |start, end| filled(1.0, 1).with_range(start, end).unwrap();
    let area = filled(1.0, 1).with_area(Area::of_pixels(8, 8, 0, 0), 1.0);
    let half_strong = part(0.5, 1.0).with_strength(0.5).unwrap();
    for (what, list) in [
        ("nothing", ConditioningList::default()),
        ("a gap", part(0.0, 0.3).combine(&part(0.4, 1.0))),
        ("an end too early", part(0.0, 0.3).combine(&part(0.3, 0.9))),
        ("a late start", part(0.1, 1.0)),
        ("an area", area.unwrap()),
        ("two strengths", part(0.0, 0.5).combine(&half_strong)),
        ("backwards", part(0.5, 0.0)),
    ] {
        assert!(list.to_timeline(10).is_err(), "{what}");
    }
    let twice = filled(1.0, 1)
        .combine(&part(0.0, 0.5))
        .combine(&part(0.5, 1.0));
    assert_eq!(twice.to_timeline(10).unwrap().parts.len(), 2);
}
