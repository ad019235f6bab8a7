//! Our own products (`few_rows.cu`): compiled when they are first wanted, since a forward or two do without.
#![expect(unsafe_code, reason = "kernels are started with raw pointers")]

use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::driver::CudaFunction;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum as Attribute;

use super::compiled::Compiler;
use super::failure::{Tried, device_error};
use super::functions::{Finish, narrow, number, odd_shape};
use super::library::Operands;
use super::start::{Arg, On, start};
use crate::error::Result;
use crate::kernels::plan::{COLUMNS, Kind, ProductShape, Text, Tiles};

#[derive(Debug)]
pub(super) struct OwnProducts {
    compiler: Compiler,
    /// Or why there are none.
    loaded: OnceLock<std::result::Result<Loaded, String>>,
}

#[derive(Debug)]
struct Loaded {
    /// One for each of [`COLUMNS`].
    functions: Vec<CudaFunction>,
    /// Whether they await the kernel before.
    await_previous: bool,
}

impl OwnProducts {
    pub(super) fn new(compiler: Compiler) -> OwnProducts {
        let loaded = OnceLock::new();
        OwnProducts { compiler, loaded }
    }

    /// Ways to make a product, for which there are so many bytes of planes. Not to be called in a capture: the
    /// first time the kernels are compiled and loaded.
    pub(super) fn tiles(&self, shape: &ProductShape, room: usize) -> Result<Vec<Tiles>> {
        let all = Tiles::all(shape, room);
        if !all.is_empty() {
            self.loaded()?;
        }
        Ok(all)
    }

    /// True if this is among them.
    pub(super) fn has(&self, tiles: Tiles, shape: &ProductShape, room: usize) -> bool {
        tiles.fit(shape, room) && self.loaded().is_ok()
    }

    fn loaded(&self) -> Result<&Loaded> {
        let load = || self.load().map_err(|error| error.to_string());
        match self.loaded.get_or_init(load) {
            Ok(loaded) => Ok(loaded),
            Err(why) => Err(device_error(why.clone())),
        }
    }

    fn load(&self) -> Result<Loaded> {
        let module = self.compiler.module(Text::Products)?;
        let each = COLUMNS.iter().map(|columns| {
            let function = module.function(&format!("product_{columns}"))?;
            // More shared memory than a kernel gets unasked.
            let bytes = i32::try_from(Tiles::shared(*columns));
            let bytes = bytes.map_err(|_| odd_shape(1, *columns))?;
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let set = function.set_attribute(attribute, bytes);
            set.tried("give a kernel its shared memory")?;
            Ok(function)
        });
        Ok(Loaded {
            functions: each.collect::<Result<_>>()?,
            await_previous: module.awaits(),
        })
    }

    /// A product that [has](Self::has) these tiles: to `at.out`, planes behind each other where it is f32.
    pub(super) fn start(
        &self,
        on: On<'_>,
        tiles: Tiles,
        shape: &ProductShape,
        at: Operands,
        finish: Finish,
    ) -> Result<()> {
        let place = COLUMNS.iter().position(|own| *own == tiles.columns);
        let loaded = self.loaded()?;
        let function = place.and_then(|place| loaded.functions.get(place));
        let (Some(function), Some(launch)) = (function, tiles.launch(shape)) else {
            return Err(odd_shape(shape.rows, shape.inputs));
        };
        let ahead = [Arg::Address(on.ahead.0), Arg::Size(on.ahead.1)];
        let args = [&arguments(shape, at, finish)?[..], &ahead].concat();
        let on = On {
            overlap: on.overlap && loaded.await_previous,
            ..on
        };
        // SAFETY: as the kernel takes them; `fit` has checked the shape.
        unsafe { start(on, (function, "product"), launch, &args) }
    }
}

fn arguments(shape: &ProductShape, at: Operands, finish: Finish) -> Result<Vec<Arg>> {
    let (narrowed, planes) = match shape.result {
        Kind::F32 => (0, at.out),
        Kind::F16 | Kind::Bf16 => (at.out, 0),
    };
    let places = [at.x, at.weight, finish.bias, narrowed, planes].map(Arg::Address);
    let [rows, depth, outputs] = [shape.rows, shape.inputs, shape.outputs].map(narrow);
    let activation = finish.activation.map_or(-1, number);
    let numbers = [rows?, depth?, outputs?, activation].map(Arg::Int);
    Ok([&places[..], &numbers].concat())
}
