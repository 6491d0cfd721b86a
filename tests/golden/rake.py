"""Makes rake.json: key phrases by rake-nltk 1.0.6.

    pip install rake-nltk==1.0.6 nltk==3.10.4 && python3 rake.py > rake.json

The stop words are those of NLTK's list before 2024, as in src/retrieval/rake.rs; the sentences are those of Punkt without a
trained model, which knows no abbreviations.
"""

import json
import pathlib
import re
import string

from nltk.tokenize import wordpunct_tokenize
from nltk.tokenize.punkt import PunktSentenceTokenizer
from rake_nltk import Rake

source = (pathlib.Path(__file__).parent / "../../src/retrieval/rake.rs").read_text()
words = source.split("NLTK_STOP_WORDS: [&str; 179] = [")[1].split("];")[0]
stop_words = set(re.findall(r'"([^"]+)"', words))
assert len(stop_words) == 179

TEXTS = [
    "",
    "the of and",
    "Compatibility of systems of linear constraints over the set of natural numbers. Criteria of compatibility of a system "
    "of linear Diophantine equations, strict inequations, and nonstrict inequations are considered. Upper bounds for "
    "components of a minimal set of solutions and algorithms of construction of minimal generating sets of solutions for "
    "all types of systems are given. These criteria and the corresponding algorithms for constructing a minimal supporting "
    "set of solutions can be used in solving all the considered types of systems and systems of mixed types.",
    'He said "this works." Then large models -- very large models -- were trained... and tested (see below).',
    "Deep learning, deep learning; deep learning! Deep networks? Networks learn deep features.",
    "Don't stop: it's the users' own well-known state-of-the-art e-mail, isn't it?",
    "Prices rose 3.5% (or $2,000) in 2021--2022; see p. 7, i.e. the U.S. market.",
    "snake_case words and CamelCase words\nover several\tlines\r\nwithout full stops",
    "What?! Really?) Yes. \"No!\" he cried. [It ended.] Then nothing followed.",
    "Caf\u00e9 na\u00efve \u00dcbergr\u00f6\u00dfe \u00fcber alles \u2014 \u201cquoted text\u201d \u2026 and 5\u20137 items",
    "a b c. d e f! g h i? j k l; m n o: p q r",
    "The patients (n = 120) received 5 mg/kg; p < 0.05 was considered significant. CI: 0.8-1.2.",
    "word word word other word",
    "C++ and C# code: x += y; #define A(b) {c}",
]


def phrases(text):
    rake = Rake(
        stopwords=stop_words,
        punctuations=set(string.punctuation),
        sentence_tokenizer=PunktSentenceTokenizer().tokenize,
        word_tokenizer=wordpunct_tokenize,
    )
    rake.extract_keywords_from_text(text)
    return rake.get_ranked_phrases_with_scores()


print(json.dumps([{"text": text, "phrases": phrases(text)} for text in TEXTS], indent=1))
