"""The one adapter to tinygrad's internals: a tinygrad upgrade touches the files of this folder and no other.

`lower` turns a kernel's SINK into a Program that can cross processes, `launch` loads and times one on an open device.
Import the submodule that you need: lowering must not pull in a device, and launching must not pull in the codegen.
"""
