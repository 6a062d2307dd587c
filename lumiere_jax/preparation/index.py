"""What came of a preparation: the index that training reads, the TFDS metadata and the report."""

import collections
import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from lumiere_jax.data.prepared_index import FILE_NAME, Index
from lumiere_jax.data.prepared_records import DATASET, FILE_FORMAT, Shard
from lumiere_jax.data.prepared_settings import FORMAT_VERSION, Settings
from lumiere_jax.data.video_folder import SPLITS
from lumiere_jax.preparation.plan import Plan
from lumiere_jax.preparation.shards import read_summary
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written

REPORT_JSON, REPORT_TEXT = "report.json", "report.txt"
_DESCRIPTION = "Clips of videos with captions, made by `python -m lumiere_jax.prepare_data`."


def finish(plan: Plan, text_shape: tuple[int, int] | None) -> Index:
    """Writes report, TFDS metadata and, last of all, the index, when all shards are done.

    Args:
      plan: whose shards are all done.
      text_shape: of the embeddings that were stored, if any were; see `Index`.

    Raises:
      UserError: no clip is left, or a shard is missing.
    """
    shards = list(plan.shards())
    with ThreadPoolExecutor(16) as pool:  # in a bucket, each takes a while
        summaries = list(pool.map(lambda shard: read_summary(plan, shard), shards))
    if None in summaries:
        raise UserError(f"shard {shards[summaries.index(None)]} of {plan.output} is missing")
    done = list(zip(shards, summaries, strict=True))
    index = Index(
        settings=plan.settings,
        shard_lengths={s: [v["records"] for shard, v in done if shard.split == s] for s in SPLITS},
        num_bytes={s: sum(v["bytes"] for shard, v in done if shard.split == s) for s in SPLITS},
        text_shape=text_shape,
        fingerprint=_fingerprint(plan.settings, done),
    )
    report = _report(plan, index, summaries)
    write_text(plan.output / REPORT_JSON, json.dumps(report, indent=1) + "\n")
    _write_report_text(plan.output / REPORT_TEXT, report)
    if not sum(index.num_clips(split) for split in SPLITS):
        raise UserError(
            f"no clip is left: {_counts(report['files_by_reason'])}; {plan.output / REPORT_TEXT} "
            "names every file. Choose other thresholds or videos, and another --output"
        )
    _write_tfds_metadata(plan.output, index)
    values = dataclasses.asdict(index) | {"settings": plan.settings.to_json()}
    write_text(plan.output / FILE_NAME, json.dumps({"format": FORMAT_VERSION} | values) + "\n")
    return index


def _fingerprint(settings: Settings, done: list[tuple[Shard, dict[str, Any]]]) -> str:
    """SHA-256 of what is in the records, in the order of shards."""
    clips = [FORMAT_VERSION, settings.num_frames, settings.resolution, float(settings.fps)]
    digest = hashlib.sha256(json.dumps([*clips, settings.text_fingerprint]).encode())
    for shard, summary in done:
        digest.update(f"{shard} {summary['records']} {summary['sha256']}\n".encode())
    return digest.hexdigest()


def _report(plan: Plan, index: Index, summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """What was kept and what was not, and why."""
    files = [entry for summary in summaries for entry in summary["rejected_files"]]
    clips = [entry for summary in summaries for entry in summary["rejected_clips"]]
    return {
        "source": plan.root,
        "videos": sum(plan.num_videos.values()),
        "clips": {split: index.num_clips(split) for split in SPLITS},
        "fingerprint": index.fingerprint,
        "settings": plan.settings.to_json(),
        "files_by_reason": _by_kind(files),
        "clips_by_reason": _by_kind(clips),
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


def summary_lines(report: dict[str, Any]) -> list[str]:
    """The head of the report in words."""
    settings, clips = report["settings"], report["clips"]
    height, width = settings["resolution"]
    thresholds = settings["thresholds"]
    return [
        f"{report['videos']} videos of {report['source']}",
        f"{clips['train']} clips to train with and {clips['test']} to test with, each of "
        f"{settings['num_frames']} frames of {height} x {width} pixels at {settings['fps']:g} fps",
        f"rejected files: {_counts(report['files_by_reason'])}",
        f"rejected clips: {_counts(report['clips_by_reason'])}",
        f"thresholds (levels of 0 to 255): brightness {thresholds['brightness']:g}, motion "
        f"{thresholds['motion']:g}, cut {thresholds['cut']:g}",
        f"text embeddings: {settings['text_fingerprint'] or 'not stored'}",
        f"fingerprint: {report['fingerprint']}",
    ]


def _write_report_text(path: epath.Path, report: dict[str, Any]) -> None:
    """The report for people: every rejected file, then every rejected clip, with its reason."""
    text = {
        "mode": "w",
        "encoding": "utf-8",
        "errors": "backslashreplace",
    }  # a path may be no UTF-8
    with written(path) as temporary, temporary.open(**text) as file:
        file.write("\n".join(summary_lines(report)) + "\n")
        for title, entries in (
            ("Rejected files", report["rejected_files"]),
            ("Rejected clips", report["rejected_clips"]),
        ):
            file.write(f"\n{title}:\n")
            for entry in entries:
                file.write(f"  {entry['path']}{_part(entry)}: {entry['reason']}\n")


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
