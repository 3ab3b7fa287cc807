"""What a plan says in words: where text, model and settings do not fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jielong.present.words import Say
from jielong.training.scaling import MOST_EPOCHS, tokens_for, vocabulary_for

if TYPE_CHECKING:
    from jielong.insight.plan import PlanView

FRESH_EPOCHS = 4  # up to which a text read again is nearly as good as a new one (arXiv:2305.16264)
NARROW = 512  # width below which a GPU does not reach the share of its peak that is assumed


def warnings_of(plan: PlanView, say: Say) -> list[str]:
    """Return what a user should know before the run, most harmful first."""
    return [*_of_memory(plan, say), *_of_text(plan, say), *_of_shape(plan, say)]


def _of_memory(plan: PlanView, say: Say) -> list[str]:
    if plan.micro_batch_that_fits == 0:
        return [
            say(
                "Not even one window of {window:,} tokens fits into memory: take a smaller model, "
                "or a shorter --max-seq-len.",
                window=plan.window,
            )
        ]
    if plan.micro_batch_that_fits < plan.micro_batch:
        return [
            say(
                "Micro-batches of {wanted} windows do not fit, of {fits} they do: training will "
                "take these, and each update stays the same.",
                wanted=plan.micro_batch,
                fits=plan.micro_batch_that_fits,
            )
        ]
    return []


def _of_text(plan: PlanView, say: Say) -> list[str]:
    found = []
    if not plan.held_out_tokens:
        found.append(
            say(
                "No text is held out: nothing will tell learning from memorising. Add text, or "
                "give --validation-path."
            )
        )
    if plan.epochs > MOST_EPOCHS:
        found.append(
            say(
                "The text is read {epochs:.0f} times: beyond {most} it is only memorised. Take "
                "fewer --epochs, or more text.",
                epochs=plan.epochs,
                most=MOST_EPOCHS,
            )
        )
    elif plan.epochs > FRESH_EPOCHS:
        found.append(
            say(
                "The text is read {epochs:.1f} times: from about {fresh} on, new text teaches "
                "clearly more than the same text again.",
                epochs=plan.epochs,
                fresh=FRESH_EPOCHS,
            )
        )
    if plan.tokens < tokens_for(plan.active_parameters):
        found.append(
            say(
                "Too little for this model: it sees {ratio:.2g} tokens a parameter, and below 0.6 "
                "a smaller model ends better. Take a smaller one, or train longer.",
                ratio=plan.tokens / plan.active_parameters,
            )
        )
    return found


def _of_shape(plan: PlanView, say: Say) -> list[str]:
    found = []
    fitting = vocabulary_for(plan.text_bytes)
    if plan.vocabulary > 2 * fitting:
        found.append(
            say(
                "The vocabulary is large for this text: each of {vocabulary:,} tokens stands in it "
                "{times:.0f} times on average, and its embeddings are {share:.0%} of the model. "
                "About {fitting:,} would do (--vocab-size).",
                vocabulary=plan.vocabulary,
                times=plan.text_tokens / plan.vocabulary,
                share=plan.embedding_share,
                fitting=fitting,
            )
        )
    if plan.window > plan.document_tokens_95:
        found.append(
            say(
                "A window of {window:,} tokens is longer than most documents: 95% have at most "
                "{longest:,}, and attention stays within a document. A shorter --max-seq-len "
                "teaches the same.",
                window=plan.window,
                longest=plan.document_tokens_95,
            )
        )
    if plan.gpu and plan.width < NARROW:
        found.append(
            say(
                "A model of width {width} is too narrow to keep this GPU busy: expect more time "
                "than is said here.",
                width=plan.width,
            )
        )
    return found
