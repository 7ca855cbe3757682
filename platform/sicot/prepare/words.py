"""What the words of the training split say: the vocabulary with its counts, and word vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sicot import storage
from sicot.config import Text, Word2Vec
from sicot.prepare import staging
from sicot.prepare.prepared import VOCABULARY

COUNTS = pa.schema([("word", pa.string()), ("count", pa.int64())])


def count(block: pa.Table, staged: list[str]) -> Iterator[pa.Table]:
    """Rows with each word, COUNTS, among the ``staged`` rows whose keys ``block`` has, sorted."""
    words = pc.list_flatten(staging.take(staged, block["key"], ["tokens"])["tokens"])
    yield _sum(pa.table({"word": words, "count": np.ones(len(words), np.int64)}))


def _sum(counts: pa.Table) -> pa.Table:
    return counts.group_by("word").aggregate([("count", "sum")]).rename_columns(COUNTS.names).cast(COUNTS)


def vocabulary(counts: list[pa.Table], rows: int, config: Text) -> pa.Table:
    """VOCABULARY of the words that are frequent enough, the most frequent first, equals by the alphabet.

    ``counts``: what :func:`count` said of each part. ``rows``: training rows N; idf = log((1 + N) / (1 + count)).
    """
    table = _sum(pa.concat_tables([COUNTS.empty_table(), *counts]))
    table = table.filter(pc.greater_equal(table["count"], config.min_count))
    table = table.sort_by([("count", "descending"), ("word", "ascending")]).slice(0, config.max_vocabulary)
    idf = np.log((1 + rows) / (1 + table["count"].to_numpy()))
    return table.append_column("idf", pa.array(idf, pa.float32())).cast(VOCABULARY)


class _Titles:
    """The tokens of all rows, one row at a time, as often as gensim asks: never more than a row group in memory."""

    def __init__(self, files: list[str], seen: Callable[[int], object]) -> None:
        self.files, self.seen = files, seen

    def __iter__(self) -> Iterator[list[str]]:
        for name in self.files:
            system, path = storage.open_uri(name)
            with pq.ParquetFile(path, filesystem=system) as file:
                for batch in file.iter_batches(columns=["tokens"]):
                    yield from batch["tokens"].to_pylist()
                    self.seen(batch.num_rows)


def vectors(
    files: list[str], vocabulary: pa.Table, rows: int, config: Word2Vec, seed: int, seen: Callable[[int], object]
) -> np.ndarray:
    """Word vectors by id, float32 [V + 1, E], of mean length 1; row 0 is zero.

    Skip-gram with negative sampling (gensim) over the tokens of all ``rows`` of ``files``, ``config.epochs`` times;
    ``seen`` is told of rows that were read. One thread: with more, the same seed would give other vectors each time.
    """
    result = np.zeros((vocabulary.num_rows + 1, config.dimension), np.float32)
    if not vocabulary.num_rows:
        return result
    from gensim.models import Word2Vec as Gensim

    words = vocabulary["word"].to_pylist()
    model = Gensim(
        sg=1,
        vector_size=config.dimension,
        window=config.window,
        negative=config.negatives,
        epochs=config.epochs,
        min_count=1,
        sample=0,  # in titles no word is so frequent, and no catalogue so large, that occurrences should be dropped
        workers=1,
        seed=seed,
    )
    model.build_vocab_from_freq(dict(zip(words, vocabulary["count"].to_pylist(), strict=True)), corpus_count=rows)
    model.train(_Titles(files, seen), total_examples=rows, epochs=config.epochs)
    result[1:] = model.wv.vectors[[model.wv.key_to_index[word] for word in words]]
    return result / max(float(np.linalg.norm(result[1:], axis=1).mean()), 1e-12)
