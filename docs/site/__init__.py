"""What makes the site, and what is drawn for it: each module runs as ``python -m docs.site.NAME``."""

from __future__ import annotations

import sys
from types import TracebackType


def _say_what_to_install(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, ModuleNotFoundError):
        print(
            f"the site is made with the package {(error.name or '').partition('.')[0]!r}, which is not installed; "
            'try: make docs, or pip install -e ".[all,test,check]"',
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m":  # while Python looks for the module that it is to run
    sys.excepthook = _say_what_to_install
