"""What tinygrad 0.14 does that this project works around.

A test here fails once tinygrad is fixed: the workaround that docs/upgrading-tinygrad.md names beside it can go then.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.kernel_runs import device
from support.renderers import CL
from tinygrad import Device, Tensor, TinyJit, UOp, dtypes
from tinygrad.codegen import to_program
from tinygrad.codegen.opt import Opt, OptOps
from tinygrad.helpers import Context
from tinygrad.uop.ops import AxisType, KernelInfo, Ops


def run(kernel, out, *inputs):
    """What `kernel`, over placeholders, leaves in an array that held `out`."""
    device()
    tensors = [Tensor(array).realize() for array in (out, *inputs)]
    return Tensor.custom_kernel(*tensors, fxn=kernel)[0].numpy()


def ones(*shape):
    return np.ones(shape, np.float32)


def test_the_wheel_lacks_the_kernels_of_its_own_models():
    found = importlib.util.find_spec("tinygrad.llm")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent  # not by import: what stands in for the module may be there already
    assert not (folder / "kernels").exists()
    assert not (folder / "kernels.py").exists()


def test_a_function_is_not_captured_in_its_first_call():
    device()
    step = TinyJit(lambda x: (x + 1).realize())
    x = Tensor(ones(3)).realize()
    step(x)
    assert step.captured is None
    step(x)
    assert step.captured is not None


def test_random_numbers_repeat_where_their_state_is_made_in_a_captured_function():
    program = """
from tinygrad import Tensor, TinyJit
step = TinyJit(lambda x: (x + Tensor.rand(3)).realize())
step.cnt = 1  # what kernels.tinygrad.capture does
x = Tensor.ones(3).contiguous().realize()
print(len({tuple(step(x).tolist()) for _ in range(4)}))
"""
    device()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_a_device_that_is_open_cannot_be_asked_for_in_a_captured_function():
    name = device().name
    with Context(ALLOW_DEVICE_USAGE=0), pytest.raises(AssertionError, match="disallowed"):
        Device[name]


def test_a_symbolic_number_of_tokens_is_no_argument_of_a_kernel():
    device()
    x = Tensor(ones(7, 4)).realize()[: UOp.variable("count", 1, 7).bind(3)]
    with pytest.raises(AssertionError, match="symbolic shape"):
        Tensor.empty(4).custom_kernel(x, fxn=lambda out, x: out)


def test_a_variable_with_one_value_is_no_argument_of_a_kernel():
    device()
    out, x = (UOp.placeholder((4,), dtypes.float32, slot=i) for i in range(2))
    i, start = UOp.range(4, 0), UOp.variable("start", 0, 0)
    kernel = out[i].store(x[i] + start.cast(dtypes.float32)).end(i).sink(arg=KernelInfo(name="one", opts_to_apply=()))
    buffer = Tensor.empty(4).uop
    call = kernel.call(buffer, Tensor(ones(4)).realize().uop, start.bind(0))
    with pytest.raises(AssertionError, match=r"not Ops\.CONST"):
        Tensor(buffer.after(call)).realize()


def test_a_condition_on_an_index_forgets_the_loops_that_the_index_does_not_have():
    """out[0, j] is stored in turn 1 of the loop over rows only. Turn 3 comes last, and should leave it alone."""

    def kernel(out):
        row, j = UOp.range(4, 0, AxisType.LOOP), UOp.range(8, 1, AxisType.LOOP)
        stored = out[0, j.valid(row.eq(1))].store(row.cast(dtypes.float32))
        return stored.end(row, j).sink(arg=KernelInfo(name="masked", opts_to_apply=()))

    assert run(kernel, np.zeros((2, 8), np.float32))[0].tolist() == [3.0] * 8


def summed(*opts):
    """out [4] = the sums of the rows of x [4, 31]."""

    def kernel(out, x):
        i, k = UOp.range(4, 0), UOp.range(31, 1, AxisType.REDUCE)
        total = UOp(Ops.REDUCE, src=(x[i, k], k), arg=(Ops.ADD, 0))
        return out[i].store(total).end(i).sink(arg=KernelInfo(name="summed", opts_to_apply=opts))

    return run(kernel, np.zeros(4, np.float32), ones(4, 31)).tolist()


def test_a_sum_over_a_padded_and_unrolled_loop_loses_terms():
    assert summed() == [31.0] * 4
    assert summed(Opt(OptOps.PADTO, 1, 32), Opt(OptOps.UNROLL, 0, 2)) == [30.0] * 4


@pytest.mark.parametrize("op", [OptOps.UPCAST, OptOps.UNROLL])
def test_an_amount_of_1_breaks_the_rewriting(op):
    with pytest.raises(KeyError):
        summed(Opt(op, 0, 1))


def rendered(kernel):
    program = to_program(kernel, CL)
    return program.arg, program.src[2].arg


def test_a_padded_loop_reads_an_index_from_past_the_end():
    sizes = ((5, dtypes.float32), (5, dtypes.int32), (9, dtypes.float32))
    out, index, x = (UOp.placeholder((n,), dtype, slot=i) for i, (n, dtype) in enumerate(sizes))
    i = UOp.range(5, 0)
    info = KernelInfo(name="looked_up", opts_to_apply=(Opt(OptOps.PADTO, 0, 8),))
    _, source = rendered(out[i].store(x[index[i]]).end(i).sink(arg=info))
    assert "/* 8 */" in source  # workgroups, of which 3 have no index
    assert "int val0 = (*(data1_5+gidx0));" in source


def test_without_locals_the_size_of_a_workgroup_is_left_open():
    out, x = (UOp.placeholder((64,), dtypes.float32, slot=i) for i in range(2))
    i = UOp.range(64, 0)
    info = KernelInfo(name="copy", opts_to_apply=(Opt(OptOps.NOLOCALS),))
    described, _ = rendered(out[i].store(x[i]).end(i).sink(arg=info))
    assert described.local_size is None
