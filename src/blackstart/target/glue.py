"""The glue file beside a manifest: a few lines of Python that know how to write to the target.

And how to read from it.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackstart.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

    from blackstart.model.manifest import Manifest

FIND_LIMIT_S = 5.0


def path(manifest: Manifest) -> Path:
    """Return the glue file of a manifest."""
    assert manifest.glue is not None
    return Path(manifest.folder, manifest.glue)


def problems(manifest: Manifest, needed: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the glue file without running it: missing, not Python, lacking a function."""
    file = path(manifest)
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    except OSError:
        yield f"glue: no file {file}"
        return
    except (SyntaxError, ValueError) as error:
        yield f"glue: {file} is not Python: {error}"
        return
    coroutines = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    for name in needed:
        if name not in coroutines:
            yield f"glue: {file.name} has no `async def {name}(…)`"


def load(file: Path) -> ModuleType:
    """Import a glue file under a name of its own.

    Raises ManifestError when that fails, with the file's own reason.
    """
    spec = importlib.util.spec_from_file_location(f"blackstart_glue_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ManifestError("cannot be imported", where=str(file), hint="the glue must be a .py file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        what = f"cannot be imported: {type(error).__name__}: {error}"
        raise ManifestError(what, where=str(file)) from error
    return module


def function(module: ModuleType, name: str) -> Any:
    """Return a function of the glue. Raises ManifestError when there is none."""
    found = getattr(module, name, None)
    if found is None:
        raise ManifestError(f"has no function `{name}`", where=str(module.__file__))
    return found


class Finder:
    """Asks functions of the glue while a trial runs, each question in a thread and an event loop of its own.

    Client libraries block, and some cannot be cancelled while a server is away: the trial must not wait.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._asking: dict[str, threading.Thread] = {}

    async def ask(self, name: str, settings: Mapping[str, Any]) -> Any:
        """Return the function's answer. Raises whatever it raises, and TimeoutError after 5 s."""
        before = self._asking.get(name)
        if before is not None and before.is_alive():
            await asyncio.to_thread(before.join, FIND_LIMIT_S)
            if before.is_alive():
                raise TimeoutError("the question before is still not answered")
        answer: list[Any] = []
        asked = threading.Thread(target=self._run, args=(name, dict(settings), answer), daemon=True)
        self._asking[name] = asked
        asked.start()
        await asyncio.to_thread(asked.join, FIND_LIMIT_S)
        if not answer:
            raise TimeoutError(f"no answer within {FIND_LIMIT_S:g} s")
        if isinstance(answer[0], BaseException):
            raise answer[0]
        return answer[0]

    def _run(self, name: str, settings: dict[str, Any], answer: list[Any]) -> None:
        try:
            answer.append(asyncio.run(asyncio.wait_for(function(self._module, name)(settings), FIND_LIMIT_S)))
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            answer.append(error)
