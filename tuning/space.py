"""What a search tries: attention, words, loss weights and how fast is learnt.

Each range is widened to hold the experiment's own value.

`python -m tuning.space --preset demo` shows it for an experiment.
"""

from __future__ import annotations

from sicot import config
from sicot.config import Experiment
from sicot.errors import door
from sicot.search.space import Choice, Dimension, Range, describe


def words(experiment: Experiment) -> bool:
    """A visual-only model stays one."""
    return experiment.model.uses_words


def scores(experiment: Experiment) -> bool:
    """The mean of the words scores none of them."""
    return words(experiment) and experiment.model.attention.kind != "mean"


SPACE: tuple[Dimension, ...] = (
    Range(
        name="model.attention.temperature",
        low=0.25,
        high=4.0,
        log=True,
        when=scores,
        why="Sharp attention trusts one word, flat attention averages the noise away.",
    ),
    Choice(
        name="model.attention.rank",
        values=(8, 16, 32, 64, 128),
        when=lambda experiment: scores(experiment) and experiment.model.attention.kind == "bilinear",
        why="How finely a photo can tell which words fit it, against how many rows there are to learn that from.",
    ),
    Choice(
        name="model.attention.null_word",
        values=(True, False),
        when=scores,
        why="Refusing all words helps where many titles are wrong, and wastes attention where they are good.",
    ),
    Range(
        name="model.word_dropout",
        low=0.0,
        high=0.5,
        when=words,
        why="Hidden words keep the model from leaning on a single one, such as a brand.",
    ),
    Range(
        name="model.text_swap",
        low=0.0,
        high=0.3,
        when=words,
        why="Another product's words teach the attention to doubt; too many, and good ones are doubted.",
    ),
    Choice(
        name="model.fusion",
        values=("sum", "mlp", "gate"),
        when=words,
        why="A sum multiplies two experts that share a classifier; MLP and gate can learn when to doubt the words.",
    ),
    Range(
        name="model.loss.visual",
        low=0.2,
        high=5.0,
        log=True,
        when=lambda experiment: words(experiment) and experiment.model.loss.visual > 0,
        why="Weight of the question that a photo without words asks; a part that is off stays off.",
    ),
    Range(
        name="model.loss.mixed",
        low=0.2,
        high=5.0,
        log=True,
        when=lambda experiment: experiment.model.loss.mixed > 0,
        why="Weight of photo and words together, through which the words shape the shared classifier.",
    ),
    Range(
        name="model.loss.text",
        low=0.1,
        high=2.5,
        log=True,
        when=lambda experiment: experiment.model.loss.text > 0,
        why="Weight of the words' own answer, which ties them to the classes without leaning on the photo.",
    ),
    Choice(
        name="model.loss.distill",
        values=(0.0, 0.1, 0.3, 1.0, 3.0),
        when=lambda experiment: experiment.model.loss.mixed > 0,
        why="How hard the answer with words teaches the photo's; too hard copies its mistakes, 0 is off.",
    ),
    Choice(
        name="model.loss.contrast",
        values=(0.0, 0.03, 0.1, 0.3, 1.0),
        when=words,
        why="How hard photo and words of a product are pulled together, so that words can teach the eye; 0 is off.",
    ),
    Range(
        name="model.loss.tau",
        low=0.0,
        high=1.5,
        why="Strength of the class prior: the exchange rate between head and tail accuracy.",
    ),
    Range(
        name="model.scale",
        low=4.0,
        high=32.0,
        log=True,
        when=lambda experiment: experiment.model.classifier == "cosine",
        why="Where the logits' scale starts: small, and classes keep learning from rows that are right already.",
    ),
    Range(
        name="model.visual.dropout",
        low=0.0,
        high=0.6,
        why="Features that are hidden in training: a trunk that is kept as it is wants more than one that learns.",
    ),
    Range(
        name="train.learning_rate",
        low=2e-4,
        high=1e-2,
        log=True,
        why="How large a step is: too small, and the epochs do not suffice; too large, and the tail is overrun.",
    ),
    Range(
        name="train.weight_decay",
        low=0.0,
        high=0.3,
        why="How hard matrices are pulled to zero, against learning a handful of photos by heart.",
    ),
    Choice(
        name="train.word_rate",
        values=(0.0, 0.3, 1.0, 3.0, 10.0),
        when=words,
        why="Word vectors may need larger steps as each is seen rarely, or none where they are good already.",
    ),
)


def main() -> None:
    """Print what a search of the command line's experiment tries."""
    print(describe(SPACE, config.load(Experiment, program="python -m tuning.space")))


if __name__ == "__main__":
    door(main)
