"""RunConfig: every setting of a run, declared once with bounds, unit, default and help.

The Train form, the command line, `config.json` in the run folder and the README's table are all made from these
declarations, which `cifar_tl.settings` lists. Cross-field rules live in `RunConfig._check_combinations`; rules that need the
catalogue are in `models.catalog.problems`.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cifar_tl.errors import SettingsError

CONFIG_VERSION = 1

# A published student project fine-tuned ResNet and VGG on CIFAR-100 and stopped here; drawn as reference lines.
REFERENCE_TRAIN_ACCURACY = 0.51
REFERENCE_DEV_ACCURACY = 0.29

BUNDLED_BACKBONE = "efficientnet_lite0"

Trainable = Literal["head", "last_stages", "everything", "head_then_everything"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["one_cycle", "constant"]
ClassBalance = Literal["none", "weighted_loss", "balanced_sampling"]
Precision = Literal["auto", "float32", "bf16", "fp16"]
Device = Literal["auto", "cuda", "mps", "cpu"]

SECTIONS = ("Data", "Model", "Training", "Augmentation", "Regularisation", "Hardware")


def setting(
    default: Any, *, title: str, help: str, section: str, unit: str = "", advanced: bool = True, step: float | None = None, **bounds: Any
) -> Any:
    """Declare one setting. `bounds` are pydantic's ge, gt, le, lt; `advanced` puts it under Advanced in the form."""
    assert section in SECTIONS
    return Field(
        default,
        title=title,
        description=help,
        json_schema_extra={"section": section, "unit": unit, "advanced": advanced, "step": step},
        **bounds,
    )


class RunConfig(BaseModel):
    """What a person asked for. Immutable; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    version: Literal[1] = Field(1, description="Version of this declaration; old files go through upgrade().")

    name: str = setting(
        "", title="Run name", help="Shown in lists; may be empty and can be changed later.", section="Data", advanced=False, max_length=100
    )

    # Data
    source: str = setting(
        "cifar100",
        title="Data set",
        help="cifar100, cifar10, shapes (drawn by the program) or folder:PATH with one folder per class.",
        section="Data",
        advanced=False,
        min_length=1,
    )
    store_resolution: int = setting(
        160,
        title="Stored resolution",
        unit="px",
        help="Height and width at which images of a folder are stored. CIFAR and shapes keep their 32.",
        section="Data",
        ge=16,
        le=512,
    )
    classes: tuple[str, ...] = setting((), title="Classes", help="Train on these classes only; empty means all of them.", section="Data")
    images_per_class: int | None = setting(
        None,
        title="Training images per class",
        help="Few-shot: at most this many training images of each class; empty means all.",
        section="Data",
        ge=1,
    )
    corrected: bool = setting(
        False,
        title="Corrected data",
        help="Train on the data as corrected in Explore: with the labels given there, without the images dropped there. Test stays as it is.",
        section="Data",
    )

    # Model
    backbone: str = setting(
        BUNDLED_BACKBONE,
        title="Backbone",
        help="The pretrained network: a torchvision model, timm:NAME, or the bundled efficientnet_lite0.",
        section="Model",
        advanced=False,
        min_length=1,
    )
    weights: str = setting(
        "default",
        title="Pretrained weights",
        help="default, the name of a published set of weights, or none to train from scratch.",
        section="Model",
        min_length=1,
    )
    trainable: Trainable = setting(
        "head",
        title="What trains",
        help="Head only is fast and hard to overfit; everything reaches the highest accuracy and costs the most time.",
        section="Model",
        advanced=False,
    )
    trainable_stages: int = setting(
        2,
        title="Trained stages",
        unit="stages",
        help="How many of the last stages train, with 'Last stages and head'.",
        section="Model",
        ge=1,
        le=100,
    )
    freeze_batch_norm: bool = setting(
        True,
        title="Freeze batch-norm statistics",
        help="Keep the pretrained running mean and variance; safer with small batches and small data sets.",
        section="Model",
    )

    # Training
    image_size: int = setting(
        128,
        title="Image size",
        unit="px",
        help="Images are resized to this before the network. Larger is slower, with the square.",
        section="Training",
        advanced=False,
        ge=32,
        le=1024,
        step=32,
    )
    first_image_size: int | None = setting(
        None,
        title="First image size",
        unit="px",
        help="Progressive resizing: epochs start at this size, which is quick, and grow to the image size. Dev accuracy is measured at the full size, so it starts low. Empty: always the image size.",
        section="Training",
        ge=32,
        le=1024,
        step=32,
    )
    epochs: int = setting(
        5,
        title="Epochs",
        unit="epochs",
        help="How many times the run sees every training image.",
        section="Training",
        advanced=False,
        ge=1,
        le=1000,
    )
    head_epochs: int = setting(
        1,
        title="Head-only epochs",
        unit="epochs",
        help="How many of the epochs train the head alone, with 'Head first, then everything'.",
        section="Training",
        ge=1,
    )
    batch_size: int = setting(
        128, title="Batch size", unit="images", help="Images per optimizer step.", section="Training", advanced=False, ge=1, le=8192
    )
    optimizer: Optimizer = setting("sgd", title="Optimizer", help="SGD with Nesterov momentum 0.9, or AdamW.", section="Training")
    learning_rate: float = setting(
        0.01,
        title="Learning rate",
        help="The highest learning rate of the last trained stage. SGD wants about 0.01, AdamW about 0.0005.",
        section="Training",
        advanced=False,
        gt=0,
        le=10,
    )
    head_learning_rate_factor: float = setting(
        1.0,
        title="Head learning-rate factor",
        unit="x",
        help="The new head starts from random weights and may learn this many times faster than the backbone. Large values diverge.",
        section="Training",
        gt=0,
        le=1000,
    )
    stage_learning_rate_decay: float = setting(
        0.8,
        title="Learning-rate decay per stage",
        unit="x",
        help="Each earlier stage learns this much slower than the one after it; 1 means all alike.",
        section="Training",
        gt=0,
        le=1,
    )
    schedule: Schedule = setting(
        "one_cycle", title="Learning-rate schedule", help="How the learning rate moves during the run.", section="Training"
    )
    warmup_fraction: float = setting(
        0.1,
        title="Warm-up",
        unit="of all steps",
        help="The learning rate rises linearly from zero over this share of the run.",
        section="Training",
        ge=0,
        le=0.9,
        step=0.05,
    )
    class_balance: ClassBalance = setting(
        "none",
        title="Class balance",
        help="For unequal classes: weight the loss by inverse frequency, or draw every class equally often.",
        section="Training",
    )
    average_flips: bool = setting(
        False,
        title="Flip-averaged evaluation",
        help="Average the answers for each image and its mirror image, when evaluating and when predicting: better, and twice the time.",
        section="Training",
    )
    evaluate_test: bool = setting(
        True,
        title="Test at the end",
        help="Evaluate the test images with the weights of the best epoch. Off: test stays untouched, for runs among which dev is to choose; it can be done later.",
        section="Training",
    )
    early_stopping_patience: int = setting(
        0,
        title="Early stopping patience",
        unit="epochs",
        help="Stop when dev accuracy has not risen for this many epochs; 0 never stops early.",
        section="Training",
        ge=0,
        le=1000,
    )

    # Augmentation
    flip: bool = setting(True, title="Random flip", help="Mirror half of the training images left to right.", section="Augmentation")
    crop: bool = setting(
        False,
        title="Random crop",
        help="Shift training images by up to an eighth of their size, reflecting the border.",
        section="Augmentation",
    )
    trivial_augment: bool = setting(
        False,
        title="TrivialAugment",
        help="One random colour or geometry change per image, of random strength (Müller and Hutter 2021).",
        section="Augmentation",
    )
    random_erasing: float = setting(
        0.0,
        title="Random erasing",
        unit="probability",
        help="Chance that a random rectangle of a training image is blanked (Zhong et al. 2020).",
        section="Augmentation",
        ge=0,
        le=1,
        step=0.05,
    )
    mixup: float = setting(
        0.0,
        title="Mixup",
        unit="alpha",
        help="Blend pairs of training images (or, behind frozen stages, of their activations) and labels; 0 is off, 0.2 is usual (Zhang et al. 2018).",
        section="Augmentation",
        ge=0,
        le=10,
        step=0.1,
    )
    cutmix: float = setting(
        0.0,
        title="CutMix",
        unit="alpha",
        help="Paste a rectangle of one training image into another; 0 is off, 1 is usual (Yun et al. 2019). A head alone trains without it: its features have no area.",
        section="Augmentation",
        ge=0,
        le=10,
        step=0.1,
    )
    cached_views: int = setting(
        2,
        title="Cached views",
        unit="per training image",
        help="Stages that do not train run once for this many augmented versions of each training image; 0 runs them every epoch.",
        section="Augmentation",
        ge=0,
        le=100,
    )

    # Regularisation
    weight_decay: float = setting(
        0.0005,
        title="Weight decay",
        help="Pulls weights towards zero; batch-norm parameters and biases are exempt.",
        section="Regularisation",
        ge=0,
        le=1,
    )
    label_smoothing: float = setting(
        0.1,
        title="Label smoothing",
        help="Share of the target spread over all classes (Szegedy et al. 2016).",
        section="Regularisation",
        ge=0,
        lt=1,
        step=0.05,
    )
    dropout: float = setting(
        0.2,
        title="Dropout",
        unit="probability",
        help="Share of the features zeroed before the head while training.",
        section="Regularisation",
        ge=0,
        lt=1,
        step=0.05,
    )
    ema_decay: float = setting(
        0.0,
        title="Weight averaging (EMA)",
        unit="decay",
        help="Evaluate and keep an exponential moving average of the weights; 0 is off, 0.998 is usual.",
        section="Regularisation",
        ge=0,
        lt=1,
        step=0.001,
    )

    # Hardware
    precision: Precision = setting(
        "auto",
        title="Precision",
        help="Automatic uses bfloat16 where the hardware multiplies it natively, float32 elsewhere.",
        section="Hardware",
    )
    device: Device = setting(
        "auto", title="Device", help="Automatic prefers a CUDA GPU, then an Apple GPU, then the CPU.", section="Hardware"
    )
    processes: int = setting(
        1,
        title="Processes",
        help="How many processes share the run, each with a GPU of its own; 0 takes all GPUs of the machine. On a CPU they share its cores, which is no faster than one. The batch size is that of all of them together.",
        section="Hardware",
        ge=0,
        le=1024,
    )
    compile: bool = setting(
        False,
        title="Compile the network",
        help="On a CUDA GPU, let torch.compile make one program of the network: the first step of each image size takes a minute, the others less. No gain on a CPU.",
        section="Hardware",
    )
    seed: int = setting(
        0, title="Seed", help="Same seed, same data order, same augmentation, same initial head.", section="Hardware", ge=0, le=2**31 - 1
    )
    checkpoint_minutes: float = setting(
        5.0,
        title="Checkpoint interval",
        unit="minutes",
        help="A killed run goes on from its last checkpoint: one is written this often, after each epoch, and when the run is stopped.",
        section="Hardware",
        gt=0,
        le=10_000,
    )
    cache_limit: float = setting(
        20.0,
        title="Cache limit",
        unit="GB",
        help="Cached activations of all runs together take at most this much disk; the least recently used go first.",
        section="Hardware",
        ge=0,
        le=100_000,
    )
    describe: bool = setting(
        True,
        title="Prepare Explore",
        help="After the run, prepare what Explore shows besides test and dev: answers for training images, embeddings, their map.",
        section="Hardware",
    )
    tensorboard: bool = setting(
        False,
        title="TensorBoard files",
        help="Write the curves for TensorBoard too, into the run's folder. Needs the package tensorboard.",
        section="Hardware",
    )
    log_every_steps: int = setting(
        10,
        title="Log interval",
        unit="steps",
        help="How often loss and learning rate are written to the log.",
        section="Hardware",
        ge=1,
        le=10_000,
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.trainable == "head_then_everything" and self.head_epochs >= self.epochs:
            raise ValueError(
                f"Head-only epochs ({self.head_epochs}) must be fewer than all epochs ({self.epochs}), or nothing is left for the rest of the network."
            )
        if self.first_image_size is not None and self.first_image_size > self.image_size:
            raise ValueError(
                f"The first image size ({self.first_image_size}) must not be larger than the image size ({self.image_size}), at which training ends."
            )
        if self.first_image_size is not None and self.trainable in ("head", "last_stages"):
            raise ValueError(
                "Progressive resizing needs the whole network to train: leave the first image size empty, or choose 'Everything' or 'Head first, then everything'."
            )
        if self.weights == "none" and self.trainable != "everything":
            raise ValueError(
                "Without pretrained weights everything must train: a frozen random backbone learns nothing. Choose 'Everything' or pick weights."
            )
        if self.weights == "none" and self.freeze_batch_norm:
            raise ValueError(
                "Without pretrained weights batch-norm statistics must not be frozen: switch off 'Freeze batch-norm statistics'."
            )
        if self.precision == "fp16" and self.device == "cpu":
            raise ValueError("float16 is not for training on a CPU: choose Automatic, bfloat16 or float32.")
        if self.processes > self.batch_size:
            raise ValueError(f"A batch of {self.batch_size} images cannot be shared by {self.processes} processes: raise the batch size.")
        if len(self.classes) == 1:
            raise ValueError("One class cannot be told from anything: choose at least two classes, or leave the field empty for all.")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("A class is named twice in Classes.")
        return self


def make_config(**values: Any) -> RunConfig:
    """A RunConfig from loose values. Raises SettingsError with one readable line per problem."""
    try:
        return RunConfig(**values)
    except ValidationError as error:
        raise SettingsError("\n".join(_readable(item) for item in error.errors())) from error


def _readable(item: Any) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name = str(item["loc"][0])
    if item["type"] == "extra_forbidden":
        return f"{name}: there is no such setting."
    field = RunConfig.model_fields.get(name)
    return f"{field.title if field and field.title else name} = {item['input']!r}: {message[0].lower()}{message[1:]}."


def upgrade(raw: Any) -> dict[str, Any]:
    """Bring a stored config of any older version to this one. Raises SettingsError for a newer one."""
    if not isinstance(raw, dict):
        raise SettingsError("The file holds no settings.")
    version = raw.get("version", CONFIG_VERSION)
    if not isinstance(version, int) or version > CONFIG_VERSION:
        raise SettingsError(
            f"This run was made by a newer version of the program (config version {version}, known up to {CONFIG_VERSION}). Update the program to open it."
        )
    return raw
