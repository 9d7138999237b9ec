"""The builds of packed products for other processors give the same products."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from ctypes import c_int64, c_void_p
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_blocks import HALVES, random_rows

from chatstream_flask.inference.decoders import native as sources
from chatstream_flask.inference.decoders.native_library import native_library
from chatstream_flask.inference.decoders.packed import PACKED_FORMATS, PackedMatrix

if native_library() is None:
    pytest.skip("no C compiler when this was installed", allow_module_level=True)

SIMDE = Path("/usr/include/simde/x86/avx512/dpbusd.h")  # Debian's libsimde-dev
NUM_OUTPUTS, NUM_INPUTS, NUM_ROWS = 53, 1280, 5
BLOCK_BYTES = 48  # of quantised inputs


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the build for AVX-512 VNNI, with its dot product emulated."""
    if not (SIMDE.exists() and shutil.which("gcc")):
        pytest.skip("needs gcc and libsimde-dev")
    library = tmp_path_factory.mktemp("emulated") / "vnni.so"
    source = Path(sources.__file__).parent / "packed_vnni.c"
    options = ["-O0", "-w", "-shared", "-fPIC", "-DEMULATED"]  # optimising takes gcc ten times as long
    subprocess.run(["gcc", *options, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def product_by(function: Any, matrix: PackedMatrix, x: torch.Tensor) -> torch.Tensor:
    quantised = torch.empty(NUM_ROWS * NUM_INPUTS // 32 * BLOCK_BYTES, dtype=torch.uint8)
    y = torch.empty(NUM_ROWS, NUM_OUTPUTS)
    sizes = c_int64(NUM_ROWS), c_int64(NUM_INPUTS)
    native_library().quantise_rows(
        c_void_p(x.data_ptr()), c_int64(NUM_INPUTS), *sizes, c_void_p(quantised.data_ptr())
    )
    function(
        *(c_void_p(quantised.data_ptr()), *sizes, matrix.struct, None, c_int64(0), c_int64(NUM_OUTPUTS)),
        *(c_void_p(y.data_ptr()), c_int64(NUM_OUTPUTS)),
    )
    return y


@pytest.mark.parametrize("name", HALVES)
def test_all_builds_give_the_same_products(name: str, emulated: Any) -> None:
    rows = torch.from_numpy(random_rows(name, NUM_OUTPUTS, NUM_INPUTS))
    matrix = PackedMatrix(rows, NUM_INPUTS, PACKED_FORMATS[name])
    x = torch.randn(NUM_ROWS, NUM_INPUTS, generator=torch.Generator().manual_seed(1))
    expected = matrix.product(x)
    for function in (emulated.packed_product_vnni, native_library().packed_product_plain):
        # The integers are equal; whether a float sum is fused with its product is the compiler's choice.
        torch.testing.assert_close(product_by(function, matrix, x), expected, rtol=1e-4, atol=1e-4)
