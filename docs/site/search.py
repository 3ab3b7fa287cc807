"""Search for both languages in one index: English words, and Chinese in pairs of characters.

Sphinx's own search for Chinese needs a dictionary, and finds only what the dictionary has for
words. Pairs need none: a page matches if it has each pair of neighbouring characters of what is
asked.
"""

import re

from sphinx.search.en import SearchEnglish

CHINESE = "\u3400-\u4dbf\u4e00-\u9fff"
RUNS = re.compile(rf"[{CHINESE}]+|[^\W{CHINESE}]+")

# the same for what is typed
SPLITTER = f"""
function splitQuery(query) {{
  const runs = /[{CHINESE}]+|(?:(?![{CHINESE}])[\\p{{L}}\\p{{N}}_])+/gu;
  return (query.match(runs) || []).flatMap((run) => {{
    if (!/^[{CHINESE}]/.test(run) || run.length < 2) return [run];
    return Array.from({{ length: run.length - 1 }}, (_, i) => run.slice(i, i + 2));
  }});
}}
"""


def words(text: str) -> list[str]:
    """Split a text into English words, and each run of Chinese into single characters and pairs."""
    found: list[str] = []
    for run in RUNS.findall(text):
        if re.match(f"[{CHINESE}]", run):
            found += [*run, *(run[i : i + 2] for i in range(len(run) - 1))]
        else:
            found.append(run)
    return found


class SearchEnglishAndChinese(SearchEnglish):
    """Sphinx's search for English, with Chinese beside it."""

    js_splitter_code = SPLITTER

    def split(self, input: str) -> list[str]:
        """Return the words that a text is found by."""
        return words(input)
