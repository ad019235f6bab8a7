//! Each kernel against its plain twin, on the card and on the CPU.

use anyhow::Result;
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::kernels::{Activation, Kernels, Options, Products, Reference, choose_with};

use super::parts::Setting;
use super::report::{Report, distance};

/// Two windows, and more than eight, for which there are other kernels.
const ROWS: usize = 154;
const MANY_ROWS: usize = 701;

/// Types, and how far one rounding of a result is allowed to move it.
const TYPES: [(DType, f64); 3] = [
    (DType::F32, 1e-5),
    (DType::F16, 2e-3),
    (DType::BF16, 1.6e-2),
];

/// Deterministic values in [-3, 3).
fn numbers(shape: &[usize], salt: usize, device: &Device) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let values =
        (0..count).map(|index| ((index * 7919 + salt * 104_729) % 6001) as f32 / 1000.0 - 3.0);
    Ok(Tensor::from_iter(values, &Device::Cpu)?
        .reshape(shape)?
        .to_device(device)?)
}

/// One operation of some kernels on some inputs.
type Run<'a> = dyn Fn(&dyn Kernels, &[Tensor]) -> Result<Tensor> + 'a;

/// The kernels that are checked, and both twins.
struct Sides {
    fast: std::sync::Arc<dyn Kernels>,
    card: Reference,
    cpu: Reference,
    device: Device,
}

impl Sides {
    /// Compares what `run` gives on inputs of these shapes; they are rounded to `dtype` before.
    fn compare(
        &self,
        what: &str,
        inputs: &[Tensor],
        (dtype, bar): (DType, f64),
        run: &Run<'_>,
        report: &mut Report,
    ) {
        let what = format!("{what} {}", dtype.as_str());
        // One kernel that fails says nothing of the others.
        let compared = self.compared(&what, inputs, (dtype, bar), run, report);
        report.attempt(&what, compared);
    }

    fn compared(
        &self,
        what: &str,
        inputs: &[Tensor],
        (dtype, bar): (DType, f64),
        run: &Run<'_>,
        report: &mut Report,
    ) -> Result<()> {
        let rounded = |tensor: &Tensor| Ok(tensor.to_dtype(dtype)?);
        let given = inputs.iter().map(rounded).collect::<Result<Vec<_>>>()?;
        let widened = |tensor: &Tensor| Ok(tensor.to_dtype(DType::F32)?);
        let plain = given.iter().map(widened).collect::<Result<Vec<_>>>()?;
        let moved = |tensor: &Tensor| Ok(tensor.to_device(&Device::Cpu)?);
        let on_cpu = plain.iter().map(moved).collect::<Result<Vec<_>>>()?;
        // The plain operations, which a dry run has on both sides, take f32 only.
        let given = if self.device.is_cpu() { &plain } else { &given };
        let ours = run(&*self.fast, given)?.to_dtype(DType::F32)?;
        let twin = run(&self.card, &plain)?;
        report.check(&format!("{what}, card"), distance(&ours, &twin)?, bar);
        let twin = run(&self.cpu, &on_cpu)?;
        report.check(&format!("{what}, CPU"), distance(&ours, &twin)?, bar);
        Ok(())
    }
}

impl Sides {
    fn new(setting: &Setting, products: Products) -> Result<Sides> {
        let options = Options {
            capture: false,
            cache_dir: Some(setting.folder.clone()),
            products,
            ..Options::default()
        };
        let device = setting.device.clone();
        Ok(Sides {
            fast: choose_with(&device, &options)?,
            card: Reference::new(&device)?,
            cpu: Reference::new(&Device::Cpu)?,
            device,
        })
    }
}

pub(crate) fn check(setting: &Setting, report: &mut Report) -> Result<()> {
    let sides = Sides::new(setting, Products::Library)?;
    norms(&sides, report)?;
    activations(&sides, report)?;
    attention(&sides, report)?;
    products("product", &sides, report)
}

pub(crate) fn check_own(setting: &Setting, report: &mut Report) -> Result<()> {
    products("own product", &Sides::new(setting, Products::Own)?, report)
}

fn norms(sides: &Sides, report: &mut Report) -> Result<()> {
    let sizes = [192, 768, 1024, 1280].map(|width| [ROWS, MANY_ROWS].map(|rows| [rows, width]));
    for [rows, width] in sizes.into_iter().flatten() {
        let make = |shape: &[usize], salt| numbers(shape, salt, &sides.device);
        let inputs = [
            make(&[rows, width], 1)?,
            make(&[width], 2)?,
            make(&[width], 3)?,
        ];
        let run = |kernels: &dyn Kernels, all: &[Tensor]| {
            Ok(kernels.layer_norm(&all[0], &all[1], &all[2])?)
        };
        sides.compare(
            &format!("layer norm {rows} × {width}"),
            &inputs,
            TYPES[0],
            &run,
            report,
        );
    }
    Ok(())
}

fn activations(sides: &Sides, report: &mut Report) -> Result<()> {
    let all = [
        Activation::QuickGelu,
        Activation::GeluErf,
        Activation::GeluTanh,
    ];
    for (rows, activation) in [ROWS, MANY_ROWS]
        .into_iter()
        .flat_map(|rows| all.map(|one| (rows, one)))
    {
        let inputs = [numbers(&[rows, 5120], 4, &sides.device)?];
        for kind in TYPES {
            let run =
                |kernels: &dyn Kernels, all: &[Tensor]| Ok(kernels.activate(&all[0], activation)?);
            sides.compare(
                &format!("{activation:?} {rows}"),
                &inputs,
                kind,
                &run,
                report,
            );
        }
    }
    Ok(())
}

fn attention(sides: &Sides, report: &mut Report) -> Result<()> {
    let (windows, heads) = (3, 20);
    let hidden = (0..windows * 77).map(|row| match row % 77 {
        key if key > 0 && (key * 7 + row) % 3 == 0 => f32::NEG_INFINITY,
        _ => 0.0,
    });
    let hidden = Tensor::from_iter(hidden, &Device::Cpu)?.reshape((windows, 77))?;
    let inputs = [numbers(&[windows, 77, 3 * 64 * heads], 5, &sides.device)?];
    for kind in TYPES {
        for masked in [false, true] {
            let run = |kernels: &dyn Kernels, all: &[Tensor]| {
                let keys = hidden.to_device(all[0].device())?;
                let keys = masked.then_some(&keys);
                Ok(kernels.causal_attention(&all[0], heads, keys)?)
            };
            let what = if masked {
                "attention, keys hidden"
            } else {
                "attention"
            };
            sides.compare(what, &inputs, kind, &run, report);
        }
    }
    Ok(())
}

fn products(name: &str, sides: &Sides, report: &mut Report) -> Result<()> {
    for (inputs, outputs) in [(1280, 3840), (1280, 5120), (5120, 1280), (768, 768)] {
        for (dtype, _) in TYPES {
            let bar = if dtype == DType::F32 { 1e-5 } else { 2e-4 };
            let x = numbers(&[ROWS, inputs], 6, &sides.device)?;
            let weight = numbers(&[outputs, inputs], 7, &sides.device)?;
            // The twins widen: both factors are rounded already, so only the sums differ; tensor cores
            // cut theirs a little shorter.
            let run =
                |kernels: &dyn Kernels, all: &[Tensor]| Ok(kernels.linear(&all[0], &all[1], None)?);
            let what = format!("{name} {inputs} to {outputs}");
            sides.compare(&what, &[x, weight], (dtype, bar), &run, report);
        }
    }
    Ok(())
}
