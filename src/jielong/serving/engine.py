"""Continues the texts of many requests together: continuous batching over one KV cache.

Before each step texts that wait take free slots, and texts that have ended leave theirs (Orca, Yu
et al. 2022). Each text draws from its own generator, so a seed gives the same text in any company.
What others change is the order in which float sums are made: logits differ by about 1e-6 of their
size, and a tie as narrow as that can be decided differently. A text that is alone takes the path of
`TextGenerator`, and is the same to the bit.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from jielong.errors import CheckpointError, JielongError, first_line
from jielong.generation.batch_decoder import BatchDecoder
from jielong.generation.generate import TextGenerator, suppressed_tokens
from jielong.generation.sampling import sample_each
from jielong.generation.threads import FEW_TOKENS, is_small, on_one_thread
from jielong.model.attention import KVCache
from jielong.model.prompt import read
from jielong.model.transformer import Transformer, context_length
from jielong.serving.errors import RequestError
from jielong.serving.lane import Lane
from jielong.serving.limits import Limits
from jielong.serving.logprobs import prompt_logprobs, token_logprob
from jielong.serving.metrics import Counters
from jielong.serving.rows import Job, Row
from jielong.tokenization.tokenizer import Tokenizer

PROMPT_TOKENS_PER_STEP = 512  # after so many, the texts being written go on before others begin


class Engine:
    """Runs a model for many requests, on a thread of its own.

    Args:
        model: in eval mode; its weights must not change.
        tokenizer: the tokenizer it was trained with.
        limits: `slots` and `queue` are used.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, limits: Limits) -> None:
        self.model, self.tokenizer, self.limits = model, tokenizer, limits
        self.context, self.small = context_length(model.config), is_small(model)
        dtype = model.lm_head.weight.dtype
        cache = KVCache(model.config, limits.slots, self.context, model.device, dtype)
        self.pairs = cache.pairs  # (layers, slots, 2, kv heads, context, head size)
        self.counters = Counters()
        self._fp16 = TextGenerator(model, tokenizer).fp16_decoder()
        self._exact = Lane(self.pairs, BatchDecoder(model), from_front=False)
        self._packed = self._exact
        if self._fp16 is not None:
            self._packed = Lane(self.pairs, BatchDecoder(model, self._fp16), from_front=True)
        self._lanes = (self._exact,) if self._fp16 is None else (self._packed, self._exact)
        self._suppressed = {
            stop: suppressed_tokens(model, tokenizer, stop) for stop in (True, False)
        }
        self._waiting: deque[Row] = deque()
        self._jobs: set[Job] = set()
        self._wake = threading.Condition()
        self._draining = self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue the texts of a request.

        Raises:
            RequestError: too many requests wait, or the server is about to stop.
        """
        rows = [
            Row(job, index, text, self.tokenizer, self.model.device)
            for index, text in enumerate(job.texts)
        ]
        with self._wake:
            if self._draining:
                raise RequestError("the server is stopping", 503, retry_after=10)
            if len(self._jobs) >= self.limits.slots + self.limits.queue:
                after = self.counters.seconds_until_free(self.limits.slots)
                message = f"{len(self._jobs)} requests are here already: try again later"
                raise RequestError(message, 429, retry_after=after)
            self._jobs.add(job)
            self._waiting.extend(rows)
            self._wake.notify()

    def cancel(self, job: Job) -> None:
        """Give up a request, whose client has left; its slots are free before the next step."""
        with self._wake:
            job.cancelled = True
            self._wake.notify()

    def drain(self) -> None:
        """Take no more requests; those that are here go on."""
        with self._wake:
            self._draining = True

    def end_soon(self) -> None:
        """End before the next step, also what still runs: its clients get an error."""
        with self._wake:
            self._draining = self._closed = True
            self._wake.notify()

    def close(self) -> None:
        """End as `end_soon` does, and wait for it."""
        self.end_soon()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def busy_slots(self) -> int:
        return sum(len(lane.rows) for lane in self._lanes)

    @property
    def waiting_texts(self) -> int:
        return len(self._waiting)

    @property
    def jobs(self) -> int:
        """The requests that are here."""
        return len(self._jobs)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._jobs or self._closed):
                    self._wake.wait()
                if self._closed:
                    break
            self.step()
        for row in [*self._waiting, *(row for lane in self._lanes for row in lane.rows)]:
            if not row.job.cancelled:
                row.fail(RequestError("the server has stopped", 503, retry_after=10))

    def step(self) -> None:
        """Let texts begin that have a free slot, and write one token of each that has one."""
        self._remove_ended()
        self._admit()
        for lane in self._lanes:
            for row in list(lane.rows):
                while row.remaining and row.length == self.context:
                    self._read_again(row)
            lane.remove_ended()
            if lane.rows:
                with on_one_thread(self.small and len(lane.rows) <= FEW_TOKENS):
                    self._decode(lane)
                self.counters.steps += 1
                self.counters.rows_stepped += len(lane.rows)
        self._remove_ended()

    def _remove_ended(self) -> None:
        for lane in self._lanes:
            lane.remove_ended()
        with self._wake:
            for job in [job for job in self._jobs if job.cancelled or not job.unfinished]:
                self._jobs.discard(job)
                self.counters.finished(job)
            if any(row.job.cancelled for row in self._waiting):
                kept = [row for row in self._waiting if not row.job.cancelled]
                self._waiting = deque(kept)

    def _admit(self) -> None:
        read = 0
        while self._waiting and read < PROMPT_TOKENS_PER_STEP:
            if self.busy_slots == self.limits.slots:
                return
            with self._wake:
                row = self._waiting.popleft()
            if row.job.cancelled:
                continue
            lane = self._packed if row.packed else self._exact
            lane.add(row)
            read += len(row.context)
            with self._failing(row):
                self._begin(row)
            lane.remove_ended()

    def _begin(self, row: Row) -> None:
        request = row.request
        scored = request.echo and request.top_logprobs is not None
        self.counters.prompt_tokens += len(row.context) - request.hidden
        hidden = self._read(row, scored) if scored or request.max_tokens else None
        if request.echo:
            infos = []
            if scored and hidden is not None:
                infos = prompt_logprobs(self.model, hidden, request.ids, request.top_logprobs or 0)
            row.echo(infos)
        if not request.max_tokens or hidden is None:
            return row.end("length")
        return self._write([row], self._logits(hidden[:, -1]))

    @torch.inference_mode()
    def _read(self, row: Row, scored: bool = False) -> Tensor:
        """Read the tokens of a text that are not in the cache: their hidden states (1, n, H).

        Args:
            scored: their log-probabilities are wanted, so precision matters more than speed.
        """
        new = torch.tensor([row.context[row.length :]], device=self.model.device)
        if scored:
            return self.model.hidden_states(new, cache=row.cache)
        return read(self.model, new, row.cache)

    @torch.inference_mode()
    def _logits(self, hidden: Tensor) -> Tensor:
        return self.model.logits(hidden).float()

    def _read_again(self, row: Row) -> None:
        """Go on with the last half of the context where it is full, as `TextGenerator` does."""
        row.cache.length, row.context = 0, row.context[-max(1, self.context // 2) :]
        with self._failing(row):
            if len(row.context) == 1 and row.packed and self._fp16 is not None:
                self._write([row], self._step_alone(row))
            else:
                self._write([row], self._logits(self._read(row)[:, -1]))

    def _decode(self, lane: Lane) -> None:
        rows = list(lane.rows)
        try:
            if len(rows) == 1:
                logits = self._step_alone(rows[0])
            else:
                device = self.model.device
                tokens = torch.tensor([row.context[-1] for row in rows], device=device)
                lengths = torch.tensor([row.length for row in rows], device=device)
                logits = lane.decoder(tokens, lengths, lane.used)
                for row in rows:
                    row.cache.length += 1
            self._write(rows, logits)
        except (RuntimeError, JielongError) as error:
            for row in rows:
                if row.remaining:
                    self._fail(row, error)

    def _step_alone(self, row: Row) -> Tensor:
        if not row.packed or self._fp16 is None:
            return self._logits(self._read(row)[:, -1])
        return self._fp16(row.context[-1], row.cache)

    def _write(self, rows: list[Row], logits: Tensor) -> None:
        """Draw the next token of each text from its logits (B, V)."""
        groups: dict[object, list[int]] = {}
        for place, row in enumerate(rows):
            groups.setdefault(row.group, []).append(place)
        for places in groups.values():
            together = [rows[place] for place in places]
            self._draw(together, logits if len(places) == len(rows) else logits[places])

    @torch.inference_mode()
    def _draw(self, rows: list[Row], logits: Tensor) -> None:
        sampling, stop_at_eos = rows[0].request.sampling, rows[0].request.stop_at_eos
        allowed = logits.masked_fill(self._suppressed[stop_at_eos], -torch.inf)
        previous, generators = _previous(rows, allowed), [row.generator for row in rows]
        try:
            tokens = sample_each(allowed, previous, sampling, generators).tolist()
        except CheckpointError:  # one of them: each is told what is true of it
            if len(rows) == 1:
                raise
            for place, row in enumerate(rows):
                with self._failing(row):
                    self._draw([row], logits[place, None])
            return
        for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            first = row.job.first_token_s is None
            info = functools.partial(token_logprob, logits[place], token)
            row.write(token, self.tokenizer.eos_id, info)
            self.counters.generated_tokens += 1
            if first:
                self.counters.began(row.job)

    @contextlib.contextmanager
    def _failing(self, row: Row) -> Iterator[None]:
        """End the text with what went wrong, so that others go on."""
        try:
            yield
        except (RuntimeError, JielongError) as error:
            self._fail(row, error)

    def _fail(self, row: Row, error: Exception) -> None:
        row.fail(RequestError(first_line(error), 500))
        for lane in self._lanes:
            if row in lane.rows:
                row.cache.pairs.zero_()  # what is not finite there would reach other texts


def _previous(rows: Sequence[Row], logits: Tensor) -> Tensor:
    """The ids (B, n) that the repetition penalty applies to, −1 where a text has fewer."""
    if rows[0].request.sampling.repetition_penalty == 1.0:
        return logits.new_empty((len(rows), 0), dtype=torch.int64)
    contexts = [torch.tensor(row.context, device=logits.device) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(contexts, batch_first=True, padding_value=-1)
