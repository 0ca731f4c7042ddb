"""Our own code beside the libraries that do the same: ``PYTHONPATH=. PYTHON -m tests.benchmarks.libraries [--texts N]``.

``PYTHON`` is that of an environment with this project's packages and with scikit-learn, datasketch, rensa and pysbd, none
of which the project needs; a library that is not there is left out. What came of it is in ``docs/design.md``.

- Length-controlled win rates: 20,000 games in 23 languages, one fit, and the 1,000 fits of a bootstrap.
- Near-duplicates: random texts of 200 letters, one in a hundred a copy of another with a few letters changed, of which one
  half lies above the threshold of 0.9. Recall is the share of those found; each library is a process of its own.
- Sentences: texts of known sentences in the languages that pysbd knows; the share of texts cut exactly there.
"""

import argparse
import importlib.util
import json
import random
import resource
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from factory.evaluation.length_control import RIDGE, fit_length_control, standardize_lengths

THRESHOLD = 0.9
NUM_HASHES = 128
NGRAM = 5


def compare_length_control(num_games: int = 20_000, num_languages: int = 23, rounds: int = 1000) -> Iterator[str]:
    """Yield the time of one fit and of a bootstrap, and how far the win rates are apart."""
    rng = np.random.default_rng(1)
    language = rng.integers(0, num_languages, num_games)
    lengths = standardize_lengths(rng.normal(0, 100, num_games), language, num_languages)
    chance = 1 / (1 + np.exp(-(0.3 + 0.8 * lengths + 0.2 * (language % 5 - 2))))
    outcome = np.where(rng.random(num_games) < 0.1, 0.5, (rng.random(num_games) < chance).astype(float))
    begun = time.perf_counter()
    fit = fit_length_control(outcome, lengths, language, np.ones(num_games), num_languages)
    once = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(rounds):
        weight = rng.multinomial(num_games, np.full(num_games, 1 / num_games)).astype(float)
        fit_length_control(outcome, lengths, language, weight, num_languages, start=fit)
    yield f"length control, ours: {once * 1000:.0f} ms a fit, {time.perf_counter() - begun:.1f} s for {rounds:,} of a bootstrap"
    if importlib.util.find_spec("sklearn") is None:
        return
    from sklearn.linear_model import LogisticRegression

    design = np.column_stack([np.eye(num_languages)[language], lengths])
    twice, wins = np.vstack([design, design]), np.repeat([1, 0], num_games)
    model = LogisticRegression(C=1 / RIDGE, fit_intercept=False, solver="newton-cholesky", tol=1e-9)

    def fit_other(weight: np.ndarray) -> np.ndarray:
        model.fit(twice, wins, sample_weight=np.concatenate([weight * outcome, weight * (1 - outcome)]))
        return 1 / (1 + np.exp(-model.coef_[0, :-1]))

    begun = time.perf_counter()
    rates = fit_other(np.ones(num_games))
    once = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(rounds // 10):
        fit_other(rng.multinomial(num_games, np.full(num_games, 1 / num_games)).astype(float))
    seconds = 10 * (time.perf_counter() - begun)
    apart = np.abs(rates - fit.win_rates).max()
    yield f"length control, scikit-learn: {once * 1000:.0f} ms, {seconds:.1f} s (of a tenth); win rates apart by {apart:.1e}"


def make_texts(num_texts: int) -> Iterator[tuple[str, int | None]]:
    """Yield texts, and of a changed copy the number of the text that it is a copy of."""
    rng = random.Random(2)
    texts: list[str] = []
    for number in range(num_texts):
        if number % 100 == 99:
            origin = rng.randrange(len(texts))
            letters = list(texts[origin])
            for place in rng.sample(range(len(letters)), rng.choice((1, 3))):
                letters[place] = rng.choice(string.ascii_lowercase)
            text = "".join(letters)
            yield text, origin
        else:
            text = "".join(rng.choices(string.ascii_lowercase + " ", k=200))
            yield text, None
        texts.append(text)


def similarity(a: str, b: str) -> float:
    """Return the Jaccard similarity of the n-grams of two texts."""
    left, right = ({text[at : at + NGRAM] for at in range(len(text) - NGRAM + 1)} for text in (a, b))
    return len(left & right) / len(left | right)


def find_with_ours(texts: list[str]) -> list[bool]:
    """Return of each text whether it is a near-duplicate of an earlier one."""
    from factory.stages.duplicates import NearDuplicates

    index, found = NearDuplicates(THRESHOLD), []
    for at in range(0, len(texts), 1000):
        part = texts[at : at + 1000]
        ids = [str(at + number) for number in range(len(part))]
        found += [hit is not None for hit in index.add(ids, part, ["en"] * len(part), [""] * len(part))]
    return found


def find_with_datasketch(texts: list[str]) -> list[bool]:
    """Return the same by datasketch's MinHashLSH, whose candidates are taken as they are."""
    from datasketch import MinHash, MinHashLSH

    index, found = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_HASHES), []
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=NUM_HASHES)
        sketch.update_batch([text[at : at + NGRAM].encode() for at in range(len(text) - NGRAM + 1)])
        found.append(bool(index.query(sketch)))
        index.insert(str(number), sketch, check_duplication=False)
    return found


def find_with_rensa(texts: list[str]) -> list[bool]:
    """Return the same by rensa's RMinHashLSH, whose candidates are taken as they are."""
    from rensa import RMinHash, RMinHashLSH

    index, found = RMinHashLSH(threshold=THRESHOLD, num_perm=NUM_HASHES, num_bands=16), []
    for number, text in enumerate(texts):
        sketch = RMinHash(num_perm=NUM_HASHES, seed=1)
        sketch.update([text[at : at + NGRAM] for at in range(len(text) - NGRAM + 1)])
        found.append(bool(index.query(sketch)))
        index.insert(number, sketch)
    return found


FINDERS: dict[str, Callable[[list[str]], list[bool]]] = {
    "ours": find_with_ours,
    "datasketch": find_with_datasketch,
    "rensa": find_with_rensa,
}


def measure_finder(name: str, num_texts: int) -> dict[str, float]:
    """Return recall above the threshold, false hits, seconds and the peak of memory that the index took."""
    made = list(make_texts(num_texts))
    texts = [text for text, _ in made]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    found = FINDERS[name](texts)
    seconds = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    near = [
        hit
        for hit, (text, origin) in zip(found, made, strict=True)
        if origin is not None and similarity(text, texts[origin]) >= THRESHOLD
    ]
    wrong = sum(hit for hit, (_, origin) in zip(found, made, strict=True) if origin is None)
    return {"recall": sum(near) / len(near), "wrong": wrong, "seconds": seconds, "megabytes": (peak - before) / 1024}


def compare_duplicates(num_texts: int) -> Iterator[str]:
    """Yield a line for each library that is there."""
    for name in FINDERS:
        if name != "ours" and importlib.util.find_spec(name) is None:
            continue
        command = [sys.executable, "-m", "tests.benchmarks.libraries", "--finder", name, "--texts", str(num_texts)]
        measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        yield (
            f"near-duplicates among {num_texts:,}, {name}: recall {measured['recall']:.3f}, {measured['wrong']} wrong, "
            f"{measured['seconds']:.0f} s of processor time, {measured['megabytes']:,.0f} MB"
        )


SENTENCES = {
    "en": ["Dr. Smith paid $3.50 on Jan. 5.", "Was that fair?", '"Yes!" he said.', "It costs 2.5 times as much, e.g. in May."],
    "de": ["Das kostet z. B. 3,50 Euro.", "Am 5. Mai kam Dr. Weber.", "Wirklich?", "Ja, ca. um 8 Uhr."],
    "fr": ["M. Dupont est venu le 5 mai.", "Vraiment ?", "« Oui ! » dit-il.", "C'est à la p. 12."],
    "es": ["El Sr. López llegó.", "¿De veras?", "¡Claro!", "Costó 3.50 euros."],
    "ru": ["Он родился в 1990 г. в Москве.", "Правда?", "Да, т. е. почти.", "Ул. Ленина близко."],
    "el": ["Τι ώρα είναι;", "Είναι 5 μ.μ. περίπου.", "Ναι!", "Βλ. σελ. 12."],
    "ar": ["كيف حالك؟", "أنا بخير.", "السعر 3.5 دولار.", "شكرا!"],
    "hi": ["यह क्या है?", "यह एक किताब है।", "इसकी कीमत 3.50 है।", "ठीक है!"],
    "ja": ["これは本です。", "本当ですか？", "「はい！」と彼は言った。", "値段は3.5ドルです。"],
    "zh": ["这是一本书。", "真的吗？", "“是的！”他说。", "价格是3.5元。"],
    "fa": ["حال شما چطور است؟", "خوبم.", "قیمت ۳٫۵ است.", "ممنون!"],
    "it": ["Il sig. Rossi arriva il 5 maggio.", "Davvero?", "Certo!", "Costa 3,50 euro."],
    "nl": ["Dhr. de Vries kwam om 8 uur.", "Echt waar?", "Ja!", "Het kost ca. 3,50 euro."],
    "pl": ["Kosztuje np. 3,50 zł.", "Naprawdę?", "Tak!", "Ul. Długa jest blisko."],
}  # fmt: skip


def compare_sentences() -> Iterator[str]:
    """Yield, for each splitter, the share of all pairs of sentences that it cuts between them and nowhere else."""
    from factory.texts.sentences import split_sentences

    splitters: dict[str, Callable[[str, str], list[str]]] = {"ours": split_sentences}
    if importlib.util.find_spec("pysbd") is not None:
        import pysbd

        segmenters = {code: pysbd.Segmenter(language=code, clean=False) for code in SENTENCES}
        splitters["pysbd"] = lambda text, language: segmenters[language].segment(text)
    for name, split in splitters.items():
        right: dict[str, list[bool]] = {}
        begun = time.perf_counter()
        for language, sentences in SENTENCES.items():
            space = "" if language in {"ja", "zh"} else " "
            for a in sentences:
                for b in sentences:
                    cut = [part.strip() for part in split(f"{a}{space}{b}", language)]
                    right.setdefault(language, []).append(cut == [a, b])
        seconds = time.perf_counter() - begun
        every = [hit for hits in right.values() for hit in hits]
        by_language = ", ".join(f"{code} {sum(hits) / len(hits):.2f}" for code, hits in right.items())
        yield f"sentences, {name}: {sum(every) / len(every):.3f} cut right ({by_language}), {seconds:.2f} s"


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=100_000, help="among which near-duplicates are looked for")
    parser.add_argument("--finder", choices=FINDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.finder:
        print(json.dumps(measure_finder(options.finder, options.texts)))
        return
    for line in (*compare_length_control(), *compare_sentences(), *compare_duplicates(options.texts)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
