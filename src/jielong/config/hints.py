"""Which of our settings a name that we do not know may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NEAR = 0.75  # least similarity of a name that was probably mistyped

# our names → those of nanoGPT, litgpt, the transformers Trainer, llama.cpp and others
OTHER_NAMES = {
    "accumulation_steps": "gradient_accumulation_steps grad_accum_steps gradient_accumulation "
    "grad_accum accumulate_grad_batches",
    "adam_eps": "adam_epsilon eps epsilon",
    "activation_checkpointing": "gradient_checkpointing use_gradient_checkpointing",
    "average_weights": "ema use_ema",
    "batch_size": "per_device_train_batch_size train_batch_size bs device_batch_size",
    "beta1": "adam_beta1",
    "beta2": "adam_beta2",
    "bos_token": "bos",
    "compile": "use_compile torch_compile",
    "data_path": "train_file train_data train_path data dataset data_dir data_file input "
    "input_file corpus text train_data_path dataset_name dataset_path",
    "decay_ratio": "decay_frac cooldown_frac warmdown_ratio",
    "dtype": "precision amp fp16 bf16 mixed_precision",
    "eos_token": "eos",
    "epochs": "num_train_epochs max_epochs num_epochs n_epochs epoch",
    "eval_interval": "eval_steps eval_every val_interval val_check_interval valid_interval",
    "eval_tokens": "eval_iters val_tokens limit_val_batches eval_batches",
    "global_batch_size": "effective_batch_size",
    "grad_clip": "max_grad_norm clip_grad clip gradient_clip_val",
    "head_dim": "d_head",
    "hidden_size": "n_embd n_embed d_model dim hidden_dim embed_dim embedding_size hidden",
    "init_from": "model_name_or_path from_weight from_pretrained pretrained initial_checkpoint_dir "
    "checkpoint checkpoint_dir load_from base_model model_path",
    "intermediate_size": "d_ff ffn_dim mlp_dim ffn_hidden_size feed_forward_size",
    "keep_interval": "keep_period keep_every permanent_save_interval",
    "keep_checkpoints": "save_total_limit keep_last_n save_top_k",
    "learning_rate": "lr max_lr peak_lr base_lr",
    "log_interval": "logging_steps log_every log_steps logging_interval print_every",
    "max_new_tokens": "max_tokens n_predict length max_length",
    "max_seq_len": "block_size context_length ctx_len n_ctx seq_len seq_length max_seq_length "
    "max_length sequence_length context context_size sequence_len window_size num_ctx",
    "micro_batch_size": "device_train_batch_size micro_batch per_gpu_batch_size",
    "min_lr_ratio": "min_lr final_lr_frac final_lr min_learning_rate",
    "num_attention_heads": "n_head n_heads num_heads heads",
    "num_experts": "n_routed_experts n_experts",
    "num_experts_per_tok": "top_k_experts experts_per_token n_experts_per_tok",
    "num_hidden_layers": "n_layer n_layers num_layers depth layers",
    "num_key_value_heads": "n_kv_heads num_kv_heads n_kv_head kv_heads",
    "num_samples": "num_return_sequences n n_samples",
    "num_shared_experts": "n_shared_experts",
    "num_workers": "dataloader_num_workers workers n_workers",
    "optimizer": "optim optimizer_type optimiser",
    "out_dir": "output_dir output out save_dir save_weight run_dir ckpt_dir checkpoint_path",
    "parallel": "distributed_strategy parallelism parallel_mode",
    "patience": "early_stopping early_stopping_patience",
    "preset": "model_name model_type model",
    "repetition_penalty": "repeat_penalty rep_pen",
    "rms_norm_eps": "norm_eps layer_norm_eps layernorm_eps",
    "rope_theta": "rope_base rope_freq_base",
    "sample_prompts": "prompt prompts sample_prompt",
    "save_interval": "save_steps save_every checkpoint_every ckpt_interval save_iters",
    "schedule": "lr_scheduler_type lr_scheduler scheduler lr_schedule decay_lr lr_decay_style",
    "seed": "random_seed manual_seed",
    "shard_degree": "data_parallel_shard_degree hsdp_shard_size",
    "steps": "max_iters max_steps num_steps iters total_steps train_steps train_iters "
    "num_iterations n_steps max_iterations lr_decay_iters num_train_steps iterations",
    "stop": "stop_token stop_sequence stop_sequences reverse_prompt stop_words stop_strings",
    "temperature": "temp do_sample greedy",
    "text_field": "text_column text_key text_col content_field jsonl_key",
    "tie_word_embeddings": "tie_weights weight_tying tie_embeddings tied",
    "tokenizer": "tokenizer_name tokenizer_dir tokenizer_path tokenizer_name_or_path",
    "tokens": "max_tokens train_tokens total_tokens num_tokens",
    "tracker": "report_to logger wandb wandb_log use_swanlab tensorboard",
    "tracker_project": "wandb_project_name project",
    "use_moe": "moe",
    "validation_fraction": "val_split val_fraction validation_split val_ratio test_size "
    "validation_split_percentage val_split_fraction",
    "validation_path": "validation_file val_data val_file eval_file test_file eval_data val_path",
    "vocab_size": "n_vocab vocabulary_size",
    "warmup_ratio": "warmup_fraction warmup_frac",
    "warmup_steps": "warmup lr_warmup_steps num_warmup_steps warmup_iterations",
    "weight_decay": "wd l2",
}
ADVICE = {
    "a run in --out-dir is resumed by the same command": "resume from_resume "
    "resume_from_checkpoint auto_resume restore resume_from",
    "another run needs another --out-dir": "overwrite_output_dir overwrite force",
    "for several GPUs use torchrun --nproc-per-node N -m jielong pretrain": "ddp local_rank "
    "devices gpus num_gpus n_gpu num_nodes nproc_per_node strategy fsdp deepspeed",
}
_MEANT = {other: ours for ours, others in OTHER_NAMES.items() for other in others.split()}
_ALSO = {  # names with a second meaning, in other commands
    "max_tokens": ("tokens", "max_new_tokens"),
    "max_length": ("max_seq_len", "max_new_tokens"),
}
_ADVICE = {name: advice for advice, names in ADVICE.items() for name in names.split()}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" for a name that was probably mistyped; otherwise nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=NEAR)
    return f"; did you mean {close[0]}?" if close else ""


def hint(name: str, known: Iterable[str]) -> str:
    """Return which known setting an unknown name means, or what to do instead; may be nothing.

    Args:
        name: a setting, with underscores; `train.` and other sections before it are left out.
        known: the settings that there are.
    """
    known = list(known)
    plain = name.rpartition(".")[2].lower()
    for ours in _ALSO.get(plain, (_MEANT.get(plain, plain),)):
        if ours in known:
            return f"; it is {ours} here"
    if plain in _ADVICE and "out_dir" in known:
        return f"; {_ADVICE[plain]}"
    return nearest(plain, known)
