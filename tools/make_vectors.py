"""Write tests/vectors: for each quality a small file and the integers that a decoder finds on its way (book/format.md).

Run it with ``make vectors`` after a change of checkpoints, and never for another reason: that the files of yesterday
decode today is what the test holds.
"""

import json
import sys
from pathlib import Path

import constriction
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import bitstream
from helpers import QUALITIES, ROOT, load_codec, load_images, to_rgb

FOLDER = ROOT / "tests" / "vectors"
BOX = (160, 60, 256, 140)  # of the first bundled photograph: 96x80 pixels, so that padding matters


def trace(codec, data: bytes) -> dict:
    """The integers of decoding ``data``, each array flattened from (channel, row, column)."""
    model, header = bitstream.entropy_model(codec), bitstream.read(data)
    decoder = constriction.stream.queue.RangeDecoder(header.stream)
    size = -(-header.height // 64), -(-header.width // 64)
    z_hat = bitstream.decode_z(model, size, decoder)
    hyper = bitstream.hyper_synthesis(model, z_hat)
    means, scales = np.zeros((2, *hyper.shape[:2], hyper.shape[2] // 2))
    y_hat = bitstream.decode_y(model, z_hat, decoder)

    def symbols_at(rows, columns, some_means, some_scales):
        means[rows, columns], scales[rows, columns] = some_means, some_scales
        return np.rint((y_hat[:, rows, columns].T - some_means) / bitstream.ONE)

    assert np.array_equal(bitstream.walk(model, z_hat, symbols_at), y_hat)
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


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    picture = to_rgb(load_images("bundled")[0]["image"]).crop(BOX)
    for quality in QUALITIES:
        codec = load_codec(quality, "bundled")
        data = bitstream.encode(codec, picture, quality)
        (FOLDER / f"q{quality}.dgml").write_bytes(data)
        (FOLDER / f"q{quality}.json").write_text(json.dumps(trace(codec, data)) + "\n")
