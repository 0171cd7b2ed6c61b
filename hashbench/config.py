"""What a run is made of, in one frozen value; `hashbench.recipe` makes it."""

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
        raise ValueError("the limits of a range must be positive and ascending")
    return limits


def _odd(size: int) -> int:
    if size < 1 or size % 2 == 0:
        raise ValueError("the size of a kernel must be odd")
    return size


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rank = Annotated[int, Field(gt=0)] | Literal["all"]


def _no_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a timm model that do not collide with what the other settings pass on."""
    taken = {*BackboneConfig.model_fields, "image_size", "img_size", "num_classes"} & options.keys()
    if taken:
        raise ValueError(
            f"{', '.join(sorted(taken))} cannot be among the options; it is a setting of its own"
        )
    return options


class Section(BaseModel):
    """A part of the configuration: typed, frozen, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted paths, as in `training.epochs`; an empty section is a value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat


class BackboneConfig(Section):
    """The network under the method; see `hashbench.create_backbone`."""

    name: str
    """`efficientnet_lite0` (built in) or any timm model."""
    pretrained: bool = True
    """Start from pretrained weights."""
    stage: int | None = None
    """Intermediate feature map that gives the tokens; None: the output."""
    freeze_batch_norm: bool = False
    """Keep batch norm on its stored statistics."""
    options: Annotated[dict[str, Any], AfterValidator(_no_settings)] = {}
    """Further arguments of the timm model."""


class ImageConfig(Section):
    """How an image becomes a tensor, in training and in testing."""

    size: int = Field(default=224, gt=0)
    """Height and width in pixels of the centre crop."""
    resize: int | None = Field(default=None, gt=0)
    """Shorter side in pixels before the crop; None: `size`."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from the channels, which are in 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Divides the channels."""

    @model_validator(mode="after")
    def _crop_fits(self) -> ImageConfig:
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize={self.resize} leaves no room for a crop of size={self.size}")
        return self


class AffineConfig(Section):
    """A random affine map."""

    degrees: float = Field(default=0.0, ge=0)
    """Largest rotation."""
    translate: Probability = 0.0
    """Largest shift, as a share of the image."""
    scale: Range = (1.0, 1.0)
    """Range of the scale."""
    shear: float = Field(default=0.0, ge=0)
    """Largest shear, in degrees."""


class ViewConfig(Section):
    """The random augmentation that makes a training view, in this order; the defaults change nothing."""

    random_crop: bool = False
    """Crop the resized image at random, not at its centre."""
    whole_image: bool = False
    """Take the random resized crop from the whole image, not from what the test transform shows."""
    affine: AffineConfig | None = None
    """Rotation, shift, scale and shear."""
    crop_scale: Range = (1.0, 1.0)
    """Range of the area of a random resized crop."""
    color_jitter: (
        tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, Annotated[float, Field(ge=0, le=0.5)]]
        | None
    ) = None
    """Strength of brightness, contrast, saturation, hue (at most 0.5)."""
    color_jitter_probability: Probability = 0.8
    """Share of views with colour jitter."""
    grayscale: Probability = 0.0
    """Share of views without colour."""
    blur: Probability = 0.0
    """Share of views with a Gaussian blur."""
    blur_sigma: Range = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels."""
    blur_kernel: Annotated[int, AfterValidator(_odd)] | None = None
    """Height and width of the blur's kernel in pixels; None: Pillow's blur, which has no bound."""
    horizontal_flip: Probability = 0.0
    """Share of views that are mirrored."""
    on_device: bool = False
    """Augment in batches on the run's device, by kornia and not by Pillow, from the test transform's square;
    the same settings then give other views."""

    @model_validator(mode="after")
    def _one_crop(self) -> ViewConfig:
        if self.random_crop and self.whole_image:
            raise ValueError("random_crop and whole_image exclude each other")
        return self


class OptimizerConfig(Section):
    """The optimizer, one of torch's."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Its name in torch.optim, in lower case."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""
    backbone_lr: float | None = Field(default=None, gt=0)
    """Learning rate of the backbone; None: `lr`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay."""
    momentum: float = Field(default=0.0, ge=0)
    """Momentum of sgd; adam and adamw have none."""


class ScheduleConfig(Section):
    """How the learning rate goes over training."""

    name: Literal["constant", "step", "cosine", "one_cycle"] = "constant"
    """`step` and `cosine` move once an epoch; `one_cycle` rises and falls with each step of the optimizer."""
    step_epochs: int = Field(default=100, gt=0)
    """Of `step`: epochs until the rate is multiplied by `step_factor`, again and again."""
    step_factor: float = Field(default=0.1, gt=0)
    """Of `step`."""
    hold_epochs: int = Field(default=0, ge=0)
    """Of `cosine`: epochs at the full rate before it starts to fall."""
    cosine_epochs: Annotated[int, Field(gt=0)] | Literal["batches"] | None = None
    """Of `cosine`: epochs from the full rate to 0, and as many back up, again and again; `batches`: as many
    as an epoch has batches; None: all that `hold_epochs` leaves."""


class TrainingConfig(Section):
    """The training loop."""

    epochs: int = Field(default=50, gt=0)
    """Passes over the training images."""
    batch_size: int = Field(default=32, ge=2)
    """Images a step, of all processes together; each gives all its views. A single one left over by an epoch
    is left out, and so are fewer than there are processes."""
    accumulate: int = Field(default=1, gt=0)
    """Batches whose mean gradient makes one step of the optimizer; each is contrasted within itself."""
    drop_last: bool = False
    """Leave out the images that do not fill a last batch."""
    freeze_backbone: bool = False
    """Train the rest only. A method on features then learns from features that are computed once, unless
    views are augmented."""
    feature_dropout: bool = False
    """Leave the dropout of a frozen backbone on in training; features are then computed anew each epoch."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; None: no limit."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the forward pass; `auto`: bfloat16 on a GPU that has it, else float32. float16 needs a GPU."""
    compile: bool = False
    """Compile the training step by torch.compile; worth its minutes on a GPU, for hours of training."""


class SelectionConfig(Section):
    """Which epoch's weights are the result."""

    name: Literal["last", "best-val", "best-on-query"] = "last"
    """`last`: those at the end. `best-val`: those with the best mAP, at the first of `evaluation.k`, of
    validation images, which are never queries. `best-on-query`: those with the best mAP of the queries
    themselves, as many papers report it; that is no measure of unseen images, and is named in all reports."""
    every: int = Field(default=1, gt=0)
    """Epochs from one look at the mAP to the next; the last epoch is looked at, too."""
    patience: int | None = Field(default=None, gt=0)
    """Looks without a better mAP after which training stops; None: never."""
    validation: int = Field(default=1000, gt=0)
    """Of `best-val`, where the protocol has no validation images of its own: how many training images take
    their place. They are no longer trained on, and are searched for in the rest of the training images."""

    @model_validator(mode="after")
    def _patience_is_used(self) -> SelectionConfig:
        if self.patience is not None and self.name == "last":
            raise ValueError("patience needs selection=best-val or selection=best-on-query")
        return self


class EvaluationConfig(Section):
    """What is measured; see `hashbench.evaluate`."""

    k: Annotated[tuple[Rank, ...], Field(min_length=1)] = (1000, "all")
    """Ranks at which mAP, precision and recall are taken."""
    radius: int = Field(default=2, ge=0)
    """Hamming radius of the precision within a radius."""
    denominator: Literal["hits", "relevant"] = "hits"
    """What AP@K divides by."""
    no_relevant: Literal["zero", "skip"] = "zero"
    """Queries with nothing relevant in the database."""
    graded: bool = False
    """Also NDCG@k and ACG@k, by the number of labels that two images share."""

    @property
    def metrics(self) -> list[str]:
        """Names of what is measured; of product codes all but those within a radius."""
        names = ("mAP", "P", "R", "NDCG", "ACG") if self.graded else ("mAP", "P", "R")
        ranked = [f"{name}@{k}" for name in names for k in self.k]
        return [*ranked, f"P@H<={self.radius}", f"mAP@H<={self.radius}"]


class RunConfig(Section):
    """Everything about a run that can change its numbers, but for the data and the code."""

    method: str
    dataset: str
    protocol: str
    data: dict[str, Any] = {}
    """Options of the dataset, and what its packed copy is."""
    bits: int = Field(gt=0, le=2**16)
    seed: int = Field(ge=0, lt=2**32)
    device: Literal["cpu", "cuda"]
    processes: int = Field(default=1, gt=0)
    """Processes that train and encode together, each on its share of every batch."""
    backbone: BackboneConfig
    images: ImageConfig = ImageConfig()
    views: ViewConfig = ViewConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    selection: SelectionConfig = SelectionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    hyperparameters: dict[str, Any] = {}
