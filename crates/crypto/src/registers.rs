//! Vector registers, in which copies and ciphers leave plaintext and round keys: those of a thread that waits are part
//! of an image of the process.

/// Wipes this thread's vector registers. Some nanoseconds; to be called where a thread is done with secrets and goes on
/// to wait. Where the processor is no x86-64, nothing is done.
pub fn wipe() {
    #[cfg(target_arch = "x86_64")]
    x86_64::wipe();
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;
    use std::arch::x86_64::_mm256_zeroall;

    pub(super) fn wipe() {
        if is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor has it.
            unsafe { upper_half() };
        }
        if is_x86_feature_detected!("avx") {
            // SAFETY: the processor has it.
            unsafe { lower_half() };
        }
    }

    /// Registers 0 to 15, in their whole width.
    #[target_feature(enable = "avx")]
    fn lower_half() {
        _mm256_zeroall();
    }

    /// Registers 16 to 31: what is written to the first 128 bits clears the others.
    #[target_feature(enable = "avx512f,avx512vl")]
    fn upper_half() {
        // SAFETY: the instructions change these registers alone, which the caller of a C function does not rely on.
        unsafe {
            asm!(
                "vpxord xmm16, xmm16, xmm16",
                "vpxord xmm17, xmm17, xmm17",
                "vpxord xmm18, xmm18, xmm18",
                "vpxord xmm19, xmm19, xmm19",
                "vpxord xmm20, xmm20, xmm20",
                "vpxord xmm21, xmm21, xmm21",
                "vpxord xmm22, xmm22, xmm22",
                "vpxord xmm23, xmm23, xmm23",
                "vpxord xmm24, xmm24, xmm24",
                "vpxord xmm25, xmm25, xmm25",
                "vpxord xmm26, xmm26, xmm26",
                "vpxord xmm27, xmm27, xmm27",
                "vpxord xmm28, xmm28, xmm28",
                "vpxord xmm29, xmm29, xmm29",
                "vpxord xmm30, xmm30, xmm30",
                "vpxord xmm31, xmm31, xmm31",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::arch::asm;

    /// The lowest word of a register of each half, after it was filled and `then` was called.
    #[target_feature(enable = "avx512f,avx512vl")]
    fn left(then: fn()) -> [u64; 2] {
        let (low, high): (u64, u64);
        // SAFETY: the registers are named as changed, and the called function is one of the C ABI.
        unsafe {
            asm!(
                "vmovq xmm5, {filler}",
                "vmovq xmm21, {filler}",
                filler = in(reg) 0xa5a5_a5a5_a5a5_a5a5_u64,
                out("xmm5") _,
                out("xmm21") _,
            );
            then();
            asm!("vmovq {low}, xmm5", "vmovq {high}, xmm21", low = out(reg) low, high = out(reg) high);
        }
        [low, high]
    }

    #[test]
    fn nothing_is_left_in_either_half() {
        if !is_x86_feature_detected!("avx512vl") {
            super::wipe();
            return;
        }
        // SAFETY: the processor has it.
        unsafe {
            assert_eq!(left(|| {}), [0xa5a5_a5a5_a5a5_a5a5; 2], "the control");
            assert_eq!(left(super::wipe), [0; 2]);
        }
    }
}
