"""Which files are videos and which are images, by the ending of their names."""

from pathlib import Path, PurePath

VIDEO_SUFFIXES = (
    ".mp4", ".webm", ".mov", ".avi", ".gif", ".mkv", ".m4v",
    ".264", ".265", ".3g2", ".3gp", ".amv", ".apng", ".asf", ".divx", ".dv", ".f4v", ".flc", ".fli",
    ".flv", ".h264", ".h265", ".hevc", ".insv", ".ivf", ".lrv", ".m1v", ".m2t", ".m2ts",
    ".m2v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mod", ".mp2v", ".mpe", ".mpeg", ".mpg", ".mpv",
    ".mts", ".mxf", ".nsv", ".nut", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".swf", ".tod",
    ".trp", ".ts", ".vob", ".wmv", ".wtv", ".y4m",
)  # fmt: skip
"""Of what FFmpeg reads, all that names moving pictures; the usual ones come first."""

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp",
    ".avif", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpx", ".pbm", ".pgm", ".pnm",
    ".ppm", ".qoi", ".tga", ".tif", ".tiff",
)  # fmt: skip
"""Of what Pillow reads, all that names pictures; the usual ones come first."""

_UNREAD_IMAGES = (".cr2", ".dng", ".heic", ".heif", ".jxl", ".nef", ".svg")


def has_suffix(path: PurePath, suffixes: tuple[str, ...]) -> bool:
    """Whether a name ends in one of these, in whatever case."""
    return path.suffix.lower() in suffixes


def other_kind(path: Path, kind: str) -> str:
    """Why a file is no `kind`, which is "video" or "image", in the words of a report."""
    article = "an" if kind == "image" else "a"
    if has_suffix(path, (".txt",)):
        return f"a text without {article} {kind} of its name"
    if has_suffix(path, IMAGE_SUFFIXES) and kind == "video":
        return "an image, not a video"
    if has_suffix(path, VIDEO_SUFFIXES) and kind == "image":
        return "a video, not an image"
    if has_suffix(path, _UNREAD_IMAGES) and kind == "image":
        return "a format of images that is not read: convert it to PNG or JPEG"
    return f"not {article} {kind} by the ending of its name"


def usual(suffixes: tuple[str, ...]) -> str:
    """The usual ones of `VIDEO_SUFFIXES` or `IMAGE_SUFFIXES`, for messages."""
    return f"{' '.join(suffixes[:5])} …"
