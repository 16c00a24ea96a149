"""`patch()`: the official names mean our classes, for programs that one cannot edit.

Where the official package is installed, its names are replaced in place; everything else of it stays. Its two modules
with code (`audio.tts.speech_synthesizer`, `audio.tts_v2.speech_synthesizer`) are covered by copies instead: objects
that were made before look up their classes in them, and go on unharmed. Where it is not installed, modules that hold
nothing but our names stand in, and a finder tells whoever imports more that it is not covered.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

from . import endpoints

__all__ = ["patch", "unpatch"]

logger: Final = logging.getLogger("speechpool.dashscope")

_OFFICIAL: Final = "dashscope"
_OURS: Final = "speechpool.dashscope"
_PACKAGES: Final = ("audio.tts", "audio.tts_v2")
_LEAF: Final = ".speech_synthesizer"
_SETTINGS: Final = (
    "api_key", "api_key_file_path", "base_websocket_api_url", "base_http_api_url", "base_compatible_api_url",
)  # fmt: skip
_lock: Final = threading.Lock()
_undo: Final[list[Callable[[], object]]] = []
_standing: Final[dict[str, ModuleType]] = {}
"""What stood in before, and does again: a program goes on to set its key on the module that it imported then."""


def patch(url: str | None = None) -> None:
    """Have the official names, such as `dashscope.audio.tts_v2.SpeechSynthesizer`, mean our classes.

    That holds for modules imported later and for `dashscope.audio.tts_v2.X` wherever it is written out. A module that
    has executed `from dashscope.audio.tts_v2 import X` before keeps what it got, and so does a class derived from it:
    patch first, import then. A warning names the modules that came too early. Objects made before stay as they are.

    `dashscope.api_key` and the URLs are those of the official module from now on; what the program sets on
    `speechpool.dashscope` wins. Any thread may call this; a second call does nothing, except that it may give a `url`.
    A child process that is spawned, not forked, is not patched.

    Args:
        url: Where every connection goes, whatever the program says; None: where it says.

    Raises:
        ImportError: The official package is installed, and cannot be imported.
    """
    with _lock:
        if not _undo:
            try:
                if _is_installed():
                    _patch_installed()
                else:
                    _stand_in()
            except BaseException:
                _restore()
                raise
            _set(endpoints, "SOURCE", _OFFICIAL)
            _undo.append(lambda: setattr(endpoints, "DESTINATION", None))
        if url is not None:
            endpoints.DESTINATION = url


def unpatch() -> None:
    """Give the official names back what they meant. Objects made meanwhile stay ours. Unpatched, it does nothing."""
    with _lock:
        _restore()


def _restore() -> None:
    while _undo:
        _undo.pop()()


def _set(owner: Any, name: str, value: object) -> None:
    before = getattr(owner, name)
    setattr(owner, name, value)
    _undo.append(lambda: setattr(owner, name, before))


def _put(name: str, module: ModuleType) -> None:
    """Have `import name` give `module`."""
    before = sys.modules.get(name)
    sys.modules[name] = module
    _undo.append(lambda: sys.modules.update({name: before}) if before is not None else sys.modules.pop(name, None))


def _names(module: str) -> dict[str, Any]:
    """Return what our module of this name offers."""
    ours = importlib.import_module(f"{_OURS}.{module}")
    return {name: getattr(ours, name) for name in ours.__all__}


# -------------------------------------------------------------------------------------- the official package is there
def _is_installed() -> bool:
    spec = importlib.util.find_spec(_OFFICIAL)
    return spec is not None and spec.origin is not None  # a mere folder of that name has none


def _patch_installed() -> None:
    early: set[int] = set()
    official = importlib.import_module(_OFFICIAL)
    _cover(official, {"SpeechSynthesizer": _names("audio.tts")["SpeechSynthesizer"]}, early)
    for package in _PACKAGES:
        module = importlib.import_module(f"{_OFFICIAL}.{package}")
        leaf = importlib.import_module(f"{_OFFICIAL}.{package}{_LEAF}")
        _cover(module, _names(package), early)
        copy = ModuleType(leaf.__name__)
        vars(copy).update(vars(leaf))
        vars(copy).update((name, ours) for name, ours in _names(package).items() if name in vars(leaf))
        _put(leaf.__name__, copy)
        _set(module, _LEAF[1:], copy)
    for place in _bound(early):
        logger.warning("%s was bound before patch(), so it stays the official one; patch before that import.", place)


def _cover(module: ModuleType, names: Mapping[str, Any], early: set[int]) -> None:
    for name, ours in names.items():
        if name in vars(module):
            if name.startswith("SpeechSynthesizer"):  # the others only carry values: either one does
                early.add(id(vars(module)[name]))
            _set(module, name, ours)


def _bound(official: set[int]) -> Iterator[str]:
    """Find the names in other modules that mean one of these classes, given by their ids."""
    for module_name, module in list(sys.modules.items()):
        # type() and no vars(): some things only say that they are modules, and some load when they are looked into.
        if not issubclass(type(module), ModuleType) or module_name.partition(".")[0] in {_OFFICIAL, "speechpool"}:
            continue
        for name, value in list(object.__getattribute__(module, "__dict__").items()):
            if id(value) in official:
                yield f"{module_name}.{name}"


# ------------------------------------------------------------------------------------------ it is not there
def _stand_in() -> None:
    root = {"set_region": _set_region, "SpeechSynthesizer": _names("audio.tts")["SpeechSynthesizer"]}
    vars(_module("", root))["__getattr__"] = _setting
    _module("audio", {})
    for package in _PACKAGES:
        _module(package, _names(package))
        _module(package + _LEAF, _names(package), package=False)
    _module("common", {})
    _module("common.error", _names("common.error"), package=False)
    finder = _NotCovered()
    sys.meta_path.insert(0, finder)
    _undo.append(lambda: sys.meta_path.remove(finder))


def _module(name: str, names: Mapping[str, Any], *, package: bool = True) -> ModuleType:
    """Make a module of the official name, and put it into the one above."""
    whole = f"{_OFFICIAL}.{name}" if name else _OFFICIAL
    about = "Stands in for the official module, which is not installed: its speech classes only."
    module = _standing.setdefault(whole, ModuleType(whole, about))
    module.__spec__ = spec = ModuleSpec(whole, None, origin=_OURS, is_package=package)
    module.__package__ = spec.parent
    if package:
        module.__path__ = []
    vars(module).update(names, __all__=list(names), __getattr__=_without(whole))
    _put(whole, module)
    if name:
        above, _, own = whole.rpartition(".")
        setattr(sys.modules[above], own, module)
    return module


def _without(module: str) -> Callable[[str], Any]:
    def missing(name: str) -> Any:
        raise AttributeError(f"module {module!r} has no attribute {name!r}: {_uncovered(f'{module}.{name}')}")

    return missing


def _setting(name: str) -> Any:
    # What the program has not set, as of `speechpool.dashscope`.
    return endpoints.from_environment(name) if name in _SETTINGS else _without(_OFFICIAL)(name)


def _set_region(region: str, workspace_id: str | None = None) -> None:
    vars(sys.modules[_OFFICIAL]).update(endpoints.region_urls(region, workspace_id))


class _NotCovered:
    """Answers imports of what nothing stands in for. What stands in is in `sys.modules`, and never asked for here."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Find nothing.

        Raises:
            ImportError: It is the official package's. No ModuleNotFoundError, which `from` would hide.
        """
        if name.startswith(f"{_OFFICIAL}.") and not name.endswith("__"):
            raise ImportError(_uncovered(name), name=name)


def _uncovered(name: str) -> str:
    return (
        f"{name} is not covered: speechpool has the speech classes of dashscope.audio.tts and dashscope.audio.tts_v2 "
        "only, and the official SDK is not installed (pip install dashscope)."
    )
