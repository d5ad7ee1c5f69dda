"""Compare storage formats for training by reading random slabs from them.

    liverseg phantom PHANTOMS --kind lits --volumes 4
    pip install blosc2 zarr
    python benchmarks/slab_access.py SCRATCH PHANTOMS/lits/volume-*.nii.gz

Real CTs can be given instead of phantoms. Every store holds the same int16 volumes in axial order. A read returns one
slab, three neighbouring slices, as a new array. Rates are megabytes of output per second. The reference "copy" reads
the same slabs from arrays in memory. Figures are medians of five rounds, in which the stores take turns, with files in
the page cache.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import blosc2
import nibabel as nib
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from liverseg.datasets.slice_readers import SliceFile, write_slices
from liverseg.imageio.volume import read_volume

ROUNDS, READS = 5, 200
Read = Callable[[int, int], np.ndarray]


def plain(volumes: list[np.ndarray], folder: Path) -> Read:
    """Write one .npy file per volume and return its reader, memory-mapped."""
    for number, volume in enumerate(volumes):
        np.save(folder / f"{number}.npy", volume)
    mapped = [np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(len(volumes))]
    return lambda number, first: np.array(mapped[number][first : first + 3])


def nifti(volumes: list[np.ndarray], folder: Path) -> Read:
    """Write one uncompressed .nii file per volume and return its reader, memory-mapped."""
    for number, volume in enumerate(volumes):
        nib.save(nib.Nifti1Image(volume.T, np.eye(4)), folder / f"{number}.nii")
    mapped = [nib.load(folder / f"{number}.nii", mmap=True) for number in range(len(volumes))]
    return lambda number, first: np.array(np.asanyarray(mapped[number].dataobj)[:, :, first : first + 3].T)


def blosc(codec: blosc2.Codec, shuffle: blosc2.Filter) -> Callable[[list[np.ndarray], Path], Read]:
    """Return a store of one blosc2 frame per volume, with one chunk per slice."""

    def store(volumes: list[np.ndarray], folder: Path) -> Read:
        settings = {"codec": codec, "clevel": 1, "filters": [shuffle], "nthreads": 1, "typesize": 2}
        frames = []
        for number, volume in enumerate(volumes):
            path = str(folder / f"{number}.b2frame")
            frame = blosc2.SChunk(chunksize=volume[0].nbytes, urlpath=path, contiguous=True, mode="w", cparams=settings)
            for slice_ in volume:
                frame.append_data(slice_)
            frames.append(blosc2.open(path, mode="r", dparams={"nthreads": 1}))

        def read(number: int, first: int) -> np.ndarray:
            slab = np.empty((3, *volumes[number].shape[1:]), np.int16)
            for place, target in enumerate(slab):
                frames[number].decompress_chunk(first + place, target)
            return slab

        return read

    return store


def prepared(volumes: list[np.ndarray], folder: Path) -> Read:
    """Write the files of `liverseg prepare` and return their reader, which verifies checksums."""
    for number, volume in enumerate(volumes):
        write_slices(folder / f"{number}.slices", volume)
    files = [SliceFile(folder / f"{number}.slices") for number in range(len(volumes))]
    return lambda number, first: files[number].read(range(first, first + 3))


def zarr_store(codec: str, checksum: bool) -> Callable[[list[np.ndarray], Path], Read]:
    """Return a store of one zarr array per volume, with one chunk per slice, optionally with a checksum per chunk."""

    def store(volumes: list[np.ndarray], folder: Path) -> Read:
        compressors = [BloscCodec(cname=codec, clevel=1, shuffle="bitshuffle"), *([Crc32cCodec()] if checksum else [])]
        arrays = []
        for number, volume in enumerate(volumes):
            array = zarr.create_array(
                folder / f"{number}.zarr",
                shape=volume.shape,
                dtype=volume.dtype,
                chunks=(1, *volume.shape[1:]),
                compressors=compressors,
            )
            array[:] = volume
            arrays.append(array)
        return lambda number, first: np.asarray(arrays[number][first : first + 3])

    return store


STORES: dict[str, Callable[[list[np.ndarray], Path], Read]] = {
    ".npy, mapped": plain,
    ".nii, mapped": nifti,
    "liverseg prepare (LZ4, byte shuffle, checked)": prepared,
    "blosc2 lz4, byte shuffle": blosc(blosc2.Codec.LZ4, blosc2.Filter.SHUFFLE),
    "blosc2 lz4, bit shuffle": blosc(blosc2.Codec.LZ4, blosc2.Filter.BITSHUFFLE),
    "blosc2 zstd, byte shuffle": blosc(blosc2.Codec.ZSTD, blosc2.Filter.SHUFFLE),
    "zarr lz4": zarr_store("lz4", False),
    "zarr lz4, checksum": zarr_store("lz4", True),
    "zarr zstd": zarr_store("zstd", False),
}


def main() -> None:
    """Write every store, read them in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("volumes", type=Path, nargs="+")
    args = parser.parse_args()
    volumes = [np.ascontiguousarray(read_volume(path).axial.astype(np.int16)) for path in args.volumes]
    reads: dict[str, Read] = {"copy": lambda number, first: volumes[number][first : first + 3].copy()}
    sizes = {"copy": sum(volume.nbytes for volume in volumes)}
    for name, store in STORES.items():
        folder = args.scratch / "".join(letter for letter in name if letter.isalnum())
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        reads[name] = store(volumes, folder)
        sizes[name] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if not np.array_equal(reads[name](0, 5), volumes[0][5:8]):
            raise SystemExit(f"{name}: the voxels read differ from those written")
    rng = np.random.default_rng(0)
    rates: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(ROUNDS + 1):
        numbers = rng.integers(len(volumes), size=READS)
        places = [(int(number), int(rng.integers(volumes[number].shape[0] - 3))) for number in numbers]
        for name, read in reads.items():
            start = time.perf_counter()
            total = sum(read(number, first).nbytes for number, first in places)
            rates[name].append(total / (time.perf_counter() - start) / 1e6)
    copied = statistics.median(rates["copy"][1:])
    print("| store | MB/s | of copy | size |\n|---|---|---|---|")
    for name, measured in rates.items():
        rate = statistics.median(measured[1:])
        print(f"| {name} | {rate:.0f} | {rate / copied:.2f} | {sizes[name] / sizes['copy']:.2f} |")


if __name__ == "__main__":
    main()
