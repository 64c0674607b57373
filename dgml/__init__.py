"""A learned image codec: photographs to .dgml files and back.

    from dgml import decode, encode, load_codec

    codec = load_codec(quality=3)
    data = encode(codec, picture, quality=3)
    picture = decode(codec, data)

``python -m dgml`` does the same with files. Each module can be read on its own; their order, from bytes upward, is
container, tables, entropy, bitstream.
"""

import warnings
from importlib import import_module

# compressai compiles two functions with torch.jit at import; newer versions of torch warn of it.
for _category in (FutureWarning, DeprecationWarning):
    warnings.filterwarnings("ignore", message=".*torch.jit", category=_category)

_HOMES = {
    "BitstreamError": "container", "FileCodec": "bitstream", "decode": "bitstream", "encode": "bitstream",
    "load_codec": "checkpoints",
}  # fmt: skip
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import on first use (PEP 562): ``dgml info`` needs none of torch's two seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dgml.{_HOMES[name]}"), name)
