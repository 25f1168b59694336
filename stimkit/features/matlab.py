"""Features as a MATLAB file: the variables, coordinates and attributes of the NetCDF file."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
from scipy.io import savemat

from stimkit.errors import UsageError

MAX_VARIABLE = 2**31 - 1  # bytes that a variable of MATLAB's format 5 can have


def check_matlab(shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise `UsageError` where variables, by name, of float32 are larger than a MATLAB file holds."""
    for name, shape in shapes.items():
        if 4 * int(np.prod(shape)) > MAX_VARIABLE:
            raise UsageError(
                f"{name} is larger than the 2 GB of a variable in a .mat file: write .nc, and read it with ncread"
            )


def write_matlab(source: Path, target: Path) -> None:
    """Write the variables of a NetCDF file, stimuli first, and its attributes in `attributes`; texts are cells."""
    with netCDF4.Dataset(source) as file:
        variables = {name: np.asarray(variable[:]) for name, variable in file.variables.items()}
        texts = {
            name: values.astype(object)[:, None] for name, values in variables.items() if values.dtype.kind in "OU"
        }
        columns = {name: values[:, None] for name, values in variables.items() if values.ndim == 1}
        attributes = {name: file.getncattr(name) for name in file.ncattrs()}
    savemat(
        target, {**variables, **columns, **texts, "attributes": attributes}, do_compression=True, long_field_names=True
    )
