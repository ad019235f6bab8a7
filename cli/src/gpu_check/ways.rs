//! The ways in which one encoder is run: the same weights with other kernels. They come in the order of what may go
//! wrong on a card, the plainest first, so that whatever ends a part leaves what was found before.

use std::sync::Arc;

use anyhow::Result;
use sd_conditioner::candle_core::{DType, Device};
use sd_conditioner::encoder::{ClipConfig, ClipText};
use sd_conditioner::kernels::{Follow, Kernels, Options, Products, Reference, Tune, choose_with};
use sd_conditioner::weights::{EncoderId, Synthetic, SyntheticSize};

use super::parts::Setting;

const SEED: u64 = 73;

/// How an encoder is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// candle's operations.
    Plain,
    /// Fused kernels and the library's products, enqueued one by one.
    Fused,
    /// The same as a captured graph, each kernel after the one before.
    Captured,
    /// The library's products; kernels follow each other as is fastest.
    Library,
    /// Our own products wherever they can.
    Own,
    /// What a program gets that asks for nothing: whatever was fastest.
    Fastest,
}

impl Way {
    pub(crate) const ALL: [Way; 6] = [
        Way::Plain,
        Way::Fused,
        Way::Captured,
        Way::Library,
        Way::Own,
        Way::Fastest,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Way::Plain => "plain",
            Way::Fused => "fused",
            Way::Captured => "captured",
            Way::Library => "library's products",
            Way::Own => "own products",
            Way::Fastest => "fastest",
        }
    }

    /// Whether forwards become graphs.
    pub(crate) fn captures(self) -> bool {
        self.options().capture
    }

    fn options(self) -> Options {
        let steady = Options {
            products: Products::Library,
            follow: Follow::Plain,
            ..Options::default()
        };
        let measured = Options::default();
        match self {
            Way::Plain | Way::Fused => Options {
                capture: false,
                ..steady
            },
            Way::Captured => steady,
            Way::Library => Options {
                products: Products::Library,
                ..measured
            },
            Way::Own => Options {
                products: Products::Own,
                ..measured
            },
            Way::Fastest => measured,
        }
    }
}

/// An encoder that is run plainly, and in other ways as far as the setting has them.
pub(crate) struct Tower<'a> {
    pub(crate) plain: ClipText,
    pub(crate) setting: &'a Setting,
}

impl<'a> Tower<'a> {
    pub(crate) fn load(
        (id, size, dtype): (EncoderId, SyntheticSize, DType),
        device: &Device,
        setting: &'a Setting,
    ) -> Result<Tower<'a>> {
        let source = Synthetic::new(id, size, SEED);
        let config = ClipConfig::detect(id, &source)?;
        let kernels = Arc::new(Reference::new(device)?);
        let none = &mut |_, _| ();
        let plain = ClipText::load(&source, &config, dtype.into(), kernels, device, none)?;
        Ok(Tower { plain, setting })
    }

    pub(crate) fn id(&self) -> EncoderId {
        self.plain.config().encoder
    }

    /// `clip_l f16`.
    pub(crate) fn named(&self) -> String {
        format!("{} {}", self.id(), self.plain.dtype().as_str())
    }

    /// All that its type can take (our own products are of 16 bits) and the setting has.
    pub(crate) fn ways(&self) -> impl Iterator<Item = Way> {
        let own = self.setting.own && self.plain.dtype() != DType::F32;
        let all = Way::ALL.into_iter();
        all.filter(move |way| own || *way != Way::Own)
    }

    /// The same weights in another way.
    pub(crate) fn on(&self, way: Way) -> Result<ClipText> {
        match way {
            Way::Plain => Ok(self.plain.clone()),
            other => self.with(other.options()),
        }
    }

    /// Captured, with kernels that follow each other in this manner.
    pub(crate) fn following(&self, follow: Follow) -> Result<ClipText> {
        self.with(Options {
            follow,
            ..Options::default()
        })
    }

    fn with(&self, options: Options) -> Result<ClipText> {
        let mut options = Options {
            // Compiled and measured once for all: what the files keep is used, too.
            cache_dir: Some(self.setting.folder.clone()),
            tune: Tune::AtFirst,
            ..options
        };
        if !self.setting.own {
            options.products = Products::Library;
        }
        let kernels: Arc<dyn Kernels> = choose_with(self.plain.device(), &options)?;
        Ok(self.plain.with_kernels(kernels))
    }
}
