"""The card of an exported model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.execution.monitoring import environment
from trainers.data.spec import PictureSpec

if TYPE_CHECKING:
    from orchestrator.analysis.arms import ArmSummary
    from orchestrator.analysis.compare import Comparison
    from orchestrator.analysis.runs import RunSummary
_CARD = """# {experiment}: {arm}

{framework}, `{model}`, {parameters:,} trainable weights, trained by tandem.

| | |
|---|---|
| classes | {classes} |
| input | uint8 pixels [n, {height}, {width}, {channels}]; the preprocessing is in the model |
| output | probabilities, in the order of the classes |
| test accuracy of this run | {accuracy:.2%} on {test_images:,} images |
| {metric} of the arm | {arm_score} over {seeds} seeds, with the 95 % interval |
| trained on | {train_images:,} images, data fingerprint `{fingerprint}` |
| recipe | {recipe} |
| run | `{run}`, seed {seed} |

{conclusion}

The run was chosen among the arm's seeds by its validation accuracy, never by the test images. What the data lacks, the
model has not learned: it gives one of the classes above to any picture.

Try it: `tandem predict DIRECTORY picture.jpg`

Without tandem:

```python
{code}
```
{remark}"""
_CODE = """import numpy as np
from PIL import Image, ImageOps
{imports}

classes = {classes!r}
picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("{mode}")
picture = {resized}
pixels = np.asarray(picture, np.uint8).reshape(1, {height}, {width}, {channels})
{predict}
print(classes[probabilities.argmax()], probabilities.max())"""
_RESIZED = {
    "stretch": "picture.resize(({width}, {height}), Image.Resampling.BILINEAR)",
    "crop": "ImageOps.fit(picture, ({width}, {height}), Image.Resampling.BILINEAR)",
    "pad": "ImageOps.pad(picture, ({width}, {height}), Image.Resampling.BILINEAR, color={background!r})",
}
_FRAMEWORK_CODE = {
    "keras": (
        "import keras",
        'probabilities = np.asarray(keras.saving.load_model("model.keras", compile=False)(pixels, training=False))[0]',
    ),
    "torch": (
        "import torch",
        'probabilities = torch.export.load("model.pt2").module()(torch.from_numpy(pixels.copy())).detach().numpy()[0]',
    ),
}
"""What a program imports, and how it gets probabilities from pixels, without tandem."""


def picture_fields(data: dict[str, Any]) -> dict[str, Any]:
    """How the pictures of an experiment became pixels."""
    return {field: data[field] for field in PictureSpec.model_fields if field in data}


def code_of(
    framework: str, class_names: list[str], shape: list[int], pictures: PictureSpec
) -> tuple[str, str]:
    """A program that uses the model without tandem, and a remark on what it leaves out."""
    height, width, channels = shape
    imports, predict = _FRAMEWORK_CODE[framework]
    resized = _RESIZED[pictures.resize].format(width=width, height=height, background=pictures.background)
    code = _CODE.format(
        imports=imports,
        classes=class_names,
        mode="L" if channels == 1 else "RGB",
        resized=resized,
        height=height,
        width=width,
        channels=channels,
        predict=predict,
    )
    remark = ""
    if pictures.window is not None or pictures.stretch is not None:
        remark = "\nFirst `data.window` or `data.stretch` maps stored values to 8 bits, as `tandem predict` does.\n"
    return code, remark


def card(comparison: Comparison, arm: ArmSummary, run: RunSummary) -> str:
    """The card of a model, in Markdown."""
    from orchestrator.experiment.spec import describe_value

    data = comparison.document["data"]
    height, width, channels = data["image_shape"]
    assert run.result is not None
    recipe = "; ".join(f"{key.replace('_', ' ')} {describe_value(arm.recipe[key])}" for key in arm.recipe)
    pictures = PictureSpec.model_validate(picture_fields(comparison.document["experiment"].get("data") or {}))
    code, remark = code_of(str(arm.framework), data["class_names"], data["image_shape"], pictures)
    return _CARD.format(
        code=code,
        remark=remark,
        experiment=comparison.name,
        arm=arm.name,
        framework=environment.FRAMEWORK_NAMES[str(arm.framework)],
        model=arm.recipe["model"],
        parameters=arm.parameters or 0,
        classes=", ".join(data["class_names"]),
        height=height,
        width=width,
        channels=channels,
        accuracy=run.result["test_accuracy"],
        test_images=data["test_images"],
        metric=arm.metric.title,
        arm_score=arm.metric.interval(arm.score),
        seeds=len(arm.done),
        train_images=data["train_images"],
        fingerprint=data["fingerprint"][:16],
        recipe=recipe,
        run=run.id,
        seed=run.seed,
        conclusion=comparison.conclusion,
    )
