"""One optimizer update: exact over micro-batches and ranks, refused if anything is not finite."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from jielong.data.batches import Batch
from jielong.errors import TrainingError, first_line
from jielong.model.dropout import Dropout
from jielong.model.moe import update_router_bias
from jielong.model.soft_targets import BigramTable, SoftTargets
from jielong.model.transformer import ModelOutput
from jielong.runtime.device import autocast, to_device
from jielong.runtime.distributed import World
from jielong.runtime.gradients import GradientSum
from jielong.runtime.parts import home
from jielong.runtime.sharding import ShardedSum, gradient_norm, scale_gradients
from jielong.training.bigrams import bigram_targets
from jielong.training.memory import DoesNotFitError, Sharding, free_memory, is_out_of_memory
from jielong.training.optimizer import Optimizer
from jielong.training.own_time import OwnTime
from jielong.training.teacher import Teacher


@dataclass(frozen=True)
class StepResult:
    """What happened in a step: mean loss over `tokens` targets of all ranks, gradient norm.

    `loss` is the language model's alone. A mixture of experts adds `balance_loss`, the routers'
    part of the objective, and `expert_load` (layers, experts), choices of each expert by the
    counted tokens of the global batch.
    """

    loss: float
    tokens: int
    grad_norm: float
    applied: bool
    balance_loss: float | None = None
    expert_load: Tensor | None = None

    def expert_metrics(self) -> dict[str, Any]:
        """Of a mixture: its balance loss and how evenly tokens spread; else nothing.

        `imbalance` is the busiest expert's load over the mean, in the worst layer: 1 is even. No
        token is ever dropped, so a layer's loads add up to tokens × experts per token.
        """
        if self.expert_load is None:
            return {}
        load = self.expert_load.float()  # (layers, experts)
        return {
            "balance_loss": self.balance_loss,
            "imbalance": round(float((load.amax(1) / load.mean(1).clamp_min(1e-9)).max()), 4),
            "dropped_tokens": 0,
            "expert_load": self.expert_load.long().tolist(),
        }


class _Totals:
    """Sums over micro-batches; kept on the device, so that no forward pass waits for a number."""

    def __init__(self, device: torch.device, tokens: int, world: World, choices: int = 0) -> None:
        """Begin at zero.

        Args:
            tokens: targets of this rank.
            choices: layers × experts of a mixture, which a rank sends whose first pass fails.
        """
        self.device, self.world, self.choices = device, world, choices
        self.tokens: int | Tensor = tokens  # of all ranks
        if world.world_size > 1:
            self.tokens = world.sum(torch.full((), tokens, dtype=torch.float64, device=device))
        self.nats = torch.zeros((), device=device)
        self.balance: Tensor | None = None
        self.load: Tensor | None = None

    def objective(self, output: ModelOutput, batch: Batch) -> Tensor:
        """This micro-batch's part of the objective; the routers' weighs as its share of targets."""
        assert output.loss is not None and output.nats is not None
        self.nats += output.nats
        tokens = self.tokens  # of the global batch, which may have none: then the loss is 0 / 1
        tokens = tokens.clamp_min(1) if isinstance(tokens, Tensor) else max(1, tokens)
        objective = output.loss / _in_float32(tokens)
        if output.balance_loss is None or output.expert_load is None:
            return objective
        balance = output.balance_loss * _in_float32(batch.target_count / tokens)
        if self.balance is None or self.load is None:
            self.balance, self.load = (
                torch.zeros_like(balance),
                torch.zeros_like(output.expert_load),
            )
        self.balance += balance.detach()
        self.load += output.expert_load
        return objective + balance

    def read(self, norm: Tensor, failed: bool = False) -> StepResult | None:
        """Sum over all ranks; return the result of a step, applied if all is finite.

        It reads everything at once: the only place in a step where the host waits for the device.
        It waits here since nothing of a bad update may reach the weights, the optimizer's state or
        the average; what it costs is one empty moment of the device in a step.

        Args:
            norm: of the gradient, the same on all ranks.
            failed: this rank's pass did not fit.

        Returns:
            None if any rank's pass did not fit.
        """
        zero = torch.zeros_like(self.nats)
        load = self.nats.new_zeros(self.choices) if self.load is None else self.load.flatten()
        balance_sum = zero if self.balance is None else self.balance
        scalars = torch.stack([self.nats, balance_sum, zero + failed])
        sums = self.world.sum(torch.cat([scalars, load]))
        if self.load is not None:
            self.load = sums[3:].view_as(self.load)
        on_device = [norm[None], sums]
        if isinstance(self.tokens, Tensor):
            on_device.append(self.tokens[None])
        grad_norm, nats, balance, failures, *rest = torch.cat(on_device).cpu().tolist()
        tokens = int(rest.pop()) if isinstance(self.tokens, Tensor) else self.tokens
        if self.world.world_size > 1 and failures:
            return None
        loss = nats / max(1, tokens)
        return StepResult(
            loss,
            tokens,
            grad_norm,
            # gradients and loss are the same on every rank after their sums, so all decide alike
            math.isfinite(grad_norm) and math.isfinite(loss),
            None if self.balance is None else balance,
            None if self.load is None else torch.tensor(rest).view(self.load.shape),
        )


def _in_float32(number: float | Tensor) -> float | Tensor:
    """As an operand that leaves a float32 result in float32: numbers of Python do."""
    return number.float() if isinstance(number, Tensor) else number


def _no_scaling() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=False)


@dataclass
class TrainStep:
    """One optimizer update from the micro-batches of a global batch.

    The objective is the sum of all targets' losses over their number in the whole global batch, so
    N micro-batches give the gradient of one batch N times as large, whatever the padding. The same
    holds for a mixture of experts: how busy each expert was is taken from the previous update,
    since a micro-batch cannot know what the later ones, or other ranks, will choose.
    """

    model: nn.Module  # which ranks may keep a part of each
    optimizer: Optimizer
    grad_clip: float  # largest norm of the gradient; 0 leaves it alone
    dtype: torch.dtype = torch.float32  # of the forward pass
    world: World = field(default_factory=World)
    gradients: GradientSum | ShardedSum | None = None  # over the ranks, where there are several
    own_time: OwnTime | None = None  # of this rank, likewise
    scaler: torch.amp.GradScaler = field(default_factory=_no_scaling)  # for float16
    dropout: float = 0.0  # rate of what each layer adds
    teacher: Teacher | None = None  # whose predictions are learnt beside the text
    bigrams: BigramTable | None = None  # of the text, which are learnt first
    sharding: Sharding | None = None  # of the model among ranks

    def __call__(
        self,
        micro_batches: Sequence[Batch],
        lr_scale: float = 1.0,
        reference_load: Tensor | None = None,
        bigram_share: float = 0.0,
    ) -> StepResult:
        """Accumulate the micro-batches' gradients and apply one update if all is finite.

        Args:
            micro_batches: this rank's part of the global batch.
            lr_scale: share of the peak learning rate.
            reference_load: `expert_load` of the previous update; none before the first: as if even.
            bigram_share: of the objective.

        Raises:
            DoesNotFitError: a pass did not fit, on any rank; the step may be taken again in
                smaller micro-batches.
        """
        model, optimizer, scaler = self.model, self.optimizer, self.scaler
        tokens = sum(batch.target_count for batch in micro_batches)
        choices = 0 if reference_load is None else reference_load.numel()
        totals = _Totals(home(next(model.parameters())), tokens, self.world, choices)
        optimizer.zero_grad()
        problem = self._accumulate(micro_batches, totals, reference_load, bigram_share)
        if problem and self.gradients is None:
            optimizer.zero_grad()
            raise DoesNotFitError(problem)

        for part in optimizer.parts:
            scaler.unscale_(cast(torch.optim.Optimizer, part))  # all it asks for is param_groups
        parameters = list(model.parameters())
        norm = gradient_norm(parameters)
        result = totals.read(norm, failed=problem is not None)
        if result is None:
            optimizer.zero_grad()
            if scaler.is_enabled():
                scaler.update(scaler.get_scale())  # forgets this step, and no more
            raise DoesNotFitError(problem or "on another rank")
        if result.applied:
            if self.grad_clip > 0:
                scale_gradients(parameters, self.grad_clip, norm)
            optimizer.step(lr_scale)
            if totals.load is not None:
                update_router_bias(model, totals.load)
        scaler.update()
        return result

    def _dropout_of(self, batch: Batch, device: torch.device) -> Dropout | None:
        if not self.dropout or batch.row_seeds is None:
            return None
        return Dropout(self.dropout, to_device(batch.row_seeds, device))

    def _soft_targets(
        self, batch: Batch, device: torch.device, bigram_share: float
    ) -> SoftTargets | None:
        if self.teacher:
            return self.teacher(batch, device)
        if self.bigrams and bigram_share:
            return bigram_targets(batch, self.bigrams, bigram_share)
        return None

    def _accumulate(
        self,
        micro_batches: Sequence[Batch],
        totals: _Totals,
        reference_load: Tensor | None,
        bigram_share: float,
    ) -> str | None:
        """Add up the micro-batches' gradients, and those of all ranks.

        Returns:
            None, or what the allocator said where memory ran out. Its exception is not passed on,
            since it holds on to what the pass has allocated.
        """
        gradients, problem = self.gradients, None
        if gradients:
            gradients.begin()
        try:
            with self.own_time.passes() if self.own_time else contextlib.nullcontext():
                self._passes(micro_batches, totals, reference_load, bigram_share)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            problem = first_line(error)
        if gradients:
            if problem:
                self._give_up_if_sharded(problem)
                free_memory()
            gradients.finish()  # the others wait for this rank's part, whatever it is
        return problem

    def _give_up_if_sharded(self, problem: str) -> None:
        """End the run where the others are within passes that this rank is needed for."""
        if self.sharding is not None:
            raise TrainingError(
                f"out of memory on rank {self.world.rank}, whose part of the model the others wait "
                "for: continue with half of --micro-batch-size, or with --activation-checkpointing "
                f"full ({problem})"
            )

    def _passes(
        self,
        micro_batches: Sequence[Batch],
        totals: _Totals,
        reference_load: Tensor | None,
        bigram_share: float,
    ) -> None:
        """Forward and backward passes; with the last, ready gradients are summed over ranks."""
        device, gradients = totals.nats.device, self.gradients
        for i, batch in enumerate(micro_batches):
            self.world.beat()
            last = i == len(micro_batches) - 1
            with gradients.last_pass() if gradients and last else contextlib.nullcontext():
                with autocast(device, self.dtype):
                    output = self.model(
                        to_device(batch.tokens, device),
                        to_device(batch.targets, device),
                        batch.document_ids,
                        reference_load=reference_load,
                        dropout=self._dropout_of(batch, device),
                        soft_targets=self._soft_targets(batch, device, bigram_share),
                    )
                objective = totals.objective(output, batch)
                # outside of autocast: what the forward pass did in float32 must stay so on its way
                # back
                self.scaler.scale(objective).backward()
