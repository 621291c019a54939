#include "go_asm.h"
#include "textflag.h"

// Go's assembler does not know AMX: the encodings as bytes. Registers go by number: AX 0, CX 1, DX 2, BX 3, SI 6, DI 7.

#define LDTILECFG_AX BYTE $0xC4; BYTE $0xE2; BYTE $0x78; BYTE $0x49; BYTE $0x00
#define TILERELEASE BYTE $0xC4; BYTE $0xE2; BYTE $0x78; BYTE $0x49; BYTE $0xC0
#define TILEZERO(t) BYTE $0xC4; BYTE $0xE2; BYTE $0x7B; BYTE $0x49; BYTE $(0xC0|(t)<<3)

// Rows of a tile lie index bytes apart, from base on.
#define TILELOADD(t, base, index) BYTE $0xC4; BYTE $0xE2; BYTE $0x7B; BYTE $0x4B; BYTE $(4|(t)<<3); BYTE $((index)<<3|(base))
#define TILESTORED(t, base, index) BYTE $0xC4; BYTE $0xE2; BYTE $0x7A; BYTE $0x4B; BYTE $(4|(t)<<3); BYTE $((index)<<3|(base))

// c += a*b for int8 a and uint8 b.
#define TDPBSUD(c, a, b) BYTE $0xC4; BYTE $0xE2; BYTE $((15-(b))<<3|2); BYTE $0x5E; BYTE $(0xC0|(c)<<3|(a))

// c += a*b for uint8 a and int8 b.
#define TDPBUSD(c, a, b) BYTE $0xC4; BYTE $0xE2; BYTE $((15-(b))<<3|1); BYTE $0x5E; BYTE $(0xC0|(c)<<3|(a))

// 64 columns: tiles 0 1 += tile 5 of each left factor * tile 4. a0 in SI, a1 in CX, DI or AX apart; b0 in BX.
#define STEP(stride) \
	TILELOADD(4, 3, 0) \
	TILELOADD(5, 6, stride) \
	TDPBSUD(0, 5, 4) \
	TILELOADD(5, 1, stride) \
	TDPBSUD(1, 5, 4)

// func tilesAMX(job *tileJob, shapes *[64]byte)
// R10, R11, R12 and R14 are how far a group lies from the first one in a, the tails, c and b, R13 the groups left.
TEXT ·tilesAMX(SB), NOSPLIT, $0-16
	MOVQ job+0(FP), R8
	MOVQ shapes+8(FP), AX
	LDTILECFG_AX
	MOVQ $64, AX
	MOVQ tileJob_groups(R8), R13
	XORQ R10, R10
	XORQ R11, R11
	XORQ R12, R12
	XORQ R14, R14
group:
	MOVQ tileJob_more(R8), R9
	TESTQ R9, R9
	JNZ more
	MOVQ tileJob_start0(R8), SI
	MOVQ tileJob_start1(R8), CX
	TESTQ SI, SI
	JNZ begin
	TILEZERO(0)
	TILEZERO(1)
	JMP start
begin:
	TILELOADD(0, 6, 0)
	TILELOADD(1, 1, 0)
	JMP start
more:
	MOVQ tileJob_c0(R8), SI
	MOVQ tileJob_c1(R8), CX
	ADDQ R12, SI
	ADDQ R12, CX
	MOVQ tileJob_ldc(R8), DI
	TILELOADD(0, 6, 7)
	TILELOADD(1, 1, 7)
start:
	MOVQ tileJob_a0(R8), SI
	MOVQ tileJob_a1(R8), CX
	ADDQ R10, SI
	ADDQ R10, CX
	MOVQ tileJob_lda(R8), DI
	MOVQ tileJob_b0(R8), BX
	ADDQ R14, BX
	MOVQ tileJob_steps(R8), R9
	TESTQ R9, R9
	JZ tail
step:
	STEP(7)
	ADDQ $64, SI
	ADDQ $64, CX
	ADDQ $1024, BX
	DECQ R9
	JNZ step
tail:
	MOVQ tileJob_tailA0(R8), SI
	TESTQ SI, SI
	JZ store
	MOVQ tileJob_tailA1(R8), CX
	ADDQ R11, SI
	ADDQ R11, CX
	MOVQ tileJob_tailB(R8), BX
	ADDQ R14, BX
	STEP(0)
store:
	MOVQ tileJob_c0(R8), SI
	MOVQ tileJob_c1(R8), CX
	ADDQ R12, SI
	ADDQ R12, CX
	MOVQ tileJob_ldc(R8), DI
	TILESTORED(0, 6, 7)
	TILESTORED(1, 1, 7)
	ADDQ tileJob_nextA(R8), R10
	ADDQ tileJob_nextTail(R8), R11
	ADDQ tileJob_nextB(R8), R14
	ADDQ tileJob_nextC(R8), R12
	DECQ R13
	JNZ group
	TILERELEASE
	RET

// The line at DX and those of seven more streams. R12 is R11 further than DX.
#define AHEAD(from) \
	PREFETCHT1 from(DX) \
	PREFETCHT1 from(DX)(R11*1) \
	PREFETCHT1 from(DX)(R11*2) \
	PREFETCHT1 from(DX)(R10*1) \
	PREFETCHT1 from(DX)(R11*4) \
	PREFETCHT1 from(R12)(R11*4) \
	PREFETCHT1 from(DX)(R10*2) \
	PREFETCHT1 from(R12)(R10*2)

// func streamTilesAMX(job *tileJob, shapes *[64]byte)
TEXT ·streamTilesAMX(SB), NOSPLIT, $0-16
	MOVQ job+0(FP), R8
	MOVQ shapes+8(FP), AX
	LDTILECFG_AX
	MOVQ $64, AX
	TILEZERO(0)
	TILEZERO(1)
	MOVQ tileJob_a0(R8), SI
	MOVQ tileJob_a1(R8), CX
	MOVQ tileJob_lda(R8), DI
	MOVQ tileJob_b0(R8), BX
	MOVQ tileJob_steps(R8), R9
	MOVQ tileJob_nextB(R8), R11
	LEAQ (R11)(R11*2), R10
	MOVQ tileJob_ahead(R8), DX
	ADDQ BX, DX
	LEAQ (DX)(R11*1), R12
step:
	AHEAD(0)
	TILELOADD(4, 3, 0)
	TILELOADD(5, 6, 7)
	TDPBSUD(0, 5, 4)
	AHEAD(64)
	TILELOADD(5, 1, 7)
	TDPBSUD(1, 5, 4)
	ADDQ $64, SI
	ADDQ $64, CX
	ADDQ $1024, BX
	ADDQ $128, DX
	ADDQ $128, R12
	DECQ R9
	JNZ step
	MOVQ tileJob_c0(R8), SI
	MOVQ tileJob_c1(R8), CX
	MOVQ tileJob_ldc(R8), DI
	TILESTORED(0, 6, 7)
	TILESTORED(1, 1, 7)
	TILERELEASE
	RET

// 64 columns: tiles 0 1 += tile 4 * tile 5 of each right factor. a0 in SI, DI or AX apart; b0 in BX, b1 R11 further.
#define WIDESTEP(stride) \
	TILELOADD(4, 6, stride) \
	TILELOADD(5, 3, 0) \
	LEAQ (BX)(R11*1), DX \
	TDPBSUD(0, 4, 5) \
	TILELOADD(5, 2, 0) \
	TDPBSUD(1, 4, 5)

// func wideTilesAMX(job *tileJob, shapes *[64]byte)
TEXT ·wideTilesAMX(SB), NOSPLIT, $0-16
	MOVQ job+0(FP), R8
	MOVQ shapes+8(FP), AX
	LDTILECFG_AX
	MOVQ $64, AX
	MOVQ tileJob_groups(R8), R13
	MOVQ tileJob_b0(R8), R10
	MOVQ tileJob_b1(R8), R11
	SUBQ R10, R11
	MOVQ tileJob_c0(R8), R12
group:
	MOVQ tileJob_ldc(R8), DI
	LEAQ 64(R12), R14
	MOVQ tileJob_more(R8), R9
	TESTQ R9, R9
	JNZ more
	TILEZERO(0)
	TILEZERO(1)
	JMP start
more:
	MOVQ R12, SI
	MOVQ R14, BX
	TILELOADD(0, 6, 7)
	TILELOADD(1, 3, 7)
start:
	MOVQ tileJob_a0(R8), SI
	MOVQ tileJob_lda(R8), DI
	MOVQ R10, BX
	MOVQ tileJob_steps(R8), R9
	TESTQ R9, R9
	JZ tail
step:
	WIDESTEP(7)
	ADDQ $64, SI
	ADDQ $1024, BX
	DECQ R9
	JNZ step
tail:
	MOVQ tileJob_tailA0(R8), SI
	TESTQ SI, SI
	JZ store
	WIDESTEP(0)
store:
	MOVQ tileJob_ldc(R8), DI
	MOVQ R12, SI
	MOVQ R14, BX
	TILESTORED(0, 6, 7)
	TILESTORED(1, 3, 7)
	ADDQ tileJob_nextB(R8), R10
	ADDQ tileJob_nextC(R8), R12
	DECQ R13
	JNZ group
	TILERELEASE
	RET

// 16 columns: the four fields of 64 codes become 256 bytes of a tile.
#define CODES(src, dst) \
	VMOVDQU32 src, Z0 \
	VPSRLW $2, Z0, Z1 \
	VPSRLW $4, Z0, Z2 \
	VPSRLW $6, Z0, Z3 \
	VPANDD Z31, Z0, Z0 \
	VPANDD Z31, Z1, Z1 \
	VPANDD Z31, Z2, Z2 \
	VPANDD Z31, Z3, Z3 \
	VMOVDQU32 Z0, dst+0(DX) \
	VMOVDQU32 Z1, dst+64(DX) \
	VMOVDQU32 Z2, dst+128(DX) \
	VMOVDQU32 Z3, dst+192(DX)

// Two lines from each of two of the eight places that are read ahead, the first of them at p.
#define TWOAHEAD(p) \
	PREFETCHT1 0(p) \
	PREFETCHT1 64(p) \
	ADDQ tileJob_apart(R8), p \
	PREFETCHT1 0(p) \
	PREFETCHT1 64(p) \
	ADDQ tileJob_apart(R8), p

// 64 columns of panel i, whose codes are at R14, to the buffer at DX.
#define DECODE(i) \
	CODES(0(R14), 1024*i) \
	CODES(64(R14), 1024*i+256) \
	CODES(128(R14), 1024*i+512) \
	CODES(192(R14), 1024*i+768) \
	ADDQ tileJob_nextB(R8), R14

// func panelTilesAMX(job *tileJob, shapes *[64]byte)
TEXT ·panelTilesAMX(SB), NOSPLIT, $0-16
	MOVQ job+0(FP), R8
	MOVQ shapes+8(FP), AX
	LDTILECFG_AX
	MOVL $0x03030303, AX
	VPBROADCASTD AX, Z31
	MOVQ $64, AX
	MOVQ tileJob_groups(R8), R13
	MOVQ tileJob_b0(R8), R10
	MOVQ tileJob_c0(R8), R12
group:
	MOVQ tileJob_b1(R8), BX
	LEAQ 4096(BX), DX
	TILEZERO(0)
	TILEZERO(1)
	TILEZERO(2)
	TILEZERO(3)
	MOVQ tileJob_a0(R8), SI
	MOVQ tileJob_lda(R8), DI
	MOVQ tileJob_steps(R8), R9
	MOVQ R10, R14
	MOVQ R10, R11
	ADDQ tileJob_ahead(R8), R11
	DECODE(0)
	TWOAHEAD(R11)
	DECODE(1)
	TWOAHEAD(R11)
	DECODE(2)
	TWOAHEAD(R11)
	DECODE(3)
	TWOAHEAD(R11)
	SUBQ tileJob_back(R8), R11
	XCHGQ BX, DX
	ADDQ $256, R10
	DECQ R9
	JZ last
step:
	MOVQ R10, R14
	TILELOADD(4, 6, 7)
	TILELOADD(5, 3, 0)
	TDPBSUD(0, 4, 5)
	DECODE(0)
	TWOAHEAD(R11)
	LEAQ 1024(BX), CX
	TILELOADD(5, 1, 0)
	TDPBSUD(1, 4, 5)
	DECODE(1)
	TWOAHEAD(R11)
	LEAQ 2048(BX), CX
	TILELOADD(5, 1, 0)
	TDPBSUD(2, 4, 5)
	DECODE(2)
	TWOAHEAD(R11)
	LEAQ 3072(BX), CX
	TILELOADD(5, 1, 0)
	TDPBSUD(3, 4, 5)
	DECODE(3)
	TWOAHEAD(R11)
	SUBQ tileJob_back(R8), R11
	XCHGQ BX, DX
	ADDQ $64, SI
	ADDQ $256, R10
	DECQ R9
	JNZ step
last:
	TILELOADD(4, 6, 7)
	TILELOADD(5, 3, 0)
	LEAQ 1024(BX), CX
	TDPBSUD(0, 4, 5)
	TILELOADD(5, 1, 0)
	LEAQ 2048(BX), CX
	TDPBSUD(1, 4, 5)
	TILELOADD(5, 1, 0)
	LEAQ 3072(BX), CX
	TDPBSUD(2, 4, 5)
	TILELOADD(5, 1, 0)
	TDPBSUD(3, 4, 5)
	MOVQ tileJob_ldc(R8), DI
	MOVQ R12, SI
	LEAQ 64(R12), BX
	LEAQ 128(R12), DX
	LEAQ 192(R12), CX
	TILESTORED(0, 6, 7)
	TILESTORED(1, 3, 7)
	TILESTORED(2, 2, 7)
	TILESTORED(3, 1, 7)
	MOVQ tileJob_nextB(R8), CX
	LEAQ (CX)(CX*2), CX
	ADDQ CX, R10
	ADDQ $256, R12
	DECQ R13
	JNZ group
	TILERELEASE
	VZEROUPPER
	RET

// The four fields of 64 codes become 64 bytes in each of four tiles.
#define LINE(dst) \
	VMOVDQU32 (R14), Z0 \
	VPSRLW $2, Z0, Z1 \
	VPSRLW $4, Z0, Z2 \
	VPSRLW $6, Z0, Z3 \
	VPANDD Z31, Z0, Z0 \
	VPANDD Z31, Z1, Z1 \
	VPANDD Z31, Z2, Z2 \
	VPANDD Z31, Z3, Z3 \
	VMOVDQU32 Z0, dst+0(DX) \
	VMOVDQU32 Z1, dst+1024(DX) \
	VMOVDQU32 Z2, dst+2048(DX) \
	VMOVDQU32 Z3, dst+3072(DX) \
	ADDQ R11, R14

// Four lines, the next of which begins at R14. As many bytes are read ahead, of one of eight places.
#define LINES(dst) \
	PREFETCHT1 0(R10) \
	PREFETCHT1 64(R10) \
	PREFETCHT1 128(R10) \
	PREFETCHT1 192(R10) \
	ADDQ tileJob_apart(R8), R10 \
	LINE(dst) \
	LINE(dst+64) \
	LINE(dst+128) \
	LINE(dst+192)

// Tiles 0 1 += field f of the bytes of lines 0 to 15 and 16 to 31 * that of the tokens, while eight lines become bytes for the next step.
#define FIELD(f, dst) \
	TILELOADD(4, 6, 7) \
	ADDQ $64, SI \
	LEAQ (1024*f)(BX), CX \
	TILELOADD(5, 1, 0) \
	TDPBUSD(0, 5, 4) \
	LINES(dst) \
	LEAQ (1024*f+4096)(BX), CX \
	TILELOADD(5, 1, 0) \
	TDPBUSD(1, 5, 4) \
	LINES(dst+256)

// func rowTilesAMX(job *tileJob, shapes *[64]byte)
TEXT ·rowTilesAMX(SB), NOSPLIT, $0-16
	MOVQ job+0(FP), R8
	MOVQ shapes+8(FP), AX
	LDTILECFG_AX
	MOVL $0x03030303, AX
	VPBROADCASTD AX, Z31
	MOVQ $64, AX
	MOVQ $256, DI
	MOVQ tileJob_groups(R8), R13
	MOVQ tileJob_ldb(R8), R11
	MOVQ tileJob_c0(R8), R12
	MOVQ tileJob_b1(R8), DX
	LEAQ 8192(DX), BX
	MOVQ tileJob_b0(R8), R14
	MOVQ R14, R10
	ADDQ tileJob_ahead(R8), R10
	LINES(0)
	LINES(256)
	LINES(512)
	LINES(768)
	LINES(4096)
	LINES(4352)
	LINES(4608)
	LINES(4864)
	SUBQ tileJob_back(R8), R10
	SUBQ tileJob_nextB(R8), R14
	XCHGQ BX, DX
group:
	TILEZERO(0)
	TILEZERO(1)
	MOVQ tileJob_a0(R8), SI
	MOVQ tileJob_steps(R8), R9
step:
	ADDQ $64, R14
	CMPQ R9, $1
	JNE fields
	SUBQ R11, R14 // after the last columns come the first ones of the next lines
	ADDQ tileJob_nextB(R8), R14
	CMPQ R13, $1
	JNE fields
	MOVQ tileJob_b0(R8), R14 // or any
fields:
	FIELD(0, 0)
	FIELD(1, 512)
	FIELD(2, 4096)
	FIELD(3, 4608)
	SUBQ tileJob_back(R8), R10
	SUBQ tileJob_nextB(R8), R14
	ADDQ $3840, SI
	XCHGQ BX, DX
	DECQ R9
	JNZ step
	LEAQ 1024(R12), CX
	MOVQ R12, SI
	TILESTORED(0, 6, 0)
	TILESTORED(1, 1, 0)
	ADDQ $2048, R12
	DECQ R13
	JNZ group
	TILERELEASE
	VZEROUPPER
	RET

// Four lines that are columns: their bytes of one quarter of each 16, side by side, become 16 right columns in each of four tiles.
#define QUAD(bytes, words, dst) \
	VMOVDQU32 (R14), Z0 \
	VMOVDQU32 (R14)(R11*2), Z1 \
	bytes (R14)(R11*1), Z0, Z0 \
	bytes (R14)(R10*1), Z1, Z1 \
	words Z1, Z0, Z0 \
	LEAQ (R14)(R11*4), R14 \
	VPSRLW $2, Z0, Z1 \
	VPSRLW $4, Z0, Z2 \
	VPSRLW $6, Z0, Z3 \
	VPANDD Z31, Z0, Z0 \
	VPANDD Z31, Z1, Z1 \
	VPANDD Z31, Z2, Z2 \
	VPANDD Z31, Z3, Z3 \
	VMOVDQU32 Z0, dst+0(DX) \
	VMOVDQU32 Z1, dst+1024(DX) \
	VMOVDQU32 Z2, dst+2048(DX) \
	VMOVDQU32 Z3, dst+3072(DX)

#define QUADS(bytes, words, dst) \
	QUAD(bytes, words, dst) \
	QUAD(bytes, words, dst+64) \
	QUAD(bytes, words, dst+128) \
	QUAD(bytes, words, dst+192)

// Tile f += the tokens' columns * field f of the bytes of 64 lines.
#define LINEFIELD(f) \
	LEAQ (1024*f)(BX), CX \
	TILELOADD(5, 1, 0) \
	TDPBSUD(f, 4, 5)

// The same, while 16 lines become bytes for the next step.
#define LINESTEP(f, bytes, words) \
	LINEFIELD(f) \
	TWOAHEAD(R13) \
	QUADS(bytes, words, 256*f)

// All lines by quarter m of each 16 bytes. Products are in the order of fields, of which each has 4 of 16 neighbours: they are put in order.
#define QUARTER(m, bytes, words, step, last, row) \
	MOVQ tileJob_b0(R8), R14 \
	MOVQ tileJob_a0(R8), SI \
	MOVQ tileJob_steps(R8), R9 \
	TILEZERO(0) \
	TILEZERO(1) \
	TILEZERO(2) \
	TILEZERO(3) \
	TWOAHEAD(R13) \
	QUADS(bytes, words, 0) \
	TWOAHEAD(R13) \
	QUADS(bytes, words, 256) \
	TWOAHEAD(R13) \
	QUADS(bytes, words, 512) \
	TWOAHEAD(R13) \
	QUADS(bytes, words, 768) \
	SUBQ tileJob_back(R8), R13 \
	XCHGQ BX, DX \
	DECQ R9 \
	JZ last \
step: \
	TILELOADD(4, 6, 7) \
	LINESTEP(0, bytes, words) \
	LINESTEP(1, bytes, words) \
	LINESTEP(2, bytes, words) \
	LINESTEP(3, bytes, words) \
	SUBQ tileJob_back(R8), R13 \
	XCHGQ BX, DX \
	ADDQ $64, SI \
	DECQ R9 \
	JNZ step \
last: \
	TILELOADD(4, 6, 7) \
	LINEFIELD(0) \
	LINEFIELD(1) \
	LINEFIELD(2) \
	LINEFIELD(3) \
	MOVQ DX, CX \
	TILESTORED(0, 1, 0) \
	ADDQ $1024, CX \
	TILESTORED(1, 1, 0) \
	ADDQ $1024, CX \
	TILESTORED(2, 1, 0) \
	ADDQ $1024, CX \
	TILESTORED(3, 1, 0) \
	MOVQ DX, CX \
	MOVQ tileJob_rows(R8), R9 \
	MOVQ tileJob_c0(R8), SI \
row: \
	VMOVDQU32 0(CX), Z0 \
	VMOVDQU32 1024(CX), Z1 \
	VMOVDQU32 2048(CX), Z2 \
	VMOVDQU32 3072(CX), Z3 \
	VSHUFI32X4 $0x44, Z1, Z0, Z4 \
	VSHUFI32X4 $0xee, Z1, Z0, Z5 \
	VSHUFI32X4 $0x44, Z3, Z2, Z6 \
	VSHUFI32X4 $0xee, Z3, Z2, Z7 \
	VSHUFI32X4 $0x88, Z6, Z4, Z0 \
	VSHUFI32X4 $0xdd, Z6, Z4, Z1 \
	VSHUFI32X4 $0x88, Z7, Z5, Z2 \
	VSHUFI32X4 $0xdd, Z7, Z5, Z3 \
	VPADDD 64*m+0(SI), Z0, Z0 \
	VPADDD 64*m+256(SI), Z1, Z1 \
	VPADDD 64*m+512(SI), Z2, Z2 \
	VPADDD 64*m+768(SI), Z3, Z3 \
	VMOVDQU32 Z0, 64*m+0(SI) \
	VMOVDQU32 Z1, 64*m+256(SI) \
	VMOVDQU32 Z2, 64*m+512(SI) \
	VMOVDQU32 Z3, 64*m+768(SI) \
	ADDQ $64, CX \
	ADDQ R12, SI \
	DECQ R9 \
	JNZ row

// func columnTilesAMX(job *tileJob, shapes *[64]byte)
TEXT ·columnTilesAMX(SB), NOSPLIT, $0-16
	MOVQ job+0(FP), R8
	MOVQ shapes+8(FP), AX
	LDTILECFG_AX
	MOVL $0x03030303, AX
	VPBROADCASTD AX, Z31
	MOVQ $64, AX
	MOVQ tileJob_lda(R8), DI
	MOVQ tileJob_ldb(R8), R11
	LEAQ (R11)(R11*2), R10
	MOVQ tileJob_ldc(R8), R12
	MOVQ tileJob_b1(R8), DX
	LEAQ 4096(DX), BX
	MOVQ tileJob_b0(R8), R13
	ADDQ tileJob_ahead(R8), R13
	QUARTER(0, VPUNPCKLBW, VPUNPCKLWD, step0, last0, row0)
	QUARTER(1, VPUNPCKLBW, VPUNPCKHWD, step1, last1, row1)
	QUARTER(2, VPUNPCKHBW, VPUNPCKLWD, step2, last2, row2)
	QUARTER(3, VPUNPCKHBW, VPUNPCKHWD, step3, last3, row3)
	TILERELEASE
	VZEROUPPER
	RET
