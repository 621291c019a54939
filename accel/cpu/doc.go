// Package cpu holds the kernels that BitNet spends its time in, the choice of the instruction set that runs
// them, and the worker pool that spreads them over cores. It is the only place that knows the processor.
//
// # Kernels
//
// Every kernel is an exported Go function whose comment is the formula it computes. Behind it stand a scalar
// Go reference (files *_ref.go), which is the definition, and hand-laid versions for AVX2, AVX-512 VNNI and NEON
// (kernels_amd64.s and kernels_arm64.s, written by the generators in gen/ and gen/neon/). Integer products have versions for
// AVX-VNNI, for NEON with SDOT and, of many tokens, for AMX (amx_amd64.s, written by hand) too. All of them give the same bits:
//
//   - Integer kernels are exact int32 sums.
//   - Float kernels add in one fixed order, which is ascending or names the lane of each element, so that it is the same for
//     scalar Go, 4 lanes, 8 and 16. Products of matrices ([AddProduct], [Dot], [DenseMatMul]) and the exponential use fused
//     multiply-add, which has one right result, on every instruction set; all other kernels round products and sums separately.
//
// A result therefore depends neither on the processor nor on the number of threads, nor on how many tokens are
// worked on at once.
//
// # Layouts
//
// Ternary weights are packed as "panel16" (see [PackTernary]) and dense weights as "dense16" (see [DenseFormat]).
// Both keep 16 rows side by side, so that a vector register holds one partial sum for each row and nothing is
// ever summed across lanes.
//
// # Contract
//
// Kernels check the lengths of their slices once per call and panic when the caller broke the contract: that is
// a bug in this program, never bad user input. After the check the assembly reads and writes exactly the
// documented elements.
//
// Two NaN may differ in their sign and payload bits, which the processor chooses.
//
// # Speed
//
// Measured on two cores of a shared Zen 4 server, best of many short windows, with AVX-512; the benchmarks print the same
// figures beside the machine's own read limit ([ReadBandwidth]):
//
//	                                    1 thread                   2 threads
//	read limit                          30 GB/s                    60 GB/s
//	ternary, one token, 6912x2560       31 GB/s (at the limit)     56 GB/s (94 %)
//	ternary, 4 tokens                   467 Gops                   866 Gops
//	ternary, 64 tokens                  460 Gops                   860 Gops (VPDPBUSD's limit is about 920)
//
// The output head of that model, 128256x2560, for one token, as a share of the read limit measured in turns with it (median), and
// what one thread multiplies when the weights are in cache:
//
//	           AVX-512: 1 thread   2 threads   in cache     AVX2: 1 thread   2 threads   in cache
//	bf16                88 %        89 %       73 GB/s            91 %        91 %       60 GB/s
//	int8                89 %        97 %       96 GB/s            85 %        86 %       38 GB/s
//
// On a Xeon of the Sapphire Rapids generation one AMX thread does 2400 Gops of ternary or int8 products with 192 tokens, and a thread
// with AVX-512 600; [AddProduct] runs at 130 GFLOP/s, and at 75 with AVX2.
//
// Memory on such a Xeon is read 1.4 times as fast from eight places a thread as from one, which is what [ReadBandwidth] then measures; kernels
// for one token read panels side by side there. Their share of that limit with two threads, in long jobs: ternary, int8 and int4 all of it,
// with AVX2 83, 76 and 79 %. Chosen lines are 640 bytes with gaps between them, of which the
// processor reads a half when half of the lines are chosen, and two fifths with a third: useful bytes come at about 70 and 62 % of the limit.
//
// With twelve tokens one AVX-512 thread does 234 Gops in int8, 190 in int4 and 100 in bf16.
//
// In cache, a Xeon of that generation multiplies with AVX2, AVX-VNNI and AVX-512 on one busy core (Gops, 64 tokens): ternary 172, 240
// and 515, int8 39, 141 and 270. NEON has been run under an emulator only.
//
// Ternary products with AVX2 reach 26 GB/s and 300 Gops on one thread. An empty [Parallel] job costs 0.2 us.
//
// # Environment
//
// BITNET_ISA (scalar, avx2, avxvnni, avx512 or amx; on arm64 scalar, neon or neon-dotprod) forces an instruction set,
// BITNET_NUM_THREADS the number of threads, and BITNET_SKIP_ZEROS=0 makes feed-forward layers read the weights of neurons that are off. A
// value that cannot be honoured is reported by [InitError]; the package then runs with its defaults.
package cpu
