"""The kernels: a folder for each family of ops, where each variant of an op is a function that makes a kernel's
body."""
