"""What came of a preparation: the index that training reads, the TFDS metadata and the report."""

import collections
import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from lumiere_jax.data.limits import Limits
from lumiere_jax.data.prepared_format import (
    DATASET,
    FILE_FORMAT,
    FORMAT_VERSION,
    NO_LIMITS,
    Index,
    Settings,
    Shard,
)
from lumiere_jax.data.source import SPLITS
from lumiere_jax.preparation.plan import Plan
from lumiere_jax.preparation.shards import Summary
from lumiere_jax.preparation.splitting import note_of_few
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written
from lumiere_jax.text import TextEncoder

REPORT_JSON, REPORT_TEXT = "report.json", "report.txt"
_DESCRIPTION = "Clips of videos with captions, made by `python -m lumiere_jax.prepare_data`."


def read_summaries(plan: Plan) -> dict[Shard, Summary | None]:
    """Every shard in order, with its summary if it is done."""
    shards = list(plan.shards())
    with ThreadPoolExecutor(16) as pool:  # in a bucket, each takes a while
        summaries = pool.map(lambda shard: Summary.read(plan, shard), shards)
        return dict(zip(shards, summaries, strict=True))


def finish(plan: Plan, encoder: TextEncoder | None) -> Index:
    """Writes report, TFDS metadata and, last of all, the index, when all shards are done.

    `encoder` is the one whose embeddings were stored, if any were. A `UserError` if no clip is
    left.
    """
    done: dict[Shard, Summary] = {}
    for shard, summary in read_summaries(plan).items():
        if summary is None:
            raise UserError(f"shard {shard} of {plan.output} is missing")
        done[shard] = summary
    by_split = {split: [v for k, v in done.items() if k.split == split] for split in SPLITS}
    index = Index(
        settings=plan.settings,
        shard_lengths={split: [v.records for v in by_split[split]] for split in SPLITS},
        num_bytes={split: sum(v.bytes for v in by_split[split]) for split in SPLITS},
        text_shape=(encoder.max_length, encoder.dim) if encoder else None,
        fingerprint=_fingerprint(plan.settings, done),
    )
    report = _report(plan, index, list(done.values()))
    write_text(plan.output / REPORT_JSON, json.dumps(report, indent=1) + "\n")
    _write_report_text(plan.output / REPORT_TEXT, report)
    if not sum(index.num_clips(split) for split in SPLITS):
        raise UserError(
            f"no clip is left: {_counts(report['files_by_reason'])}; {plan.output / REPORT_TEXT} "
            "names every file. Choose other thresholds or videos, and another --output"
        )
    _write_tfds_metadata(plan.output, index)
    index.save(plan.output)
    return index


def _fingerprint(settings: Settings, done: dict[Shard, Summary]) -> str:
    """SHA-256 of what is in the records, in the order of shards."""
    clips = [FORMAT_VERSION, settings.num_frames, settings.resolution, float(settings.fps)]
    digest = hashlib.sha256(json.dumps([*clips, settings.text_fingerprint]).encode())
    for shard, summary in done.items():
        digest.update(f"{shard} {summary.records} {summary.sha256}\n".encode())
    return digest.hexdigest()


def _report(plan: Plan, index: Index, summaries: list[Summary]) -> dict[str, Any]:
    """What was kept and what was not, and why."""
    files = [entry for summary in summaries for entry in summary.rejected_files]
    clips = [entry for summary in summaries for entry in summary.rejected_clips]
    return {
        "source": plan.root,
        "videos": sum(plan.num_videos.values()),
        "clips": {split: index.num_clips(split) for split in SPLITS},
        "fingerprint": index.fingerprint,
        "settings": plan.settings.to_json(),
        "columns": plan.columns,
        "splits": plan.splits,
        "left_out": plan.left_out,
        "files_by_reason": _by_kind(files),
        "clips_by_reason": _by_kind(clips),
        "treated_files": {path: what for v in summaries for path, what in v.treated.items()},
        "rejected_files": files,
        "rejected_clips": clips,
    }


def _by_kind(entries: list[dict[str, Any]]) -> dict[str, int]:
    """How many entries there are of each kind of reason, most first."""
    kinds = collections.Counter(entry["reason"].split(":")[0] for entry in entries)
    return dict(kinds.most_common())


def _counts(by_reason: dict[str, int]) -> str:
    """In words, as "3 shot cut, 1 static"."""
    return ", ".join(f"{count} {kind}" for kind, count in by_reason.items()) or "none"


def _treated(files: dict[str, str]) -> str:
    """In words, as "3 HDR (HLG), tone-mapped to SDR"."""
    counts = collections.Counter(re.sub(r"[\d.]+ of [\d.]+ s", "a part", w) for w in files.values())
    return "; ".join(f"{count} {what}" for what, count in counts.most_common()) or "none"


def describe(output: epath.PathLike) -> str:
    """The head of the report of a finished output."""
    return _head(json.loads((epath.Path(output).expanduser() / REPORT_JSON).read_text()))


def _head(report: dict[str, Any]) -> str:
    settings, clips = report["settings"], report["clips"]
    height, width = settings["resolution"]
    thresholds, limits = settings["thresholds"], Limits(**settings.get("limits", NO_LIMITS))
    few = note_of_few(clips["test"], "clips", settings["test_fraction"])
    return (
        f"{report['videos']} videos of {report['source']}{_of_source(report)}\n"
        f"{clips['train']} clips to train with and {clips['test']} to test with, each of "
        f"{settings['num_frames']} frames of {height} x {width} pixels at {settings['fps']:g} fps\n"
        f"{few and few + chr(10)}"
        f"rejected files: {_counts(report['files_by_reason'])}\n"
        f"rejected clips: {_counts(report['clips_by_reason'])}\n"
        f"used, but changed: {_treated(report.get('treated_files', {}))}\n"
        f"thresholds (levels of 0 to 255): brightness {thresholds['brightness']:g}, motion "
        f"{thresholds['motion']:g}, cut {thresholds['cut']:g}\n"
        f"limits: {limits.describe((height, width), settings['fps'])}\n"
        f"text embeddings: {settings['text_fingerprint'] or 'not stored'}\n"
        f"fingerprint: {report['fingerprint']}"
    )


def _of_source(report: dict[str, Any]) -> str:
    """What else there is to say of the source, each on a line of its own."""
    left_out = len(report.get("left_out", ()))
    lines = [report.get("columns"), report.get("splits"), left_out and f"left out: {left_out}"]
    return "".join(f"\n{line}" for line in lines if line)


def _write_report_text(path: epath.Path, report: dict[str, Any]) -> None:
    """The report for people: every rejected file, then every rejected clip, with its reason."""
    text = _head(report) + "\n"
    if report["left_out"]:
        lines = [f"  {name}: {reason}" for name, reason in report["left_out"].items()]
        text += "\n".join(["\nLeft out:", *lines]) + "\n"
    if treated := report["treated_files"]:
        lines = [f"  {path}: {what}" for path, what in treated.items()]
        text += "\n".join(["\nUsed, but changed:", *lines]) + "\n"
    for kind in ("files", "clips"):
        entries = report[f"rejected_{kind}"]
        lines = [f"  {entry['path']}{_part(entry)}: {entry['reason']}" for entry in entries]
        text += "\n".join([f"\nRejected {kind}:", *lines]) + "\n"
    with written(path) as temporary:  # a path may be no UTF-8
        temporary.write_bytes(text.encode(errors="backslashreplace"))


def _part(entry: dict[str, Any]) -> str:
    """Which part of a video an entry means, as " (1 s to 3.5 s)"; nothing for all of it."""
    start, end = entry["start"], entry["end"]
    if start is None and end is None:
        return ""
    return f" ({start or 0:g} s to {'the end' if end is None else f'{end:g} s'})"


def _write_tfds_metadata(output: epath.Path, index: Index) -> None:
    """Makes the folder a data set for `tfds.builder_from_directory(output).as_data_source`."""
    import tensorflow_datasets as tfds  # here, because it takes a second or two

    template = tfds.core.ShardedFileTemplate(
        data_dir=output, dataset_name=DATASET, filetype_suffix=FILE_FORMAT
    )
    tfds.folder_dataset.write_metadata(
        data_dir=output,
        features=index.record_format().features,
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=index.num_bytes[split],
                filename_template=template.replace(split=split),
            )
            for split, lengths in index.shard_lengths.items()
            if sum(lengths)
        ],
        version="1.0.0",
        check_data=False,
        description=_DESCRIPTION,
    )
