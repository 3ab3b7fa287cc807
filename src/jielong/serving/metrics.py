"""What a server has done, counted, and its text for Prometheus."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from jielong.serving.rows import Job


class Counters:
    """Sums since the start. Each is written by one thread only."""

    def __init__(self) -> None:
        self.steps = self.rows_stepped = 0
        self.prompt_tokens = self.generated_tokens = 0
        self.first_tokens, self.first_token_s = 0, 0.0
        self.jobs, self.jobs_s = 0, 0.0
        self.cancelled = 0
        self.answers: Counter[tuple[str, int]] = Counter()  # by endpoint and status

    def began(self, job: Job) -> None:
        """Count the first token of a request."""
        job.first_token_s = time.monotonic() - job.submitted_s
        self.first_tokens += 1
        self.first_token_s += job.first_token_s

    def finished(self, job: Job) -> None:
        """Count a request that is done or given up."""
        self.cancelled += job.cancelled
        self.jobs += 1
        self.jobs_s += time.monotonic() - job.submitted_s

    def seconds_until_free(self, slots: int) -> int:
        """Estimate when one of `slots` running requests will have ended: 1 to 60 seconds."""
        mean = self.jobs_s / self.jobs if self.jobs else 1.0
        return max(1, min(60, round(mean / slots)))

    def exposition(self, gauges: Iterable[tuple[str, str, float]]) -> str:
        """Return all numbers in Prometheus' text format, version 0.0.4.

        Args:
            gauges: name, help and value of what is not a sum.
        """
        lines = []
        for name, text, gauge in gauges:
            lines += [*_head(name, "gauge", text), f"jielong_{name} {gauge}"]
        for name, text, value in (
            ("prompt_tokens_total", "Tokens of prompts read.", self.prompt_tokens),
            ("generated_tokens_total", "Tokens written.", self.generated_tokens),
            ("steps_total", "Steps, each a token of every text in it.", self.steps),
            ("step_texts_total", "Texts of all steps.", self.rows_stepped),
            ("cancelled_total", "Requests whose client left.", self.cancelled),
        ):
            lines += [*_head(name, "counter", text), f"jielong_{name} {value}"]
        for name, text, count, total in (
            (
                "first_token_seconds",
                "Until the first token.",
                self.first_tokens,
                self.first_token_s,
            ),
            ("request_seconds", "Until the last token.", self.jobs, self.jobs_s),
        ):
            lines += _head(name, "summary", text)
            lines += [f"jielong_{name}_sum {total:.6f}", f"jielong_{name}_count {count}"]
        lines += _head("requests_total", "counter", "Answers by endpoint and status.")
        lines += [
            f'jielong_requests_total{{endpoint="{endpoint}",status="{status}"}} {count}'
            for (endpoint, status), count in sorted(self.answers.items())
        ]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP jielong_{name} {text}", f"# TYPE jielong_{name} {kind}"]
