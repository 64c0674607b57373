"""What a .dgml file weighs and what it costs: the tables of ``make bench``.

Three pictures of DGML_IMAGES (by default the bundled ones), bundled weights; CompressAI's own coder runs on the same
pictures in the same process with the same threads.
Times are medians of three runs, or of one for CompressAI and for pictures over one megapixel.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median

import constriction
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dgml import bitstream, checkpoints, container, entropy, images, picture_sets, settings, tables
from dgml.model import Cheng2020Anchor
from dgml.settings import QUALITIES

SIDES = {0.1: (384, 256), 0.4: (768, 512), 1.6: (1536, 1024), 6.3: (3072, 2048), 24: (6000, 4000)}


def main() -> None:
    pictures = [images.to_rgb(row["image"]) for row in picture_sets.load_images().select(range(3))]
    source = Path(settings.setting("IMAGES")).name
    print(f"three pictures of {source}, {torch.get_num_threads()} threads\n")
    print("Bytes: the stream against the information of its symbols, under the stored tables and under Gaussians,")
    print("and the whole file against that information and against CompressAI's strings. Times: how often faster.\n")
    print("         stream/   stream/   file/     file/    latents  decode  encode   encode  decode")
    print("quality   tables  Gaussian   tables  CompressAI   faster  faster  faster   seconds seconds")
    for quality in QUALITIES:
        print(f"{quality:>7} {line(checkpoints.load_codec(quality, 'bundled'), pictures)}", flush=True)
    torch.manual_seed(0)
    print(f"N = 128 {line(wide_codec(), pictures)}   random weights\n")
    print("One picture, enlarged (quality 3 and 6), each size in a process of its own:\n")
    print("quality  megapixels  encode s/MP  decode s/MP  peak memory GB")
    for quality in (3, 6):
        for size in SIDES:
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                encode, decode, peak = fresh.submit(at_size, quality, size).result()
            print(f"{quality:>7} {size:>11} {encode / size:>12.2f} {decode / size:>12.2f} {peak:>15.2f}", flush=True)


def wide_codec() -> Cheng2020Anchor:
    codec = Cheng2020Anchor(128).eval()
    codec.update()
    return codec


@torch.inference_mode()
def line(codec: Cheng2020Anchor, pictures) -> str:
    """The means of one codec's figures over the pictures."""
    model, rows = entropy.entropy_model(codec), []
    for picture in pictures:
        data, encode = median_time(lambda p=picture: bitstream.encode(codec, p))
        header = container.read(data)
        y_hat, latents = median_time(lambda h=header: entropy.decode_latents(model, h))
        _, decode = median_time(lambda d=data: bitstream.decode(codec, d))
        by_tables, by_gaussians = bytes_of_information(codec, model, picture)
        x = images.pad(images.image_to_tensor(picture))
        theirs, compress = median_time(lambda a=x: codec.compress(a), 1)
        _, decompress = median_time(lambda t=theirs: codec.decompress(**t), 1)
        _, synthesis = median_time(lambda y=y_hat: codec.g_s(torch.from_numpy(y / tables.ONE)[None].float()))
        strings = sum(len(s) for part in theirs["strings"] for s in part)
        stream = header.stream.nbytes
        rows.append((stream / by_tables, stream / by_gaussians, len(data) / by_tables, len(data) / strings,
                     (decompress - synthesis) / latents, decompress / decode, compress / encode, encode, decode))  # fmt: skip
    m = [mean(column) for column in zip(*rows)]
    return (f"{m[0]:>8.4f} {m[1]:>9.4f} {m[2]:>8.4f} {m[3]:>11.4f} {m[4]:>8.0f} {m[5]:>7.1f} {m[6]:>7.1f} {m[7]:>9.2f} {m[8]:>7.2f}")  # fmt: skip


def median_time(run, times: int = 3):
    """What ``run`` gives, and the median of its seconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, median(seconds)


def bytes_of_information(codec, model, picture) -> tuple[float, float]:
    """Bytes of information of the symbols of a picture: by the stored tables, and with exact Gaussians for y."""
    y, z = bitstream.analysis(codec, images.pad(images.image_to_tensor(picture)))
    z_hat = entropy.encode_z(model, z, constriction.stream.queue.RangeEncoder())
    z_symbols = ((z_hat - model.medians[:, None, None]) / tables.ONE).astype(int) + tables.Z_RANGE
    z_table = tables.z_frequencies(codec)
    z_bits = sum(-np.log2(row[symbols] / 2**24).sum() for row, symbols in zip(z_table, z_symbols))
    seen = []

    def symbols_at(rows, columns, means, scales):
        symbols = np.rint(y[:, rows, columns].T - means / tables.ONE)
        seen.append((np.abs(symbols).ravel(), scales.ravel()))
        return symbols

    entropy.wavefront_scan(model, z_hat, symbols_at)
    symbols, scales = (np.concatenate(part) for part in zip(*seen))
    table = tables.y_tables()["frequencies"]
    nearest = np.searchsorted(model.thresholds, scales, side="right")
    by_tables = -np.log2(table[nearest, symbols.astype(int)] / 2**24).sum()
    sigma = np.maximum(scales / tables.ONE, 0.11)
    edges = torch.from_numpy(np.stack(((0.5 - symbols) / sigma, (-0.5 - symbols) / sigma)))
    upper, lower = torch.special.ndtr(edges).numpy()
    # CompressAI's floor under a likelihood.
    by_gaussians = -np.log2(np.maximum(upper - lower, 1e-9)).sum()
    return (by_tables + z_bits) / 8, (by_gaussians + z_bits) / 8


def at_size(quality: int, megapixels: float) -> tuple[float, float, float]:
    """Seconds to encode and to decode, and the peak memory of this process in GB."""
    import resource

    picture = images.to_rgb(picture_sets.load_images()[0]["image"]).resize(SIDES[megapixels])
    codec = checkpoints.load_codec(quality, "bundled")
    times = 3 if megapixels < 1 else 1
    bitstream.encode(codec, picture.resize((64, 64)))
    data, encode = median_time(lambda: bitstream.encode(codec, picture), times)
    _, decode = median_time(lambda: bitstream.decode(codec, data), times)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return encode, decode, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()
