"""The one door to NVML: the real ``nvidia-ml-py``, with typed answers and errors that carry their code.

NVML keeps global state in the process and does not survive a fork: only the sampler opens it.
Importing this module needs neither nvidia-ml-py nor a GPU; opening the door does.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NewType

from shm_monitor.schema import Unknown

Handle = NewType("Handle", object)  # a ctypes pointer that only NVML understands

# nvml.h, nvmlReturn_t. Spelled out, because reasons must be known where nvidia-ml-py is not installed.
UNINITIALIZED = 1
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
TIMEOUT = 10
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
ARGUMENT_VERSION_MISMATCH = 25
GPU_NOT_FOUND = 28
UNKNOWN = 999

_SONAME = "libnvidia-ml.so.1"
IMPORT = "import pynvml"
"""The call of a fault that means that nvidia-ml-py itself is missing."""

_REASONS = {
    NOT_SUPPORTED: Unknown.NOT_SUPPORTED,
    FUNCTION_NOT_FOUND: Unknown.NOT_SUPPORTED,
    NO_PERMISSION: Unknown.NO_PERMISSION,
    TIMEOUT: Unknown.TIMEOUT,
    GPU_IS_LOST: Unknown.GPU_LOST,
    RESET_REQUIRED: Unknown.GPU_LOST,
}


class NvmlFault(Exception):
    """NVML answered a call with an error.

    Args:
        code: nvmlReturn_t.
        call: the function that was asked.
        text: NVML's own words.
    """

    def __init__(self, code: int, call: str, text: str) -> None:
        super().__init__(f"{call}: {text} (NVML error {code})")
        self.code = code
        self.call = call

    @property
    def why(self) -> Unknown:
        """The reason that a reading carries when this happened to it."""
        return _REASONS.get(self.code, Unknown.ERROR)

    @property
    def has_older(self) -> bool:
        """True when the driver is older than the call, so that the call before it is worth a try."""
        return self.code in (FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH)


class Nvml:
    """NVML's functions, by name. Every fault is an ``NvmlFault``; a call may also never return.

    Args:
        library: path of a libnvidia-ml that the dynamic linker would not find by itself; it must have the soname
            ``libnvidia-ml.so.1``, as NVIDIA's has, because nvidia-ml-py asks for that name.
    """

    def __init__(self, library: str | None = None) -> None:
        self._library = library
        self._module: ModuleType | None = None

    def initialize(self) -> None:
        """Load the library and open the driver; NVML counts how often, so each wants one ``shutdown``."""
        if self._module is None:
            self._module = self._load()
        self.call("nvmlInit")

    def shutdown(self) -> None:
        """Close the driver. Not while another call is in flight: NVML does not promise to survive that."""
        self.call("nvmlShutdown")

    def call(self, name: str, *arguments: object) -> Any:
        """Return what nvidia-ml-py's function *name* returns for *arguments*."""
        function = getattr(self._module, name, None)
        if self._module is None or function is None:  # an nvidia-ml-py older than the function
            raise NvmlFault(FUNCTION_NOT_FOUND, name, "not in the installed nvidia-ml-py")
        try:
            return function(*arguments)
        except self._module.NVMLError as error:
            raise NvmlFault(error.value, name, str(error)) from error
        except Exception as error:
            raise NvmlFault(UNKNOWN, name, f"{type(error).__name__}: {error}") from error

    def newest(self, names: tuple[str, ...], *arguments: object) -> Any:
        """Return the answer of the first of *names* that this driver has, newest first."""
        for name in names[:-1]:
            try:
                return self.call(name, *arguments)
            except NvmlFault as fault:
                if not fault.has_older:
                    raise
        return self.call(names[-1], *arguments)

    def _load(self) -> ModuleType:
        """Import nvidia-ml-py, once the library is there: a host without it is spared 3 MB and 40 ms.

        A *library* is loaded first also so that the linker answers its soname with it.
        """
        try:
            ctypes.CDLL(self._library or _SONAME)
        except OSError as error:
            raise NvmlFault(LIBRARY_NOT_FOUND, "nvmlInit", str(error)) from error
        try:
            import pynvml  # an optional package
        except ImportError as error:
            raise NvmlFault(LIBRARY_NOT_FOUND, IMPORT, str(error)) from error
        except Exception as error:
            raise NvmlFault(UNKNOWN, IMPORT, f"{type(error).__name__}: {error}") from error
        module: ModuleType = pynvml
        if not hasattr(module, "NVMLError"):
            raise NvmlFault(UNKNOWN, IMPORT, f"{module.__file__ or 'a folder'} is not nvidia-ml-py")
        return module


def shadowing_distribution(path: Sequence[str] | None = None) -> str:
    """Return a sentence on what stands before nvidia-ml-py when ``import pynvml`` is looked up, else "".

    The deprecated distributions ``pynvml`` (up to 11 a package of that name) and ``nvidia-ml-py3`` bring their own
    module, older than the driver. *path* is searched as ``sys.path`` is (the default).
    Source: https://github.com/gpuopenanalytics/pynvml (README: "This project has been deprecated").
    """
    import importlib.machinery
    import importlib.metadata  # here, not above: 2 MB of mail parser and archives that no sampler needs

    where = list(sys.path if path is None else path)
    for wrong in ("pynvml", "nvidia-ml-py3"):
        for found in importlib.metadata.distributions(name=wrong, path=where):
            return (
                f"the distribution {wrong!r} {found.version} is installed and can shadow `import pynvml` of "
                f"nvidia-ml-py; try: pip uninstall {wrong}; pip install --force-reinstall nvidia-ml-py"
            )
    spec = importlib.machinery.PathFinder.find_spec("pynvml", where)
    if spec is not None and spec.submodule_search_locations is not None:  # nvidia-ml-py has a module, not a package
        return (
            f"`import pynvml` finds {spec.origin or 'a folder called pynvml'}, which is not nvidia-ml-py; "
            "try: rename it, or pip install --force-reinstall nvidia-ml-py"
        )
    return ""
