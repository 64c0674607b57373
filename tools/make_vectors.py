"""Write tests/vectors: for each quality a small file, the integers that a decoder finds on its way, and the picture.

``book/format.md`` describes them.
Run it with ``make vectors`` after a change of checkpoints, and never for another reason: that the files of yesterday
decode today is what the test holds.
``python tools/make_vectors.py FOLDER`` writes them to another place.
"""

import json
import sys
from pathlib import Path

import constriction
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dgml import bitstream, container, entropy, tables
from dgml.checkpoints import load_codec
from dgml.images import to_rgb
from dgml.picture_sets import load_images
from dgml.settings import QUALITIES, ROOT

FOLDER = ROOT / "tests" / "vectors"
BOX = (160, 60, 256, 140)  # of the first bundled photograph: 96x80 pixels, so that padding matters


def trace(codec, data: bytes) -> dict:
    """The integers of decoding ``data``, each array flattened from (channel, row, column)."""
    model, header = entropy.entropy_model(codec), container.read(data)
    decoder = constriction.stream.queue.RangeDecoder(header.stream)
    size = -(-header.height // 64), -(-header.width // 64)
    z_hat = entropy.decode_z(model, size, decoder)
    hyper = entropy.hyper_synthesis(model, z_hat)
    means, scales = np.zeros((2, *hyper.shape[:2], hyper.shape[2] // 2))
    y_hat = entropy.decode_y(model, z_hat, decoder)

    def symbols_at(rows, columns, some_means, some_scales):
        means[rows, columns], scales[rows, columns] = some_means, some_scales
        return np.rint((y_hat[:, rows, columns].T - some_means) / tables.ONE)

    assert np.array_equal(entropy.wavefront_scan(model, z_hat, symbols_at), y_hat)
    arrays = {
        "z_hat": z_hat,
        "hyper": hyper.transpose(2, 0, 1),
        "means": means.transpose(2, 0, 1),
        "scales": scales.transpose(2, 0, 1),
        "y_hat": y_hat,
    }
    facts = {"fingerprint": header.fingerprint, "checksum": header.checksum}
    shapes = {name: list(a.shape) for name, a in arrays.items()}
    return facts | {"shapes": shapes} | {name: a.astype(np.int64).ravel().tolist() for name, a in arrays.items()}


def write(folder: Path, quality: int) -> None:
    """The file, the integers and the picture of a quality."""
    picture = to_rgb(load_images("bundled")[0]["image"]).crop(BOX)
    codec = load_codec(quality, "bundled")
    data = bitstream.encode(codec, picture, quality)
    (folder / f"q{quality}.dgml").write_bytes(data)
    (folder / f"q{quality}.json").write_text(json.dumps(trace(codec, data)) + "\n", encoding="utf-8")
    bitstream.decode(codec, data).save(folder / f"q{quality}.png", optimize=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(exist_ok=True)
    for quality in QUALITIES:
        write(folder, quality)
