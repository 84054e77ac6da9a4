"""A run in a sentence."""

from fairdd_jax.comparison import percent, scored_images
from fairdd_jax.report.record import Record


def verdict(record: Record) -> str:
    """What the scores of a run say, and what they do not."""
    scores, dataset = record.scores, record.results["dataset"]
    number = len(record.distilled.images)
    of_real = f"{number:,} images in place of {dataset['num_train']:,}"
    if scores is None:
        return f"{of_real}: not scored."
    right, worst = (percent(scores[name]) for name in ("accuracy", "worst_group_accuracy"))
    scored = scored_images(record.results["config"])
    text = (
        f"{of_real}: a {scores['arch']} trained on them gets {right} % of the {scored} right, "
        f"{worst} % in the worst (class, group) cell. {_gap(record)}"
    )
    random = record.results["baselines"].get("random")
    if random:
        text += (
            f" As many random real images give {percent(random['accuracy'])} % and a DEO_M of "
            f"{percent(random['deo_max'])}."
        )
    return text


def _gap(record: Record) -> str:
    """The largest gap between groups, beside what chance would show."""
    assert record.scores is not None
    gap, floor = record.scores["deo_max"], record.scores["deo_max_floor"]
    if gap["mean"] is None or floor is None:
        return (
            "The test set has no class with two groups, so nothing is known of gaps between them."
        )
    text = f"Its largest gap between the groups of a class (DEO_M) is {percent(gap)} points"
    points = 100 * (gap["mean"] - floor)
    chance = f"chance alone would show on this test set, {100 * floor:.1f}"
    if gap["mean"] <= floor:
        return f"{text}, no more than {chance}."
    if gap["mean"] - floor <= (gap["std"] or 0.0):
        return f"{text}, within its spread of what {chance}."
    return f"{text}, {points:.1f} more than what {chance}."
