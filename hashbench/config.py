"""The configuration of a run, a frozen model that `hashbench.recipe` creates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    model_validator,
)


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if not 0 < limits[0] <= limits[1]:
        raise ValueError("expected a range with positive limits in ascending order")
    return limits


def _odd(size: int) -> int:
    if size < 1 or size % 2 == 0:
        raise ValueError("expected an odd kernel size")
    return size


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rank = Annotated[int, Field(gt=0)] | Literal["all"]
Part = Literal["paper", "laptop"]  # of a recipe


def _no_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Check that the options of a timm model do not repeat other settings."""
    taken = {*BackboneConfig.model_fields, "image_size", "img_size", "num_classes"} & options.keys()
    if taken:
        raise ValueError(
            f"{', '.join(sorted(taken))} cannot be an option of the backbone, since it has its own setting"
        )
    return options


class Section(BaseModel):
    """Base class of the parts of a configuration: typed, frozen, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted path, such as `training.epochs`; an empty section counts as a value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat


class BackboneConfig(Section):
    """The network that a method is built on; see `hashbench.create_backbone`."""

    name: str
    """`efficientnet_lite0` (built in), another preset that `hashbench backbones` lists, or any timm model."""
    pretrained: bool = True
    """Start from pretrained weights."""
    weights: str | None = None
    """File of weights of the network, FILE.safetensors or, for a vision transformer, its original FILE.npz;
    None: those that come with the name."""
    weights_sha256: str | None = None
    """Hash of the content of `weights`; None: computed from the file."""
    pool: Literal["head", "cls", "mean"] = "head"
    """Vector of an image. `head`: the input of the network's classifier, or the mean token if it has none or
    `stage` is set; `cls`: the class token; `mean`: the mean token."""
    stage: int | None = None
    """Index of the intermediate feature map that provides the tokens; None: the output."""
    freeze_batch_norm: bool = False
    """Keep batch norm on its stored statistics."""
    options: Annotated[dict[str, Any], AfterValidator(_no_settings)] = {}
    """Additional arguments of the timm model."""


class ImageConfig(Section):
    """The transform of an image to a tensor, in training and in testing."""

    size: int = Field(default=224, gt=0)
    """Height and width in pixels of the centre crop."""
    resize: int | None = Field(default=None, gt=0)
    """Shorter side in pixels before the crop; None: `size`."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of the channels, which are in 0..1; subtracted. By default or with `pretrained`, it is what the
    weights of the backbone were trained with, and the record contains the numbers."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Standard deviation of the channels, by which they are divided; see `mean`."""

    @model_validator(mode="after")
    def _crop_fits(self) -> ImageConfig:
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"expected resize to be at least size={self.size}, got resize={self.resize}")
        return self


class AffineConfig(Section):
    """A random affine map."""

    degrees: float = Field(default=0.0, ge=0)
    """Largest rotation, in degrees."""
    translate: Probability = 0.0
    """Largest shift, as a fraction of the image size."""
    scale: Range = (1.0, 1.0)
    """Range of the scale."""
    shear: float = Field(default=0.0, ge=0)
    """Largest shear, in degrees."""


class ViewConfig(Section):
    """The random augmentation of training views, in the order of the keys; the defaults change nothing."""

    random_crop: bool = False
    """Crop the resized image at a random position, not at its centre."""
    whole_image: bool = False
    """Take the random resized crop from the whole image, not from the crop of the test transform."""
    affine: AffineConfig | None = None
    """Rotation, shift, scale and shear."""
    crop_scale: Range = (1.0, 1.0)
    """Range of the area of a random resized crop."""
    color_jitter: (
        tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, Annotated[float, Field(ge=0, le=0.5)]]
        | None
    ) = None
    """Strength of brightness, contrast, saturation and hue (at most 0.5)."""
    color_jitter_probability: Probability = 0.8
    """Probability of colour jitter."""
    grayscale: Probability = 0.0
    """Probability of conversion to greyscale."""
    blur: Probability = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: Range = (0.1, 2.0)
    """Range of the standard deviation of the blur, in pixels."""
    blur_kernel: Annotated[int, AfterValidator(_odd)] | None = None
    """Height and width of the blur kernel in pixels; None: Pillow's blur, which is not cut off."""
    horizontal_flip: Probability = 0.0
    """Probability of a horizontal flip."""
    on_device: bool = False
    """Augment batches on the device of the run, with kornia instead of Pillow, after the crop of the test
    transform; the same settings then give different views."""

    @model_validator(mode="after")
    def _one_crop(self) -> ViewConfig:
        if self.random_crop and self.whole_image:
            raise ValueError("random_crop and whole_image cannot both be true")
        return self


class OptimizerConfig(Section):
    """The optimizer, from torch.optim."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Its name in torch.optim, in lower case."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""
    backbone_lr: float | None = Field(default=None, gt=0)
    """Learning rate of the backbone; None: `lr`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay."""
    momentum: float = Field(default=0.0, ge=0)
    """Momentum of sgd; adam and adamw ignore it."""
    eps: float = Field(default=1e-8, gt=0)
    """Term that adam and adamw add to the denominator; sgd ignores it."""


class ScheduleConfig(Section):
    """The learning-rate schedule."""

    name: Literal["constant", "step", "cosine", "one_cycle", "warmup_cosine"] = "constant"
    """`step` and `cosine` change the rate after each epoch; `one_cycle` and `warmup_cosine` after each step
    of the optimizer."""
    step_epochs: int = Field(default=100, gt=0)
    """For `step`: number of epochs after which the rate is multiplied by `step_factor`, repeatedly."""
    step_factor: float = Field(default=0.1, gt=0)
    """For `step`: factor of the rate."""
    hold_epochs: int = Field(default=0, ge=0)
    """For `cosine`: number of epochs at the full rate before it decreases."""
    cosine_epochs: Annotated[int, Field(gt=0)] | Literal["batches"] | None = None
    """For `cosine`: number of epochs from the full rate to 0, and from 0 back to it, repeatedly; `batches`:
    the number of batches of an epoch; None: all epochs after `hold_epochs`."""
    warmup_epochs: float = Field(default=1.0, ge=0)
    """For `warmup_cosine`: number of epochs in which the rate rises linearly."""
    final_factor: float = Field(default=1e-3, ge=0)
    """For `warmup_cosine`: factor of the rate at which the rise begins and to which the cosine falls."""


class TrainingConfig(Section):
    """The training loop."""

    epochs: int = Field(default=50, gt=0)
    """Number of passes over the training images."""
    batch_size: int = Field(default=32, ge=2)
    """Number of images per batch in all processes together; each image provides all its views. A last batch
    of a single image, or of fewer images than processes, is dropped."""
    accumulate: int = Field(default=1, gt=0)
    """Number of batches whose gradients are accumulated per optimizer step. Contrastive losses still see one
    batch at a time, so this is not equivalent to a larger batch."""
    max_images: int | None = Field(default=None, ge=2)
    """Maximum number of training images, for methods whose memory grows with its square. If there are more,
    this many are drawn at random, the same for all seeds. None: no limit."""
    epoch_images: int | None = Field(default=None, ge=2)
    """About the number of images of an epoch, for trainings whose length does not depend on the dataset: a
    part of the training images, drawn for each epoch, or several passes over all. Of fewer images than a
    batch, it is the number of steps that remains the same. None: all images, once."""
    drop_last: bool = False
    """Drop the last batch of an epoch, or of a pass, if it is incomplete."""
    freeze_backbone: bool = False
    """Train everything except the backbone. A method on features then learns from features that are computed
    only once, unless views are augmented."""
    frozen_layers: tuple[str, ...] = ()
    """Layers of the backbone that are not trained although the backbone is, such as `features`, the
    convolutions of VGG-16."""
    feature_dropout: bool = False
    """Keep the dropout of a frozen backbone active in training; features are then computed in each epoch."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Maximum norm of the gradient; None: no clipping."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Forward-pass precision; `auto`: bfloat16 if the GPU supports it, else float32. float16 needs a GPU."""
    compile: bool = False
    """Compile the training step with torch.compile; takes minutes, and pays off for hours on a GPU."""


class SelectionConfig(Section):
    """The selection of the epoch whose weights are the result."""

    name: Literal["last", "best-val", "best-on-query"] = "last"
    """`last`: the last epoch. `best-val`: the epoch with the best mAP, at the first of `evaluation.k`, of
    validation images, which are never queries. `best-on-query`: the epoch with the best mAP of the queries,
    as many papers report it; this does not measure unseen images, and all reports mark it."""
    every: int = Field(default=1, gt=0)
    """Number of epochs between validations; the last epoch is always validated."""
    patience: int | None = Field(default=None, gt=0)
    """Number of validations without a better mAP after which training stops; None: never."""
    validation: int = Field(default=1000, gt=0)
    """For `best-val`, if the protocol has no validation images: number of training images to hold out for
    validation. The remaining training images are the database of the validation."""

    @model_validator(mode="after")
    def _patience_is_used(self) -> SelectionConfig:
        if self.patience is not None and self.name == "last":
            raise ValueError("patience needs selection=best-val or selection=best-on-query")
        return self


class EvaluationConfig(Section):
    """The encoding of the images and the metrics; see `hashbench.evaluate`."""

    precision_encode: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Precision in which networks encode images and compute features, except those that say what is
    relevant. The others are faster on a GPU; tf32 needs one."""
    k: Annotated[tuple[Rank, ...], Field(min_length=1)] = (1000, "all")
    """Ranks K at which mAP, precision and recall are computed."""
    radius: int = Field(default=2, ge=0)
    """Hamming radius for precision and mAP within a radius."""
    denominator: Literal["hits", "relevant", "all_relevant"] = "hits"
    """Divisor of AP@K."""
    no_relevant: Literal["zero", "skip"] = "zero"
    """Treatment of queries without relevant images in the database."""
    graded: bool = False
    """Also compute NDCG@K and ACG@K, with the number of shared labels as the relevance."""
    relevance: Literal["labels", "neighbours"] = "labels"
    """The images that are relevant to a query. `labels`: those of the database that share a label with it.
    `neighbours`: those nearest to it by the features of the pretrained backbone, before training."""
    neighbours: int = Field(default=50, gt=0)
    """For `relevance=neighbours`: number of database images that are relevant to a query."""

    @model_validator(mode="after")
    def _graded_by_labels(self) -> EvaluationConfig:
        if self.graded and self.relevance != "labels":
            raise ValueError("graded needs relevance=labels")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `hashbench.evaluate`: the settings, except those of encoding and relevance."""
        return self.model_dump(exclude={"precision_encode", "relevance", "neighbours"})

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics; product codes lack those within a radius."""
        names = ("mAP", "P", "R", "NDCG", "ACG") if self.graded else ("mAP", "P", "R")
        ranked = [f"{name}@{k}" for name in names for k in self.k]
        return [*ranked, f"P@H<={self.radius}", f"mAP@H<={self.radius}"]


class RunConfig(Section):
    """All settings of a run that can change its results, except for the data and the code."""

    method: str
    dataset: str
    protocol: str
    data: dict[str, Any] = {}
    """Options of the dataset, and the description of its packed copy."""
    bits: int = Field(gt=0, le=2**16)
    seed: int = Field(ge=0, lt=2**32)
    device: Literal["cpu", "cuda"]
    processes: int = Field(default=1, gt=0)
    """Number of processes that train and encode together, each on its shard of every batch."""
    recipe: Part | None = None
    """Part of the method's recipe, as `hashbench.recipe.load_recipe` describes them; None: it has no such
    parts."""
    backbone: BackboneConfig
    images: ImageConfig = ImageConfig()
    views: ViewConfig = ViewConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    selection: SelectionConfig = SelectionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    hyperparameters: dict[str, Any] = {}
