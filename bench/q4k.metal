// Q4_K matrix times one vector, written by hand for Apple GPUs: what a kernel that knows its device can do.
// K, the columns, is defined in front of this source. Weights are as a GGUF file has them: rows of block_q4_K.
// A threadgroup is 2 simdgroups of 32 lanes, a simdgroup takes 2 rows, so that each load of x serves both; the grid is
// rows / 4 threadgroups.
#include <metal_stdlib>
using namespace metal;

#define ROWS 2
#define SIMDGROUPS 2
#define BLOCKS (K / 256)

// 256 weights: weight = d * scale * q - dmin * minimum. Scales and minima are 6 bits each, for 8 groups of 32.
// Of a run of 64 weights the first 32 are the low nibbles of 32 bytes, the others the high ones.
struct Block {
  half d, dmin;
  uchar scales[12];
  uint4 quants[8];
};

// The two scales (low byte, high byte) and the two minima of run 0..3: groups 2 * run and 2 * run + 1. Those of groups
// 0-3 are bytes 0-3 and 4-7; of groups 4-7 the low nibbles are bytes 8-11, the top bits above those of groups 0-3.
static ushort2 scales_of(device const uchar *packed, uint run) {
  device const ushort *pairs = (device const ushort *)packed;
  const uint at = run & 1;
  const ushort a = pairs[at], b = pairs[2 + at], c = pairs[4 + at];
  if (run < 2) return ushort2(a & 0x3f3f, b & 0x3f3f);
  return ushort2((c & 0x0f0f) | ((a & 0xc0c0) >> 2), ((c >> 4) & 0x0f0f) | ((b & 0xc0c0) >> 2));
}

static float4 nibbles(uint word) { return float4(as_type<uchar4>(word & 0x0f0f0f0fu)); }

kernel void q4k_linear(device float *out [[buffer(0)]], device const uchar *weights [[buffer(1)]],
                       device const float *x [[buffer(2)]], uint group [[threadgroup_position_in_grid]],
                       uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  const uint row = (group * SIMDGROUPS + simdgroup) * ROWS;
  device const Block *blocks = (device const Block *)weights + row * BLOCKS;
  // 8 lanes a block, 16 bytes each: of run lane / 2 % 4, its first or its second half
  const uint part = lane % 8, run = part / 2, column = run * 64 + part % 2 * 16;
  float sums[ROWS] = {0.0f, 0.0f};
  for (uint block = lane / 8; block < BLOCKS; block += 4) {
    device const float4 *low = (device const float4 *)(x + block * 256 + column);
    device const float4 *high = low + 8;
    float4 a[4], b[4], total_low = 0.0f, total_high = 0.0f;
    for (uint i = 0; i < 4; i++) {
      a[i] = low[i];
      b[i] = high[i];
      total_low += a[i];
      total_high += b[i];
    }
    const float sum_low = dot(total_low, float4(1.0f)), sum_high = dot(total_high, float4(1.0f));
    for (uint r = 0; r < ROWS; r++) {
      device const Block &w = blocks[r * BLOCKS + block];
      const uint4 quants = w.quants[part];
      float4 products_low = 0.0f, products_high = 0.0f;
      for (uint i = 0; i < 4; i++) {
        products_low += nibbles(quants[i]) * a[i];
        products_high += nibbles(quants[i] >> 4) * b[i];
      }
      const ushort2 packed = scales_of(w.scales, run);
      const float scaled = float(packed.x & 0xff) * dot(products_low, float4(1.0f)) +
                           float(packed.x >> 8) * dot(products_high, float4(1.0f));
      const float offset = float(packed.y & 0xff) * sum_low + float(packed.y >> 8) * sum_high;
      sums[r] += float(w.d) * scaled - float(w.dmin) * offset;
    }
  }
  for (uint r = 0; r < ROWS; r++) {
    const float total = simd_sum(sums[r]);
    if (lane == 0) out[row + r] = total;
  }
}
