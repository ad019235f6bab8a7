//! NEON, which every 64-bit Arm has.

use std::arch::aarch64::{
    float32x4_t, vabsq_f32, vaddq_f32, vaddq_s32, vandq_u32, vbslq_f32, vcltq_f32, vcvtnq_s32_f32,
    vdivq_f32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u32, vfmaq_f32, vld1_u16, vld1q_f32, vmaxq_f32,
    vminq_f32, vmulq_f32, vorrq_u32, vreinterpretq_f32_s32, vreinterpretq_f32_u32,
    vreinterpretq_u32_f32, vrndnq_f32, vshll_n_u16, vshlq_n_s32, vsqrtq_f32, vst1q_f32, vsubq_f32,
};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::simd::Simd;

/// Four values.
#[derive(Clone, Copy)]
pub(super) struct Neon;

impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        vdupq_n_f32(value)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        vld1q_f32(from)
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> float32x4_t {
        let mut wide = [0.0; 4];
        std::slice::from_raw_parts(from, 4).convert_to_f32_slice(&mut wide);
        vld1q_f32(wide.as_ptr())
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> float32x4_t {
        vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast())))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: float32x4_t) {
        vst1q_f32(to, value);
    }

    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vaddq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vsubq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmulq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vdivq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmaxq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vminq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn sqrt(a: float32x4_t) -> float32x4_t {
        vsqrtq_f32(a)
    }

    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmaq_f32(c, a, b)
    }

    #[inline(always)]
    unsafe fn round(a: float32x4_t) -> float32x4_t {
        vrndnq_f32(a)
    }

    #[inline(always)]
    unsafe fn power_of_two(a: float32x4_t) -> float32x4_t {
        let biased = vaddq_s32(vcvtnq_s32_f32(a), vdupq_n_s32(127));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
    }

    #[inline(always)]
    unsafe fn with_sign(a: float32x4_t, sign: float32x4_t) -> float32x4_t {
        let bit = vandq_u32(vreinterpretq_u32_f32(sign), vdupq_n_u32(1 << 31));
        vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), bit))
    }

    #[inline(always)]
    unsafe fn abs(a: float32x4_t) -> float32x4_t {
        vabsq_f32(a)
    }

    #[inline(always)]
    unsafe fn where_less(
        x: float32x4_t,
        y: float32x4_t,
        a: float32x4_t,
        b: float32x4_t,
    ) -> float32x4_t {
        vbslq_f32(vcltq_f32(x, y), a, b)
    }
}
