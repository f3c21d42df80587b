"""Makes a stage of the pipeline callable: `mertool.extract(...)` is `mertool.extract.run(...)`.

The package and the function share one name in the public API; without this, importing
`mertool.extract.text` anywhere would hide a function `mertool.extract`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Stage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)


def callable_stage(name: str) -> None:
    """Let the module `name` be called like its function `run`."""
    sys.modules[name].__class__ = _Stage
