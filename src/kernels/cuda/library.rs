//! cuBLASLt's part of the products: descriptions, algorithms, and the call.
#![expect(unsafe_code, reason = "cuBLASLt is called through its C interface")]

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::CudaStream;

use super::failure::{Tried, device_error};
use super::functions::Address;
use crate::error::Result;
use crate::kernels::plan::{Kind, ProductShape};

pub(super) use sys::cublasLtMatmulAlgo_t as Algorithm;
use sys::cublasLtMatmulDescAttributes_t as Attribute;

/// Bytes of scratch memory that the products of one stream share: what NVIDIA recommends for
/// Hopper, and more than enough for older cards.
pub(super) const WORKSPACE: usize = 32 << 20;

/// Algorithms to ask the heuristic for.
const MOST_CANDIDATES: usize = 16;

/// Bytes by which biases are aligned at least (`weights.rs`).
const BIAS_ALIGNMENT: Address = 16;

/// The library's state. cuBLASLt's calls may share it between threads.
#[derive(Debug)]
pub(super) struct Library {
    handle: sys::cublasLtHandle_t,
    /// Held by who asks for algorithms, and by who captures: cuBLASLt 13.3 is said to find none while any stream
    /// of the process captures. Those of other types of matrices, and other programs' captures, are not held up.
    turn: Mutex<()>,
}

// SAFETY: cuBLASLt's documentation calls the handle thread-safe; it is destroyed once, in `drop`.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    pub(super) fn new() -> Result<Library> {
        let handle = result::create_handle().tried("start cuBLASLt")?;
        let turn = Mutex::default();
        Ok(Library { handle, turn })
    }

    /// Until this is dropped, nobody else captures or asks for algorithms.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn version() -> usize {
        // SAFETY: the call takes nothing and reads a constant of the library.
        unsafe { sys::cublasLtGetVersion() }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `create_handle` and is not used after this. That it could
        // not be destroyed is nothing that could be told to anybody here.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// What a product reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    pub(super) weight: Address,
    pub(super) x: Address,
    pub(super) out: Address,
    pub(super) workspace: Address,
}

/// What becomes of what `out` held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// It is written over.
    Replaced,
    /// The product and a bias, f32 as `out` is, are added to it.
    AddedTo,
}

/// One product. cuBLASLt is column-major: it makes `outᵀ = weight · xᵀ`, where our row-major weight is its
/// transposed left factor.
#[derive(Debug)]
pub(super) struct Description {
    operation: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    before: Before,
}

// SAFETY: the descriptions are plain memory of the library, owned by this value, and used by one thread at a
// time (it is not `Sync`).
unsafe impl Send for Description {}

impl Description {
    pub(super) fn new(shape: &ProductShape, before: Before) -> Result<Description> {
        let null = std::ptr::null_mut();
        // Dropping a half-made one destroys what is there.
        let mut made = Description {
            operation: null,
            weight: null.cast(),
            x: null.cast(),
            out: null.cast(),
            before,
        };
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let operation = result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F);
        made.operation = operation.tried("describe a product")?;
        made.turn_weight()?;
        if before == Before::AddedTo {
            made.add_bias()?;
        }
        made.weight = layout(shape.kind, shape.inputs, shape.outputs)?;
        made.x = layout(shape.kind, shape.inputs, shape.rows)?;
        made.out = layout(shape.result, shape.outputs, shape.rows)?;
        Ok(made)
    }

    /// The left factor is read the other way round.
    fn turn_weight(&self) -> Result<()> {
        let transposed: i32 = 1; // CUBLAS_OP_T
        self.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &transposed)
    }

    /// A bias for each column, in the type of `out`, which is what the library assumes.
    fn add_bias(&self) -> Result<()> {
        let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        // Where it will lie is not known yet, but how it is aligned is.
        self.set_bias(BIAS_ALIGNMENT)
    }

    fn set_bias(&self, bias: Address) -> Result<()> {
        self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)
    }

    /// A number as wide as the attribute is.
    fn set<T>(&self, attribute: Attribute, value: &T) -> Result<()> {
        let value = (&raw const *value).cast();
        // SAFETY: the description is alive; the library reads so many bytes.
        let set = unsafe {
            result::set_matmul_desc_attribute(self.operation, attribute, value, size_of::<T>())
        };
        set.tried("describe a product")
    }

    /// What could make this product with our scratch memory, the likely fastest first.
    pub(super) fn candidates(
        &self,
        library: &Library,
        shape: &ProductShape,
    ) -> Result<Vec<Algorithm>> {
        let preference = Preference::new(shape)?;
        let none = MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::zeroed();
        let mut found = [none; MOST_CANDIDATES];
        let mut count = 0;
        let _turn = library.turn();
        // SAFETY: all descriptions are alive, and there is room for as many results as are asked for.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                library.handle,
                self.operation,
                self.weight,
                self.x,
                self.out,
                self.out,
                preference.0,
                i32::try_from(MOST_CANDIDATES).unwrap_or(1),
                found.as_mut_ptr().cast(),
                &raw mut count,
            )
        };
        status.result().tried("find an algorithm for a product")?;
        let filled = found.iter().take(usize::try_from(count).unwrap_or(0));
        // SAFETY: the library has filled the first `count` results.
        let filled = filled.map(|one| unsafe { one.assume_init() });
        let usable = filled.filter(|one| one.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        Ok(usable.map(|one| one.algo).collect())
    }

    /// True if the library still thinks that this algorithm makes the product, with our scratch memory.
    pub(super) fn takes(&self, library: &Library, algorithm: &Algorithm) -> bool {
        let mut found = MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit();
        let _turn = library.turn();
        // SAFETY: all descriptions are alive; the library reads the algorithm and fills the result.
        let status = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                library.handle,
                self.operation,
                self.weight,
                self.x,
                self.out,
                self.out,
                &raw const *algorithm,
                found.as_mut_ptr(),
            )
        };
        // SAFETY: where the call succeeded, the result is filled.
        status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS
            && unsafe { found.assume_init() }.workspaceSize <= WORKSPACE
    }

    /// Enqueues the product; the bias is read where it is added.
    pub(super) fn run(
        &self,
        (library, stream): (&Library, &CudaStream),
        algorithm: &Algorithm,
        at: Operands,
        bias: Address,
    ) -> Result<()> {
        let one = 1.0_f32;
        let kept = match self.before {
            Before::Replaced => 0.0_f32,
            Before::AddedTo => 1.0,
        };
        if self.before == Before::AddedTo {
            self.set_bias(bias)?;
        }
        // SAFETY: all descriptions are alive; the addresses are those of buffers of the described
        // sizes (`Sizes`, or shapes checked by the caller), live until the stream has run.
        let result = unsafe {
            result::matmul(
                library.handle,
                self.operation,
                (&raw const one).cast(),
                (&raw const kept).cast(),
                pointer(at.weight),
                self.weight,
                pointer(at.x),
                self.x,
                pointer(at.out),
                self.out,
                pointer(at.out),
                self.out,
                &raw const *algorithm,
                pointer(at.workspace),
                WORKSPACE,
                stream.cu_stream().cast(),
            )
        };
        result.tried("start a product")
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        for layout in [self.weight, self.x, self.out]
            .into_iter()
            .filter(|layout| !layout.is_null())
        {
            // SAFETY: made by `layout`, destroyed once. A failure could be told to nobody.
            let _ = unsafe { result::destroy_matrix_layout(layout) };
        }
        if !self.operation.is_null() {
            // SAFETY: made by `create_matmul_desc`, destroyed once.
            let _ = unsafe { result::destroy_matmul_desc(self.operation) };
        }
    }
}

/// What an algorithm may do.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(shape: &ProductShape) -> Result<Preference> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        use sys::cublasLtReductionScheme_t as Scheme;
        let preference = Preference(result::create_matmul_pref().tried("describe a product")?);
        let workspace = WORKSPACE as u64;
        preference.set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &workspace,
        )?;
        // Parts of a sum may be rounded only to what they are summed in.
        let schemes: u32 = match shape.result {
            Kind::F32 => Scheme::CUBLASLT_REDUCTION_SCHEME_MASK as u32,
            Kind::F16 | Kind::Bf16 => Scheme::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32,
        };
        preference.set(
            Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            &schemes,
        )?;
        Ok(preference)
    }

    /// A number as wide as the attribute is.
    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> Result<()> {
        let value = (&raw const *value).cast();
        // SAFETY: the preference is alive; the library reads so many bytes.
        let set =
            unsafe { result::set_matmul_pref_attribute(self.0, attribute, value, size_of::<T>()) };
        set.tried("describe a product")
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `create_matmul_pref`, destroyed once. A failure could be told to nobody.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn layout(kind: Kind, rows: usize, columns: usize) -> Result<sys::cublasLtMatrixLayout_t> {
    let kind = match kind {
        Kind::F32 => sys::cudaDataType_t::CUDA_R_32F,
        Kind::F16 => sys::cudaDataType_t::CUDA_R_16F,
        Kind::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    };
    let stride = i64::try_from(rows).map_err(|_| device_error("a matrix is too large"))?;
    result::create_matrix_layout(kind, rows as u64, columns as u64, stride)
        .tried("describe a matrix")
}

fn pointer(address: Address) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}
