"""The schema of ``conf/``: one dataclass a group, one docstring a field.

Groups marked *not identity* cannot change what is computed beyond rounding, and stay out of a cell's id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class DataConfig:
    """Where the text comes from and how it is cut."""

    name: str = MISSING
    """``stdlib`` (source text of the running Python's standard library) or ``text`` (your files)."""
    files: list[str] = field(default_factory=list)
    """``text``: paths, folders or glob patterns of .txt, .md, .jsonl, .json, .csv, .tsv and .parquet files, all but the
    last also .gz or .zst. Of a folder, all such files in it and below."""
    validation_files: list[str] = field(default_factory=list)
    """``text``: files held out for validation; empty: a share of the text of ``files``."""
    hub: str | None = None
    """``text``: name of a Hugging Face data set instead of files, where there is a network."""
    text_column: str = "text"
    """``text``: column that holds the text, in all but .txt and .md files. A number in a CSV file is text as it is
    written; a number in JSON or Parquet is refused. Rows without text are left out and counted."""
    encoding: str = "utf-8"
    """``text``: encoding of all files but .parquet: ``utf-8``, ``utf-16``, ``latin-1``, ``cp1252``, ... A byte-order
    mark is left out."""
    separator: str | None = None
    """``text``: character between fields of .csv and .tsv files, ``tab`` for a tab; null: a comma, in .tsv a tab."""
    validation_share: float = 0.05
    """Share of the text held out for validation, in (0, 1)."""
    split: str | None = None
    """Rule by which it is held out. ``grouped``: what resembles each other stays together (near duplicates in
    ``stdlib``, of whose largest group a part is left out; equal rows; a text file, which is cut at one place).
    ``documents``: each document by its own hash, as in cells from before this key. null: ``grouped``, filled in when a
    cell is frozen."""
    fraction: float = 1.0
    """Share of the training blocks that is used, in (0, 1]. Subsets are nested: those of 0.01 are among those of 0.05.
    Validation and tokenizer stay those of the whole."""
    vocab_size: int = 4096
    """Entries of the byte-level BPE vocabulary, special tokens included."""
    sequence_length: int = 128
    """Tokens in a row."""
    fingerprint: str | None = None
    """Content hash of the corpus; filled in when a cell is frozen."""


@dataclass
class ArchConfig:
    """The shape of the model."""

    name: str = MISSING
    """``modern`` (ModernBERT: rotary, pre-norm, gated FFN), ``roberta`` (with pre-norm, as in the paper) or ``llama``
    (a causal decoder: rotary, pre-norm, gated FFN)."""
    width: int = 128
    """Hidden size."""
    depth: int = 2
    """Number of layers."""
    heads: int | None = None
    """Attention heads; null: one for every 64 of width, at least two."""
    ffn_ratio: float = 4.0
    """Inner width of the feed-forward network, in widths."""
    positions: int | None = None
    """Positions the model can address; null: as many as a row needs."""
    dropout: float = 0.0
    """Dropout of hidden states and attention, in [0, 1)."""
    tied: bool = True
    """Whether input and output embedding are one matrix."""
    init_std: float | None = None
    """Standard deviation of the initial weights; null: 0.68 / sqrt(width)."""


@dataclass
class OptimConfig:
    """AdamW and its rates."""

    name: str = "adamw"
    """``adamw``."""
    lr: float = 3e-3
    """Base learning rate: the peak rate of a model of width ``base_width``."""
    lr_rule: str = "inverse_sqrt_width"
    """How the rate follows from the width: ``constant`` (as published), ``inverse_sqrt_width``, ``inverse_width``, or
    ``mup`` (tensor by tensor, with initial values, output and attention scores to match)."""
    base_width: int = 128
    """Width at which ``lr`` holds."""
    peak_lr: float | None = None
    """Peak learning rate of this cell; null: from ``lr`` by ``lr_rule``, filled in when the cell is frozen."""
    batch: int = 2048
    """Tokens in a step: the effective batch, a multiple of ``data.sequence_length``."""
    batch_rule: str = "constant"
    """How the rate follows from the batch: ``constant``, ``sqrt``, ``linear``, or ``table`` (of ``batch_lr``)."""
    base_batch: int = 2048
    """Batch at which ``lr`` holds, in tokens, for ``sqrt`` and ``linear``."""
    batch_lr: list[Any] = field(default_factory=list)
    """Pairs of a batch in tokens and the base rate that takes the place of ``lr`` there, for ``table``."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.98
    """Decay of the second moment."""
    eps: float = 1e-6
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; vectors have none."""
    clip: float = 1.0
    """Largest gradient norm; 0 switches clipping off."""


@dataclass
class ScheduleConfig:
    """The learning rate over steps."""

    name: str = "cooldown"
    """``cooldown`` (constant trunk, a decay branch for each budget), ``matched`` (decay ends with the budget) or
    ``fixed`` (decay ends at ``horizon``)."""
    warmup_steps: int = 50
    """Steps of linear warm-up from zero."""
    decay_share: float = 0.2
    """Share of a budget that the decay branch of ``cooldown`` takes, in (0, 1)."""
    decay_shape: str = "1-sqrt"
    """Shape of the decay: ``1-sqrt``, ``linear`` or ``cosine``."""
    horizon: str | None = None
    """Budget at which the schedule of ``fixed`` ends; no budget may be larger."""


@dataclass
class ImplConfig:
    """How it is computed (not identity)."""

    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    precision: str = "auto"
    """``auto`` (bf16 where a short measurement, kept with the study, finds its products faster; fp32 where the hardware
    has none), ``fp32`` or ``bf16``. Evaluation is always fp32."""
    attention: str = "auto"
    """``auto`` (plain products on CPU, SDPA on CUDA), ``eager`` or ``sdpa``."""
    forward: str = "auto"
    """``fast`` (our forward pass over the library's parameters), ``library``, or ``auto``: ``fast`` where
    the architecture has such a pass, but with ``strategy=fsdp``."""
    compile: str = "none"
    """torch.compile of the training loss: ``none``, ``inductor``, or ``graphs`` (with CUDA graphs, for small models
    on a GPU). Its seconds are the column ``compile_seconds``. Evaluation is never compiled."""
    threads: int = 0
    """CPU threads a job; 0: the cores divided by ``workers``."""
    strategy: str = "auto"
    """Lightning strategy of several devices: ``auto`` or ``ddp``, which are the same (a copy of the model on each), or
    ``fsdp``: each device keeps its share of weights, gradients and optimizer state, for models too large for one."""
    devices: int = 1
    """Devices a job, which sees its own only: GPUs of one machine, or processes on the CPU. Each takes an equal share
    of the batch."""
    micro_batch_rows: int = 0
    """Rows that go through the model at once; 0: as many of the batch as fit in the memory, on the CPU measured before
    the first step, on a GPU (one alone) found by halving where memory runs out."""
    save_seconds: float = 300.0
    """Time between two saved states, from which a stopped run goes on."""


@dataclass
class TrackingConfig:
    """The mirror of the study folder (not identity)."""

    name: str = "none"
    """``none`` or ``wandb``."""
    mode: str = "offline"
    """Weights & Biases mode: ``offline`` or ``online``."""
    project: str = "trainlarge"
    """Weights & Biases project."""
    entity: str | None = None
    """Weights & Biases entity."""


@dataclass
class LauncherConfig:
    """Where jobs run (not identity)."""

    name: str = "local"
    """``local``: one process a job on this machine; ``slurm``: one array task a job."""
    retries: int = 0
    """How often a failed cell is tried again within one command (or one submission)."""
    max_failures: int = 0
    """Failed cells after which no further job is started; those that run go on to their ends. 0: no limit."""
    fail_fast: bool = False
    """The first failed cell is one too many: no further job is started, those that run save their state and stop."""
    wait: bool = True
    """``local``: wait for cells that another process runs, and take over those that it leaves. (``slurm`` never waits.)
    """
    per_device: int = 1
    """``local``: jobs that share one GPU. From 2 on, times of the cells are no results: they stay out of figures in
    seconds, and budgets in seconds are refused."""
    array_parallelism: int = 0
    """``slurm``, as all keys from here on. Array tasks that run at once; 0: as many as the cluster gives."""
    partition: str | None = None
    """Partition; null: the cluster's default. So for every key below that is null."""
    time: str | None = None
    """Time limit of one array task with its unit (``4 h``); a job that needs longer goes on in its next turn."""
    memory: str | None = None
    """Memory of one array task, as SLURM reads it (``16G``)."""
    cpus: int = 1
    """CPU cores of one array task."""
    gpus: str | None = None
    """GPUs of one array task: a number, or a type and a number (``a100:1``)."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    sbatch: list[str] = field(default_factory=list)
    """More options of sbatch (``--constraint=avx512``)."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before Python starts (``module load python``)."""
    python: str | None = None
    """Python of the array tasks; null: the one that submits."""
    signal_lead: int = 180
    """Seconds before the time limit at which a job saves its state and goes back into the queue."""
    max_requeues: int = 20
    """How often an array task starts again before it is given up."""
    max_array_size: int = 0
    """Jobs in one array, more are split; 0: what the cluster allows."""


@dataclass
class SweepConfig:
    """The cells of a sweep (not identity: it makes the cells)."""

    blocks: list[Any] = field(default_factory=list)
    """Each block maps keys (or groups) to values and stands for their product; the sweep is the union."""
    exclude: list[str] = field(default_factory=list)
    """Conditions such as ``arch.width == 64 and budget > "30 s"``; cells that meet one are left out."""
    where: str | None = None
    """Condition on the checkpoints that ``checkpoint: every`` stands for, such as ``budget == 2e12``."""


@dataclass
class CommonConfig:
    """Keys of both stages."""

    study: str = "default"
    """Folder of the results below ``studies/`` (not identity)."""
    seed: int = 0
    """Seed of initial weights, data order and masks."""
    impl: ImplConfig = field(default_factory=ImplConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    workers: int | None = None
    """Jobs at once on this machine; null: one for each GPU (times ``launcher.per_device``), one where there is none
    (not identity)."""
    redo: bool = False
    """Run cells again that are done (not identity). The states of their trunk are used where they are still there,
    however they were computed: ``trainlarge clean`` removes them."""
    sweep: SweepConfig = field(default_factory=SweepConfig)


@dataclass
class TrainConfig(CommonConfig):
    """One train cell."""

    task: Any = None
    """The group ``task``: its ``name`` and fields."""
    checkpoint: str | None = None
    """Cell id or Hugging Face folder to start from; null: initial weights."""
    data: DataConfig = field(default_factory=DataConfig)
    arch: ArchConfig = field(default_factory=ArchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    budget: Any = "1000 steps"
    """A number with its unit (``2e12 FLOPs``, ``1e9 tokens``, ``500 steps``, ``30 min``), or a list of them."""
    clock: str = "modelled"
    """What a budget in seconds is counted on: ``modelled`` (turned into steps by the steady-state step time, so that
    the cell can be repeated) or ``real`` (training stops when so many seconds of it have passed)."""


@dataclass
class CompressConfig(CommonConfig):
    """One compress cell."""

    checkpoint: str = MISSING
    """Id of a train cell of the study, or a Hugging Face folder of a masked language model with its tokenizer;
    ``every`` in a sweep stands for all train cells that are done."""
    checkpoint_digest: str | None = None
    """Content hash of a folder's weights, configuration and tokenizer; filled in when a cell is frozen."""
    task: Any = None
    """How a folder is evaluated; a train cell brings its own."""
    data: DataConfig = field(default_factory=DataConfig)
    """The text that a folder is evaluated on, read by its own tokenizer; a train cell brings its own."""
    vocabulary: Any = None
    """Cut of the vocabulary, the group ``vocabulary``: its ``name`` and fields."""
    structure: Any = None
    """Structured pruning, the group ``structure``: its ``name`` and fields."""
    factorize: Any = None
    """Factorization of matrices, the group ``factorize``: its ``name`` and fields."""
    prune: Any = None
    """Pruning method, the group ``prune``: its ``name`` and fields."""
    quantize: Any = None
    """Quantization method, the group ``quantize``: its ``name`` and fields."""
    activations: Any = None
    """Quantization of the inputs of linear layers, the group ``activations``: its ``name`` and fields."""
    order: Any = None
    """Order in which the groups above are applied, a list of all that are not ``none`` (more may be named); null: as
    they are written here."""
    recover: Any = None
    """Training that continues after pruning, the group ``recover``: its ``name`` and fields."""


NOT_IDENTITY = frozenset({"study", "impl", "tracking", "launcher", "workers", "redo", "sweep"})
"""Top-level keys that cannot change a result."""
