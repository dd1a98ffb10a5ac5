// Metal's keywords and vector constructors. float4(a, b, c, d) is not valid C++, so a type's name before ( is a macro.
#pragma once
#define kernel static
#define device
#define thread
#define threadgroup
#define constant const
#define metalsim_threadgroup_array(index, type, name, dimensions)                                              \
  typedef type name##_metalsim dimensions;                                                                     \
  name##_metalsim &name =                                                                                      \
      *(name##_metalsim *)metalsim_threadgroup(index, sizeof(name##_metalsim), alignof(name##_metalsim))

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define MAXFLOAT 3.402823466e+38f
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define HALF_MAX 65504.0f
#define M_PI_F 3.14159265358979323846f
#define INT_MAX 2147483647

#define char2(...) metalsim_make<char, 2>(__VA_ARGS__)
#define char3(...) metalsim_make<char, 3>(__VA_ARGS__)
#define char4(...) metalsim_make<char, 4>(__VA_ARGS__)
#define uchar2(...) metalsim_make<uchar, 2>(__VA_ARGS__)
#define uchar3(...) metalsim_make<uchar, 3>(__VA_ARGS__)
#define uchar4(...) metalsim_make<uchar, 4>(__VA_ARGS__)
#define short2(...) metalsim_make<short, 2>(__VA_ARGS__)
#define short3(...) metalsim_make<short, 3>(__VA_ARGS__)
#define short4(...) metalsim_make<short, 4>(__VA_ARGS__)
#define ushort2(...) metalsim_make<ushort, 2>(__VA_ARGS__)
#define ushort3(...) metalsim_make<ushort, 3>(__VA_ARGS__)
#define ushort4(...) metalsim_make<ushort, 4>(__VA_ARGS__)
#define int2(...) metalsim_make<int, 2>(__VA_ARGS__)
#define int3(...) metalsim_make<int, 3>(__VA_ARGS__)
#define int4(...) metalsim_make<int, 4>(__VA_ARGS__)
#define uint2(...) metalsim_make<uint, 2>(__VA_ARGS__)
#define uint3(...) metalsim_make<uint, 3>(__VA_ARGS__)
#define uint4(...) metalsim_make<uint, 4>(__VA_ARGS__)
#define long2(...) metalsim_make<long, 2>(__VA_ARGS__)
#define long3(...) metalsim_make<long, 3>(__VA_ARGS__)
#define long4(...) metalsim_make<long, 4>(__VA_ARGS__)
#define ulong2(...) metalsim_make<ulong, 2>(__VA_ARGS__)
#define ulong3(...) metalsim_make<ulong, 3>(__VA_ARGS__)
#define ulong4(...) metalsim_make<ulong, 4>(__VA_ARGS__)
#define half2(...) metalsim_make<half, 2>(__VA_ARGS__)
#define half3(...) metalsim_make<half, 3>(__VA_ARGS__)
#define half4(...) metalsim_make<half, 4>(__VA_ARGS__)
#define float2(...) metalsim_make<float, 2>(__VA_ARGS__)
#define float3(...) metalsim_make<float, 3>(__VA_ARGS__)
#define float4(...) metalsim_make<float, 4>(__VA_ARGS__)
#define bfloat2(...) metalsim_make<bfloat, 2>(__VA_ARGS__)
#define bfloat3(...) metalsim_make<bfloat, 3>(__VA_ARGS__)
#define bfloat4(...) metalsim_make<bfloat, 4>(__VA_ARGS__)
#define bool2(...) metalsim_make<bool, 2>(__VA_ARGS__)
#define bool3(...) metalsim_make<bool, 3>(__VA_ARGS__)
#define bool4(...) metalsim_make<bool, 4>(__VA_ARGS__)
