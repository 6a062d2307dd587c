"""Runs one of the other implementations, in their environment: JSON lines on stdin and stdout.

The first line out tells the number of parameters and the peak memory of the process; each line in,
`{"run": "forward"}`, "train" or "sample", is answered with the seconds that it took and the peak
memory so far. With --count it tells parameters and FLOPs, and ends. See `benchmarks/vs_peers.py`;
this file is read by a Python that has no lumiere_jax.
"""

import argparse
import json
import resource
import sys
import time
from unittest.mock import MagicMock

import torch
from torch.utils.flop_counter import FlopCounterMode

TEXT_LENGTH, TEXT_DIM = 24, 768
SAMPLING_STEPS = 4
# Imported by the packages, used by none of their networks.
_ABSENT = (
    "torchvision", "torchvision.transforms", "torchvision.utils", "torchvision.datasets",
    "torchvision.io", "kornia", "kornia.augmentation", "accelerate", "accelerate.utils",
    "pytorch_fid", "pytorch_fid.inception", "pytorch_fid.fid_score", "transformers",
    "pytorch_warmup", "datasets", "datasets.utils", "datasets.utils.file_utils",
    "pytorch_lightning", "ema_pytorch", "lightning", "lightning.fabric",
    "lightning.fabric.strategies",
)  # fmt: skip


class _Absent(MagicMock):
    __path__: list = []
    __spec__ = None


def lumiere_pytorch(size: int) -> tuple[torch.nn.Module, dict]:
    """Its README's model, at this size of frames and with 64 channels in place of 8."""
    from denoising_diffusion_pytorch.karras_unet import KarrasUnet
    from lumiere_pytorch import Lumiere

    unet = KarrasUnet(image_size=size, dim=64, channels=3, dim_max=768)
    model = Lumiere(
        unet,
        image_size=size,
        unet_time_kwarg="time",
        conv_module_names=["downs.1", "ups.1", "downs.2", "ups.2"],
        attn_module_names=["mids.0"],
        upsample_module_names=["ups.2", "ups.1"],
        downsample_module_names=["downs.1", "downs.2"],
    )
    return model, {}


def video_diffusion_pytorch(size: int) -> tuple[torch.nn.Module, dict]:
    """Its README's model."""
    del size
    from video_diffusion_pytorch import Unet3D

    return Unet3D(dim=64, dim_mults=(1, 2, 4, 8)), {}


def imagen_pytorch(size: int) -> tuple[torch.nn.Module, dict]:
    """Its README's first U-Net for videos, with text."""
    del size
    from imagen_pytorch import Unet3D

    model = Unet3D(dim=64, dim_mults=(1, 2, 4, 8), text_embed_dim=TEXT_DIM)
    return model, {"text_embeds": torch.randn(1, TEXT_LENGTH, TEXT_DIM)}


MODELS = {
    "lumiere-pytorch": lumiere_pytorch,
    "video-diffusion-pytorch": video_diffusion_pytorch,
    "imagen-pytorch": imagen_pytorch,
}


def peak() -> int:
    """The most memory of this process, without its parent's, in bytes; of the GPU if it has one."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Builds the model, then answers requests until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--gpu", action="store_true", help="on a GPU, in bfloat16 (autocast)")
    parser.add_argument("--count", action="store_true", help="tell FLOPs, and end")
    given = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # what packages print is no answer
    for name in _ABSENT:
        sys.modules[name] = _Absent()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model, more = MODELS[given.model](given.size)
    more = {k: v.expand(given.batch, *v.shape[1:]).contiguous() for k, v in more.items()}
    device = "cuda" if given.gpu else "cpu"
    model.to(device)
    more = {k: v.to(device) for k, v in more.items()}
    video = torch.randn(given.batch, 3, given.frames, given.size, given.size, device=device)
    times = torch.rand(given.batch, device=device)

    def tell(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    @torch.autocast(device, torch.bfloat16, enabled=given.gpu)
    def predict(z: torch.Tensor) -> torch.Tensor:
        if given.model == "lumiere-pytorch":
            return network(z, time=times, **more)
        return network(z, times, **more)

    def forward() -> None:
        with torch.no_grad():
            predict(video)

    def train() -> None:
        torch.nn.functional.mse_loss(predict(video).float(), video).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # many networks wait in memory for their turn

    def sample() -> None:
        with torch.no_grad():
            z = torch.randn_like(video)
            for step in range(SAMPLING_STEPS):  # DDIM, with x0 predicted
                ratio = 1 - (step + 1) / SAMPLING_STEPS
                x0 = predict(z).clamp(-1, 1)
                z = x0 + ratio * (z - x0)

    network = torch.compile(model) if given.compile else model
    # Lumiere's own `parameters` names what inflation added alone, and the rest is frozen.
    own = list(torch.nn.Module.parameters(model))
    for parameter in own:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(own)
    runs = {"forward": forward, "train": train, "sample": sample}
    parameters = sum(parameter.numel() for parameter in own)
    if given.count:  # in a process of its own, since it needs the memory of a step
        flops = {}
        for name in ("forward", "train"):
            with FlopCounterMode(display=False) as counter:
                runs[name]()
            flops[name] = counter.get_total_flops()
        tell(parameters=parameters, flops=flops)
        return
    tell(parameters=parameters, peak=peak())
    for line in sys.stdin:
        name = json.loads(line)["run"]
        model.train(name == "train")
        try:
            begin = time.perf_counter()
            runs[name]()
            if given.gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begin
        except Exception as error:  # torch.compile may reject a model: that is a result
            tell(error=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
            continue
        tell(seconds=seconds, peak=peak())


if __name__ == "__main__":
    main()
