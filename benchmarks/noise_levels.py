"""How much of real videos' detail each spacing of sampling steps keeps, by an exact denoiser.

    python benchmarks/noise_levels.py --clips=FOLDER_OF_VIDEOS     (measures their spectrum again)
    python benchmarks/noise_levels.py                              (takes the one that is kept)

For data that are Gaussian with the spectrum of real clips, the best denoiser is known in closed
form, frequency by frequency, so what a sampler loses is the sampler's fault alone. The table says
which share of the variance is kept in bands of spatial frequency (of Nyquist, radial) and of
temporal frequency. A second table says at which noise clips of some frames are decided, from which
the law of `resolution_shift` follows. Both are written to benchmarks/noise_levels.md.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Float
from scipy.linalg import toeplitz

from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import VideoReadError
from lumiere_jax.diffusion import samplers
from lumiere_jax.diffusion.samplers import Estimate
from lumiere_jax.diffusion.schedule import CosineSchedule, alpha_sigma, resolution_shift
from lumiere_jax.diffusion.spacing import Spacing
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written
from lumiere_jax.runtime.progress import Progress

FRAMES, SIDE, FPS = 80, 128, 16
SPECTRUM = Path(__file__).parent / "results" / "noise_levels" / "spectrum.npz"
TABLE = Path(__file__).with_suffix(".md")
STEPS = (8, 16, 20, 32, 50, 128, 256)
SPATIAL = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)  # borders of bands, of Nyquist
TEMPORAL = (0.0, 0.1, 0.5, 1.001)
CLIPS = (1, 2, 4, 8, 16, 40)  # frames whose noise levels are compared
KNOWN = (0.1, 0.25, 0.5, 0.75, 0.9)  # shares of a clip's variance
SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov")

Spectrum = Float[np.ndarray, "temporal radial"]
"""Mean power at each temporal and each radial spatial frequency, both from 0 to Nyquist."""


def spectrum(folder: Path) -> tuple[Spectrum, int]:
    """The power spectrum of grey, windowed clips of 80 frames, and how many there were."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    progress, total, count = Progress("reading", len(files), "files"), 0.0, 0
    window = np.hanning(FRAMES)[:, None, None] * np.hanning(SIDE)[:, None] * np.hanning(SIDE)
    window /= np.sqrt(np.mean(window**2))
    for number, path in enumerate(files, 1):
        progress.update(number)
        try:
            video = read_video(path, fps=FPS, size=(SIDE, SIDE), num_frames=FRAMES)
        except VideoReadError:  # shorter than that
            continue
        grey = np.asarray(video, np.float64).mean(axis=-1) / 127.5
        power = np.abs(np.fft.fftn((grey - grey.mean()) * window)) ** 2 / grey.size
        total, count = total + power[: FRAMES // 2 + 1], count + 1
    if not count:
        raise UserError(f"--clips={folder} holds no video of {FRAMES / FPS:g} s; name another.")
    radius, number = _radii()
    power = np.stack([np.bincount(radius.ravel(), plane.ravel()) for plane in total / count])
    return (power / number)[:, : SIDE // 2 + 1], count


def _radii() -> tuple[np.ndarray, np.ndarray]:
    """The radial frequency of each spatial one, in whole steps, and how many share it."""
    axis = np.fft.fftfreq(SIDE) * SIDE
    radius = np.rint(np.hypot(axis[:, None], axis)).astype(int)
    return radius, np.bincount(radius.ravel())


def kept(power: Spectrum, sampler: str, log_snrs: jax.Array) -> Spectrum:
    """Variance of what a sampler makes with the exact denoiser of a Gaussian of that spectrum."""
    power = jnp.asarray(power)[None]
    pair, steps = samplers.create(sampler), samplers.steps_at(log_snrs)
    z, keys = jnp.ones_like(power), jax.random.split(jax.random.key(0), 1)
    state = pair.init(z)
    for index in range(len(log_snrs)):
        alpha, sigma = alpha_sigma(log_snrs[index])
        x0 = alpha * power / (alpha**2 * power + sigma**2) * z
        step = jax.tree.map(lambda x, index=index: x[index], steps)
        z, state = pair.step(z, state, Estimate(x0), step, keys)
    return np.asarray(z[0] ** 2)


def shares(power: Spectrum, made: Spectrum) -> Float[np.ndarray, "temporal spatial"]:
    """The share of the variance that is kept in each band."""
    times = np.linspace(0, 1, len(power))
    places = np.linspace(0, 1, power.shape[1])
    number = _radii()[1][: power.shape[1]]

    def share(band: tuple[float, float], ring: tuple[float, float]) -> float:
        inside = np.outer((times >= band[0]) & (times < band[1]), (places >= ring[0]) * number)
        inside[:, places >= ring[1] + 1e-9 * (ring[1] == 1.0)] = 0
        return float((made * inside).sum() / (power * inside).sum())

    bands = itertools.pairwise(TEMPORAL)
    return np.array([[share(band, ring) for ring in itertools.pairwise(SPATIAL)] for band in bands])


def spacings(count: int) -> Iterator[tuple[str, str, jax.Array]]:
    """Schedule, spacing and log-SNRs of every way that is compared."""
    shift = resolution_shift(SIDE, SIDE, FRAMES)
    for name, fades in (("shifted", False), ("interpolated", True)):
        schedule = CosineSchedule(shift, fades)
        for power in (1.0, 2.0, 3.0):
            label = "even in time" if power == 1 else f"time, power {power:g}"
            yield name, label, schedule.sampling_log_snrs(count, 1.0, Spacing(power))
    schedule = CosineSchedule(shift)
    for last in (9.0, 10.0, 12.0):
        spacing = Spacing(last_log_snr=last)
        levels = schedule.sampling_log_snrs(count, 1.0, spacing)
        yield "any", f"even in log-SNR, to {last:g}", levels
    ends = np.exp(-0.5 * np.array([float(schedule.log_snr(1.0)), 10.0]) / 7.0)  # sigma / alpha
    yield "any", "Karras, rho 7, to 10", jnp.asarray(-14.0 * np.log(np.linspace(*ends, count)))


def table(power: Spectrum) -> list[str]:
    """Lines of Markdown: the least and the most that any band keeps, below and above 3/4."""
    lines = [
        "| sampler | schedule | steps are | number | last log-SNR | below ¾ of Nyquist | above |"
    ]
    lines.append("|---" * 7 + "|")
    progress = Progress("sampling", len(STEPS) * 20, "ways")
    for number, (sampler, count) in enumerate(itertools.product(("ddim", "dpmpp_2m"), STEPS)):
        for name, label, levels in spacings(count):
            found = shares(power, kept(power, sampler, levels))
            cells = [f"{x.min():.0%} to {x.max():.0%}" for x in (found[:, :-1], found[:, -1])]
            row = [sampler, name, label, str(count), f"{float(levels[-1]):.1f}", *cells]
            lines.append(f"| {' | '.join(row)} |")
        progress.update((number + 1) * 10)
    return lines


def eigenvalues(power: Spectrum, frames: int) -> Float[np.ndarray, "frames radial"]:
    """Variances of the independent parts of a clip of so many frames, for each radial frequency.

    They are those of its covariance in time: of the spectrum, with the window divided out.
    """
    window = np.hanning(FRAMES)
    window = np.fft.ifft(np.abs(np.fft.fft(window)) ** 2).real / np.sum(window**2)
    both_sides = np.concatenate([power, power[-2:0:-1]])
    covariance = np.fft.ifft(both_sides, axis=0).real / window[:, None]
    found = [np.linalg.eigvalsh(toeplitz(column)) for column in covariance[:frames].T]
    return np.maximum(np.array(found).T, 1e-12)  # an estimate, and so not quite without negatives


def known_at(power: Spectrum, frames: int) -> Float[np.ndarray, " shares"]:
    """Log-SNRs at which the best denoiser knows the shares `KNOWN` of a clip's variance."""
    variances, number = eigenvalues(power, frames), _radii()[1][: power.shape[1]]
    levels = np.linspace(-25.0, 15.0, 2001)
    known = np.array([_known(variances, number, np.exp(level)) for level in levels])
    return np.interp(KNOWN, known / (variances * number).sum(), levels)


def _known(variances: np.ndarray, number: np.ndarray, snr: float) -> float:
    return float((number * variances * (snr * variances / (1.0 + snr * variances))).sum())


def frames_table(power: Spectrum) -> list[str]:
    """Lines of Markdown: where clips are decided, and how much training is spent there."""
    lines = [f"| frames | {' | '.join(f'{share:.0%} known at' for share in KNOWN)} "]
    lines[0] += "| lower than one frame by | times for it, −log(frames) | −½ log(frames) |"
    lines.append("|---" * (len(KNOWN) + 4) + "|")
    times, image = (np.arange(4000) + 0.5) / 4000, resolution_shift(SIDE, SIDE)
    one = known_at(power, 1)
    for frames in CLIPS:
        known, cells = known_at(power, frames), ["-"]
        if frames > 1:
            less = (one - known)[:3] / np.log(frames)
            cells = [f"{less.min():.2f} to {less.max():.2f} log(frames)"]
        for strength in (1.0, 0.5):
            schedule = CosineSchedule(image - strength * float(np.log(frames)), True)
            log_snrs = np.asarray(schedule.log_snr(times))
            cells.append(f"{np.mean((log_snrs > known[0]) & (log_snrs < known[3])):.0%}")
        row = [str(frames), *(f"{level:.1f}" for level in known), *cells]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def main(argv: list[str]) -> None:
    """Measures what the flags ask for."""
    del argv
    jax.config.update("jax_enable_x64", True)
    if flags.FLAGS.clips:
        power, count = spectrum(Path(flags.FLAGS.clips))
        SPECTRUM.parent.mkdir(parents=True, exist_ok=True)
        with written(SPECTRUM) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, power=power.astype(np.float32), clips=count)
    with np.load(SPECTRUM) as saved:
        power, count = np.asarray(saved["power"], np.float64), int(saved["clips"])
    head = f"Exact denoiser of a Gaussian with the spectrum of {count} real clips, {FRAMES} frames"
    found = [*frames_table(power), "", f"{head} of {SIDE}×{SIDE}.", "", *table(power), ""]
    write_text(TABLE, "\n".join([_HEAD, *found]))
    print(f"wrote {TABLE}")


_HEAD = """# Noise levels: which steps keep the detail of real videos

Written by `python benchmarks/noise_levels.py`, whose head says what is measured. A band's share is
the variance of what is sampled over that of the data; 100% is right, the least and the most of
three bands of temporal frequency and of the spatial ones below (or the one above) ¾ of Nyquist.

The first table tells the log-SNRs at which that denoiser knows shares of the variance of a clip
with so many frames: how much lower they are than those of one frame, for the shares up to a half,
and which part of the training times lies between those of a tenth and of three quarters, if a shift
that fades towards clean data grows by −log(frames), or half as much.
"""


if __name__ == "__main__":
    flags.DEFINE_string("clips", "", "Folder of videos whose spectrum is measured.")
    errors.run(main)
