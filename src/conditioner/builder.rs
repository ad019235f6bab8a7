//! Settings first, work last.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};

use crate::conditioning::expect_state_type;
use crate::encoder::{ClipConfig, ClipText, Kept, MATRIX_TYPES, Quantized};
use crate::error::{Error, ErrorKind, Result, expect_type};
use crate::hub::{self, Hub};
use crate::kernels::{self, Kernels};
use crate::stop::Stop;
use crate::threads;
use crate::weights::{
    self, Checkpoint, EncoderId, Family, LoadReport, Synthetic, SyntheticSize, TensorSource,
    Unchanging,
};

use super::cache::{Cache, CacheOptions};
use super::choice::Choice;
use super::prompted::Last;
use super::seat::Home;
use super::watched::Watched;
use super::{Conditioner, Inner, Part};

type Sources = Vec<(EncoderId, Box<dyn TensorSource>)>;

/// What the library calls while it loads: encoder, layers done, layers in all. It is called after
/// each group of layers that are read together; both numbers are equal once, when the encoder is whole.
pub type Progress<'a> = &'a mut dyn FnMut(EncoderId, usize, usize);

/// How to load: device, precision, family. Setters cannot fail; the last call does the work.
///
/// ```
/// use sd_conditioner::candle_core::{DType, Device};
/// use sd_conditioner::{Conditioner, Family, weights::SyntheticSize};
/// let text = Conditioner::builder()
///     .device(Device::Cpu)
///     .dtype(DType::F16)
///     .random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)?;
/// assert_eq!(text.encode("a cat")?.context().dims(), [1, 77, 128 + 256]);
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct Builder {
    device: Device,
    dtype: DType,
    output: Option<DType>,
    family: Option<Family>,
    variant: Option<String>,
    quantized: Quantized,
    mapped: Option<Unchanging>,
    cache: CacheOptions,
    choice: Choice,
    stop: Stop,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            device: Device::Cpu,
            dtype: DType::F32,
            output: None,
            family: None,
            variant: None,
            quantized: Quantized::Expand,
            mapped: None,
            cache: CacheOptions::default(),
            choice: Choice::default(),
            stop: Stop::default(),
        }
    }
}

impl Builder {
    /// Where to compute; the CPU unless set.
    ///
    /// Where threads share a conditioner, or hand its results on, a card should be
    /// `Device::new_cuda_with_stream`: candle's `Device::new_cuda` gives every thread a stream of its own,
    /// and nothing makes one wait for another unless the first calls `Device::synchronize`.
    /// Open it before other threads encode on that GPU: candle waits for all of it when it opens a device,
    /// which CUDA refuses while a forward is captured.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// How the encoders' matrices are kept: f32 (default), f16 or bf16; loading refuses all others
    /// ([`ErrorKind::Unsupported`]). Activations and sums are f32; a GPU, and for bf16 a CPU with AMX,
    /// rounds what a product takes to the matrices' type.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The type of the tensors handed out: f32, f16, bf16, or f64 (which holds what was computed in
    /// f32; files of [`storage`](crate::storage) do not take it). The same as [`dtype`](Self::dtype)
    /// unless set; loading refuses all others.
    pub fn output_dtype(mut self, dtype: DType) -> Self {
        self.output = Some(dtype);
        self
    }

    /// The family, where a file could serve several (a lone ViT-L or ViT-bigG). What cannot be of this
    /// family is refused ([`ErrorKind::Mismatch`]), and so is another one that
    /// [`random_weights`](Self::random_weights) or [`load_sources`](Self::load_sources) name.
    pub fn family(mut self, family: Family) -> Self {
        self.family = Some(family);
        self
    }

    /// Which variant of a diffusers folder to read (`fp16`).
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// Keeps the matrices that a file has quantized (GGUF) as they are, and expands each for its
    /// product: a fraction of the memory, more time, the same numbers as without it in f32. Files
    /// without quantized matrices load as always.
    pub fn keep_quantized(mut self) -> Self {
        self.quantized = Quantized::Keep;
        self
    }

    /// On a CPU, leaves matrices where the system has their file in memory: nothing is copied, loading takes
    /// the time of looking at every value once, and programs that read the same file share its memory.
    /// The results are the same bits. It is done for matrices that the file has row by row, in the type of
    /// [`dtype`](Self::dtype) or, for f32, in one whose products are those of f32 to the bit: f16 except with AMX,
    /// bf16 with vector units that have no products of it (AVX2, NEON). Others are read as always.
    ///
    /// It is for programs that encode little: a forward takes up to a tenth longer where it widens f16 itself, and
    /// about a fifth with AMX where bf16 matrices do not begin on a cache line, which is the file's. That the file
    /// does not change as long as any handle lives cannot be checked; that is why giving the word is `unsafe`.
    pub fn map_files(mut self, word: Unchanging) -> Self {
        self.mapped = Some(word);
        self
    }

    /// Plain operations only, for tests and bug reports.
    pub fn reference_kernels(mut self) -> Self {
        self.choice.reference = true;
        self
    }

    /// What is kept of the windows that were encoded, so that equal ones are not encoded again:
    /// 64 MiB in memory unless set. Results are the same without it; see
    /// [`cache_stats`](Conditioner::cache_stats).
    pub fn cache(mut self, options: CacheOptions) -> Self {
        self.cache = options;
        self
    }

    /// How the kernels work, and where they keep what they have measured on this machine.
    pub fn kernel_options(mut self, options: kernels::Options) -> Self {
        self.choice.options = options;
        self
    }

    /// Gives up loading ([`ErrorKind::Stopped`]) as soon as `asked` says so. It is asked before each group of
    /// layers or tensors that are read together, and while files are fetched ([`Hub::stop_when`]), on the
    /// thread that loads. Nothing is left of what was loaded. What is compiled for a card beside the loading
    /// is waited for. Of several closures one is enough. Encoding has its own: [`Conditioner::stop_when`].
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use sd_conditioner::{Conditioner, ErrorKind, Family, weights::SyntheticSize};
    /// let cancelled = Arc::new(AtomicBool::new(true)); // a button's, for example
    /// let asked = Arc::clone(&cancelled);
    /// let builder = Conditioner::builder().stop_when(move || asked.load(Ordering::Relaxed));
    /// let error = builder.random_weights(Family::Sd1, SyntheticSize::Tiny, 73).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Stopped);
    /// ```
    pub fn stop_when(mut self, asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop.when(asked);
        self
    }

    /// Loads a checkpoint file, a diffusers folder, or a single encoder's file or folder.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Conditioner> {
        let checkpoint = Checkpoint::open_variant(path, self.variant.as_deref())?;
        self.load(&[checkpoint])
    }

    /// Loads encoders that come in separate files.
    pub fn load(self, parts: &[Checkpoint]) -> Result<Conditioner> {
        self.load_with_progress(parts, &mut |_, _, _| ())
    }

    /// The same, telling how far it is.
    pub fn load_with_progress(
        self,
        parts: &[Checkpoint],
        progress: Progress<'_>,
    ) -> Result<Conditioner> {
        let (family, sources) = weights::combine(parts, self.family)?;
        let fingerprints: Vec<String> = parts.iter().map(Checkpoint::fingerprint).collect();
        let mut report = LoadReport::default();
        for part in parts {
            report.merge(part.report());
        }
        self.finish(family, &sources, report, fingerprints.join("+"), progress)
    }

    /// Loads a checkpoint by its name in the hub's catalog (`sdxl`): from the cache, or downloaded
    /// where the feature `hub` is built in. The family is the catalog's unless one was set.
    pub fn from_hub(self, hub: &Hub, name: &str) -> Result<Conditioner> {
        self.from_hub_with_progress(hub, name, &mut |_| (), &mut |_, _, _| ())
    }

    /// The same, telling how far the files have come, and then the encoders.
    pub fn from_hub_with_progress(
        self,
        hub: &Hub,
        name: &str,
        fetching: &mut dyn FnMut(hub::Progress<'_>),
        loading: Progress<'_>,
    ) -> Result<Conditioner> {
        self.check_types()?;
        let fetched = hub.clone().stopped_by(&self.stop).fetch(name, fetching)?;
        let parts = fetched.open()?;
        let builder = Builder {
            family: self.family.or(Some(fetched.family)),
            ..self
        };
        let loaded = builder.load_with_progress(&parts, loading);
        loaded.map_err(|error| fetched.name_what_to_delete(error))
    }

    /// Builds seeded encoders by [`Synthetic`]'s rule. Their embeddings mean nothing.
    pub fn random_weights(
        self,
        family: Family,
        size: SyntheticSize,
        seed: u64,
    ) -> Result<Conditioner> {
        self.random_weights_with_progress(family, size, seed, &mut |_, _, _| ())
    }

    /// The same, telling how far it is.
    pub fn random_weights_with_progress(
        self,
        family: Family,
        size: SyntheticSize,
        seed: u64,
        progress: Progress<'_>,
    ) -> Result<Conditioner> {
        self.expect_family(family)?;
        let source = |encoder: &EncoderId| -> (EncoderId, Box<dyn TensorSource>) {
            (*encoder, Box::new(Synthetic::new(*encoder, size, seed)))
        };
        let sources = family.encoders().iter().map(source).collect();
        let fingerprint = format!("random-weights/{size:?}/{seed}").to_lowercase();
        self.finish(
            family,
            &sources,
            LoadReport::default(),
            fingerprint,
            progress,
        )
    }

    /// Takes encoders from any source, with dimensions as given; for archives of your own and for
    /// towers with other heads than Stable Diffusion's. In the family's order.
    pub fn load_sources(
        self,
        family: Family,
        encoders: &[(ClipConfig, &dyn TensorSource)],
    ) -> Result<Conditioner> {
        self.expect_family(family)?;
        let given: Vec<EncoderId> = encoders.iter().map(|(config, _)| config.encoder).collect();
        if given != family.encoders() {
            let message = format!("{family} wants {:?}, not {given:?}", family.encoders());
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        let kernels = self.kernels()?;
        let cache = Cache::new(&self.cache)?;
        let identities = cache.identities(&[], encoders.len());
        let each = encoders.iter().zip(identities);
        let load = |((config, source), identity): (&(ClipConfig, &dyn TensorSource), _)| {
            let id = config.encoder;
            let watched = self.watched(id, *source);
            let clip = self.load_as(config, &watched, kernels.clone(), &mut |_, _| ())?;
            Ok(Part::new(id, identity, clip))
        };
        let load = || each.map(load).collect::<Result<_>>();
        let parts = kernels::while_expecting(&*kernels, self.dtype, load)?;
        let report = LoadReport::default();
        Ok(self.wrapped(family, (cache, parts), report, "sources".to_owned()))
    }

    /// Refuses a family that contradicts the one set.
    fn expect_family(&self, named: Family) -> Result<()> {
        match self.family.filter(|set| *set != named) {
            None => Ok(()),
            Some(set) => {
                let message = format!("the builder's family is {set}, and {named} is asked for");
                Err(Error::new(ErrorKind::Mismatch, message)
                    .hint("leave `Builder::family` out, or name the same one"))
            }
        }
    }

    fn kept(&self) -> Kept {
        let mut kept = Kept::from(self.dtype);
        (kept.quantized, kept.mapped) = (self.quantized, self.mapped);
        kept
    }

    /// Integers would make zeros of everything.
    fn check_types(&self) -> Result<()> {
        expect_type("an encoder's matrices", self.dtype, &MATRIX_TYPES)?;
        self.output.map_or(Ok(()), expect_state_type)
    }

    fn kernels(&self) -> Result<Arc<dyn Kernels>> {
        self.check_types()?;
        threads::expect()?;
        self.choice.kernels(&self.device)
    }

    fn wrapped(
        self,
        family: Family,
        (cache, parts): (Cache, Vec<Part>),
        report: LoadReport,
        fingerprint: String,
    ) -> Conditioner {
        let home = Arc::new(Home::new(cache, self.choice));
        let inner = Inner {
            family,
            seat: home.seat(parts, self.device),
            home,
            report,
            fingerprint,
            dtype: self.dtype,
            output: self.output.unwrap_or(self.dtype),
            worn: Vec::new(),
            loras: Vec::new(),
            base: None,
            last: Last::default(),
        };
        Conditioner::of(inner)
    }

    fn finish(
        self,
        family: Family,
        sources: &Sources,
        mut report: LoadReport,
        fingerprint: String,
        progress: Progress<'_>,
    ) -> Result<Conditioner> {
        let kernels = self.kernels()?;
        let cache = Cache::new(&self.cache)?;
        let identities = cache.identities(&[], sources.len());
        let each = sources.iter().zip(identities);
        let load = |((id, source), identity): (&(EncoderId, Box<dyn TensorSource + '_>), _)| {
            let id = *id;
            let source = self.watched(id, &**source);
            source.note_casts(self.dtype, &mut report);
            let clip = self.load_one(&source, kernels.clone(), progress)?;
            Ok(Part::new(id, identity, clip))
        };
        let load = || each.map(load).collect::<Result<_>>();
        let parts = kernels::while_expecting(&*kernels, self.dtype, load)?;
        Ok(self.wrapped(family, (cache, parts), report, fingerprint))
    }

    fn watched<'a>(&'a self, id: EncoderId, source: &'a dyn TensorSource) -> Watched<'a> {
        let stop = &self.stop;
        Watched { id, source, stop }
    }

    fn load_one(
        &self,
        watched: &Watched<'_>,
        kernels: Arc<dyn Kernels>,
        progress: Progress<'_>,
    ) -> Result<ClipText> {
        let config = ClipConfig::detect(watched.id, watched)?;
        let mut tell = |done, total| progress(watched.id, done, total);
        self.load_as(&config, watched, kernels, &mut tell)
    }

    fn load_as(
        &self,
        config: &ClipConfig,
        source: &dyn TensorSource,
        kernels: Arc<dyn Kernels>,
        tell: &mut dyn FnMut(usize, usize),
    ) -> Result<ClipText> {
        ClipText::load(source, config, self.kept(), kernels, &self.device, tell)
    }
}
