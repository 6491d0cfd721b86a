"""Makes scores.json: scores of every document of a small corpus by bm25s, another implementation, in its five variants.

    pip install bm25s && python3 scores.py > scores.json
"""

import json

import bm25s

DOCUMENTS = [
    "the cat sat on the mat and the cat slept",
    "dogs and cats and birds",
    "a bird in the hand is worth two in the bush",
    "the quick brown fox jumps over the lazy dog again and again and again",
    "cat",
    "to be or not to be that is the question whether it is nobler in the mind to suffer",
    "xylophone zither",
    "the the the the cat the the the mat",
]
QUERIES = ["the cat", "cat cat mat unicorn", "bird in the hand", "again and again", "to be the question"]

golden = []
for variant in ["lucene", "robertson", "atire", "bm25l", "bm25+"]:
    for k1, b in [(1.2, 0.75), (0.9, 0.4)]:
        index = bm25s.BM25(method=variant, k1=k1, b=b, delta=0.5, dtype="float64")
        index.index([text.split() for text in DOCUMENTS], show_progress=False)
        for query in QUERIES:
            known = [word for word in query.split() if any(word in text.split() for text in DOCUMENTS)]
            scores = index.get_scores(known)
            golden.append({"variant": variant, "k1": k1, "b": b, "query": query, "scores": [float(s) for s in scores]})
print(json.dumps({"documents": DOCUMENTS, "golden": golden}, indent=1))
